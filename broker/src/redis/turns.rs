//! Which of the logs a read asks, and how much of each, so that one answer stays within bounds however many logs there are and however large their messages.
//!
//! Redis counts in entries, and gives each log that has something at least one. So of the logs that may have more no more are asked together than their
//! messages fit; the others have their turn behind them, without waiting. What was read to its end a moment ago brings no more than came since, and is asked
//! each time; when all were, the read waits on all. Where a large answer shows that messages have grown, fewer are asked together until answers are
//! small again. Pure. Not here: how large the messages of a log are (`pace.rs`), the connection (`feed.rs`).

use super::pace::Pace;
use crate::{Error, ErrorKind, balance::TopicPartition, batched::Size};
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes that an answer is to bring, by the size of what came before.
const BYTES: usize = 16 * 1024 * 1024;
/// How many entries are asked for before anything was read: they may be of any size.
const FIRST: usize = 16;
/// How many times as many entries as came in a small answer may be asked for next.
const GROWTH: usize = 4;
/// An answer that was given up was so many times as large as it should be, at the least.
const GIVEN_UP: usize = 64;
/// After how long a pause it is not known any more that there was nothing behind what was read.
const OLD: Duration = Duration::from_secs(2);

/// The order in which logs are read.
#[derive(Debug)]
pub(super) struct Turns {
    /// The last that had its turn.
    last: Option<TopicPartition>,
    /// How many entries one answer may bring of logs that may have more.
    entries: usize,
    /// How many the read that is under way may bring, of all it asks.
    asked: usize,
    /// When something was read last.
    read: Option<Instant>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { last: None, entries: FIRST, asked: 0, read: None }
    }
}

/// What is read next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which logs, by their place in the list; first those that may have more.
    pub(super) logs: Vec<usize>,
    /// How many entries of each at the most.
    pub(super) count: usize,
    /// Others that may have more are left for the next time: this one must not wait.
    pub(super) others: bool,
}

impl Turns {
    /// Whether the last read was so long ago that logs may have much that had nothing then.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.read.is_some_and(|read| now.saturating_duration_since(read) > OLD)
    }

    /// What is read next of these logs, which are in order, where there is that room, and `most` entries of one.
    pub(super) fn next(&mut self, logs: &[(&TopicPartition, Pace)], room: Size, most: usize) -> Turn {
        let (open, mut ended): (Vec<usize>, Vec<usize>) =
            (0..logs.len()).partition(|at| !logs[*at].1.is_at_end());
        let behind = open.partition_point(|at| self.last.as_ref().is_some_and(|last| logs[*at].0 <= last));
        let in_turn = open[behind..].iter().chain(&open[..behind]).copied();
        let (messages, bytes) = (room.messages.min(self.entries).max(1), room.bytes.min(BYTES));
        let mut sum = 0_usize;
        let fits = |at: &usize| {
            let first = sum == 0;
            sum = sum.saturating_add(logs[*at].1.size());
            first || sum <= bytes
        };
        let mut chosen: Vec<usize> = in_turn.take(messages).take_while(fits).collect();
        let others = chosen.len() < open.len();
        if others {
            self.last = chosen.last().map(|at| logs[*at].0.clone());
        }
        // What is at its end counts only where nothing else is read.
        let counted = if chosen.is_empty() { &ended } else { &chosen };
        let count = Pace::count(counted.iter().map(|at| logs[*at].1), room, most);
        let count = count.min(messages / counted.len().max(1)).max(1);
        self.asked = counted.len().saturating_mul(count);
        chosen.append(&mut ended);
        Turn { logs: chosen, count, others }
    }

    /// So much came.
    pub(super) fn came(&mut self, entries: usize, bytes: usize, now: Instant) {
        self.read = Some(now);
        // As many as fit, where all are as those that came.
        let fit = (entries.saturating_mul(BYTES) / bytes.max(1)).max(1);
        self.entries =
            if bytes > BYTES { fit } else { self.entries.max(fit.min(entries.saturating_mul(GROWTH))) };
    }

    /// The answer was so large that it was given up: whether less can be asked for. What was known of ends is to be forgotten then.
    pub(super) fn can_do_with_less(&mut self, error: &Error) -> bool {
        let less = error.kind() == ErrorKind::TooLarge && self.asked > 1;
        if less {
            self.entries = (self.asked / GIVEN_UP).max(1);
        }
        less
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Topic, redis::pace::tests::of};

    const ROOM: Size = Size { messages: 4096, bytes: 8 << 20 };

    /// Logs with messages of a size, as they lie at a server.
    struct Logs {
        names: Vec<TopicPartition>,
        paces: Vec<Pace>,
        /// How many messages each has left, and their size.
        left: Vec<usize>,
        bytes: usize,
        turns: Turns,
        now: Instant,
        /// The most bytes of an answer, and how many there were.
        largest: usize,
        reads: usize,
    }

    impl Logs {
        fn of(count: u32, left: usize, bytes: usize) -> Self {
            let topic = Topic::new("t").unwrap();
            Self {
                names: (0..count).map(|number| (topic.clone(), number)).collect(),
                paces: vec![Pace::default(); count as usize],
                left: vec![left; count as usize],
                bytes,
                turns: Turns::default(),
                now: Instant::now(),
                largest: 0,
                reads: 0,
            }
        }

        fn next(&mut self, room: Size) -> Turn {
            let logs: Vec<_> = self.names.iter().zip(self.paces.iter().copied()).collect();
            self.turns.next(&logs, room, 512)
        }

        /// Reads once; of which logs something came. `None`: the answer is over a gibibyte.
        fn read(&mut self, room: Size) -> Option<Vec<usize>> {
            let turn = self.next(room);
            self.reads += 1;
            let brought = |at: &usize| self.left[*at].min(turn.count);
            let entries: usize = turn.logs.iter().map(brought).sum();
            self.largest = self.largest.max(entries * self.bytes);
            if entries * self.bytes > 1 << 30 {
                assert!(self.turns.can_do_with_less(&too_long()), "it asks for the same again");
                self.paces.iter_mut().for_each(Pace::forget_end);
                return None;
            }
            let mut came = Vec::new();
            for at in turn.logs {
                let brought = self.left[at].min(turn.count);
                self.left[at] -= brought;
                self.paces[at].learn(brought, brought * self.bytes, turn.count);
                came.extend((brought > 0).then_some(at));
            }
            self.turns.came(entries, entries * self.bytes, self.now);
            Some(came)
        }
    }

    fn too_long() -> Error {
        Error::new(ErrorKind::TooLarge, "an answer of more than a gibibyte")
    }

    #[test]
    fn no_answer_is_far_larger_than_its_bound_however_many_logs_have_large_messages() {
        for (count, bytes, most) in [
            (17, 60 << 20, 16 * (60 << 20)),
            (1024, 1 << 20, BYTES),
            (4096, 60 << 10, BYTES),
            (4096, 100, BYTES),
            (4, 1 << 20, BYTES),
        ] {
            let mut logs = Logs::of(count, 6, bytes);
            let mut seen = vec![0; count as usize];
            while logs.left.iter().any(|left| *left > 0) {
                let came = logs.read(ROOM).unwrap();
                came.into_iter().for_each(|at| seen[at] += 1);
                let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
                assert!(most - least <= 5, "{count} of {bytes}: all have their turn");
                assert!(logs.reads < 50_000);
            }
            assert!(logs.largest <= most, "{count} of {bytes}: an answer of {}", logs.largest);
        }
    }

    #[test]
    fn an_answer_that_is_given_up_is_asked_for_in_smaller_parts() {
        let mut logs = Logs::of(64, 8, 100);
        while logs.read(ROOM).unwrap().len() < 64 {}
        // All grow at once, to what no answer has room for.
        (logs.left, logs.bytes) = (vec![100; 64], 300 << 20);
        let failed = (0..20).take_while(|_| logs.read(ROOM).is_none()).count();
        assert!((1..=3).contains(&failed), "{failed} answers were given up");
        assert_eq!(logs.read(ROOM).unwrap().len(), 1, "one at a time");
        let mut turns = Turns::default();
        let topic = (Topic::new("t").unwrap(), 0);
        assert!(!turns.can_do_with_less(&too_long()), "nothing was asked");
        turns.next(&[(&topic, of(600 << 20))], ROOM, 512);
        assert!(!turns.can_do_with_less(&too_long()), "one message is the least");
        turns.next(&[(&topic, of(100)), (&topic, of(100))], ROOM, 512);
        assert!(!turns.can_do_with_less(&Error::new(ErrorKind::Unavailable, "no answer")));
    }

    #[test]
    fn it_waits_on_all_once_all_were_read_to_their_end_and_goes_on_with_what_came() {
        let mut logs = Logs::of(1024, 1, 1 << 20);
        while logs.next(ROOM).others {
            logs.read(ROOM).unwrap();
        }
        logs.read(ROOM).unwrap();
        assert_eq!(logs.left, [0; 1024]);
        while logs.read(ROOM).is_some_and(|came| !came.is_empty()) {}
        let turn = logs.next(ROOM);
        assert_eq!((turn.logs.len(), turn.count, turn.others), (1024, 1, false));
        // More than one message comes to one: it is asked first, and all others are, too.
        logs.left[700] = 100;
        assert_eq!(logs.read(ROOM).unwrap(), [700]);
        let turn = logs.next(ROOM);
        assert_eq!((turn.logs[0], turn.logs.len(), turn.others), (700, 1024, false));
        // Nobody read for long.
        assert!(!logs.turns.is_old(logs.now + OLD) && logs.turns.is_old(logs.now + 2 * OLD));
        logs.paces.iter_mut().for_each(Pace::forget_end);
        let turn = logs.next(ROOM);
        assert!(turn.others && turn.logs.len() <= 16, "{turn:?}");
    }

    #[test]
    fn one_that_is_busy_is_read_in_large_parts_though_many_others_are_silent() {
        let mut logs = Logs::of(1024, 0, 100);
        logs.left[5] = 100_000;
        while logs.left[5] > 0 {
            logs.read(ROOM).unwrap();
        }
        assert!(logs.reads < 300, "{} reads", logs.reads);
    }

    #[test]
    fn no_more_logs_are_asked_than_there_is_room_for_messages_and_bytes() {
        let mut logs = Logs::of(2000, 100, 1 << 10);
        let room = Size { messages: 1024, bytes: 8 << 20 };
        let mut seen = vec![0; 2000];
        for _ in 0..25 {
            let came = logs.read(room).unwrap();
            assert!(came.len() <= 1024);
            came.into_iter().for_each(|at| seen[at] += 1);
        }
        assert!(seen.iter().all(|seen| *seen >= 2), "all have their turn");
        let turn = logs.next(Size { messages: 3, bytes: 1 });
        assert_eq!((turn.logs.len(), turn.count), (1, 1));
        assert_eq!(logs.next(Size { messages: 0, bytes: 0 }).count, 1);
        assert_eq!(Turns::default().next(&[], ROOM, 512), Turn { logs: vec![], count: 1, others: false });
    }
}
