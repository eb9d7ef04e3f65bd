//! Tests of what is refused for want of room: at the bound of a topic whose group lags, and at what the store may take.

use super::{
    segments::{STORED, bench, message, spec},
    *,
};
use crate::Start;
use ropeway_store::Usage;

const SECOND: Duration = Duration::from_secs(1);

impl Bench {
    fn try_publish(&mut self, message: Message) -> Result<(), crate::Error> {
        match self.step(|core, step| core.publish(step, &topic().into(), &[message])).remove(0) {
            Verdict::Placed { .. } => Ok(()),
            Verdict::Refused(error) => Err(error),
        }
    }

    /// Publishes until it is refused; answers how many were taken, and why no more.
    fn fill(&mut self) -> (u64, crate::Error) {
        for taken in 0..1000 {
            if let Err(error) = self.try_publish(message(taken)) {
                return (taken, error);
            }
        }
        panic!("never refused");
    }
}

#[test]
fn at_its_bound_a_topic_takes_no_more_while_a_live_group_lags() {
    let mut bench = bench(spec(1, None, Some(20 * STORED)));
    let member = bench.join(|s| s.in_flight = Bound { messages: 15, bytes: 1 << 20 });
    let (taken, error) = bench.fill();
    assert_eq!(taken, 30, "the bound and a segment");
    assert_eq!(error.kind(), ErrorKind::Throttled);
    let text = error.to_string();
    for part in ["\"t\"", "\"g\"", "30 messages", "3000 bytes", "2000"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(bench.core.shortage().unwrap().contains("30 messages"));
    assert_eq!(bench.range(0), (0, 30), "nothing went and nothing was written");
    // What makes room works: 9 of the 10 messages of the oldest segment are not all of it.
    let (of, got) = {
        let (_, got) = bench.drain(member);
        (got[0].0.clone(), got)
    };
    let done: Vec<Position> = got.iter().map(|(_, position)| *position).collect();
    bench.core.ack(member, &of, &done[..9], bench.now.steady).unwrap();
    assert!(bench.try_publish(message(0)).is_err());
    let verdicts = bench.step(|core, step| core.forward(step, member, &of, &done[9..10], &[]));
    assert!(verdicts.is_empty());
    bench.try_publish(message(30)).unwrap();
    assert_eq!((bench.range(0), bench.core.shortage()), ((10, 31), None));
}

#[test]
fn a_group_that_holds_a_topic_at_its_bound_may_forward_back_to_it() {
    let mut bench = bench(spec(1, None, Some(20 * STORED)));
    let member = bench.join(|s| s.in_flight = Bound { messages: 15, bytes: 1 << 20 });
    let (taken, _) = bench.fill();
    let (_, got) = bench.drain(member);
    for (n, (of, position)) in (taken..).zip(got.iter().take(10)) {
        assert!(bench.try_publish(message(n)).is_err());
        let out = [(topic().into(), message(n))];
        let verdicts = bench.step(|core, step| core.forward(step, member, of, &[*position], &out));
        assert!(matches!(verdicts[..], [Verdict::Placed { .. }]), "{verdicts:?}");
    }
    assert_eq!(bench.range(0), (10, taken + 10), "what it finished goes");
}

#[test]
fn a_topic_at_its_bound_goes_on_when_the_group_is_deleted_expired_or_purged_past() {
    for how in 0..3 {
        let mut bench = bench(spec(1, None, Some(20 * STORED)));
        let member = bench.join(|_| ());
        bench.fill();
        bench.step(|core, step| core.leave(step, member));
        assert!(bench.try_publish(message(0)).is_err(), "it had a member");
        match how {
            0 => bench.step(|core, step| core.delete_group(step, &Group::new("g").unwrap())).unwrap(),
            1 => bench.pass(SECOND * 3601),
            _ => bench.step(|core, step| core.purge_topic(step, &topic(), None, Start::Latest)).unwrap(),
        }
        bench.try_publish(message(0)).unwrap();
    }
}

#[test]
fn without_a_bound_or_a_group_a_topic_is_never_full() {
    for bytes in [None, Some(20 * STORED)] {
        let mut bench = bench(spec(1, Some(3600), bytes));
        if bytes.is_none() {
            bench.join(|_| ());
        }
        bench.publish_each(0, 0..300);
        assert_eq!(bench.core.shortage(), None);
    }
}

#[test]
fn messages_that_were_taken_before_come_though_their_topic_is_full() {
    let mut bench = bench(spec(1, None, Some(20 * STORED)));
    let member = bench.join(|_| ());
    let due = bench.now.time_of_day + SECOND * 60;
    let mut later = message(7);
    later.deliver_at = Some(due);
    bench.try_publish(later.clone()).unwrap();
    bench.fill();
    assert!(bench.try_publish(later).is_err(), "a delayed message counts as any other");
    bench.tick(SECOND * 61);
    assert_eq!(bench.consume(member).0, 31);
}

#[test]
fn what_the_store_takes_is_bounded_and_all_but_publishing_goes_on() {
    for (most, min_free, setting) in [(1_000_000, 0, "max_disk"), (u64::MAX, 500_000, "min_free")] {
        let mut bench = Bench::over(
            Arc::new(MemoryStore::new()),
            Rules { quota: Quota { setting: "max_disk", most, min_free, at_once: false }, ..rules() },
        );
        bench.create(spec(1, None, None)).unwrap();
        let member = bench.join(|_| ());
        // A moment later it would be too much: what was published since counts.
        let written = bench.core.written();
        bench.core.measured(Usage { bytes: 995_000, free: Some(505_000) }, written);
        let (taken, error) = bench.fill();
        assert!((10..50).contains(&taken), "{taken}");
        assert_eq!(error.kind(), ErrorKind::Throttled);
        assert!(error.to_string().contains(setting), "{error}");
        let mut later = message(7);
        later.deliver_at = Some(bench.now.time_of_day + SECOND);
        assert!(bench.try_publish(later).is_err());
        let (_, got) = bench.drain(member);
        let (of, position) = got[0].clone();
        // The reserve of forwards: a sixteenth more is taken, or half of what is kept free.
        let out = [(topic().into(), sized(1))];
        let written = bench.core.written();
        bench.core.measured(Usage { bytes: 1_063_000, free: Some(249_000) }, written);
        let forwarded = bench.step(|core, step| core.forward(step, member, &of, &[position], &out));
        assert!(matches!(&forwarded[0], Verdict::Refused(error) if error.kind() == ErrorKind::Throttled));
        bench.core.measured(Usage { bytes: 1_061_000, free: Some(251_000) }, written);
        let forwarded = bench.step(|core, step| core.forward(step, member, &of, &[got[2].1], &out));
        assert!(matches!(&forwarded[0], Verdict::Placed { .. }), "{forwarded:?}");
        assert!(bench.try_publish(message(0)).is_err(), "it is there for forwards alone");
        bench.step(|core, step| core.forward(step, member, &of, &[position], &[]));
        bench.core.ack(member, &of, &[got[1].1], bench.now.steady).unwrap();
        let info = bench.core.describe_group(&Group::new("g").unwrap(), bench.now.time_of_day).unwrap();
        assert_eq!(info.partitions[0].unfinished, Some(taken - 2));
        bench.step(|core, step| core.purge_topic(step, &topic(), None, Start::Latest)).unwrap();
        assert!(bench.core.shortage().unwrap().contains(setting));
        let written = bench.core.written();
        bench.core.measured(Usage { bytes: 10_000, free: Some(1_000_000) }, written);
        bench.try_publish(message(0)).unwrap();
        assert_eq!(bench.core.shortage(), None);
    }
}

#[test]
fn delayed_messages_wait_where_even_the_reserve_is_short() {
    let quota = Quota { setting: "max_disk", most: u64::MAX, min_free: 500_000, at_once: false };
    let mut bench = Bench::over(Arc::new(MemoryStore::new()), Rules { quota, ..rules() });
    bench.create(spec(1, None, None)).unwrap();
    let mut later = message(7);
    later.deliver_at = Some(bench.now.time_of_day + SECOND);
    bench.core.measured(Usage { bytes: 0, free: Some(1_000_000) }, 0);
    bench.try_publish(later).unwrap();
    bench.core.measured(Usage { bytes: 0, free: Some(200_000) }, 0);
    bench.tick(SECOND * 5);
    assert_eq!(bench.range(0).1, 0);
    bench.core.measured(Usage { bytes: 0, free: Some(600_000) }, 0);
    bench.tick(SECOND * 5);
    assert_eq!(bench.range(0).1, 1);
}

#[test]
fn what_is_in_memory_is_measured_when_it_seems_to_be_too_much() {
    let quota = Quota { setting: "max_memory", most: 20_000, min_free: 0, at_once: true };
    let mut bench = Bench::over(Arc::new(MemoryStore::new()), Rules { quota, ..rules() });
    bench.create(spec(1, None, None)).unwrap();
    let (taken, error) = bench.fill();
    assert!((100..200).contains(&taken) && error.to_string().contains("max_memory"), "{taken} {error}");
    bench.step(|core, step| core.purge_topic(step, &topic(), None, Start::Latest)).unwrap();
    bench.try_publish(message(0)).unwrap();
}

#[test]
fn a_store_that_is_lost_takes_nothing_more_and_says_why() {
    let mut bench = Bench::new(1);
    bench.core.lose(&crate::Error::new(ErrorKind::Corrupt, "the directory is gone"));
    let error = bench.try_publish(message(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.to_string().contains("gone"), "{cause}");
}
