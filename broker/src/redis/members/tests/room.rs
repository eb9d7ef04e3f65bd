//! How much a member reads ahead, and of what: the logs here have more than it asks for, whatever it asks for.
//!
//! Not here: how much may be in flight (`../../../in_flight.rs`).

use super::{LIFE, Marks, Play, key, of, p};
use crate::{
    Error, ErrorKind, Event,
    members::Core as _,
    redis::{feed::Brought, follow::Entry, members::reading::Plan},
};
use bytes::Bytes;
use std::{task::Waker, time::Duration};

/// Whose logs have entries of so many bytes, without end.
struct Logs {
    play: Play,
    entry: Bytes,
    /// How many entries reads brought, and how many reads brought any.
    brought: usize,
    reads: usize,
}

impl Logs {
    fn of(count: u32, bytes: usize) -> Self {
        let mut play = Play::of(count);
        play.act();
        play.told();
        Self { play, entry: vec![1; bytes].into(), brought: 0, reads: 0 }
    }

    fn plan(&mut self) -> Plan {
        self.play.core.plan(Duration::from_secs(1), self.play.now)
    }

    /// Reads until nothing more is asked for.
    fn read(&mut self) {
        while let plan = self.plan()
            && !plan.asks.is_empty()
        {
            let field = (Bytes::from_static(b"payload"), self.entry.clone());
            let entry = |seq| Entry { at: p(seq), fields: vec![field.clone()] };
            let brought: Vec<_> = plan
                .asks
                .iter()
                .map(|ask| {
                    let first = if ask.after.0 < LIFE { 1 } else { ask.after.1 + 1 };
                    let entries = (first..first + plan.count as u64).map(entry).collect();
                    Brought { entries, marks: Marks { life: Some(LIFE), removed: None } }
                })
                .collect();
            self.reads += 1;
            self.brought += brought.iter().map(|brought| brought.entries.len()).sum::<usize>();
            _ = self.play.core.take(&plan, brought, self.play.now);
            assert!(self.reads < 1_000_000, "it reads without end");
        }
    }

    /// Takes what is handed out next and acks it: of which partition, and how many.
    fn work(&mut self) -> Option<(u32, usize)> {
        loop {
            let (event, stirred) = self.play.core.poll(Waker::noop(), self.play.now);
            if stirred.feed {
                self.read();
                if event.is_none() {
                    continue;
                }
            }
            match event?.unwrap() {
                Event::Batch(batch) => {
                    let done: Vec<_> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                    self.play.core.owner.ack(&batch.of, &done, self.play.now).unwrap();
                    return Some((batch.of.partition, done.len()));
                }
                _ => continue,
            }
        }
    }
}

#[test]
fn a_partition_that_is_stuck_does_not_keep_others_from_being_read() {
    for (count, bytes) in [(2, 1 << 20), (16, 100), (16, 1 << 20)] {
        let mut logs = Logs::of(count, bytes);
        let (stuck, moves) = (0..count - 1, count - 1);
        // All that has room of those before it is read, and waits.
        logs.play.core.pause(&of(moves, u64::from(count)), true);
        logs.read();
        stuck.for_each(|number| _ = logs.play.core.pause(&of(number, u64::from(number) + 1), true));
        _ = logs.play.core.pause(&of(moves, u64::from(count)), false);
        logs.read();
        for _ in 0..1000 {
            assert_eq!(logs.work().map(|(number, _)| number), Some(moves), "{count} of {bytes} bytes");
        }
        let ahead = logs.play.core.owner.ahead;
        assert!(
            ahead.messages <= 8192 && ahead.bytes <= (16 << 20) + count as usize * (bytes + 128),
            "{ahead:?}"
        );
        assert!(logs.play.core.owner.shares.contains_key(&key(moves)));
    }
}

#[test]
fn what_is_read_is_handed_out_and_not_read_again_however_slow_the_member_is() {
    for (count, bytes) in [(1, 100), (8, 100), (64, 100), (64, 10_000), (5000, 100), (8, 1 << 20)] {
        let mut logs = Logs::of(count, bytes);
        logs.read();
        let (before, reads) = (logs.brought, logs.reads);
        let mut handed = 0;
        while handed < 20_000 {
            handed += logs.work().unwrap().1;
        }
        let (brought, reads) = (logs.brought - before, logs.reads - reads);
        let said =
            format!("{count} of {bytes} bytes: {brought} brought and {handed} handed out by {reads} reads");
        println!("{said}");
        assert!(brought <= handed + handed / 4, "{said}");
    }
}

#[test]
fn a_member_that_is_slow_holds_no_more_than_the_bound_however_many_partitions_it_owns() {
    for (count, bytes) in [(1024, 1 << 20), (17, 64 << 20), (1024, 60 << 10)] {
        let mut logs = Logs::of(count, bytes);
        logs.read();
        let mut handed = vec![0; count as usize];
        for _ in 0..4 * count {
            let ahead = logs.play.core.owner.ahead.bytes;
            assert!(ahead <= (24 << 20) + 16 * bytes, "{count} of {bytes}: {ahead} bytes lie ready");
            let (number, some) = logs.work().unwrap();
            handed[number as usize] += some;
        }
        assert!(handed.iter().all(|handed| *handed > 0), "{count} of {bytes}: {handed:?}");
    }
}

#[test]
fn what_is_too_large_at_once_is_asked_for_again_in_smaller_parts() {
    let mut logs = Logs::of(100, 100);
    let too_large = Error::new(ErrorKind::TooLarge, "an answer of more than a gibibyte");
    let asked = |plan: &Plan| plan.asks.len() * plan.count;
    let first = asked(&logs.plan());
    assert!(first <= 16, "{first}");
    assert!(logs.play.core.can_do_with_less(&too_large));
    let plan = logs.plan();
    assert_eq!((asked(&plan), plan.wait), (1, Duration::ZERO), "the others have their turn at once");
    let other = Error::new(ErrorKind::Unavailable, "no answer");
    assert!(!logs.play.core.can_do_with_less(&too_large) && !logs.play.core.can_do_with_less(&other));
}
