//! The lanes against the plainest model there is: a list of everything in the order it came.
//! Not here: the lanes (`mod.rs`).

use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn start() -> Instant {
    Instant::now()
}

fn value<T: Clone>(lanes: &Lanes<u8, T>, ticket: &Ticket) -> T {
    lanes.get(ticket).cloned().unwrap()
}

#[test]
fn a_key_runs_one_at_a_time_and_keys_take_turns() {
    let now = start();
    let mut lanes = Lanes::new();
    for (key, id) in [(1u8, 10), (1, 11), (2, 20), (1, 12), (2, 21)] {
        lanes.push(Some(key), id);
    }
    let a = lanes.next(now).unwrap();
    let b = lanes.next(now).unwrap();
    assert_eq!((value(&lanes, &a), value(&lanes, &b)), (10, 20));
    assert!(lanes.next(now).is_none());
    lanes.finish(a);
    lanes.finish(b);
    let a = lanes.next(now).unwrap();
    let b = lanes.next(now).unwrap();
    assert_eq!((value(&lanes, &a), value(&lanes, &b)), (11, 21));
}

#[test]
fn a_retry_holds_its_key_and_no_other() {
    let now = start();
    let mut lanes = Lanes::new();
    for (key, id) in [(1u8, 10), (1, 11), (2, 20)] {
        lanes.push(Some(key), id);
    }
    let head = lanes.next(now).unwrap();
    let due = now + Duration::from_secs(5);
    assert!(lanes.retry(head, due).is_none());
    let other = lanes.next(now).unwrap();
    assert_eq!(value(&lanes, &other), 20);
    assert!(lanes.next(now).is_none());
    assert_eq!(lanes.next_due(), Some(due));
    let again = lanes.next(due).unwrap();
    assert_eq!(value(&lanes, &again), 10);
}

#[test]
fn work_without_key_waits_for_nothing() {
    let now = start();
    let mut lanes: Lanes<u8, u32> = Lanes::new();
    for id in 0..100 {
        lanes.push(None, id);
    }
    let mut out = Vec::new();
    while let Some(ticket) = lanes.next(now) {
        out.push(ticket);
    }
    assert_eq!(out.len(), 100);
    for ticket in out {
        lanes.finish(ticket);
    }
    assert_eq!((lanes.len(), lanes.live(), lanes.out()), (0, 0, 0));
}

#[test]
fn what_is_out_and_forgotten_still_holds_its_key_and_comes_back_late() {
    let now = start();
    let mut lanes = Lanes::new();
    lanes.push(Some(1u8), "old head");
    lanes.push(Some(1), "old follower");
    let head = lanes.next(now).unwrap();
    assert_eq!(lanes.forget(true, |work| work.starts_with("old")), ["old follower"]);
    lanes.push(Some(1), "new");
    assert!(lanes.next(now).is_none(), "the new one must not run beside the old one");
    assert!(lanes.is_late(&head));
    assert_eq!(lanes.finish(head), Some(Finished::Late("old head")));
    let next = lanes.next(now).unwrap();
    assert_eq!(lanes.finish(next), Some(Finished::Current("new")));
}

#[derive(Clone, Debug)]
enum Step {
    Push(Option<u8>, u8),
    Next,
    Finish(prop::sample::Index),
    Retry(prop::sample::Index, u64),
    Pass(u64),
    Forget(bool, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (proptest::option::weighted(0.9, 0u8..6), 0u8..3).prop_map(|(key, part)| Step::Push(key, part)),
        4 => Just(Step::Next),
        3 => any::<prop::sample::Index>().prop_map(Step::Finish),
        2 => (any::<prop::sample::Index>(), 0u64..50).prop_map(|(i, after)| Step::Retry(i, after)),
        1 => (1u64..40).prop_map(Step::Pass),
        1 => (any::<bool>(), 0u8..3).prop_map(|(late, part)| Step::Forget(late, part)),
    ];
    proptest::collection::vec(step, 1..400)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Queued,
    Out,
    Due(Instant),
}

#[derive(Debug)]
struct Entry {
    id: u64,
    key: Option<u8>,
    part: u8,
    state: State,
    late: bool,
}

/// Whether the entry at `i` could be taken out: nothing of its key is before it, and it is due.
fn runnable(model: &[Entry], i: usize, now: Instant) -> bool {
    let first = model[i].key.is_none() || model[..i].iter().all(|e| e.key != model[i].key);
    first
        && match model[i].state {
            State::Queued => true,
            State::Out => false,
            State::Due(due) => due <= now,
        }
}

proptest! {
    #[test]
    fn agree_with_a_plain_list(steps in steps()) {
        let mut now = start();
        let mut lanes: Lanes<u8, (u64, u8)> = Lanes::new();
        let mut model: Vec<Entry> = Vec::new();
        let mut out: Vec<Ticket> = Vec::new();
        let mut id = 0u64;
        for step in steps {
            match step {
                Step::Push(key, part) => {
                    lanes.push(key, (id, part));
                    model.push(Entry { id, key, part, state: State::Queued, late: false });
                    id += 1;
                }
                Step::Next => {
                    let possible = (0..model.len()).any(|i| runnable(&model, i, now));
                    let ticket = lanes.next(now);
                    prop_assert_eq!(ticket.is_some(), possible);
                    if let Some(ticket) = ticket {
                        let got = lanes.get(&ticket).unwrap().0;
                        let i = model.iter().position(|e| e.id == got).unwrap();
                        prop_assert!(runnable(&model, i, now), "{got} must not run now");
                        model[i].state = State::Out;
                        out.push(ticket);
                    }
                }
                Step::Finish(index) if !out.is_empty() => {
                    let ticket = out.swap_remove(index.index(out.len()));
                    let finished = lanes.finish(ticket).unwrap();
                    let (Finished::Current((got, _)) | Finished::Late((got, _))) = finished;
                    let i = model.iter().position(|e| e.id == got).unwrap();
                    let entry = model.remove(i);
                    prop_assert_eq!(entry.late, matches!(finished, Finished::Late(_)));
                }
                Step::Retry(index, after) if !out.is_empty() => {
                    let ticket = out.swap_remove(index.index(out.len()));
                    let got = lanes.get(&ticket).unwrap().0;
                    let i = model.iter().position(|e| e.id == got).unwrap();
                    let due = now + Duration::from_millis(after);
                    let late = lanes.retry(ticket, due).is_some();
                    prop_assert_eq!(late, model[i].late);
                    if late { model.remove(i); } else { model[i].state = State::Due(due); }
                }
                Step::Pass(by) => now += Duration::from_millis(by),
                Step::Forget(late, part) => {
                    let mut taken: Vec<u64> = lanes.forget(late, |(_, p)| *p == part).into_iter().map(|(id, _)| id).collect();
                    let mut expected: Vec<u64> =
                        model.iter().filter(|e| e.part == part && e.state != State::Out).map(|e| e.id).collect();
                    taken.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(taken, expected);
                    model.retain(|e| e.part != part || e.state == State::Out);
                    for entry in model.iter_mut().filter(|e| e.part == part) { entry.late |= late; }
                }
                _ => {}
            }
            prop_assert_eq!(lanes.len(), model.len());
            prop_assert_eq!(lanes.out(), out.len());
            let keys: std::collections::HashSet<_> = model.iter().filter_map(|e| e.key).collect();
            prop_assert_eq!(lanes.live(), keys.len() + model.iter().filter(|e| e.key.is_none()).count());
            prop_assert_eq!(lanes.ready() + lanes.waiting() + lanes.out(), lanes.live(), "every lane is in one state");
        }
        // Nothing is lost: all of it can be run to its end.
        let later = now + Duration::from_secs(3600);
        loop {
            while let Some(ticket) = lanes.next(later) { out.push(ticket); }
            let Some(ticket) = out.pop() else { break };
            lanes.finish(ticket);
        }
        prop_assert_eq!((lanes.len(), lanes.live()), (0, 0));
    }
}
