//! Cuts the power again and again: the file system of the broker is cut off from its disk while a worker is busy, the worker is killed,
//! and the next life has what came on to the disk.
//!
//! `ROPEWAY_TEST_CUTS` cuts (default 4) must count: at that moment publishes, handlers and acks were open. The histories lie on another disk.
//! Not here: the file system (`disk.rs`), starting workers and judging them (`run.rs`).

use crate::{
    disk::SmallDisk,
    run::{Run, number},
};
use libtest_mimic::{Completion, Failed};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{thread::sleep, time::Duration};

const MEBIBYTES: u64 = 768;

/// The trial.
pub(crate) fn survives_power_cuts() -> Result<Completion, Failed> {
    if let Some(why) = SmallDisk::absent() {
        return Ok(Completion::ignored_with(why));
    }
    let cuts = number("ROPEWAY_TEST_CUTS").unwrap_or(4);
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let histories = tempfile::tempdir()?;
    let mut disk = SmallDisk::make(MEBIBYTES)?;
    let mut run = Run::new(histories.path(), format!("embedded:{}", disk.path().join("broker").display()));
    match cut_and_drain(&mut run, &mut disk, cuts, &mut StdRng::seed_from_u64(seed)) {
        Ok(story) => {
            eprintln!("seed {seed}: {story}");
            Ok(Completion::Completed)
        }
        Err(why) => {
            let kept = histories.keep();
            Err(format!("{why}\nseed {seed}; histories are kept in {}", kept.display()).into())
        }
    }
}

fn cut_and_drain(
    run: &mut Run,
    disk: &mut SmallDisk,
    cuts: usize,
    random: &mut StdRng,
) -> Result<String, String> {
    while run.counted() < cuts {
        if run.lives() >= cuts * 4 + 10 {
            return Err(format!("only {} of {} cuts found everything open", run.counted(), run.lives()));
        }
        let early = random.random_ratio(1, 6);
        // Sometimes the worker lives on a little, on a disk that fails.
        let agony = Duration::from_millis(random.random_range(0..30) / 15 * 20);
        run.live_and_die(early, random, |worker| {
            worker.cut_begins()?;
            disk.cut()?;
            sleep(agony);
            worker.kill()
        })?;
        disk.unmount()?;
        disk.mount()?;
    }
    run.drain_and_check()
}
