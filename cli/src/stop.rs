//! Ctrl-C and SIGTERM: the first one asks for an orderly end, the second ends at once.

use crate::{exit::Exit, output::Notes};
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};
use tokio_util::sync::CancellationToken;

/// Whether the program was asked to stop. Cloning is cheap; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    asked: CancellationToken,
    exit: Arc<AtomicU8>,
}

impl Stop {
    /// Watches the signals of this process until the runtime ends.
    ///
    /// # Errors
    /// Where the system does not let signals be watched.
    pub(crate) fn watch(notes: Notes) -> std::io::Result<Self> {
        let stop = Self::default();
        let watched = stop.clone();
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            let first = signals.next().await;
            watched.exit.store(first as u8, Ordering::SeqCst);
            watched.asked.cancel();
            notes.say("stopping: what is under way is finished first; once more (Ctrl-C) ends at once");
            let second = signals.next().await;
            std::process::exit(i32::from(second as u8));
        });
        Ok(stop)
    }

    /// Waits until the program is asked to stop. Cancel safe.
    pub(crate) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Whether it was asked to.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.is_cancelled()
    }

    /// The exit code of a run without failure.
    pub(crate) fn exit(&self) -> Exit {
        match self.exit.load(Ordering::SeqCst) {
            code if code == Exit::Interrupted as u8 => Exit::Interrupted,
            code if code == Exit::Terminated as u8 => Exit::Terminated,
            _ => Exit::Ok,
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> Exit {
        self.0.recv().await;
        Exit::Interrupted
    }
}
