//! What is asked of the machine: time, processor time, load, and a canary that shows how quiet it is.

use crate::Result;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::{self, File},
    hint::black_box,
    io::Write,
    path::Path,
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
