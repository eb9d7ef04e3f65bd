//! What a reader is told, and what its client is given, without a server.

use super::*;
use crate::kafka::follow::Doubt;
use crate::{Epoch, Message, Owned};

const LIFE: u64 = 7;

fn place(partition: u32) -> Place {
    (Topic::new("t").unwrap(), partition)
}

fn followed(partition: u32, next: u64) -> Followed {
    let of = Owned { topic: place(0).0, partition, epoch: Epoch(0) };
    Followed::starting(of, &Extent { life: LIFE, low: 0, end: 1_000_000 }, next)
}

/// A reader whose client was given all of so many partitions.
fn state(partitions: u32) -> State {
    let mut state = State::default();
    (0..partitions).for_each(|partition| state.follow(followed(partition, 1), Instant::now()));
    let Step::Change { drop, add } = state.step() else { panic!("nothing is read") };
    assert_eq!((drop.len(), add.len()), (0, partitions as usize));
    state
}

fn content(bytes: usize) -> Content {
    Content::Message(Message::builder().payload(vec![1; bytes]).build())
}

/// Records come, as many as there is room for; how many that were.
fn bring(state: &mut State, partition: u32, from: u64, count: u64, bytes: usize) -> u64 {
    let Step::Read(room) = state.step() else { panic!("it does not read") };
    let mut brought = Brought::new(room);
    let mut taken = 0;
    for offset in (from..from + count).take(room.messages) {
        if brought.has_room(bytes) {
            brought.add(place(partition), offset, content(bytes));
            taken += 1;
        }
    }
    state.take(brought, Instant::now());
    taken
}

fn pop(state: &mut State) -> Option<Event> {
    state.pop(Waker::noop())
}

fn change(state: &mut State) -> (usize, Vec<(Place, u64)>) {
    match state.step() {
        Step::Change { drop, add } => {
            (drop.len(), add.into_iter().map(|begin| (begin.place, begin.offset)).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_more_is_held_than_the_bounds_and_the_client_keeps_what_it_has_until_half_is_free() {
    let mut state = state(1);
    let mut next = 1;
    while let Step::Read(_) = state.step() {
        next += bring(&mut state, 0, next, 300, 100);
    }
    assert_eq!(state.held, Size { messages: MOST_MESSAGES, bytes: 100 * MOST_MESSAGES });
    assert_eq!(state.step(), Step::Hold);
    assert_eq!(state.step(), Step::Hold, "nothing is taken from the client, which would read it again");
    while !state.made_room() {
        pop(&mut state).unwrap();
    }
    assert!(!state.made_room(), "told once");
    assert!(state.held.messages <= MOST_MESSAGES / 2);
    bring(&mut state, 0, next, 1, 1);
    assert_eq!(state.assigned.len(), 1, "it was its all the time");
}

#[test]
fn of_large_messages_fewer_are_asked_for_so_that_all_that_come_have_room() {
    let mut state = state(1);
    let large = MOST_BYTES / 16;
    let mut next = 1 + bring(&mut state, 0, 1, 1, large);
    for _ in 0..100 {
        while let Step::Read(room) = state.step() {
            assert!(room.messages * large <= room.bytes, "{room:?}");
            let asked = room.messages as u64;
            assert_eq!(bring(&mut state, 0, next, 300, large), asked, "none is refused");
            next += asked;
        }
        assert_eq!(state.step(), Step::Hold);
        assert!(state.held.bytes > MOST_BYTES / 2 && state.held.bytes <= MOST_BYTES);
        while !state.made_room() {
            pop(&mut state).unwrap();
        }
    }
    // Small ones again.
    bring(&mut state, 0, next, 1, 10);
    assert!(matches!(state.step(), Step::Read(room) if room.messages == AT_ONCE));
}

#[test]
fn what_there_is_no_room_for_is_read_again_when_there_is() {
    let mut state = state(2);
    let large = MOST_BYTES / 2 + 1;
    assert_eq!(bring(&mut state, 0, 1, 3, large), 1);
    assert_eq!(change(&mut state), (2, vec![]));
    assert!(!state.has_room(), "there is none for another one of that size");
    assert!(matches!(state.step(), Step::Read(_)));
    pop(&mut state).unwrap();
    assert_eq!(change(&mut state), (0, vec![(place(0), 2), (place(1), 1)]));
    // One that is larger than all the room comes alone.
    assert_eq!(bring(&mut state, 1, 1, 1, 10), 1);
    assert_eq!(bring(&mut state, 0, 2, 1, 2 * MOST_BYTES), 0);
    assert_eq!(change(&mut state).0, 2);
    pop(&mut state).unwrap();
    assert_eq!(change(&mut state).1.len(), 2);
    assert_eq!(bring(&mut state, 0, 2, 2, 2 * MOST_BYTES), 1);
    assert_eq!(state.held, Size { messages: 1, bytes: 2 * MOST_BYTES });
}

#[test]
fn what_was_read_before_a_move_is_not_told_after_it() {
    let mut state = state(2);
    bring(&mut state, 0, 1, 2, 1);
    bring(&mut state, 1, 1, 1, 1);
    let Step::Read(room) = state.step() else { panic!() };
    // While this is read, its user moves.
    let mut brought = Brought::new(room);
    assert!(brought.has_room(1));
    brought.add(place(0), 3, content(1));
    brought.doubt(place(0), Doubt::OutOfRange);
    state.follow(followed(0, 500), Instant::now());
    assert_eq!(state.held.messages, 1, "what lay ready is gone");
    state.take(brought, Instant::now());
    assert_eq!(state.held.messages, 1);
    assert_eq!(change(&mut state), (1, vec![(place(0), 500)]));
    assert_eq!(bring(&mut state, 0, 3, 1, 1), 1);
    assert_eq!(state.held.messages, 1, "it is before where it moved to");
    state.unfollow_all(&place(0).0, Some(1));
    assert_eq!((state.held, state.ready.len()), (Size::default(), 0));
    assert_eq!(change(&mut state), (1, vec![]));
}

#[test]
fn what_is_doubtful_is_taken_from_the_client_and_goes_on_where_the_answer_says() {
    let mut state = state(2);
    let Step::Read(room) = state.step() else { panic!() };
    let mut brought = Brought::new(room);
    brought.doubt(place(1), Doubt::OutOfRange);
    assert!(state.take(brought, Instant::now()), "somebody must look");
    assert_eq!(change(&mut state), (1, vec![]));
    let (ask, new) = state.looked(&place(0).0, Some((LIFE, 2)), Instant::now());
    assert_eq!((ask.len(), new.is_empty()), (1, true));
    let (of, turn) = ask[0].clone();
    state.answer(&of, turn, &Extent { life: LIFE, low: 40, end: 50 }, Instant::now());
    assert!(matches!(pop(&mut state), Some(Event::Gap { .. })));
    assert_eq!(change(&mut state), (0, vec![(place(1), 40)]));
    // An answer to an older question changes nothing.
    state.answer(&of, turn, &Extent { life: LIFE, low: 45, end: 50 }, Instant::now());
    assert!(pop(&mut state).is_none());
}

#[test]
fn another_life_is_read_from_its_beginning_by_another_client() {
    let mut state = state(3);
    bring(&mut state, 0, 1, 5, 1);
    let topic = place(0).0;
    let (ask, _) = state.looked(&topic, None, Instant::now());
    assert!(ask.is_empty());
    assert_eq!(change(&mut state), (3, vec![]), "nothing is there to be read");
    let (ask, _) = state.looked(&topic, Some((LIFE + 1, 2)), Instant::now());
    assert_eq!(ask.len(), 2, "the third one is not there");
    for (of, turn) in ask {
        state.answer(&of, turn, &Extent { life: LIFE + 1, low: 0, end: 9 }, Instant::now());
    }
    assert_eq!(state.step(), Step::Renew);
    assert_eq!(change(&mut state), (0, vec![(place(0), 0), (place(1), 0)]));
    let told: Vec<_> = std::iter::from_fn(|| pop(&mut state)).collect();
    assert!(matches!(told[..], [Event::Batch(_), Event::Gap { .. }, Event::Gap { .. }]), "{told:?}");
    // Seen at once where it was made again between two looks.
    let (ask, _) = state.looked(&topic, Some((LIFE + 2, 3)), Instant::now());
    assert_eq!(ask.len(), 3);
}

#[test]
fn added_partitions_are_followed_where_all_of_the_topic_is() {
    let mut state = state(1);
    let topic = place(0).0;
    assert!(state.looked(&topic, Some((LIFE, 3)), Instant::now()).1.is_empty(), "one partition is followed");
    state.follow_whole(&topic, 1);
    let (ask, new) = state.looked(&topic, Some((LIFE, 3)), Instant::now());
    assert_eq!((ask.len(), new.clone()), (0, 1..3));
    state.grown(&topic, 1, new.map(|partition| followed(partition, 0)).collect(), Instant::now());
    assert_eq!(change(&mut state), (0, vec![(place(1), 0), (place(2), 0)]));
    assert!(state.looked(&topic, Some((LIFE, 3)), Instant::now()).1.is_empty());
    state.grown(&topic, 1, vec![followed(1, 0)], Instant::now());
    assert!(matches!(state.step(), Step::Read(_)), "told twice, done once");
}

#[test]
fn who_waits_to_catch_up_while_nothing_comes_is_looked_after() {
    let mut state = state(1);
    let topic = place(0).0;
    bring(&mut state, 0, 1, 1, 1);
    pop(&mut state).unwrap();
    state.looked(&topic, Some((LIFE, 1)), Instant::now());
    assert!(state.behind().is_empty(), "something came a moment ago");
    state.looked(&topic, Some((LIFE, 1)), Instant::now());
    let (of, turn, from) = state.behind().remove(0);
    assert_eq!(from, 2);
    state.is_more = true;
    state.looked(&topic, Some((LIFE, 1)), Instant::now());
    assert!(state.behind().is_empty(), "something lies at the client");
    state.is_more = false;
    state.looked(&topic, Some((LIFE, 1)), Instant::now());
    state.looked(&topic, Some((LIFE, 1)), Instant::now());
    assert_eq!(state.behind().len(), 1);
    state.nothing_before(&of, turn, from, u64::MAX);
    assert!(matches!(pop(&mut state), Some(Event::CaughtUp(_))));
    assert!(state.behind().is_empty());
}

#[test]
fn a_client_that_does_not_count_what_it_has_read_ahead_is_made_to_forget_it() {
    let mut state = state(1);
    let of = |fill: usize| Message::builder().header("fill", vec![b'x'; fill]).payload("x").build();
    let mut next = 1;
    while let Step::Read(room) = state.step() {
        let mut brought = Brought::new(room);
        for _ in 0..room.messages.min(4) {
            assert!(brought.has_room(1));
            brought.add(place(0), next, Content::Message(of(100_000)));
            next += 1;
        }
        state.take(brought, Instant::now());
    }
    assert!(state.held.bytes <= MOST_BYTES, "{:?}", state.held);
    assert_eq!(state.assigned.len(), 0, "it was taken from the client");
    assert!(matches!(state.step(), Step::Read(_)));
    while !state.made_room() {
        pop(&mut state).unwrap();
    }
    assert_eq!(change(&mut state), (0, vec![(place(0), next)]));
}

#[test]
fn a_pause_counts_from_when_the_client_had_no_more() {
    let mut state = state(1);
    let start = Instant::now();
    let mut bring = |offset, is_more, after: u32| {
        let Step::Read(room) = state.step() else { panic!("it does not read") };
        let mut brought = Brought::new(room);
        assert!(brought.has_room(10));
        brought.add(place(0), offset, content(10));
        brought.is_more = is_more;
        state.take(brought, start + PAUSE * after / 4)
    };
    assert!(!bring(1, false, 2));
    assert!(!bring(2, true, 4) && !bring(3, true, 5));
    assert!(bring(4, true, 6), "it may have paused behind what it had read ahead");
}

#[test]
fn what_comes_after_a_pause_is_told_when_its_topic_was_looked_at() {
    let mut state = state(1);
    let (topic, start) = (place(0).0, Instant::now());
    let bring = |state: &mut State, offsets: Range<u64>, now: Instant| {
        let Step::Read(room) = state.step() else { panic!("it does not read") };
        let mut brought = Brought::new(room);
        for offset in offsets {
            assert!(brought.has_room(10));
            brought.add(place(0), offset, content(10));
        }
        state.take(brought, now)
    };
    assert!(!bring(&mut state, 1..3, start + PAUSE / 2), "it was looked at a moment ago");
    assert!(bring(&mut state, 3..5, start + 2 * PAUSE), "somebody must look");
    assert_eq!(state.held, Size { messages: 4, bytes: 40 });
    state.topics();
    // What came since the look began waits for the next one.
    assert!(bring(&mut state, 5..6, start + 2 * PAUSE));
    state.looked(&topic, Some((LIFE, 1)), start + 3 * PAUSE);
    assert!(state.holds_back());
    assert_eq!(state.held, Size { messages: 5, bytes: 50 });
    state.topics();
    state.looked(&topic, Some((LIFE, 1)), start + 3 * PAUSE);
    assert!(!state.holds_back());
    let told = |state: &mut State| match pop(state) {
        Some(Event::Batch(batch)) => batch.deliveries.iter().map(|one| one.position.1).collect(),
        _ => Vec::new(),
    };
    assert_eq!((told(&mut state), told(&mut state), told(&mut state)), (vec![1, 2], vec![3, 4], vec![5]));
    assert_eq!(state.held, Size::default());
    // Of another life it is not told at all: that is read from its beginning.
    assert!(bring(&mut state, 6..9, start + 9 * PAUSE));
    state.topics();
    let (ask, _) = state.looked(&topic, Some((LIFE + 1, 1)), start + 9 * PAUSE);
    state.answer(&ask[0].0, ask[0].1, &Extent { life: LIFE + 1, low: 0, end: 20 }, start + 9 * PAUSE);
    assert!(matches!(pop(&mut state), Some(Event::Gap { .. })));
    assert!(pop(&mut state).is_none());
    assert_eq!(state.held, Size::default());
    // Nor where nobody follows it any more.
    assert_eq!(state.step(), Step::Renew);
    change(&mut state);
    assert!(bring(&mut state, 0..3, start + 20 * PAUSE));
    state.unfollow_all(&topic, None);
    assert_eq!((state.held, state.holds_back()), (Size::default(), false));
}

#[test]
fn a_partition_that_stands_still_is_looked_at_and_what_is_damaged_is_told_once() {
    let (mut state, now) = (state(2), Instant::now());
    let at = |secs| now + Duration::from_secs(secs);
    let looks = |state: &mut State, at| {
        (0..3).for_each(|_| _ = (state.topics(), state.looked(&place(0).0, Some((LIFE, 2)), at)));
    };
    looks(&mut state, at(1));
    assert!(state.standing(at(1)).is_empty(), "too soon");
    looks(&mut state, at(6));
    let standing = state.standing(at(6));
    assert_eq!(standing.iter().map(|(of, _)| (of.place.1, of.next)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    assert!(state.standing(at(7)).is_empty(), "not so soon again");
    let (of, turn) = &standing[0];
    let damaged = || Why::Damaged(Error::new(crate::ErrorKind::Corrupt, "damaged"));
    assert!(!state.stands(of, turn + 100, damaged()), "it is read anew");
    assert!(state.stands(of, *turn, damaged()));
    assert!(!state.stands(of, *turn, damaged()), "once");
    assert_eq!(state.stuck_at(&place(0), *turn), Some(1));
    assert!(!state.stands(&standing[1].0, standing[1].1, Why::Fine(9)));
    let fine = state.standing(at(40));
    assert_eq!(fine.iter().map(|(of, _)| (of.place.1, of.fine)).collect::<Vec<_>>(), [(1, 9)]);
}
