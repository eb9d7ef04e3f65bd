//! The queue of commands: ordered, bounded in messages and bytes of what is to be published.
//!
//! Not here: running them (`engine.rs`).

use super::core::{Core, Step};
use crate::{Error, ErrorKind};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Decides something; what is to be answered after the commit it leaves in the step.
pub(super) type Run = Box<dyn FnOnce(&mut Core, &mut Step) + Send>;

/// What a command holds of the queue's bounds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The most bytes that are published in one step.
const STEP_BYTES: usize = 4 * 1024 * 1024;
/// The most commands of one step.
const STEP_COMMANDS: usize = 16_384;
/// The longest wait for what is due later: time for which the machine slept is noticed within it.
#[cfg(feature = "embedded")]
const LONGEST: std::time::Duration = std::time::Duration::from_secs(1);

/// Commands in the order in which they were given.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: Cost,
}

#[derive(Default)]
struct State {
    commands: VecDeque<(Cost, Run)>,
    waiting: Cost,
    /// No more commands are taken.
    ended: bool,
    /// Something is due earlier than was thought.
    nudged: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("commands", &self.commands.len())
            .field("waiting", &self.waiting)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Why a command was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// The broker is closed.
    Ended,
    /// There is no room; the reason.
    Full(Error),
}

impl Queue {
    pub(super) fn new(most: Cost) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), most }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a command over. One that publishes nothing is always taken: there are at most as many as callers.
    pub(super) fn push(&self, cost: Cost, run: Run) -> Result<(), Refused> {
        let mut state = self.state();
        if state.ended {
            return Err(Refused::Ended);
        }
        let messages = state.waiting.messages.saturating_add(cost.messages);
        let bytes = state.waiting.bytes.saturating_add(cost.bytes);
        // A batch that is larger than the queue is taken when the queue is empty.
        if cost.messages > 0
            && state.waiting.messages > 0
            && (messages > self.most.messages || bytes > self.most.bytes)
        {
            return Err(Refused::Full(Error::new(
                ErrorKind::Throttled,
                format!(
                    "{} messages of {} bytes wait to be written, and {} of {} may; publish slower",
                    state.waiting.messages, state.waiting.bytes, self.most.messages, self.most.bytes
                ),
            )));
        }
        state.waiting = Cost { messages, bytes };
        state.commands.push_back((cost, run));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Nobody runs commands any more: those that wait are dropped, which tells who waits for them.
    #[cfg(feature = "embedded")]
    pub(super) fn abandon(&self) {
        let commands = {
            let mut state = self.state();
            state.ended = true;
            state.waiting = Cost::default();
            std::mem::take(&mut state.commands)
        };
        drop(commands);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().commands.is_empty()
    }

    /// Takes the last command over; answers whether it was.
    pub(super) fn end(&self, run: Run) -> bool {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return false;
        }
        state.commands.push_back((Cost::default(), run));
        drop(state);
        self.changed.notify_one();
        true
    }

    /// Something is due earlier than was thought.
    pub(super) fn nudge(&self) {
        self.state().nudged = true;
        self.changed.notify_one();
    }

    /// The commands of the next step.
    pub(super) fn take(&self) -> Vec<Run> {
        let mut state = self.state();
        let mut bytes = 0;
        let mut taken = Vec::with_capacity(state.commands.len().min(STEP_COMMANDS));
        while taken.len() < STEP_COMMANDS && (bytes < STEP_BYTES || taken.is_empty()) {
            let Some((cost, run)) = state.commands.pop_front() else { break };
            bytes += cost.bytes;
            state.waiting.messages -= cost.messages;
            state.waiting.bytes -= cost.bytes;
            taken.push(run);
        }
        taken
    }

    /// Waits until there is a command, something is due (in `left`), or that has changed.
    #[cfg(feature = "embedded")]
    pub(super) fn wait(&self, left: Option<std::time::Duration>) {
        let mut state = self.state();
        if state.commands.is_empty() && !state.nudged {
            let time = left.map_or(LONGEST, |left| left.min(LONGEST));
            if !time.is_zero() {
                state = self
                    .changed
                    .wait_timeout(state, time)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            }
        }
        state.nudged = false;
    }
}
