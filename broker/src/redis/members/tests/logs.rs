//! What a member does when a log is not what it was: trimmed by somebody else, or of another server.
//!
//! Not here: how another server is found (`../../commands.rs`), the same on real servers (`broker/tests/redis/failover.rs`).

use super::{Counted, ErrorKind, LIFE, Marks, Play, of, p};
use crate::redis::{commands::Home, start::Extent};

#[test]
fn on_another_server_all_is_lost_and_taken_over_again_and_nothing_is_committed_of_before() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=3, Some(LIFE));
    assert_eq!(play.told(), "0@1: 1 2 3");
    play.ack(&of(0, 1), &[1, 2, 3]).unwrap();
    _ = play.core.moved(&Home::numbered(1));
    assert_eq!(play.ack(&of(0, 1), &[2]).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(play.act(), "take t/0");
    assert!(play.commits.is_empty(), "{:?}", play.commits);
    assert_eq!(play.told(), "gone 0@1 Lost, assigned 0@2");
    play.read(0, 1..=3, Some(LIFE));
    assert_eq!(play.told(), "0@2: 1 2 3", "from what the server has stored");
    // The same server, or what comes late of one before.
    _ = play.core.moved(&Home::numbered(1));
    _ = play.core.moved(&Home::numbered(0));
    assert_eq!(play.told(), "");
    // It has less than was read.
    play.end = 2;
    _ = play.core.moved(&Home::numbered(2));
    assert_eq!(play.act(), "take t/0");
    assert_eq!(play.told(), "gone 0@2 Lost, assigned 0@3, gap 0@3 truncated");
}

#[test]
fn what_somebody_else_trimmed_is_told_once() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=3, Some(LIFE));
    play.told();
    let marks = Marks { life: Some(LIFE), removed: None };
    let counts = |added, length| Counted { added, length, last: p(added) };
    let extent = |counts| Extent { marks, counts, first: None };
    _ = play.core.verify(&[(of(0, 1), extent(counts(9, 6)))]);
    assert_eq!(play.told(), "", "up to what was read");
    for expected in ["gap 0@1 trimmed", ""] {
        _ = play.core.verify(&[(of(0, 1), extent(counts(9, 4)))]);
        assert_eq!(play.told(), expected);
    }
    // What we removed ourselves is told by the next read, with its place.
    let marks = Marks { removed: Some(p(9)), ..marks };
    _ = play.core.verify(&[(of(0, 1), Extent { marks, counts: counts(12, 3), first: None })]);
    assert_eq!(play.told(), "");
}
