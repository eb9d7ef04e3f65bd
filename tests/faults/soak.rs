//! A process under steady load for a long time, and what it takes of the machine: memory, file handles, threads, disk.
//!
//! `ROPEWAY_TEST_SOAK` says for how long, such as `30m`; 45 s by default. Sampled each second, from outside. What comes in the first third is
//! warming up. From then on no sample is above its bound, and where the run takes 10 minutes or more the last quarter is not above the
//! second third: in the median, but for a slack. Every sample is kept in a file whose path is printed.
//! Not here: the load (`load.rs`).

use crate::{
    load,
    run::{PATIENCE, Worker, number},
    worker,
};
use libtest_mimic::{Completion, Failed};
use std::{
    fmt::Write,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
/// From here on growth is judged; before, it cannot be told from warming up.
const LONG: usize = 600;
const MIB: u64 = 1024 * 1024;

/// What is sampled, the most that is allowed after warming up, and how much higher the end may lie than the middle of a long run.
const MEASURES: [(&str, u64, u64); 4] = [
    ("resident memory, bytes", 150 * MIB, 8 * MIB),
    ("file handles", 512, 32),
    ("threads", 32, 0),
    ("disk, bytes", 2 * load::RETAINED + 256 * MIB, 32 * MIB),
];

type Sample = [u64; MEASURES.len()];

/// The trial.
pub(crate) fn stays_flat() -> Result<Completion, Failed> {
    if !Path::new("/proc/self/status").exists() {
        return Ok(Completion::ignored_with("there is no /proc to sample a process from"));
    }
    let text = std::env::var("ROPEWAY_TEST_SOAK").unwrap_or_else(|_| "45s".into());
    let length =
        seconds(&text).ok_or_else(|| format!("ROPEWAY_TEST_SOAK is a time such as 30m, not {text:?}"))?;
    let rate = number("ROPEWAY_TEST_SOAK_RATE").unwrap_or(500);
    let pace = number("ROPEWAY_TEST_SOAK_PACE").unwrap_or(2000);
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = root.path().join("broker");
    let mut child = Command::new(std::env::current_exe()?)
        .env(worker::ROLE, "soak")
        .env(worker::URL, format!("embedded:{}", directory.display()))
        .env(load::SECONDS, length.to_string())
        .env(load::RATE, u64::to_string(&rate))
        .env(load::PACE, u64::to_string(&pace))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = child.stdout.take();
    let mut child = Worker(child, PathBuf::new());
    let mut samples: Vec<Sample> = Vec::new();
    let status = loop {
        sleep(SECOND);
        match child.ended()? {
            Some(status) => break status,
            None if samples.len() > length + PATIENCE.as_secs() as usize => {
                return Err(format!("it did not end {PATIENCE:?} after it should have").into());
            }
            None => samples.extend(sample(child.0.id(), &directory)),
        }
    };
    let mut story = String::new();
    if let Some(told) = &mut told {
        told.read_to_string(&mut story)?;
    }
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{text}.csv"));
    fs::write(&kept, table(&samples))?;
    let (summary, wrong) = judge(&samples[..samples.len().min(length)]);
    eprintln!("{}\n{summary}samples: {}", story.trim_end(), kept.display());
    if !status.success() {
        return Err(format!("the process ended with {status}").into());
    }
    if wrong.is_empty() { Ok(Completion::Completed) } else { Err(wrong.join("\n").into()) }
}

/// A number of seconds, with `s`, `m` or `h` behind it.
fn seconds(text: &str) -> Option<usize> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(unit).filter(|seconds| *seconds >= 10)
}

/// What the process takes now; nothing where it is just ending.
fn sample(process: u32, directory: &Path) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let handles = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
    Some([field("VmRSS:")? * 1024, handles, field("Threads:")?, disk(directory)])
}

/// What the files take of the disk. Files that go meanwhile take nothing.
fn disk(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    taken(&about) + if about.is_dir() { inside.map(|entry| disk(&entry.path())).sum() } else { 0 }
}

#[cfg(unix)]
fn taken(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(about) * 512
}

#[cfg(not(unix))]
fn taken(about: &fs::Metadata) -> u64 {
    about.len()
}

fn table(samples: &[Sample]) -> String {
    let mut text = "second".to_owned();
    for (name, ..) in MEASURES {
        _ = write!(text, ";{name}");
    }
    for (second, sample) in samples.iter().enumerate() {
        _ = write!(text, "\n{second}");
        for value in sample {
            _ = write!(text, ";{value}");
        }
    }
    text + "\n"
}

/// What there is to tell about the samples, and what is wrong.
fn judge(samples: &[Sample]) -> (String, Vec<String>) {
    let (mut story, mut wrong) = (String::new(), Vec::new());
    let all = samples.len();
    if all < 10 {
        wrong.push(format!("only {all} samples"));
        return (story, wrong);
    }
    let median = |measure: usize, from: usize, to: usize| {
        let mut values: Vec<u64> = samples[from..to].iter().map(|sample| sample[measure]).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    for (measure, (name, bound, slack)) in MEASURES.into_iter().enumerate() {
        let most = samples[all / 3..].iter().map(|sample| sample[measure]).max().unwrap_or(0);
        let (middle, end) = (median(measure, all / 3, all * 2 / 3), median(measure, all * 3 / 4, all));
        _ = writeln!(story, "{name}: middle {middle}, end {end}, most {most} of {bound}");
        if most > bound {
            wrong.push(format!("{name}: {most} at the most, above the bound of {bound}"));
        }
        if all >= LONG && end > middle + slack {
            wrong.push(format!("{name}: grew from {middle} to {end}, more than {slack}"));
        }
    }
    (story, wrong)
}

type Change<'a> = &'a dyn Fn(usize, &mut Sample);

/// The judge finds what leaks, and what is too much.
pub(crate) fn growth_is_found() -> Result<(), Failed> {
    let flat: Sample = [100 * MIB, 100, 10, 100 * MIB];
    let run = |change: Change<'_>| {
        let mut samples = vec![flat; LONG];
        samples.iter_mut().enumerate().for_each(|(second, sample)| change(second, sample));
        judge(&samples).1
    };
    if !run(&|_, _| {}).is_empty()
        || !run(&|second, sample| sample[0] += (second as u64 % 60) * 60_000).is_empty()
    {
        return Err("what is flat must pass".into());
    }
    let grows: [Change<'_>; 5] = [
        &|second, sample| sample[0] += second as u64 * 64 * 1024,
        &|second, sample| sample[1] += second as u64 / 4,
        &|second, sample| sample[2] += second as u64 / 200,
        &|second, sample| sample[3] += second as u64 * 256 * 1024,
        &|second, sample| sample[0] += if second == 400 { 60 * MIB } else { 0 },
    ];
    match grows.iter().position(|change| run(*change).is_empty()) {
        None => Ok(()),
        Some(missed) => Err(format!("growth {missed} was not found").into()),
    }
}
