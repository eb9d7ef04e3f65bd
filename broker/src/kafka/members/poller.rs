//! The thread that polls the client of a member: does what is to be done, one thing after the other, and takes in what comes.
//!
//! Not here: what is to be done (`duty.rs`), what partitions begin with (`look.rs`, `taking.rs`), copying records (`records.rs`).

use super::{
    Member,
    duty::{Job, Placed},
    look,
    records::{Gather, topic},
    storing::{Batch, Verdict},
    verdict::verdict,
};
use crate::{
    Error, ErrorKind,
    balance::TopicPartition,
    kafka::{
        failure::{BACKEND, failed, is_permanent},
        follow::is_damage,
        raw::{Code, Consumer, Place, Told, Trouble},
    },
    members::{Core as _, Shell as _, Stirred, key_of},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long an answer to a commit is left lying while the client is not asked for records.
const ANSWER: Duration = Duration::from_millis(5);
/// How long the client may take to leave the group.
const LEAVE: Duration = Duration::from_secs(5);
/// The pause after a client could not be opened again.
const PAUSE: Duration = Duration::from_secs(1);
/// FENCED_INSTANCE_ID
const FENCED_INSTANCE: Code = Code(82);

/// Something that came beside records.
enum News {
    Problem { code: Code, text: String, place: Option<Place> },
    Assigned(Vec<Place>),
    Revoked { partitions: Vec<Place>, lost: bool },
    Committed { result: Result<(), Trouble>, partitions: Vec<(Place, Result<(), Trouble>)>, token: u64 },
}

/// What the thread has.
pub(super) struct Poller {
    member: Arc<Member>,
    consumer: Consumer,
    gather: Gather,
    /// The commit that is under way.
    open: Option<Batch>,
    /// When a problem of the client was last written down: they come without end while servers are away.
    written: Option<Instant>,
    /// The group knows it.
    joined: bool,
}

/// Tells who polls that the thread ended.
struct Ended(Arc<Member>);

impl Drop for Ended {
    fn drop(&mut self) {
        // Only a thread that broke off leaves it open: who polls is not to wait for ever.
        let mut core = self.0.core();
        if !core.owner.over {
            core.end(
                Error::new(ErrorKind::Unavailable, "the thread that polls Kafka ended; subscribe again")
                    .on(BACKEND),
            );
        }
        let waker = core.owner.wake_if_told();
        drop(core);
        self.0.stir(Stirred { waker, ..Stirred::default() });
        self.0.joined.notify_waiters();
    }
}

impl Poller {
    pub(super) fn new(member: Arc<Member>, consumer: Consumer) -> Self {
        Self { member, consumer, gather: Gather::default(), open: None, written: None, joined: false }
    }

    /// Works until the member has ended.
    pub(super) fn run(mut self) {
        let ended = Ended(Arc::clone(&self.member));
        self.work();
        let Self { member, consumer, .. } = self;
        #[cfg(any(test, feature = "conformance"))]
        if member.core().killed {
            return consumer.abandon();
        }
        consumer.close(LEAVE);
        let waker = member.core().left();
        member.stir(Stirred { waker, ..Stirred::default() });
        drop(ended);
    }

    fn work(&mut self) {
        loop {
            let job = {
                let mut core = self.member.core();
                let now = Instant::now();
                let waker = core.tick(now);
                let job = core.next_job(now);
                self.member.count(&mut core);
                if let (None, Job::Moment(until)) = (&waker, &job) {
                    let long = until.saturating_duration_since(now);
                    let long = if core.committing.is_some() { long.min(ANSWER) } else { long };
                    // Under the lock: who makes room is not to be missed.
                    self.member.wait(core, long);
                    self.answers();
                    continue;
                }
                drop(core);
                self.member.stir(Stirred { waker, ..Stirred::default() });
                job
            };
            match job {
                Job::Wait(until, most) => self.take(until.saturating_duration_since(Instant::now()), most),
                Job::Moment(_) => {}
                Job::End | Job::Leave => return,
                job => self.act(job),
            }
        }
    }

    fn act(&mut self, job: Job) {
        let done = match &job {
            Job::Subscribe(topics) => {
                let names: Vec<&str> = topics.iter().map(crate::Topic::as_str).collect();
                self.consumer.subscribe(&names)
            }
            Job::Answer(keys) | Job::Unassign(keys) => {
                keys.iter().for_each(|key| self.gather.end(key));
                self.consumer.incremental_unassign(&places(keys))
            }
            Job::Assign(list) => self.assign(list),
            Job::Hold(keys) => self.consumer.pause(&places(keys)),
            Job::Resume(keys) => self.consumer.resume(&places(keys)),
            Job::Commit(batch) => self.commit(batch.clone()),
            Job::Look { keys, check } => {
                look::spawn(&self.member, keys.clone(), check.clone());
                Ok(())
            }
            Job::Reopen => self.reopen(),
            Job::Wait(..) | Job::Moment(_) | Job::Leave | Job::End => Ok(()),
        };
        if let Err(trouble) = done {
            tracing::warn!(%trouble, ?job, group = %self.member.group, "a Kafka client did not do what it was told");
            let mut core = self.member.core();
            match &job {
                Job::Assign(list) => core.not_placed(list, Instant::now()),
                // It cannot be known what it reads: another client is opened.
                Job::Answer(_) | Job::Unassign(_) | Job::Subscribe(_) => {
                    _ = core.failed(false, Instant::now())
                }
                _ => {}
            }
        }
    }

    fn assign(&mut self, list: &[Placed]) -> Result<(), Trouble> {
        let place = |placed: &Placed| {
            let offset = i64::try_from(placed.offset).unwrap_or(i64::MAX);
            Place { offset, ..place_of(&placed.key) }
        };
        list.iter().for_each(|placed| self.gather.begin(&placed.key, placed.life));
        self.consumer.incremental_assign(&list.iter().map(place).collect::<Vec<_>>())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Trouble> {
        let mut places = Vec::with_capacity(batch.commits.len() + batch.starts.len());
        for commit in &batch.commits {
            let key = key_of(&commit.of);
            places.push(stored(&key, commit.position.1, &commit.metadata));
        }
        places.extend(batch.starts.iter().map(|start| stored(&start.of, start.offset, &start.metadata)));
        #[cfg(any(test, feature = "conformance"))]
        self.lose_metadata(&batch, &mut places);
        let token = batch.token;
        self.open = Some(batch);
        if let Err(trouble) = self.consumer.commit(&places, token) {
            self.committed(Err(trouble), &[], token);
        }
        Ok(())
    }

    /// A double, where it is asked for: stores nothing beside the offset of what goes.
    #[cfg(any(test, feature = "conformance"))]
    fn lose_metadata(&self, batch: &Batch, places: &mut [Place]) {
        if !self.member.shared.members.forgetful.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let core = self.member.core();
        for (commit, place) in batch.commits.iter().zip(places) {
            let share = core.owner.shares.get(&key_of(&commit.of));
            if share.is_some_and(|share| share.ending.is_some() || share.revoking.is_some()) {
                place.metadata = None;
            }
        }
    }

    /// What a commit came to: the result of each partition where there is one, else that of the whole.
    fn committed(
        &mut self,
        result: Result<(), Trouble>,
        partitions: &[(Place, Result<(), Trouble>)],
        token: u64,
    ) {
        let Some(batch) = self.open.take_if(|batch| batch.token == token) else { return };
        let servers = &self.member.servers;
        // Where some were refused the others were written; else the answer is that of all.
        let parted = partitions.iter().any(|(_, answer)| answer.is_err());
        let told = partitions.iter().map(|(place, answer)| ((&*place.topic, place.partition), answer));
        let told: HashMap<(&str, i32), &Result<(), Trouble>> = told.collect();
        let of = |key: &TopicPartition| -> Verdict {
            match told.get(&(key.0.as_str(), i32::try_from(key.1).unwrap_or(i32::MAX))) {
                Some(Err(trouble)) => verdict(servers, Err(trouble.clone())),
                Some(Ok(())) if parted => Verdict::Stored,
                Some(Ok(())) => verdict(servers, result.clone()),
                None => {
                    result.clone().map_or_else(|trouble| verdict(servers, Err(trouble)), |()| Verdict::Again)
                }
            }
        };
        let mut verdicts: Vec<Verdict> = batch.commits.iter().map(|commit| of(&key_of(&commit.of))).collect();
        verdicts.extend(batch.starts.iter().map(|start| of(&start.of)));
        let stirred = self.member.core().committed(batch, verdicts, Instant::now());
        self.member.stir(Stirred { keeper: false, ..stirred });
    }

    /// Asks for the answers to commits alone.
    fn answers(&mut self) {
        if self.open.is_none() {
            return;
        }
        let mut answers = Vec::new();
        self.consumer.answers(&mut |told| {
            if let Told::Committed { result, partitions, token } = told {
                answers.push((result, partitions, token));
            }
        });
        for (result, partitions, token) in answers {
            self.committed(result, &partitions, token);
        }
    }

    /// Asks the client for what comes, and for so many records.
    fn take(&mut self, wait: Duration, most: usize) {
        let Self { consumer, gather, .. } = self;
        let mut news = Vec::new();
        consumer.next(wait, most, &mut |told| match told {
            Told::Record(record) => gather.record(&record),
            Told::Problem { code, text, place: Some(place) } if is_damage(code.0) => {
                gather.damaged(&place, &text)
            }
            Told::Problem { code, text, place } => news.push(News::Problem { code, text, place }),
            Told::Assigned(partitions) => news.push(News::Assigned(partitions)),
            Told::Revoked { partitions, lost } => news.push(News::Revoked { partitions, lost }),
            Told::Committed { result, partitions, token } => {
                news.push(News::Committed { result, partitions, token });
            }
        });
        let mut runs = gather.take();
        let now = Instant::now();
        {
            let mut core = self.member.core();
            core.polled = now;
            let waker = core.take(&mut runs, now);
            drop(core);
            self.member.stir(Stirred { waker, ..Stirred::default() });
        }
        gather.again(runs);
        news.into_iter().for_each(|news| self.tell(news, now));
        self.look_whether_it_joined(now);
    }

    fn tell(&mut self, news: News, now: Instant) {
        let stirred = match news {
            News::Committed { result, partitions, token } => {
                return self.committed(result, &partitions, token);
            }
            News::Assigned(partitions) => {
                // At once: all partitions wait for it. They are read when it is known from where.
                if let Err(trouble) = self.consumer.incremental_assign(&[]) {
                    tracing::warn!(%trouble, "a Kafka client did not take the answer to an assignment");
                }
                self.member.core().assigned(keys(&partitions), now)
            }
            News::Revoked { partitions, lost } => {
                self.member.core().revoke(keys(&partitions).collect(), lost, now)
            }
            News::Problem { code, text, place } => self.problem(code, &text, place, now),
        };
        self.member.stir(Stirred { keeper: false, ..stirred });
    }

    fn problem(&mut self, code: Code, text: &str, place: Option<Place>, now: Instant) -> Stirred {
        if let (Code::AUTO_OFFSET_RESET | Code::OFFSET_OUT_OF_RANGE, Some(place)) = (code, &place) {
            let wanted = u64::try_from(place.offset).unwrap_or(0);
            let mut core = self.member.core();
            keys(std::slice::from_ref(place)).for_each(|key| core.stuck(&key, wanted));
            return Stirred::default();
        }
        if let Some(fatal) = self.consumer.fatal() {
            let fenced = fatal.code == FENCED_INSTANCE;
            tracing::warn!(%fatal, group = %self.member.group, "a Kafka client gave up for good");
            let mut core = self.member.core();
            if core.joined.is_none() && !fenced {
                // Such as a static name that a group of the newer protocol does not let another take.
                core.end(failed(&self.member.servers, &fatal).on(BACKEND));
                return Stirred { waker: core.owner.wake_if_told(), keeper: true, feed: false };
            }
            return core.failed(fenced, now);
        }
        let mut core = self.member.core();
        if ends(core.joined.is_some(), code) {
            let trouble = Trouble::new(code, text);
            core.end(failed(&self.member.servers, &trouble).on(BACKEND));
            return Stirred { waker: core.owner.wake_if_told(), keeper: true, feed: false };
        }
        drop(core);
        if code == Code::UNKNOWN_TOPIC_OR_PART {
            self.member.core().next_check = now;
        }
        if self.written.is_none_or(|at| now >= at + PAUSE) {
            self.written = Some(now);
            tracing::debug!(code = code.name(), text, group = %self.member.group, "a Kafka client has a problem");
        }
        Stirred::default()
    }

    /// Tells who waits for it that the group knows the member; a group may say nothing to who gets nothing.
    fn look_whether_it_joined(&mut self, now: Instant) {
        if self.joined {
            return;
        }
        let mut core = self.member.core();
        if core.joined.is_none() && self.consumer.membership().is_some_and(|(generation, _)| generation > 0) {
            core.joined = Some(now);
        }
        self.joined = core.joined.is_some() || core.owner.over;
        drop(core);
        if self.joined {
            self.member.joined.notify_waiters();
        }
    }

    fn reopen(&mut self) -> Result<(), Trouble> {
        let member = Arc::clone(&self.member);
        match member.open_client() {
            Ok(consumer) => {
                let old = std::mem::replace(&mut self.consumer, consumer);
                old.close(LEAVE);
                member.heed(&self.consumer);
                self.gather.clear();
                self.open = None;
                member.core().reopened(Instant::now());
            }
            Err(error) => {
                tracing::warn!(%error, group = %member.group, "a Kafka client could not be opened again");
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }
}

/// Whether a problem is the end: somebody has to let this user do it, or to correct the settings. What was right once may be refused for a moment while
/// that is changed, but for what the servers say of rights: then nothing would come any more, without a word.
const fn ends(joined: bool, code: Code) -> bool {
    // TOPIC_, GROUP_AUTHORIZATION_FAILED
    matches!(code.0, 29 | 30) || (!joined && is_permanent(code))
}

fn place_of(key: &TopicPartition) -> Place {
    Place::new(&Arc::from(key.0.as_str()), i32::try_from(key.1).unwrap_or(i32::MAX), -1001)
}

fn places(keys: &[TopicPartition]) -> Vec<Place> {
    keys.iter().map(place_of).collect()
}

fn stored(key: &TopicPartition, offset: u64, metadata: &str) -> Place {
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    Place { offset, metadata: Some(metadata.as_bytes().to_vec()), ..place_of(key) }
}

/// Those that have names of ours.
fn keys(places: &[Place]) -> impl Iterator<Item = TopicPartition> + '_ {
    places.iter().filter_map(|place| Some((topic(&place.topic)?, u32::try_from(place.partition).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_may_not_read_its_topic_ends_and_does_not_wait_for_ever() {
        for code in [29, 30] {
            assert!(ends(true, Code(code)) && ends(false, Code(code)), "{code}");
        }
        // Such as a password that the servers do not know yet.
        assert!(ends(false, Code(-169)) && !ends(true, Code(-169)));
        for passing in [-195, -187, 3, 5, 6, 7] {
            assert!(!ends(true, Code(passing)) && !ends(false, Code(passing)), "{passing}");
        }
    }
}
