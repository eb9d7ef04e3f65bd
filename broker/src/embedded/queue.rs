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
#[cfg(feature = "embedded")]
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
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
const LONGEST: Duration = Duration::from_secs(1);
/// How long a command is looked for before the thread sleeps, where the one before came as soon. Waking a thread takes about as long as a
/// small commit, so that who publishes one message after the other would wait twice as long.
#[cfg(feature = "embedded")]
const BRIEF: Duration = Duration::from_micros(100);

/// Commands that wait, in each lane in the order in which they were given.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: Cost,
    /// Something changed since it was looked for.
    #[cfg(feature = "embedded")]
    is_changed: AtomicBool,
    /// There is another core, on which commands come while this one looks for them.
    #[cfg(feature = "embedded")]
    has_cores: bool,
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
    /// The last wait was over within [`BRIEF`].
    #[cfg(feature = "embedded")]
    was_brief: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.urgent.commands.is_empty() && self.publish.commands.is_empty() && self.last.is_none()
    }

    /// Nothing is to be done, and nothing due has changed.
    #[cfg(feature = "embedded")]
    fn is_idle(&self) -> bool {
        self.is_empty() && !self.nudged
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
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            most,
            #[cfg(feature = "embedded")]
            is_changed: AtomicBool::default(),
            #[cfg(feature = "embedded")]
            has_cores: thread::available_parallelism().is_ok_and(|cores| cores.get() > 1),
        }
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
        #[cfg(feature = "embedded")]
        self.is_changed.store(true, Ordering::Release);
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
    pub(super) fn wait(&self, left: Option<Duration>) {
        let time = left.map_or(LONGEST, |left| left.min(LONGEST));
        let since = now();
        let mut state = self.state();
        if self.has_cores && state.was_brief && state.is_idle() {
            self.is_changed.store(false, Ordering::Relaxed);
            drop(state);
            self.look(since, time.min(BRIEF));
            state = self.state();
        }
        if state.is_idle() && !time.is_zero() {
            state.waits = true;
            state = self
                .changed
                .wait_timeout(state, time)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            state.waits = false;
        }
        state.nudged = false;
        state.was_brief = !state.is_empty() && since.elapsed() < BRIEF;
    }

    /// Looks for a change for so long. Who else wants the core gets it.
    #[cfg(feature = "embedded")]
    fn look(&self, since: Instant, time: Duration) {
        while !self.is_changed.load(Ordering::Acquire) && since.elapsed() < time {
            thread::yield_now();
        }
    }
}

#[cfg(feature = "embedded")]
#[expect(
    clippy::disallowed_methods,
    reason = "this measures how long threads take to wake, which no test's clock moves"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(all(test, feature = "embedded"))]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn queue() -> Queue {
        let mut queue = Queue::new(Cost { messages: 10, bytes: 10 });
        queue.has_cores = true;
        queue
    }

    fn push(queue: &Queue) {
        assert!(queue.push(Lane::Urgent, Cost::default(), Box::new(|_, _| ())).is_ok());
    }

    #[test]
    fn every_command_is_found_whether_it_comes_at_once_or_late() {
        let queue = Arc::new(queue());
        let pushing = queue.clone();
        let pushed = thread::spawn(move || {
            for number in 0..300 {
                // Before it is looked for, while it is looked for, and when the other thread sleeps.
                thread::sleep(Duration::from_micros(number % 3 * 80));
                push(&pushing);
            }
        });
        let (since, mut found) = (now(), 0);
        while found < 300 {
            // One that is missed is found after a second.
            queue.wait(None);
            found += queue.take().len();
        }
        assert!(since.elapsed() < Duration::from_secs(30), "commands were missed");
        pushed.join().unwrap();
    }

    #[test]
    fn it_is_looked_for_only_after_a_wait_that_was_brief_and_only_so_long() {
        let queue = queue();
        assert!(!queue.state().was_brief, "nothing was waited for");
        let is_brief = (0..100).any(|_| {
            push(&queue);
            queue.wait(None);
            queue.take();
            queue.state().was_brief
        });
        assert!(is_brief, "what is there already is waited for longer than {BRIEF:?}, a hundred times");
        let since = now();
        queue.wait(Some(Duration::from_millis(20)));
        assert!(since.elapsed() >= Duration::from_millis(20), "no command, and nothing is due");
        assert!(!queue.state().was_brief);
        let since = now();
        queue.look(since, BRIEF);
        assert!(since.elapsed() >= BRIEF);
    }

    #[test]
    fn what_is_due_earlier_ends_the_wait_as_well() {
        let queue = queue();
        push(&queue);
        queue.wait(None);
        queue.take();
        // A thread that is held up for that long comes back late, too.
        let is_ended = (0..10).any(|_| {
            queue.nudge();
            let since = now();
            queue.wait(Some(Duration::from_secs(1)));
            since.elapsed() < Duration::from_secs(1)
        });
        assert!(is_ended, "it waits to the end, ten times");
        assert!(queue.is_empty());
    }
}
