//! Where one partition is read, and what is told of it: decided here, without a server.
//!
//! What was removed shows as an offset that is out of range, as does a log that lost its end, and a topic that was made again and is shorter than before.
//! Kafka says no more than that: which of them it is follows from what the partition says of itself when it is asked then ([`Followed::answer`]).
//! Offsets that are passed over without such a refusal are those of compaction and of the marks of transactions, which is no gap. Partition EOF is not
//! used: with reads of many records at once the client library skips a record after it. Not here: the client that reads (`reader.rs`), how much
//! of it there is room for (`following/`), which records are messages (`layout.rs`).

use super::start::Extent;
use crate::{Delivery, Error, GapReason, Message, Owned, Position};
use bytes::Bytes;
use std::ops::Range;

/// What a record is.
#[derive(Debug)]
pub(super) enum Content {
    Message(Message),
    /// None of ours, and why.
    Unreadable {
        raw: Option<Bytes>,
        why: Error,
    },
    /// A batch that begins here and cannot be read.
    Damaged(Error),
}

impl Content {
    /// What it takes of what may be held, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Message(message) => message.size(),
            Self::Unreadable { raw, .. } => raw.as_ref().map_or(0, Bytes::len),
            Self::Damaged(_) => 0,
        }
    }

    /// What of it is payload, in bytes.
    pub(super) fn payload(&self) -> usize {
        match self {
            Self::Message(message) => message.payload.as_ref().map_or(0, Bytes::len),
            Self::Unreadable { .. } | Self::Damaged(_) => self.size(),
        }
    }
}

/// What comes of a partition.
#[derive(Debug)]
pub(super) enum Told {
    Message(Delivery),
    /// A record that is no message.
    Unreadable {
        at: Position,
        raw: Option<Bytes>,
        why: Error,
    },
    /// Messages that will not be seen.
    Gap {
        from: Option<Position>,
        to: Option<Position>,
        why: GapReason,
    },
    /// All is read that was there at the start. Once.
    CaughtUp,
}

/// Why a partition is asked about before it is read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The offset that was asked for is not there, or the topic is not.
    OutOfRange,
    /// The client library saw that the log lost its end, which what it says by now may not show any more.
    Truncated,
    /// A batch is damaged, and the client library does not know where it ends: it reads it again, or goes on anywhere.
    Damaged,
}

/// A partition that is read.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) of: Owned,
    /// Which life of the topic is read.
    life: u64,
    /// The first offset that was neither told nor is known to be gone.
    next: u64,
    /// The offsets that were passed over last.
    passed: Range<u64>,
    /// What was there when reading began ends here; `None`: that was told.
    goal: Option<u64>,
    doubt: Option<Doubt>,
    /// Where a batch begins that cannot be read, which was told: its end is looked for.
    damaged: Option<u64>,
    /// The topic is not there, or has no such partition now.
    gone: bool,
}

impl Followed {
    /// Reads from `next` on, where what is there ends at `extent.end`.
    pub(super) const fn starting(of: Owned, extent: &Extent, next: u64) -> Self {
        let (life, goal) = (extent.life, Some(extent.end));
        Self { of, life, next, passed: 0..0, goal, doubt: None, damaged: None, gone: false }
    }

    /// The offset to read at, where it can be read now.
    pub(super) fn wanted(&self) -> Option<u64> {
        (self.doubt.is_none() && !self.gone).then_some(self.next)
    }

    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    /// Where reading is, of a partition whose user waits to be told that it caught up.
    pub(super) fn behind(&self) -> Option<u64> {
        self.goal.and_then(|_| self.wanted())
    }

    /// Where the batch begins whose end must be found before reading goes on.
    pub(super) fn stuck_at(&self) -> Option<u64> {
        self.damaged.filter(|_| self.doubt == Some(Doubt::Damaged))
    }

    /// Whether it must be asked what the partition says of itself.
    pub(super) const fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// What was there is told by now.
    pub(super) fn caught_up(&mut self) -> Option<Told> {
        self.goal.take_if(|goal| self.next >= *goal).map(|_| Told::CaughtUp)
    }

    /// A record came.
    pub(super) fn take(&mut self, offset: u64, content: Content, told: &mut Vec<Told>) {
        if self.passed.contains(&offset) && self.stuck_at().is_none() {
            self.goes_back(offset, told);
        }
        let told_as = match content {
            // What the library brings behind a damaged batch may be anything.
            _ if self.stuck_at().is_some() => return,
            Content::Damaged(why) => return self.damage(offset, why, told),
            _ if offset < self.next => return,
            Content::Message(message) => {
                Told::Message(Delivery { position: Position(self.life, offset), message })
            }
            Content::Unreadable { raw, why } => {
                Told::Unreadable { at: Position(self.life, offset), raw, why }
            }
        };
        // What was there at the start ended before this one: compacted, or the mark of a transaction.
        if self.goal.is_some_and(|goal| offset >= goal) {
            self.goal = None;
            told.push(Told::CaughtUp);
        }
        if offset > self.next {
            self.passed = self.next..offset;
        }
        self.next = offset.saturating_add(1);
        told.push(told_as);
        told.extend(self.caught_up());
    }

    /// Something lies in what was passed over: so the batch before it lies of where it is, by its own offset, which no checksum covers. What it passed over is read
    /// on, and what was there in its place is missing.
    fn goes_back(&mut self, offset: u64, told: &mut Vec<Told>) {
        let from = std::mem::take(&mut self.passed).start;
        if offset > from {
            let (from, to) = (Position(self.life, from), Position(self.life, offset));
            told.push(Told::Gap { from: Some(from), to: Some(to), why: GapReason::Damaged });
        }
        self.next = offset;
    }

    /// A batch that begins at that offset cannot be read. After it the library (2.12.1) goes on in the middle of what it got: a record that it makes of
    /// that has a wrong checksum, too, but offsets are whatever stands there. So nothing more is taken before it is known where the batch ends.
    fn damage(&mut self, begin: u64, why: Error, told: &mut Vec<Told>) {
        self.damaged = Some(begin);
        self.doubt(Doubt::Damaged);
        let offset = begin.max(self.next);
        self.next = offset.saturating_add(1);
        told.push(Told::Unreadable { at: Position(self.life, offset), raw: None, why });
        told.extend(self.caught_up());
    }

    /// It cannot be read on before it is asked what it says of itself.
    pub(super) fn doubt(&mut self, doubt: Doubt) {
        if !matches!(self.doubt, Some(Doubt::Truncated | Doubt::Damaged)) {
            self.doubt = Some(doubt);
        }
    }

    /// The topic is not there now, or has no such partition. It may be made again.
    pub(super) fn missing(&mut self) {
        self.gone = true;
        self.doubt = None;
    }

    /// Nothing lies between `from`, where reading was, and this offset: known by a look at the log.
    pub(super) fn nothing_before(&mut self, from: u64, offset: u64) -> Option<Told> {
        if self.wanted() != Some(from) {
            return None;
        }
        // No farther than what was there: what comes later may lie anywhere behind that.
        self.next = self.goal.map_or(from, |goal| goal.min(offset)).max(from);
        self.caught_up()
    }

    /// The damaged batch that reading does not get over ends before that offset: it goes on there.
    pub(super) fn past_damage(&mut self, begin: u64, to: u64, told: &mut Vec<Told>) {
        if self.stuck_at() != Some(begin) {
            return;
        }
        (self.doubt, self.damaged) = (None, None);
        if to > self.next {
            let (from, to) = (Position(self.life, self.next), Position(self.life, to));
            told.push(Told::Gap { from: Some(from), to: Some(to), why: GapReason::Damaged });
            self.next = to.1;
        }
        told.extend(self.caught_up());
    }

    /// What the partition says of itself now, asked after the last record was taken. `true`: it is a new life of the topic.
    pub(super) fn answer(&mut self, extent: &Extent, told: &mut Vec<Told>) -> bool {
        // That is not answered by where the log begins and ends.
        let stuck = self.stuck_at();
        let stuck = stuck.filter(|at| extent.life == self.life && (extent.low..extent.end).contains(at));
        let doubt = self.doubt.take_if(|_| stuck.is_none());
        self.gone = false;
        let (from, again) = (Position(self.life, self.next), extent.life != self.life);
        let (from, next, why) = if again {
            (None, extent.low, GapReason::Recreated)
        } else if self.next < extent.low {
            (Some(from), extent.low, GapReason::Trimmed)
        } else if self.next > extent.end {
            (Some(from), extent.end, GapReason::Truncated)
        } else if doubt == Some(Doubt::Truncated) {
            // By now it is as long as before, by other messages.
            (None, self.next, GapReason::Truncated)
        } else {
            return false;
        };
        (self.life, self.next, self.passed, self.damaged) = (extent.life, next, 0..0, None);
        told.push(Told::Gap { from, to: Some(extent.position(next)), why });
        if again || why == GapReason::Truncated {
            self.goal = self.goal.map(|goal| if again { extent.end } else { goal.min(extent.end) });
        }
        told.extend(self.caught_up());
        again
    }
}

/// What a problem that the client library reports of a partition, or of the whole client, means for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is mended behind the reader.
    Passing,
    /// It must be asked what the partition says of itself.
    Doubtful(Doubt),
    /// A batch of records is damaged: its checksum, its format, or how it is compressed.
    Damaged,
    /// Nothing comes of this client any more: another one is opened.
    Renew,
    /// It stays so until somebody changes it: the reader ends.
    Lasting,
}

/// What a code of the server or of the client library means, with the text that came with it.
pub(super) fn meaning(code: i32, text: &str) -> Meaning {
    match code {
        // _AUTO_OFFSET_RESET, _LOG_TRUNCATION, OFFSET_OUT_OF_RANGE.
        -140 | -139 | 1 if code == -139 || text.contains("truncat") => Meaning::Doubtful(Doubt::Truncated),
        // The same; _UNKNOWN_TOPIC, _UNKNOWN_PARTITION, UNKNOWN_TOPIC_OR_PART, UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID.
        -140 | 1 | -188 | -190 | 3 | 100 | 103 => Meaning::Doubtful(Doubt::OutOfRange),
        damage if is_damage(damage) => Meaning::Damaged,
        // _FATAL.
        -150 => Meaning::Renew,
        // _AUTHENTICATION, TOPIC_, GROUP_, CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_SASL_MECHANISM, SASL_AUTHENTICATION_FAILED.
        -169 | 29..=31 | 33 | 58 => Meaning::Lasting,
        _ => Meaning::Passing,
    }
}

/// Whether a problem of a partition is a batch of records that is damaged: its checksum, its format, or how it is compressed.
pub(super) const fn is_damage(code: i32) -> bool {
    // _BAD_MSG, _BAD_COMPRESSION, _NOT_IMPLEMENTED.
    matches!(code, -199 | -198 | -170) || is_refusal(code)
}

/// Whether that is said by a server, of the offset that it was asked for: it cannot read there.
pub(super) const fn is_refusal(code: i32) -> bool {
    // CORRUPT_MESSAGE, INVALID_RECORD.
    matches!(code, 2 | 87)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Topic};

    const LIFE: u64 = 7;

    fn from(next: u64, end: u64) -> Followed {
        let of = Owned { topic: Topic::new("t").unwrap(), partition: 0, epoch: Epoch(0) };
        Followed::starting(of, &Extent { life: LIFE, low: 0, end }, next)
    }

    fn say(told: &[Told]) -> String {
        let one = |told: &Told| match told {
            Told::Message(delivery) => delivery.position.1.to_string(),
            Told::Unreadable { at, .. } => format!("unreadable {}", at.1),
            Told::Gap { from, to, why } => {
                let text = |at: &Option<Position>| at.map_or("?".into(), |at| at.to_string());
                format!("{} {} to {}", why.as_str(), text(from), text(to))
            }
            Told::CaughtUp => "caught up".into(),
        };
        told.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn take(followed: &mut Followed, offsets: &[u64]) -> String {
        let mut told = Vec::new();
        for offset in offsets {
            followed.take(*offset, Content::Message(Message::builder().build()), &mut told);
        }
        say(&told)
    }

    fn answer(followed: &mut Followed, life: u64, low: u64, end: u64) -> String {
        let mut told = Vec::new();
        let again = followed.answer(&Extent { life, low, end }, &mut told);
        assert_eq!(again, say(&told).starts_with("recreated"));
        say(&told)
    }

    #[test]
    fn it_catches_up_once_at_what_was_there_at_the_start() {
        let mut followed = from(1, 4);
        assert_eq!(take(&mut followed, &[1, 2]), "1, 2");
        assert_eq!(take(&mut followed, &[3, 4, 5]), "3, caught up, 4, 5");
        let mut empty = from(4, 4);
        assert!(matches!(empty.caught_up(), Some(Told::CaughtUp)));
        assert!(empty.caught_up().is_none());
    }

    #[test]
    fn a_batch_that_lies_about_where_it_is_shows_in_what_comes_behind_it() {
        let mut followed = from(0, 400);
        assert_eq!(take(&mut followed, &[0, 26, 27]), "0, 26, 27");
        assert_eq!(take(&mut followed, &[20, 21, 26, 30]), "damaged 7-1 to 7-20, 20, 21, 26, 30");
        // Passed over once more, and nothing lay there.
        assert_eq!(take(&mut followed, &[100, 31, 32]), "100, 31, 32");
        // What was told before is no such sign.
        assert_eq!(take(&mut followed, &[5, 32, 33]), "33");
    }

    #[test]
    fn what_was_compacted_is_no_gap_and_does_not_hold_up() {
        let mut followed = from(1, 9);
        assert_eq!(take(&mut followed, &[1, 5]), "1, 5");
        // The last of what was there are marks of transactions: the first record behind them tells.
        assert_eq!(take(&mut followed, &[12]), "caught up, 12");
        // Or a look at the log, where no record follows.
        let mut followed = from(1, 9);
        take(&mut followed, &[1, 5]);
        assert!(followed.nothing_before(4, 9).is_none(), "it was read on since");
        assert!(followed.nothing_before(6, 8).is_none(), "something lies there");
        assert!(matches!(followed.nothing_before(8, 20), Some(Told::CaughtUp)));
        assert_eq!(followed.wanted(), Some(9), "no farther than is known");
    }

    #[test]
    fn what_came_twice_is_told_once() {
        assert_eq!(take(&mut from(5, 5), &[3, 4, 5, 5, 6]), "caught up, 5, 6");
    }

    #[test]
    fn what_was_removed_before_it_was_seen_is_one_gap() {
        let mut followed = from(3, 9);
        followed.doubt(Doubt::OutOfRange);
        assert_eq!((followed.wanted(), followed.in_doubt()), (None, true));
        assert_eq!(answer(&mut followed, LIFE, 6, 9), "trimmed 7-3 to 7-6");
        assert_eq!((followed.wanted(), followed.in_doubt()), (Some(6), false));
        assert_eq!(answer(&mut followed, LIFE, 6, 9), "", "told once");
        // All that was there is gone: then it has caught up.
        assert_eq!(answer(&mut followed, LIFE, 11, 11), "trimmed 7-6 to 7-11, caught up");
        assert_eq!(take(&mut followed, &[11]), "11");
    }

    #[test]
    fn a_topic_that_was_made_again_is_read_from_its_first_message_even_where_it_is_longer() {
        let mut followed = from(50, 60);
        take(&mut followed, &[50]);
        followed.missing();
        assert_eq!(followed.wanted(), None);
        assert_eq!(answer(&mut followed, LIFE + 1, 0, 90), "recreated ? to 8-0");
        assert_eq!((followed.life(), followed.wanted()), (LIFE + 1, Some(0)));
        assert!(followed.behind().is_some(), "it has not caught up with that either");
        followed.missing();
        assert_eq!(answer(&mut followed, LIFE + 1, 0, 90), "", "it was not gone after all");
        assert_eq!(followed.wanted(), Some(0));
        assert_eq!(answer(&mut followed, LIFE + 2, 0, 0), "recreated ? to 9-0, caught up");
    }

    #[test]
    fn a_log_that_lost_its_end_is_read_on_behind_what_is_left() {
        let mut followed = from(1, 9);
        take(&mut followed, &[1, 2, 3, 4]);
        followed.doubt(Doubt::OutOfRange);
        assert_eq!(answer(&mut followed, LIFE, 0, 3), "truncated 7-5 to 7-3, caught up");
        assert_eq!(take(&mut followed, &[3]), "3", "other messages are there by now");
        // It grew again before anybody asked: the library saw it.
        followed.doubt(Doubt::Truncated);
        followed.doubt(Doubt::OutOfRange);
        assert_eq!(answer(&mut followed, LIFE, 0, 8), "truncated ? to 7-4");
        followed.doubt(Doubt::OutOfRange);
        assert_eq!(answer(&mut followed, LIFE, 0, 8), "", "nothing is missing");
    }

    #[test]
    fn a_damaged_batch_is_one_unreadable_record_and_a_gap_to_its_end() {
        let mut followed = from(3, 9);
        let damage = |followed: &mut Followed, begin| {
            let mut told = Vec::new();
            let why = Error::new(crate::ErrorKind::Corrupt, "its checksum is wrong");
            followed.take(begin, Content::Damaged(why), &mut told);
            say(&told)
        };
        let past = |followed: &mut Followed, begin, to| {
            let mut told = Vec::new();
            followed.past_damage(begin, to, &mut told);
            say(&told)
        };
        assert_eq!((damage(&mut followed, 3), followed.stuck_at()), ("unreadable 3".into(), Some(3)));
        assert_eq!(damage(&mut followed, 3), "", "told once, however often it is read");
        assert_eq!(
            (take(&mut followed, &[6, 7]), followed.wanted()),
            (String::new(), None),
            "nothing is believed"
        );
        followed.doubt(Doubt::OutOfRange);
        assert_eq!(answer(&mut followed, LIFE, 0, 9), "");
        assert_eq!((followed.stuck_at(), followed.wanted()), (Some(3), None), "nor by what the log says");
        assert_eq!(past(&mut followed, 2, 9), "", "that is another one");
        assert_eq!(past(&mut followed, 3, 6), "damaged 7-4 to 7-6");
        assert_eq!(take(&mut followed, &[6]), "6");
        // Reading began in the middle of it; its end is the next one.
        assert_eq!(
            (damage(&mut followed, 5), past(&mut followed, 5, 8)),
            ("unreadable 7".into(), String::new())
        );
        assert_eq!(damage(&mut followed, 8), "unreadable 8, caught up", "a batch of one record");
        assert_eq!((past(&mut followed, 8, 9), followed.wanted()), (String::new(), Some(9)));
        assert_eq!(take(&mut followed, &[9]), "9");
    }

    #[test]
    fn a_damaged_batch_at_the_end_is_passed_over_and_one_that_is_gone_is_not_looked_for() {
        let stuck = || {
            let mut followed = from(3, 9);
            let why = Error::new(crate::ErrorKind::Corrupt, "its checksum is wrong");
            followed.take(3, Content::Damaged(why), &mut Vec::new());
            followed
        };
        let mut told = Vec::new();
        stuck().past_damage(3, 9, &mut told);
        assert_eq!(say(&told), "damaged 7-4 to 7-9, caught up");
        assert_eq!(answer(&mut stuck(), LIFE + 1, 0, 1), "recreated ? to 8-0");
        assert_eq!(answer(&mut stuck(), LIFE, 6, 9), "trimmed 7-4 to 7-6");
        assert_eq!(answer(&mut stuck(), LIFE, 0, 2), "truncated 7-4 to 7-2, caught up");
    }

    #[test]
    fn problems_are_told_apart_by_code() {
        let out_of_range = "fetch failed due to requested offset not available on the broker";
        assert_eq!(meaning(-140, out_of_range), Meaning::Doubtful(Doubt::OutOfRange));
        assert_eq!(meaning(-140, "Partition log truncation detected"), Meaning::Doubtful(Doubt::Truncated));
        assert_eq!(meaning(-139, ""), Meaning::Doubtful(Doubt::Truncated));
        assert_eq!(meaning(3, ""), Meaning::Doubtful(Doubt::OutOfRange));
        assert_eq!(meaning(29, ""), Meaning::Lasting);
        assert_eq!(meaning(-169, ""), Meaning::Lasting);
        assert_eq!(meaning(-150, ""), Meaning::Renew);
        assert_eq!(meaning(-199, ""), Meaning::Damaged);
        for passing in [-195, -187, -185, 5, 6, 7, 9, 74, 75] {
            assert_eq!(meaning(passing, "truncated"), Meaning::Passing, "{passing}");
        }
    }
}
