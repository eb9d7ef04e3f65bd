//! The queue of commands: two lanes, each in order, each bounded in messages and bytes of what is to be written.
//!
//! What is published waits in one lane, everything else in the other; a step takes a bounded piece of each. So settling, reading and administration
//! wait for the step that is being committed and then for their own, and never for what is to be published, however much that is. The end of the broker waits for both lanes.
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

/// Which way a command waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// For its turn among what is published.
    Publish,
    /// For the next step.
    Urgent,
}

/// The most bytes that are published in one step, and that are forwarded in one step, but for one command that is larger.
const STEP_BYTES: usize = 4 * 1024 * 1024;
/// The most commands of a lane in one step.
const STEP_COMMANDS: usize = 16_384;
/// The longest wait for what is due later: time for which the machine slept is noticed within it.
#[cfg(feature = "embedded")]
const LONGEST: std::time::Duration = std::time::Duration::from_secs(1);

/// Commands that wait, in each lane in the order in which they were given.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: Cost,
}

#[derive(Default)]
struct State {
    urgent: Waiting,
    publish: Waiting,
    last: Option<Run>,
    /// No more commands are taken.
    ended: bool,
    /// Something is due earlier than was thought.
    nudged: bool,
    /// Who runs the steps waits in [`Queue::wait`] and was not woken yet. Waking costs a call to the system, whether somebody waits or not.
    waits: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.urgent.commands.is_empty() && self.publish.commands.is_empty() && self.last.is_none()
    }
}

/// A lane.
#[derive(Default)]
struct Waiting {
    commands: VecDeque<(Cost, Run)>,
    cost: Cost,
}

impl Waiting {
    /// Takes a command over. One that writes no messages is always taken: there are at most as many as callers.
    fn push(&mut self, cost: Cost, most: Cost, run: Run) -> Result<(), Refused> {
        let messages = self.cost.messages.saturating_add(cost.messages);
        let bytes = self.cost.bytes.saturating_add(cost.bytes);
        // A batch that is larger than the queue is taken when the queue is empty.
        if cost.messages > 0 && self.cost.messages > 0 && (messages > most.messages || bytes > most.bytes) {
            return Err(Refused::Full(Error::new(
                ErrorKind::Throttled,
                format!(
                    "{} messages of {} bytes wait to be written, and {} of {} may; publish slower",
                    self.cost.messages, self.cost.bytes, most.messages, most.bytes
                ),
            )));
        }
        self.cost = Cost { messages, bytes };
        self.commands.push_back((cost, run));
        Ok(())
    }

    /// Adds the commands of one step.
    fn take(&mut self, taken: &mut Vec<Run>) {
        taken.reserve(self.commands.len().min(STEP_COMMANDS));
        let (mut commands, mut bytes) = (0, 0);
        while let Some((cost, _)) = self.commands.front() {
            let fits = commands < STEP_COMMANDS && bytes + cost.bytes <= STEP_BYTES;
            let Some((cost, run)) = (fits || commands == 0).then(|| self.commands.pop_front()).flatten()
            else {
                break;
            };
            commands += 1;
            bytes += cost.bytes;
            self.cost.messages -= cost.messages;
            self.cost.bytes -= cost.bytes;
            taken.push(run);
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("urgent", &self.urgent.cost)
            .field("publish", &self.publish.cost)
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

    /// Takes a command over.
    pub(super) fn push(&self, lane: Lane, cost: Cost, run: Run) -> Result<(), Refused> {
        let mut state = self.state();
        if state.ended {
            return Err(Refused::Ended);
        }
        let waiting = match lane {
            Lane::Publish => &mut state.publish,
            Lane::Urgent => &mut state.urgent,
        };
        waiting.push(cost, self.most, run)?;
        self.wake(state);
        Ok(())
    }

    /// Nobody runs commands any more: those that wait are dropped, which tells who waits for them.
    #[cfg(feature = "embedded")]
    pub(super) fn abandon(&self) {
        let dropped = {
            let mut state = self.state();
            state.ended = true;
            (std::mem::take(&mut state.urgent), std::mem::take(&mut state.publish), state.last.take())
        };
        drop(dropped);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().is_empty()
    }

    /// Takes the last command over; answers whether it was.
    pub(super) fn end(&self, run: Run) -> bool {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return false;
        }
        state.last = Some(run);
        self.wake(state);
        true
    }

    /// Something is due earlier than was thought.
    pub(super) fn nudge(&self) {
        let mut state = self.state();
        state.nudged = true;
        self.wake(state);
    }

    /// Wakes who runs the steps, where nobody did since it began to wait.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waits = std::mem::take(&mut state.waits);
        drop(state);
        if waits {
            self.changed.notify_one();
        }
    }

    /// The commands of the next step.
    pub(super) fn take(&self) -> Vec<Run> {
        let mut state = self.state();
        let mut taken = Vec::new();
        state.urgent.take(&mut taken);
        state.publish.take(&mut taken);
        if state.urgent.commands.is_empty() && state.publish.commands.is_empty() {
            taken.extend(state.last.take());
        }
        taken
    }

    /// Waits until there is a command, something is due (in `left`), or that has changed.
    #[cfg(feature = "embedded")]
    pub(super) fn wait(&self, left: Option<std::time::Duration>) {
        let mut state = self.state();
        if state.is_empty() && !state.nudged {
            let time = left.map_or(LONGEST, |left| left.min(LONGEST));
            if !time.is_zero() {
                state.waits = true;
                state = self
                    .changed
                    .wait_timeout(state, time)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
                state.waits = false;
            }
        }
        state.nudged = false;
    }
}
