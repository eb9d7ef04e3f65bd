//! The lanes against the plainest model there is: a list of everything in the order it came.
//! Not here: the lanes (`mod.rs`).

use super::*;
use proptest::prelude::*;
use std::{collections::VecDeque, time::Duration};

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

/// All that may run, each given back before the next is taken out.
fn one_by_one(lanes: &mut Lanes<u8, u32>) -> Vec<u32> {
    let mut order = Vec::new();
    while let Some(next) = lanes.next(start()) {
        order.push(value(lanes, &next));
        lanes.finish(next);
    }
    order
}

#[test]
fn what_came_first_has_its_turn_first() {
    let mut lanes = Lanes::new();
    for (key, id) in [(1u8, 1), (1, 2), (2, 3), (3, 4), (1, 5), (2, 6)] {
        lanes.push(Some(key), id);
    }
    let first = lanes.next(start()).unwrap();
    lanes.take_back(first);
    assert_eq!(one_by_one(&mut lanes), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_key_with_much_to_do_lets_others_have_their_turn() {
    let mut lanes = Lanes::new();
    for id in 0..40 {
        // Two of them, by turns.
        lanes.push(Some((id % 2) as u8), id % 2);
    }
    lanes.push(Some(3), 3);
    let order = one_by_one(&mut lanes);
    assert_eq!(order.len(), 41);
    assert_eq!(order.iter().position(|id| *id == 3), Some(32));
}

#[test]
fn what_is_taken_in_while_it_is_out_holds_its_key_until_it_is_given_back() {
    let now = start();
    let mut lanes = Lanes::new();
    let is_open = |lanes: &Lanes<u8, u32>, key: u8| lanes.is_open(&key, |other| *other == key);
    assert!(!is_open(&lanes, 1));
    let out = lanes.push_out(Some(1u8), 10);
    assert!(is_open(&lanes, 1) && !is_open(&lanes, 2));
    let alone = lanes.push_out(None, 30);
    lanes.push(Some(1), 11);
    assert!(lanes.next(now).is_none(), "nothing runs beside it");
    assert_eq!((lanes.len(), lanes.live(), lanes.out(), lanes.ready()), (3, 2, 2, 0));
    assert!(lanes.retry(out, now).is_none());
    let again = lanes.next(now).unwrap();
    assert_eq!(value(&lanes, &again), 10);
    lanes.finish(again);
    let behind = lanes.next(now).unwrap();
    assert_eq!(lanes.finish(behind), Some(Finished::Current(11)));
    assert!(!is_open(&lanes, 1));
    assert_eq!(lanes.finish(alone), Some(Finished::Current(30)));
    assert_eq!((lanes.len(), lanes.live(), lanes.out()), (0, 0, 0));
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

#[test]
fn what_is_behind_goes_out_with_its_head_in_order_and_comes_back() {
    let now = start();
    let mut lanes = Lanes::new();
    for (key, id) in [(1u8, 10), (1, 11), (2, 20), (1, 12), (1, 13)] {
        lanes.push(Some(key), id);
    }
    let first = lanes.next(now).unwrap();
    let [second, third] = [lanes.follow(&first).unwrap(), lanes.follow(&first).unwrap()];
    assert_eq!([&first, &second, &third].map(|ticket| value(&lanes, ticket)), [10, 11, 12]);
    assert_eq!(lanes.finish(first), Some(Finished::Current(10)));
    let other = lanes.next(now).unwrap();
    assert_eq!(value(&lanes, &other), 20);
    assert!(lanes.next(now).is_none(), "its key is still out");
    lanes.take_back(third);
    assert_eq!(lanes.finish(second), Some(Finished::Current(11)));
    let third = lanes.next(now).unwrap();
    let fourth = lanes.follow(&third).unwrap();
    assert_eq!((value(&lanes, &third), value(&lanes, &fourth)), (12, 13));
    assert!(lanes.follow(&third).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Push(Option<u8>, u8),
    Next,
    Follow(prop::sample::Index),
    TakeBack(prop::sample::Index),
    Finish(prop::sample::Index),
    Retry(prop::sample::Index, u64),
    Pass(u64),
    Forget(bool, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (proptest::option::weighted(0.9, 0u8..6), 0u8..3).prop_map(|(key, part)| Step::Push(key, part)),
        4 => Just(Step::Next),
        3 => any::<prop::sample::Index>().prop_map(Step::Follow),
        1 => any::<prop::sample::Index>().prop_map(Step::TakeBack),
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

/// Takes the first that is out of one lane.
fn pop(out: &mut Vec<VecDeque<Ticket>>, index: prop::sample::Index) -> Ticket {
    let at = index.index(out.len());
    let ticket = out[at].pop_front().unwrap();
    out.retain(|lane| !lane.is_empty());
    ticket
}

proptest! {
    #[test]
    fn agree_with_a_plain_list(steps in steps()) {
        let mut now = start();
        let mut lanes: Lanes<u8, (u64, u8)> = Lanes::new();
        let mut model: Vec<Entry> = Vec::new();
        // What is out, by lane, in the order it went out.
        let mut out: Vec<VecDeque<Ticket>> = Vec::new();
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
                        out.push(VecDeque::from([ticket]));
                    }
                }
                Step::Follow(index) if !out.is_empty() => {
                    let at = index.index(out.len());
                    let lane = &mut out[at];
                    let last = lanes.get(lane.back().unwrap()).unwrap().0;
                    let i = model.iter().position(|e| e.id == last).unwrap();
                    let behind = (i + 1..model.len()).find(|j| model[*j].key.is_some() && model[*j].key == model[i].key);
                    let ticket = lanes.follow(lane.front().unwrap());
                    prop_assert_eq!(ticket.as_ref().map(|ticket| lanes.get(ticket).unwrap().0), behind.map(|j| model[j].id));
                    if let (Some(ticket), Some(j)) = (ticket, behind) {
                        model[j].state = State::Out;
                        lane.push_back(ticket);
                    }
                }
                Step::TakeBack(index) if !out.is_empty() => {
                    let at = index.index(out.len());
                    let ticket = out[at].pop_back().unwrap();
                    // What was forgotten and is out stays out.
                    let i = model.iter().position(|e| e.id == lanes.get(&ticket).unwrap().0).unwrap();
                    if model[i].late {
                        out[at].push_back(ticket);
                        continue;
                    }
                    lanes.take_back(ticket);
                    model[i].state = State::Queued;
                    out.retain(|lane| !lane.is_empty());
                }
                Step::Finish(index) if !out.is_empty() => {
                    let ticket = pop(&mut out, index);
                    let finished = lanes.finish(ticket).unwrap();
                    let (Finished::Current((got, _)) | Finished::Late((got, _))) = finished;
                    let i = model.iter().position(|e| e.id == got).unwrap();
                    let entry = model.remove(i);
                    prop_assert_eq!(entry.late, matches!(finished, Finished::Late(_)));
                }
                Step::Retry(index, after) if !out.is_empty() => {
                    let at = index.index(out.len());
                    // Only where nothing behind it is out.
                    if out[at].len() > 1 { continue; }
                    let ticket = out.swap_remove(at).pop_front().unwrap();
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
            prop_assert_eq!(lanes.out(), out.iter().map(VecDeque::len).sum::<usize>());
            let keys: std::collections::HashSet<_> = model.iter().filter_map(|e| e.key).collect();
            prop_assert_eq!(lanes.live(), keys.len() + model.iter().filter(|e| e.key.is_none()).count());
            prop_assert_eq!(lanes.ready() + lanes.waiting() + out.len(), lanes.live(), "every lane is in one state");
        }
        // Nothing is lost: all of it can be run to its end.
        let later = now + Duration::from_secs(3600);
        loop {
            while let Some(ticket) = lanes.next(later) { out.push(VecDeque::from([ticket])); }
            let Some(lane) = out.pop() else { break };
            lane.into_iter().for_each(|ticket| _ = lanes.finish(ticket));
        }
        prop_assert_eq!((lanes.len(), lanes.live()), (0, 0));
    }
}
