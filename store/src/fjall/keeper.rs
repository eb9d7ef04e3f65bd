//! The thread that looks after an open store: it writes the high-water mark, and has written out what takes too much memory.
//!
//! Not here: what a mark says (`mark.rs`), and what is written out (`room.rs`).

use super::{Inner, lock, reserve};
use std::{
    sync::{Arc, Condvar, Mutex, PoisonError, Weak, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often the mark is written while something is committed. What was synced since is not missed when it is damaged.
const PACE: Duration = Duration::from_secs(1);

/// Wakes the keeper.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Signals>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Signals {
    rung: bool,
    stop: bool,
}

impl Bell {
    /// Says that there is too much in memory.
    pub(super) fn ring(&self) {
        let mut signals = lock(&self.state);
        if !signals.rung {
            signals.rung = true;
            self.rung.notify_all();
        }
    }

    fn stop(&self) {
        lock(&self.state).stop = true;
        self.rung.notify_all();
    }

    /// Waits to be rung, or for so long; `None`: it is over, else whether it was rung.
    fn wait(&self, pace: Duration) -> Option<bool> {
        let signals = lock(&self.state);
        let waited = self.rung.wait_timeout_while(signals, pace, |signals| !signals.rung && !signals.stop);
        let (mut signals, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let rung = std::mem::take(&mut signals.rung);
        (!signals.stop).then_some(rung)
    }
}

/// The thread.
pub(super) struct Keeper {
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Starts it. `None` where there is no thread to be had: then the mark is exact when the store is closed, and memory is bounded by what
    /// fjall does alone.
    pub(super) fn start(inner: &Arc<Inner>) -> Option<Self> {
        let inner = Arc::downgrade(inner);
        let thread = thread::Builder::new().name("ropeway-store".to_owned()).spawn(move || run(&inner));
        thread.ok().map(|thread| Self { thread })
    }

    /// Ends it, and waits until it has.
    pub(super) fn stop(self, bell: &Bell) {
        bell.stop();
        _ = self.thread.join();
    }
}

fn run(inner: &Weak<Inner>) {
    let mut written = now();
    while let Some(inner) = inner.upgrade() {
        let Some(rung) = inner.bell.wait(PACE.saturating_sub(written.elapsed())) else { return };
        if rung {
            if let Some(open) = inner.read().as_ref() {
                // What fails here fails again where somebody can be told.
                _ = inner.make_room(open);
                _ = inner.shorten_journals(open);
                if inner.empty_one(open).unwrap_or_default() {
                    inner.bell.ring();
                }
            }
            // Writing out takes its time, and whoever waits rings again and again.
            thread::sleep(Duration::from_millis(1));
        }
        if written.elapsed() < PACE {
            continue;
        }
        let mut mark = lock(&inner.mark);
        if inner.synced.load(Ordering::Acquire) != mark.commit {
            _ = inner.write_mark(&mut mark, None);
            reserve::restore(&inner.path);
        }
        written = now();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this paces what is written to the disk, which no test's clock moves"
)]
fn now() -> Instant {
    Instant::now()
}
