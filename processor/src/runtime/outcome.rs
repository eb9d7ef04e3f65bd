//! What follows from a result: an ack, another attempt, a dead letter.
//!
//! A journal of retries comes in here: where an event is not done, before its dead letter is written.
//! Not here: how long to wait (`retry.rs`), what a letter says (`dead_letter/`).

use super::{
    driver::{Driver, Written},
    letters::LetterBox,
    work::{Burial, First, Run, Step, Work},
};
use crate::{
    Failure, FailureClass, RetryPolicy, Unknown,
    dead_letter::Letter,
    lanes::{Finished, Ticket},
    layer::{Ended, Progress, Ran},
    retry::After,
    router::Plans,
};
use ropeway_broker::{Error, ErrorKind, Position, Published, Timestamp};
use tokio::time::Instant;
use tracing::{debug, warn};

impl Driver {
    /// Starts what a message needs next.
    pub(super) fn begin(&mut self, ticket: Ticket, now: (Instant, Timestamp)) {
        let Some(work) = self.core.get_mut(&ticket) else { return };
        if let Step::Bury(_) = &work.step {
            self.looks.stint.others();
            return self.write(ticket);
        }
        let plans = &mut self.plans;
        match run_of(plans, work, now) {
            Some(run) if run.first.is_some() && run.plan.pace().is_quick() && self.core.is_free() => {
                self.look_at(ticket, run, now);
            }
            Some(run) => {
                self.looks.stint.others();
                self.core.run(ticket, run, |work| run_of(plans, work, now));
            }
            None => {
                self.looks.stint.others();
                self.unknown(ticket);
            }
        }
    }

    fn unknown(&mut self, ticket: Ticket) {
        match self.plans.router().unknown_policy() {
            Unknown::Ignore => {
                self.counters.skipped.inc();
                self.metrics.unknown_skipped.inc();
                self.done(ticket);
            }
            Unknown::Reject => {
                let event_type = self.core.get_mut(&ticket).and_then(|work| work.event.event_type());
                let failure = Failure::unknown_type(event_type);
                self.bury(ticket, failure, 0);
            }
        }
    }

    /// The handlers of a message have come to an end, or to a stop.
    pub(super) fn ran(&mut self, ticket: Ticket, result: Result<Ran, String>, now: Instant) {
        if self.core.lanes().is_late(&ticket) {
            if matches!(result, Ok(Ran { ended: Ended::Stopped, .. })) {
                self.counters.given_up.inc();
            } else {
                debug!(group = %self.group, "a handler finished after its partition had gone; its result is dropped");
                self.counters.late.inc();
                self.metrics.late.inc();
            }
            self.core.finish(ticket);
            return;
        }
        let Some(work) = self.core.get_mut(&ticket) else { return };
        let (progress, ended) = match (result, &work.step) {
            (Ok(ran), _) => (ran.progress, ran.ended),
            (Err(panic), Step::Handle(_, progress)) => {
                (*progress, Ended::Failed(Failure::new(FailureClass::Panic, panic)))
            }
            (Err(panic), _) => (Progress::start(), Ended::Failed(Failure::new(FailureClass::Panic, panic))),
        };
        match ended {
            Ended::Done => {
                if let Step::Handle(plan, _) = &work.step {
                    for route in plan.iter() {
                        if let Some(metrics) = self.runner.metrics.get(route.index) {
                            metrics.ok.inc();
                        }
                    }
                }
                self.counters.handled.inc();
                self.done(ticket);
            }
            Ended::Stopped => self.give_up(ticket),
            // What a cancelled handler returns is no failure: it was told to end.
            Ended::Failed(_) if work.turn.reins.cancel.is_cancelled() => self.give_up(ticket),
            Ended::Failed(failure) => self.failed(ticket, progress, failure, now),
        }
    }

    fn failed(&mut self, ticket: Ticket, progress: Progress, failure: Failure, now: Instant) {
        let wall = self.clock.now();
        let Some(work) = self.core.get_mut(&ticket) else { return };
        work.first_failure.get_or_insert(wall);
        let Step::Handle(plan, _) = &work.step else { return };
        let (plan, turn) = (plan.clone(), work.turn.clone());
        let route = plan.get(progress.at);
        let policy: &RetryPolicy =
            route.and_then(|route| route.retry.as_ref()).unwrap_or(&self.settings.retry);
        let after = if failure.class.is_retryable() {
            self.backoff.after(policy, progress.attempt, failure.retry_after)
        } else {
            After::Exhausted
        };
        let After::Wait(wait) = after else { return self.bury(ticket, failure, progress.attempt) };
        if self.partitions.is_revoked(&turn) {
            // It would wait longer than the partition stays; the next owner tries it.
            return self.give_up(ticket);
        }
        let of = &turn.owned;
        warn!(
            group = %self.group, topic = %of.topic, partition = of.partition, position = %work.position,
            attempt = progress.attempt, of = policy.max_attempts, ?wait, "to be retried: {failure}"
        );
        work.step = Step::Handle(plan.clone(), Progress { attempt: progress.attempt + 1, ..progress });
        self.counters.retried.inc();
        if let Some(metrics) = route.and_then(|route| self.runner.metrics.get(route.index)) {
            metrics.retry(progress.attempt, failure.class);
        }
        self.core.retry(ticket, now + wait);
    }

    /// The message is done: its position is acked and its key goes on.
    pub(super) fn done(&mut self, ticket: Ticket) {
        if let Some(Finished::Current(work)) = self.core.finish(ticket) {
            let position = work.position;
            self.over(&work, Some(position));
        }
    }

    /// The message is left to its next owner.
    fn give_up(&mut self, ticket: Ticket) {
        if let Some(Finished::Current(work)) = self.core.finish(ticket) {
            self.counters.given_up.inc();
            self.over(&work, None);
        }
    }

    /// Counts a message that left the lanes.
    pub(super) fn over(&mut self, work: &Work, ack: Option<Position>) {
        if let Step::Bury(burial) = &work.step
            && burial.refused > 0
        {
            self.counters.held.dec();
        }
        self.partitions.over(&work.turn, work.size, ack);
    }

    /// What is needed to write the dead letter of a message.
    pub(super) fn burial(&self, work: &Work, failure: Failure, attempts: u32) -> Burial {
        let record = work.record(&failure, attempts, self.clock.now(), &self.group, &self.settings.node);
        let max_message = self.letters.of(&work.turn.owned.topic).map_or(usize::MAX, |to| to.max_message);
        let letter = Letter::new(work.event.message().clone(), record, max_message);
        Burial { letter, failure, refused: 0, create: false }
    }

    fn bury(&mut self, ticket: Ticket, failure: Failure, attempts: u32) {
        let Some(work) = self.core.lanes().get(&ticket) else { return };
        let burial = Box::new(self.burial(work, failure, attempts));
        if let Some(work) = self.core.get_mut(&ticket) {
            work.step = Step::Bury(burial);
        }
        self.write(ticket);
    }

    /// Writes a dead letter and acks its source. Takes no worker, so that a dead-letter topic that hangs stops no handler.
    fn write(&mut self, ticket: Ticket) {
        // The letter acks its source: what was before it in its key is acked first.
        self.settle();
        let Some(work) = self.core.get_mut(&ticket) else { return };
        let Step::Bury(burial) = &work.step else { return };
        let letter = burial.letter.message();
        let size = letter.size();
        let (turn, position, create) = (work.turn.clone(), work.position, burial.create);
        let of = &turn.owned;
        let Some(to) = self.letters.of(&of.topic) else {
            warn!(topic = %of.topic, "a message of a topic that was not subscribed to: a defect of the backend");
            return self.give_up(ticket);
        };
        let answer = to.write(&self.broker, &self.control, of, position, letter, create);
        self.burials.push(Box::pin(async move { (ticket, size, answer.await) }));
    }

    /// A dead letter was written, or was not: then its source is held, and written again for ever.
    pub(super) fn written(&mut self, (ticket, size, outcomes): Written, now: Instant) {
        let late = self.core.lanes().is_late(&ticket);
        let refused = match outcomes.0.into_iter().next() {
            Some(Published::Acked { .. }) => None,
            Some(Published::NotWritten(failed) | Published::Unknown(failed)) => Some(failed.error),
            None => Some(Error::new(
                ErrorKind::Corrupt,
                "the backend answered no outcome: a defect of the backend",
            )),
        };
        // A letter that was written counts, also where its partition went meanwhile.
        let Some(error) = refused else { return self.buried(ticket) };
        if late {
            if let Some(Finished::Late(work)) = self.core.finish(ticket) {
                self.counters.given_up.inc();
                self.over(&work, None);
            }
            return;
        }
        let Some(work) = self.core.get_mut(&ticket) else { return };
        let turn = work.turn.clone();
        let Step::Bury(burial) = &mut work.step else { return };
        burial.refused = burial.refused.saturating_add(1);
        burial.create = error.kind() == ErrorKind::NotFound;
        if error.kind() == ErrorKind::TooLarge {
            burial.letter.refused(size);
        }
        let wait = self.backoff.wait(&self.settings.dead_letter_retry, burial.refused);
        warn!(
            group = %self.group, topic = %turn.owned.topic, partition = turn.owned.partition, position = %work.position,
            refused = burial.refused, ?wait, "a dead letter cannot be written, and its message is held: {error}"
        );
        if burial.refused == 1 {
            self.counters.held.inc();
        }
        self.counters.letters_refused.inc();
        if turn.reins.cancel.is_cancelled() || self.partitions.is_revoked(&turn) {
            return self.give_up(ticket);
        }
        self.core.retry(ticket, now + wait);
    }

    fn buried(&mut self, ticket: Ticket) {
        let Some(Finished::Current(work) | Finished::Late(work)) = self.core.finish(ticket) else { return };
        if let Step::Bury(burial) = &work.step {
            let of = &work.turn.owned;
            let failure = &burial.failure;
            let to = self.letters.of(&of.topic).map(|to: &LetterBox| &to.topic);
            warn!(
                group = %self.group, topic = %of.topic, partition = of.partition, position = %work.position,
                to = to.map(tracing::field::display), attempts = burial.letter.record().attempts, "dead-lettered: {failure}"
            );
            if let Some(to) = to {
                self.metrics.dead_letter(to, failure.class);
            }
            let named = |name: &str| self.plans.router().routes().iter().find(|route| &*route.name == name);
            let route = failure.handler.as_deref().and_then(named);
            match route.and_then(|route| self.runner.metrics.get(route.index)) {
                Some(metrics) => metrics.dead.inc(),
                None if failure.class == FailureClass::UnknownType => self.metrics.unknown_dead.inc(),
                None => {}
            }
        }
        self.counters.dead_lettered.inc();
        // Its source was acked together with it.
        self.over(&work, None);
    }
}

/// The next run of a message through its handlers; `None` where no handler takes it, or where its dead letter is to be written.
pub(super) fn run_of(plans: &mut Plans, work: &mut Work, (at, wall): (Instant, Timestamp)) -> Option<Run> {
    let (plan, progress, first) = match &work.step {
        Step::New => {
            let (topic, event) = (&work.turn.owned.topic, &work.event);
            let plan = match plans.again(topic, event.message()) {
                Some(plan) => plan.clone(),
                None => plans.of(topic, event.event_type()),
            };
            if plan.is_empty() {
                return None;
            }
            work.step = Step::Handle(plan.clone(), Progress::start());
            (plan, Progress::start(), true)
        }
        // One that was given to a worker and taken back has not begun.
        Step::Handle(plan, progress) => (plan.clone(), *progress, *progress == Progress::start()),
        Step::Bury(_) => return None,
    };
    let first = first.then(|| First { since: work.since, age: wall.since(work.event.timestamp()), at });
    Some(Run { turn: work.turn.clone(), event: work.event.clone(), plan, progress, first, begun: None })
}
