//! Decisions about one partition, one by one.
//!
//! Not here: all of them together (`model.rs`).

use crate::{
    Epoch, Message, MessageId, Position, Timestamp,
    delay::{
        plan::Limits,
        record::{Held, Record},
        shelf::{Job, Report, Shelf, Written},
    },
};
use std::time::Duration;

const LIMITS: Limits = Limits { messages: 100, bytes: 1 << 20, window: 8, purge: 1 << 40 };

struct Bench {
    shelf: Shelf,
    now: Timestamp,
    next: u64,
}

impl Bench {
    /// An owner of that epoch that has read its take.
    fn new(epoch: u64) -> Self {
        Self::with(epoch, LIMITS)
    }

    fn with(epoch: u64, limits: Limits) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut bench = Self { shelf: Shelf::new(Epoch(epoch), limits), now, next: 0 };
        assert_eq!(bench.tick(), [Job::Take]);
        bench.shelf.report(Report::Took(true), now);
        bench.read(Record::Take { epoch: Epoch(epoch) });
        bench
    }

    fn read(&mut self, record: Record) -> Position {
        let at = Position(1, self.next);
        self.next += 1;
        self.shelf.read(at, record, self.now);
        at
    }

    fn message(&mut self, id: u128, seconds: u64) -> Position {
        let held = self.held(id, seconds);
        self.read(Record::Message(held))
    }

    fn held(&self, id: u128, seconds: u64) -> Held {
        let due = self.now + Duration::from_secs(seconds);
        let message = Message::builder().id(MessageId::from_u128(id)).deliver_at(due).build();
        Held { copy: None, sealed: false, partition: None, at_least: None, message }
    }

    fn cancel(&mut self, id: u128) -> Position {
        self.read(Record::Cancel { token: id, id: MessageId::from_u128(id) })
    }

    fn tick(&mut self) -> Vec<Job> {
        self.shelf.tick(self.now)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn report(&mut self, report: Report) {
        self.shelf.report(report, self.now);
    }
}

#[test]
fn a_message_is_closed_before_it_is_moved_and_acked_after() {
    let mut bench = Bench::new(5);
    let at = bench.message(1, 10);
    assert_eq!((bench.tick(), bench.shelf.wake()), (vec![], Some(bench.now + Duration::from_millis(9_800))));
    bench.now = bench.now + Duration::from_millis(9_800);
    assert_eq!(bench.tick(), [Job::Close(vec![at])]);
    bench.report(Report::Closed(vec![at], true));
    assert_eq!(bench.tick(), [], "it is not due");
    bench.now = bench.now + Duration::from_millis(200);
    let [Job::Move(moved)] = &bench.tick()[..] else { panic!("it is due") };
    assert_eq!(moved[0].0, at);
    assert_eq!(bench.shelf.take_acks(), []);
    bench.report(Report::Moved { away: false, done: vec![at], failed: vec![] });
    assert_eq!((bench.tick(), bench.shelf.take_acks()), (vec![Job::Done(vec![at])], vec![at]));
    // What was written about it is settled when it is read.
    let close = bench.read(Record::Close { epoch: Epoch(5), of: vec![at] });
    let done = bench.read(Record::Done { of: vec![at] });
    assert_eq!((bench.shelf.take_acks(), bench.shelf.wake()), (vec![close, done], None));
}

#[test]
fn a_cancel_is_answered_when_it_stands_in_the_log_and_refused_when_it_is_too_late() {
    let mut bench = Bench::new(5);
    let (one, two) = (bench.message(1, 10), bench.message(2, 0));
    let cancel = bench.cancel(1);
    assert_eq!(bench.tick()[..1], [Job::Settle { cancel, token: 1, of: vec![one] }]);
    assert_eq!(bench.shelf.take_acks(), [one], "not the cancel: the next owner may have to answer it");
    bench.report(Report::Answered(cancel, false));
    assert_eq!(bench.tick(), [], "it is tried again in a while");
    bench.pass(1);
    assert_eq!(bench.tick(), [Job::Settle { cancel, token: 1, of: vec![one] }]);
    bench.report(Report::Answered(cancel, true));
    assert_eq!(bench.shelf.take_acks(), [cancel]);
    let [late, again, unknown] = [bench.cancel(2), bench.cancel(1), bench.cancel(9)];
    let refused = [(late, 2), (again, 1), (unknown, 9)].map(|(cancel, token)| Job::Refuse { cancel, token });
    assert_eq!(bench.tick(), refused);
    bench.report(Report::Closed(vec![two], true));
    assert!(matches!(&bench.tick()[..], [Job::Move(_)]));
}

#[test]
fn an_owner_decides_nothing_before_it_has_read_its_take() {
    let mut bench = Bench::new(5);
    let mut next = Shelf::new(Epoch(6), LIMITS);
    let held = bench.held(1, 0);
    next.read(Position(1, 1), Record::Message(held.clone()), bench.now);
    next.read(Position(1, 2), Record::Cancel { token: 1, id: held.message.id }, bench.now);
    assert_eq!(next.tick(bench.now), [Job::Take]);
    next.report(Report::Took(true), bench.now);
    assert_eq!((next.tick(bench.now), next.wake()), (vec![], None));
    // The owner before closed it, behind the cancel: it may have moved it.
    next.read(Position(1, 3), Record::Close { epoch: Epoch(5), of: vec![Position(1, 1)] }, bench.now);
    next.read(Position(1, 4), Record::Take { epoch: Epoch(6) }, bench.now);
    let jobs = next.tick(bench.now);
    assert_eq!(jobs[0], Job::Refuse { cancel: Position(1, 2), token: 1 });
    assert!(matches!(jobs[1], Job::Move(_)));
    // What it writes from now on counts for nothing.
    bench.message(2, 10);
    bench.read(Record::Take { epoch: Epoch(6) });
    assert!(bench.shelf.deposed);
    bench.pass(20);
    assert_eq!((bench.tick(), bench.shelf.wake()), (vec![], None));
}

#[test]
fn copies_and_closes_of_an_owner_before_count_for_nothing() {
    let mut bench = Bench::new(5);
    let (gone, held) = (bench.message(1, 1000), bench.message(2, 1000));
    let cancel = bench.cancel(1);
    bench.tick();
    bench.report(Report::Answered(cancel, true));
    assert_eq!(bench.shelf.take_acks(), [gone, cancel]);
    for (id, from) in [(1, gone), (2, held)] {
        let copy = Held { copy: Some((Epoch(4), from)), ..bench.held(id, 1000) };
        let copy = bench.read(Record::Message(copy));
        assert_eq!(bench.shelf.take_acks(), [copy]);
    }
    let close = bench.read(Record::Close { epoch: Epoch(4), of: vec![held] });
    assert_eq!(bench.shelf.take_acks(), [close]);
    assert_eq!(bench.shelf.entries.keys().collect::<Vec<_>>(), [&held]);
    // A late take does not count either.
    let take = bench.read(Record::Take { epoch: Epoch(4) });
    assert_eq!((bench.shelf.take_acks(), bench.shelf.deposed), (vec![take], false));
}

#[test]
fn what_is_old_is_written_again_and_a_cancel_hits_the_copy_too() {
    let mut bench = Bench::new(5);
    let old = bench.message(1, 100_000);
    for id in 2..20 {
        bench.message(id, 0);
    }
    let (mut copies, mut take) = (Vec::new(), false);
    for _ in 0..40 {
        for job in bench.tick() {
            match job {
                Job::Close(of) => bench.report(Report::Closed(of, true)),
                Job::Move(of) => {
                    let done = of.into_iter().map(|(at, _)| at).collect();
                    bench.report(Report::Moved { away: false, done, failed: vec![] });
                }
                Job::Done(of) => _ = bench.read(Record::Done { of }),
                Job::Copy { from, held } => copies.push((from, held)),
                Job::Take => {
                    take = true;
                    bench.read(Record::Take { epoch: Epoch(5) });
                }
                job => panic!("{job:?}"),
            }
        }
        // Others come and go.
        let other = bench.message(1000, 0);
        bench.read(Record::Done { of: vec![other] });
    }
    assert!(take, "the take is old too");
    let [(from, held)] = &copies[..] else { panic!("{copies:?}") };
    assert_eq!((*from, held.copy), (old, Some((Epoch(5), old))));
    // A cancel comes in between: nothing is answered until the copy is known to be gone too.
    let cancel = bench.cancel(1);
    assert!(!bench.tick().iter().any(|job| matches!(job, Job::Settle { .. })));
    bench.report(Report::Copied(old, Written::Yes));
    let copy = bench.read(Record::Message(held.clone()));
    assert!(bench.tick().contains(&Job::Settle { cancel, token: 1, of: vec![old, copy] }));
    assert!(bench.shelf.entries.is_empty());
}

#[test]
fn nobody_knows_whether_a_copy_is_in_the_log_so_the_partition_is_given_up() {
    let mut bench = Bench::new(5);
    bench.message(1, 100_000);
    for _ in 0..30 {
        let other = bench.message(1000, 0);
        bench.read(Record::Done { of: vec![other] });
    }
    let jobs = bench.tick();
    let Some(Job::Copy { from, .. }) = jobs.iter().find(|job| matches!(job, Job::Copy { .. })) else {
        panic!("{jobs:?}")
    };
    bench.report(Report::Copied(*from, Written::Perhaps));
    assert_eq!((bench.tick(), bench.tick()), (vec![Job::GiveUp], vec![]));
}

#[test]
fn what_memory_has_no_room_for_is_put_away_last_due_first() {
    let mut bench = Bench::with(5, Limits { messages: 8, ..LIMITS });
    let places: Vec<Position> = (0..10).map(|id| bench.message(id, 100 + 10 * id as u64)).collect();
    let jobs = bench.tick();
    let [Job::Close(far)] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!(far[..], places[6..], "until a quarter is free");
    let cancel = bench.cancel(9);
    bench.report(Report::Closed(far.clone(), true));
    let jobs = bench.tick();
    assert_eq!(jobs[0], Job::Refuse { cancel, token: 9 });
    let Job::Away(away) = &jobs[1] else { panic!("{jobs:?}") };
    assert_eq!(away.len(), 4);
    bench.report(Report::Moved { away: true, done: far.clone(), failed: vec![] });
    assert_eq!(bench.tick(), [Job::Done(far.clone())]);
    assert_eq!(bench.shelf.entries.len(), 6);
    // What is due soon is not put away, however many there are.
    (20..40).for_each(|id| _ = bench.message(id, 80));
    bench.tick();
    assert!(bench.shelf.entries.values().filter(|entry| entry.away).count() <= 6);
}

#[test]
fn what_cannot_be_published_is_tried_again_later_each_time() {
    let mut bench = Bench::new(5);
    let at = bench.message(1, 0);
    bench.tick();
    bench.report(Report::Closed(vec![at], true));
    for wait in [1, 2, 4, 8, 16, 32, 64, 64] {
        let jobs = bench.tick();
        assert!(matches!(&jobs[..], [Job::Move(_)]), "{jobs:?}");
        bench.report(Report::Moved { away: false, done: vec![], failed: vec![at] });
        assert_eq!((bench.tick(), bench.shelf.wake()), (vec![], Some(bench.now + Duration::from_secs(wait))));
        bench.pass(wait);
    }
}

#[test]
fn what_a_newer_version_wrote_is_not_purged() {
    let mut bench = Bench::with(1, Limits { purge: 4, ..LIMITS });
    let newer = Position(1, bench.next);
    bench.next += 1;
    bench.shelf.leave(newer);
    for token in 0..10 {
        bench.read(Record::Answer { token, cancelled: true });
    }
    bench.shelf.take_acks();
    // The own take lies before it.
    bench.read(Record::Take { epoch: Epoch(1) });
    bench.shelf.take_acks();
    let purges = bench.tick();
    assert_eq!(purges, [Job::Purge(newer)], "it waits for who can read it");
}
