//! What is asked of the machine: time, processor time, load, and a canary that shows how quiet it is.

use crate::Result;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::{self, File},
    hint::black_box,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// Wall and processor time since it was started.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu() }
    }

    /// Wall time, and processor time of all threads of this process, user and system.
    pub(crate) fn stop(&self) -> (Duration, Duration) {
        (self.wall.elapsed(), cpu().saturating_sub(self.cpu))
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// How often threads of this process gave their processor up because they had to wait for something.
pub(crate) fn switches() -> u64 {
    let of = |status: PathBuf| {
        let text = fs::read_to_string(status.join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    fs::read_dir("/proc/self/task").map_or(0, |all| all.flatten().map(|thread| of(thread.path())).sum())
}

/// How many threads ran or waited for the disk on average in the last minute; 0 where the machine does not say.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// What the processor is called, where the machine says.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

/// Whether files there live in memory, so that a sync costs nothing.
pub(crate) fn is_in_memory(dir: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|about| about.f_type as u64 == TMPFS)
}

/// Writes everything out, so that what one turn left behind is not paid for by the next.
pub(crate) fn settle(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Bytes resident now.
    pub(crate) resident: u64,
    /// The most bytes that were ever resident.
    pub(crate) peak: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Open file handles.
    pub(crate) handles: u64,
    /// Bytes that its directory takes of the disk.
    pub(crate) disk: u64,
}

impl Usage {
    /// Of a process that works in `dir`; `None` where it is gone.
    pub(crate) fn of(process: u32, dir: &Path) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Some(Self {
            resident: number("VmRSS") * 1024,
            peak: number("VmHWM") * 1024,
            threads: number("Threads"),
            handles: fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64,
            disk: disk(dir),
        })
    }
}

/// Bytes that a directory takes of the disk. What vanishes meanwhile is not counted.
pub(crate) fn disk(dir: &Path) -> u64 {
    let of = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(about) if about.is_dir() => disk(&path),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    fs::read_dir(dir).map_or(0, |entries| entries.flatten().map(|entry| of(entry.path())).sum())
}

/// A fixed piece of computing and a fixed number of syncs: how long each took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canary {
    pub(crate) spin: Duration,
    pub(crate) syncs: Duration,
}

impl Canary {
    const SPINS: u64 = 30_000_000;
    const SYNCS: u32 = 100;

    pub(crate) fn sing(dir: &Path) -> Result<Self> {
        let start = Instant::now();
        let mut state = black_box(1_u64);
        for _ in 0..Self::SPINS {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        black_box(state);
        let spin = start.elapsed();
        let path = dir.join("canary");
        let mut file = File::create(&path)?;
        let start = Instant::now();
        for _ in 0..Self::SYNCS {
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
        }
        let syncs = start.elapsed();
        fs::remove_file(path)?;
        Ok(Self { spin, syncs })
    }
}
