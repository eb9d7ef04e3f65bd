//! Sending a round of forwards, and what it came to.
//!
//! Not here: which forwards make a round (`rounds.rs`), when one is sent (`duty.rs`).

use super::{
    Member,
    core::Core,
    rounds::{Forward, Goal, Place, Round, Source},
};
use crate::{
    Durability, Error, ErrorKind, GoneReason, Message, Outcomes, Owned, Published, Result, Target, clock,
    members::{Core as _, Shell as _, Stirred, fenced, find, key_of},
    redis::{
        commands::Told,
        facts::durability,
        failure::{BACKEND, is_refused, is_unknown_script, late},
        placing::can_give,
        scripts,
        topics::{not_found, position},
        write,
    },
};
use ropeway_store::redis::{self, Outcome, Reply};
use std::{
    collections::BTreeMap,
    sync::{PoisonError, atomic::Ordering},
};
use tokio::time::{Instant, timeout_at};

/// What errors of the server say that come before a script has written anything.
const REFUSED: [&str; 8] =
    ["OOM", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY", "WRONGTYPE"];

impl Member {
    /// Sends the next round, and settles what it came to. What is left of it waits for the next one.
    ///
    /// # Errors
    /// Why it is to be sent again.
    pub(super) async fn forward(&self) -> Result<Stirred> {
        let Some(mut round) = self.core().rounds.take() else { return Ok(Stirred::default()) };
        let (end, late) = (round.deadline(), |_| late(self.shared.topics().commands.server()).on(BACKEND));
        if !round.unknown
            && let Err(error) = timeout_at(end, self.place(&mut round)).await.map_err(late).flatten()
        {
            self.core().rounds.put_back(round);
            return Err(error);
        }
        self.core().prepare(&mut round);
        if round.forwards.is_empty() {
            return Ok(Stirred::default());
        }
        // What is sent is not taken back: whether it took effect is asked with the next attempt.
        let answers = timeout_at(end, self.send(&round)).await.map_err(late).flatten();
        let answers = match answers {
            Ok(Some(answers)) => Ok(answers),
            // Another server: nothing was sent. What is owned is lost, and the next round knows it.
            Ok(None) => {
                let home = self.shared.topics().commands.home();
                let mut core = self.core();
                core.rounds.put_back(round);
                return Ok(Stirred { waker: core.moved(&home), ..Stirred::default() });
            }
            Err(error) => Err(error),
        };
        let (answer, copies) = match answers.map(Vec::into_iter).map(|mut all| (all.next(), all.next())) {
            Ok((answer, copies)) => (answer.unwrap_or(Reply::Nil), copies),
            Err(error) => {
                round.unknown |= !is_not_done(&error);
                self.core().rounds.put_back(round);
                return Err(error);
            }
        };
        let is_error = matches!(&answer, Reply::Error(_));
        let knows = !is_error || REFUSED.iter().any(|code| is_refused(&answer, code));
        let keys = if is_error { round.keys(&self.group) } else { Vec::new() };
        match self.shared.topics().commands.told(&scripts::FORWARD, &keys, answer) {
            Ok(told) => Ok(self.settle(round, &told, copies)),
            Err(error) if error.is_retryable() => {
                self.core().rounds.put_back(round);
                Err(error)
            }
            Err(error) => {
                round.unknown |= !knows;
                round.fail(&error.on(BACKEND));
                Ok(Stirred::default())
            }
        }
    }

    /// Finds where its messages go. A forward of which one cannot go is refused.
    async fn place(&self, round: &mut Round) -> Result<()> {
        let mut goals = BTreeMap::new();
        (round.places, round.goals) = (Vec::new(), Vec::new());
        while let at = round.places.len()
            && at < round.forwards.len()
        {
            match self.places(round, at, &mut goals).await {
                Ok(places) => round.places.push(places),
                Err(error) if error.is_retryable() && error.kind() != ErrorKind::Throttled => {
                    return Err(error);
                }
                Err(error) => round.refuse(&error, |number, _| number == at),
            }
        }
        Ok(())
    }

    async fn places(
        &self,
        round: &mut Round,
        at: usize,
        goals: &mut BTreeMap<String, usize>,
    ) -> Result<Vec<Place>> {
        let Round { forwards, goals: all, .. } = round;
        let mut places = Vec::with_capacity(forwards[at].out.len());
        for (target, message) in &forwards[at].out {
            let told = |error| write::told(target, error);
            let later = message.deliver_at.filter(|due| *due > clock::wall());
            let description = self.shared.topics().marked(&target.topic, later).await.map_err(told)?;
            can_give(target.at_least, Some(&self.shared.server()), self.shared.settings().copies())
                .map_err(told)?;
            let mut placing = self.placing.lock().unwrap_or_else(PoisonError::into_inner);
            let placed = placing.place(target, Some(&self.group), &description, message);
            let (partition, keys, later) = placed.map_err(told)?;
            let goal = *goals.entry(keys.log().to_owned()).or_insert_with(|| {
                let life = description.life.map(|life| life.to_string()).unwrap_or_default();
                all.push(Goal { topic: target.topic.clone(), keys, life });
                all.len() - 1
            });
            places.push(Place { goal, partition, due: later.map(|later| later.due) });
        }
        Ok(places)
    }

    /// Sends it; once more where the server forgot the script, which did nothing then.
    async fn send(&self, round: &Round) -> Result<Option<Vec<Reply>>> {
        let commands = &self.shared.topics().commands;
        let settings = self.shared.settings();
        let request = || round.request(&self.group, settings.copies(), settings.wait);
        let answers = commands.ask_only(request(), Some(round.home)).await?;
        if answers.iter().flatten().next().is_some_and(is_unknown_script) {
            commands.ask(scripts::load()).await?;
            return commands.ask_only(request(), Some(round.home)).await;
        }
        Ok(answers)
    }

    fn settle(&self, mut round: Round, told: &Told, copies: Option<Reply>) -> Stirred {
        let at = told.text(1).parse::<usize>().ok().and_then(|at| at.checked_sub(1)).unwrap_or(usize::MAX);
        match (told.word(), round.sources.get(at), round.goals.get(at)) {
            ("forwarded" | "there", ..) => return self.forwarded(round, told, copies),
            ("fenced", Some(source), _) => {
                let of = source.of.clone();
                round.unknown &= told.text(2) != "certain";
                return self.over(round, &of);
            }
            ("gone", _, Some(goal)) => {
                let topic = goal.topic.clone();
                self.shared.topics().forget(&topic);
                let error = not_found(&topic).during(format!("publish to topic {topic:?}")).on(BACKEND);
                let goes: Vec<bool> =
                    round.places.iter().map(|places| places.iter().any(|place| place.goal == at)).collect();
                round.unknown = false;
                round.refuse(&error, |at, _| goes.get(at).is_some_and(|goes| *goes));
                self.core().rounds.put_back(round);
            }
            _ => {
                round.unknown = true;
                round.fail(&told.strange().on(BACKEND));
            }
        }
        Stirred::default()
    }

    /// A source is another's by now: its forwards are refused, and the others wait for the next round.
    fn over(&self, mut round: Round, of: &Owned) -> Stirred {
        let error = fenced(of).on(BACKEND);
        let mut core = self.core();
        if round.unknown {
            round.fail(&error);
        } else {
            round.refuse(&error, |_, forward| forward.of == *of);
            core.rounds.put_back(round);
        }
        if find(&mut core.owner.shares, of).is_ok() {
            core.lose(&key_of(of));
        }
        Stirred { waker: core.owner.wake_if_told(), ..Stirred::default() }
    }

    fn forwarded(&self, round: Round, told: &Told, copies: Option<Reply>) -> Stirred {
        let (acked, stirred) = self.core().forwarded(&round, Instant::now());
        let counted = &self.shared.counted;
        counted.acked.fetch_add(acked as u64, Ordering::Relaxed);
        counted.commits.fetch_add(1, Ordering::Relaxed);
        let wanted = i64::from(self.shared.settings().copies());
        let copied = copies.and_then(|copies| copies.int()).unwrap_or(0) >= wanted;
        let durability = if copied { Durability::Replicated } else { durability(&self.shared.server()) };
        // A round that was recognised does not tell where its messages lie.
        let mut entries = told.items.iter().skip(1);
        for (forward, places) in round.forwards.into_iter().zip(round.places) {
            let Forward { out, answer, counted, .. } = forward;
            let outcome = |((target, message), place): ((Target, Message), Place)| {
                let position = entries.next().and_then(position);
                if let Some(due) = place.due {
                    self.shared.tasks.mover.expect(&target.topic, due.since(clock::wall()));
                }
                if target.at_least == Some(Durability::Replicated) && !copied {
                    return Published::unknown(write::told(&target, no_replica()), message);
                }
                Published::Acked { partition: place.partition, position, durability }
            };
            let outcomes = Outcomes(out.into_iter().zip(places).map(outcome).collect());
            counted.count(&outcomes);
            _ = answer.send(outcomes);
        }
        stirred
    }
}

impl Core {
    /// Says what is to be stored of each partition with the round; what is another's by now is refused.
    fn prepare(&mut self, round: &mut Round) {
        let mut all: Vec<Owned> = Vec::new();
        for forward in &round.forwards {
            if !all.contains(&forward.of) {
                all.push(forward.of.clone());
            }
        }
        round.home = self.home;
        let mut before = std::mem::take(&mut round.sources);
        for of in all {
            let done = round.done_of(&of);
            match find(&mut self.owner.shares, &of) {
                Ok(share) => round.sources.push(Source {
                    keys: share.log.followed.keys.clone(),
                    life: share.log.life,
                    store: Some(share.store_with(&done)),
                    changes: share.changes,
                    of,
                }),
                Err(error) if !round.unknown => {
                    round.refuse(&error.on(BACKEND), |_, forward| forward.of == of);
                }
                // It is asked what became of it, and not done any more.
                Err(_) => {
                    let known = before.iter().position(|source| source.of == of);
                    round.sources.extend(known.map(|at| Source { store: None, ..before.swap_remove(at) }));
                }
            }
        }
    }

    /// Notes that a round took effect: how many messages that acked.
    fn forwarded(&mut self, round: &Round, now: Instant) -> (usize, Stirred) {
        self.worked();
        let mut acked = 0;
        for source in &round.sources {
            let (Ok(share), Some(store)) = (find(&mut self.owner.shares, &source.of), &source.store) else {
                continue;
            };
            let freed = share.forwarded(&round.done_of(&source.of), store, source.changes, now);
            let (saved, idle) = (share.saved, share.flight.messages == 0);
            acked += freed.messages;
            if share.ending.is_none() {
                self.owner.in_flight.messages = self.owner.in_flight.messages.saturating_sub(freed.messages);
                self.owner.in_flight.bytes = self.owner.in_flight.bytes.saturating_sub(freed.bytes);
            }
            self.owner.saved(&source.of, saved);
            if self.owner.closing.is_some() && idle {
                self.owner.end_share(&key_of(&source.of), GoneReason::Closed, now);
            }
        }
        self.owner.answer_flushes();
        self.owner.room_was_made();
        (acked, Stirred { waker: self.tick(now), ..Stirred::default() })
    }
}

/// Whether it certainly did not reach the server.
fn is_not_done(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<redis::Error>());
    cause.is_some_and(|cause| cause.outcome() == Outcome::NotDone)
}

fn no_replica() -> Error {
    let context = "it is written and acked, but no replica said in time that it has it; wait longer (`wait`), or see the replicas";
    Error::new(ErrorKind::Unavailable, context)
}
