//! Kills a worker again and again with SIGKILL, lets the last life drain, and has everything that is left judged.
//!
//! `ROPEWAY_TEST_KILLS` kills (default 20) must count: at that moment publishes, handlers and acks were open. Some more come while the
//! worker is still starting; those count for nothing and must do no harm. `ROPEWAY_TEST_SEED` repeats the moments.
//! Not here: starting workers and judging them (`run.rs`).

use crate::run::{Run, number};
use libtest_mimic::Failed;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{fs, path::Path};

/// The trial.
pub(crate) fn survives_kills() -> Result<(), Failed> {
    kill_and_check("", None, number("ROPEWAY_TEST_KILLS").unwrap_or(20))
}

/// The trial with the weaker promise, which is strong enough for a kill. A quarter of the kills.
pub(crate) fn survives_kills_unsynced() -> Result<(), Failed> {
    kill_and_check("?durability=process_crash", None, a_quarter())
}

/// The trial with retention that removes what every group has finished, in small segments. A quarter of the kills.
pub(crate) fn survives_kills_with_retention() -> Result<(), Failed> {
    kill_and_check("?segment=64KiB", Some(16 * 1024), a_quarter())
}

fn a_quarter() -> usize {
    number::<usize>("ROPEWAY_TEST_KILLS").unwrap_or(20).div_ceil(4)
}

fn kill_and_check(parameters: &str, retention: Option<u64>, kills: usize) -> Result<(), Failed> {
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let root = tempfile::tempdir()?;
    let directory = root.path().join("broker");
    let url = format!("embedded:{}{parameters}", directory.display());
    let mut run = Run::new(root.path(), url);
    if let Some(bytes) = retention {
        run.keep_bytes(bytes);
    }
    let done = kill_and_drain(&mut run, kills, &mut StdRng::seed_from_u64(seed));
    match done.and_then(|story| left_behind(&directory).map(|()| story)) {
        Ok(story) => {
            eprintln!("seed {seed}: {story}");
            Ok(())
        }
        Err(why) => {
            let kept = root.keep();
            Err(format!("{why}\nseed {seed}; histories and broker are kept in {}", kept.display()).into())
        }
    }
}

/// The trial on a real Redis, which lives on: each life takes over from the one before by its static names, without waiting for its leases.
pub(crate) fn survives_kills_on_redis(server: &str) -> Result<(), Failed> {
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let root = tempfile::tempdir()?;
    let server = server.split('?').next().unwrap_or_default();
    let mut run =
        Run::new(root.path(), format!("{server}?prefix={}", ropeway_tests::server::unique("kills")));
    let kills = number("ROPEWAY_TEST_KILLS").unwrap_or(20);
    match kill_and_drain(&mut run, kills, &mut StdRng::seed_from_u64(seed)) {
        Ok(story) => {
            eprintln!("seed {seed}: {story}");
            Ok(())
        }
        Err(why) => {
            let kept = root.keep();
            Err(format!("{why}\nseed {seed}; histories are kept in {}", kept.display()).into())
        }
    }
}

fn kill_and_drain(run: &mut Run, kills: usize, random: &mut StdRng) -> Result<String, String> {
    while run.counted() < kills {
        if run.lives() >= kills * 4 + 10 {
            return Err(format!("only {} of {} kills found everything open", run.counted(), run.lives()));
        }
        let early = random.random_ratio(1, 6);
        run.live_and_die(early, random, |worker| worker.kill())?;
    }
    run.drain_and_check()
}

/// Kills leave nothing behind that is read at each later start: no copies, and journals only as long as something in them is in no table.
fn left_behind(directory: &Path) -> Result<(), String> {
    const JOURNALS: usize = 4;
    let names = |path: &Path| -> Result<Vec<String>, String> {
        let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    };
    let is_known = |name: &String| ["db", "format", "lock", "mark", "reserve"].contains(&name.as_str());
    let strange: Vec<String> = names(directory)?.into_iter().filter(|name| !is_known(name)).collect();
    let journals = names(&directory.join("db"))?.iter().filter(|name| name.ends_with(".jnl")).count();
    if strange.is_empty() && journals <= JOURNALS {
        return Ok(());
    }
    Err(format!("the kills left {strange:?} and {journals} journals behind, more than {JOURNALS}"))
}
