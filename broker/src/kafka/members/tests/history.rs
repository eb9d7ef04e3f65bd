//! Whatever happens in whatever order: nothing is lost, positions pass nothing that is not acked, and what is told of a partition has its order.
//!
//! Not here: single situations (`mod.rs`).

use super::*;
use proptest::prelude::*;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Publish(u32, u64),
    Read(u32, u64),
    Poll,
    /// Acks one of what is out.
    Ack(prop::sample::Index),
    GiveUp(u32),
    Pause(u32, bool),
    Pass(u64),
    Act,
    Assign(u32),
    Revoke(u32),
    Lose,
    Answers(u8),
    HoldCommits(bool),
    HoldLooks(bool),
    Purge(u32, u64),
    Fail,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let partition = 0u32..3;
    let step = prop_oneof![
        3 => (partition.clone(), 1u64..20).prop_map(|(p, n)| Step::Publish(p, n)),
        4 => (partition.clone(), 1u64..30).prop_map(|(p, n)| Step::Read(p, n)),
        5 => Just(Step::Poll),
        6 => any::<prop::sample::Index>().prop_map(Step::Ack),
        1 => partition.clone().prop_map(Step::GiveUp),
        1 => (partition.clone(), any::<bool>()).prop_map(|(p, on)| Step::Pause(p, on)),
        4 => (1u64..3000).prop_map(Step::Pass),
        5 => Just(Step::Act),
        2 => partition.clone().prop_map(Step::Assign),
        1 => partition.clone().prop_map(Step::Revoke),
        1 => Just(Step::Lose),
        2 => (0u8..4).prop_map(Step::Answers),
        1 => any::<bool>().prop_map(Step::HoldCommits),
        1 => any::<bool>().prop_map(Step::HoldLooks),
        1 => (partition, 1u64..10).prop_map(|(p, n)| Step::Purge(p, n)),
        1 => Just(Step::Fail),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What was told and done, and what it must keep to.
#[derive(Default)]
struct History {
    /// What was told last of each partition and epoch.
    state: BTreeMap<(u32, Epoch), &'static str>,
    epochs: BTreeMap<u32, Epoch>,
    out: Vec<(Owned, Position)>,
    acked: BTreeMap<u32, BTreeSet<u64>>,
    /// What was removed, or passed over as a gap that was told.
    removed: BTreeMap<u32, u64>,
}

impl History {
    fn note(&mut self, event: Event) {
        match event {
            Event::Assigned(list) => {
                for one in list {
                    let last = self.epochs.insert(one.of.partition, one.of.epoch);
                    assert!(last.is_none_or(|last| last < one.of.epoch), "epochs grow");
                    assert!(self.state.insert((one.of.partition, one.of.epoch), "assigned").is_none());
                }
            }
            Event::Revoking { partitions, .. } => {
                for of in partitions {
                    self.step(&of, "revoking", &["assigned", "told"]);
                }
            }
            Event::Gone(of, _) => {
                self.step(&of, "gone", &["assigned", "told", "revoking"]);
                self.out.retain(|(out, _)| *out != of);
            }
            Event::Batch(batch) => {
                self.step(&batch.of, "told", &["assigned", "told"]);
                for delivery in batch.deliveries {
                    let acked = self.acked.entry(batch.of.partition).or_default();
                    self.out.push((batch.of.clone(), delivery.position));
                    // It may come again after its ack was not stored; then it is acked again.
                    acked.remove(&delivery.position.1);
                }
            }
            Event::Gap { of, .. } | Event::CaughtUp(of) | Event::Unreadable { of, .. } => {
                self.step(&of, "told", &["assigned", "told"]);
            }
        }
    }

    fn step(&mut self, of: &Owned, now: &'static str, after: &[&str]) {
        let before = self.state.insert((of.partition, of.epoch), now);
        assert!(before.is_some_and(|before| after.contains(&before)), "{now} after {before:?} of {of:?}");
    }

    /// What is stored passes nothing that was not acked and is there.
    fn check(&self, play: &Play) {
        for (partition, log) in &play.logs {
            let Some(stored) = &log.stored else { continue };
            let acked = self.acked.get(partition).cloned().unwrap_or_default();
            let out: BTreeSet<u64> =
                self.out.iter().filter(|(of, _)| of.partition == *partition).map(|(_, at)| at.1).collect();
            let removed = self.removed.get(partition).copied().unwrap_or(0);
            for offset in removed..stored.offset {
                assert!(
                    acked.contains(&offset) || out.contains(&offset),
                    "{offset} of {partition} was passed over"
                );
            }
        }
    }
}

fn run(steps: Vec<Step>) {
    let mut play = Play::with(3, |rules| rules.common.bound = Bound { messages: 16, bytes: 1 << 20 });
    let mut history = History::default();
    // What the group believes that the member has.
    let mut given: BTreeSet<u32> = BTreeSet::new();
    for step in steps {
        match step {
            Step::Publish(partition, count) => play.publish(partition, count),
            Step::Read(partition, most) => play.read(partition, most),
            Step::Poll => {
                if let Some(Ok(event)) = play.poll() {
                    history.note(event);
                }
            }
            Step::Ack(index) if !history.out.is_empty() => {
                let (of, at) = history.out[index.index(history.out.len())].clone();
                if play.core.owner.ack(&of, &[at], play.now).is_ok() {
                    history.out.retain(|(out, position)| (out, position) != (&of, &at));
                    history.acked.entry(of.partition).or_default().insert(at.1);
                }
            }
            Step::Ack(_) => {}
            Step::GiveUp(partition) | Step::Pause(partition, _) => {
                let Some(of) = play.core.owner.shares.get(&key(partition)).map(|share| share.of.clone())
                else {
                    continue;
                };
                match step {
                    Step::Pause(_, paused) => _ = play.core.pause(&of, paused),
                    _ => _ = play.core.give_up(&of, play.now),
                }
            }
            Step::Pass(millis) => play.pass(Duration::from_millis(millis)),
            Step::Act => act(&mut play, &mut given),
            // The group gives nothing while it waits for an answer.
            Step::Assign(partition) if play.core.revoked.is_none() => {
                given.insert(partition);
                play.give([partition]);
            }
            Step::Revoke(partition) if play.core.revoked.is_none() && given.remove(&partition) => {
                play.take_back([partition], false);
            }
            Step::Lose => {
                let all: Vec<u32> = std::mem::take(&mut given).into_iter().collect();
                play.take_back(all, true);
            }
            Step::Assign(_) | Step::Revoke(_) => {}
            Step::Answers(which) => {
                play.answer = match which {
                    0 | 1 => || Verdict::Stored,
                    2 => || Verdict::Again,
                    _ => || Verdict::Refused(Error::new(ErrorKind::Unauthorized, "no right")),
                };
            }
            Step::HoldCommits(on) => {
                play.hold_commits = on;
                if let Some(batch) = play.open.take_if(|_| !on) {
                    play.commit(batch);
                }
            }
            Step::HoldLooks(on) => {
                play.hold_looks = on;
                if let Some((keys, check)) = play.look.take_if(|_| !on) {
                    play.looked(&keys, &check);
                }
            }
            Step::Purge(partition, count) => {
                let log = play.logs.get_mut(&partition).unwrap();
                log.low = log.high.min(log.low + count);
                let low = log.low;
                history.removed.insert(partition, low);
                if let Some(from) = play.reads.get(&partition).copied().filter(|from| *from < low) {
                    play.core.stuck(&key(partition), from);
                }
            }
            Step::Fail => {
                given.clear();
                _ = play.core.failed(false, play.now);
            }
        }
        history.check(&play);
    }
    finish(&mut play, &mut history, &mut given);
}

fn act(play: &mut Play, given: &mut BTreeSet<u32>) {
    if play.act().contains("reopen") {
        given.clear();
        play.open = None;
    }
}

/// When all goes well again, all that is there is delivered and done.
fn finish(play: &mut Play, history: &mut History, given: &mut BTreeSet<u32>) {
    play.answer = || Verdict::Stored;
    (play.hold_commits, play.hold_looks) = (false, false);
    if let Some(batch) = play.open.take() {
        play.commit(batch);
    }
    if let Some((keys, check)) = play.look.take() {
        play.looked(&keys, &check);
    }
    for round in 0..400 {
        play.pass(Duration::from_millis(700));
        act(play, given);
        if play.core.revoked.is_none() && round % 7 == 0 {
            given.extend(0..3);
            play.give(0..3);
        }
        for partition in 0..3 {
            let low = play.logs[&partition].low;
            if let Some(from) = play.reads.get(&partition).copied().filter(|from| *from < low) {
                play.core.stuck(&key(partition), from);
            }
            if let Some(of) = play.core.owner.shares.get(&key(partition)).map(|share| share.of.clone()) {
                _ = play.core.pause(&of, false);
            }
            play.read(partition, 30);
        }
        while let Some(Ok(event)) = play.poll() {
            history.note(event);
        }
        for (of, at) in std::mem::take(&mut history.out) {
            if play.core.owner.ack(&of, &[at], play.now).is_ok() {
                history.acked.entry(of.partition).or_default().insert(at.1);
            }
        }
        history.check(play);
    }
    for (partition, log) in &play.logs {
        let stored = log.stored.as_ref().map(|stored| stored.offset);
        let done = stored.is_some_and(|offset| offset >= log.high) || log.low >= log.high;
        assert!(done, "{partition}: {log:?} is not done; {:?}", play.core.owner.shares.get(&key(*partition)));
    }
    assert_eq!(play.core.owner.in_flight.messages, 0);
    assert_eq!(play.core.owner.ahead.messages, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_all_that_is_told_has_its_order(steps in steps()) {
        run(steps);
    }
}
