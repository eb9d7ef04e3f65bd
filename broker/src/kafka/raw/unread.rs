//! Whether servers answer a client that looks at a partition with what the library makes nothing of.
//!
//! It passes over batches of a format or a length that cannot be, asks again at the same offset, and says so in its log alone. That tells them from servers that are
//! slow: their answers did come. Not here: who looks (`../probe.rs`), where the lines come from (`client.rs`).

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the log of a client is to have in it.
pub(super) const DEBUG: (&str, &str) = ("debug", "fetch,msg");

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Lines are heeded.
    heeds: bool,
    /// Where the last question was.
    at: Option<u64>,
    /// How many answers to questions there, one after the other, had something or should have, and nothing came of it.
    answers: u32,
}

impl Unread {
    /// From here on lines are heeded.
    pub(super) fn heed(&self) {
        self.heard().heeds = true;
    }

    /// How many answers in a row nothing came of, to questions at that offset.
    pub(super) fn at(&self, offset: u64) -> u32 {
        let heard = self.heard();
        if heard.at == Some(offset) { heard.answers } else { 0 }
    }

    /// A line of the log. `true`: it is for nobody else.
    pub(super) fn line(&self, level: i32, facility: &str, line: &str) -> bool {
        let mut heard = self.heard();
        if !heard.heeds || level < 7 {
            return false;
        }
        match facility {
            "FETCH" => heard.asked(line),
            "CONSUME" if line.contains(": Enqueue ") => {
                let nothing = line.contains(" Enqueue 0 ") && line.contains(" 0 ops)");
                let marks = !line.contains(", 0 ctrl msgs, 0 aborted msgsets");
                heard.answers = if nothing && !marks { heard.answers + 1 } else { 0 };
            }
            _ => {}
        }
        true
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// A question, or what is empty though there is something.
    fn asked(&mut self, line: &str) {
        if line.contains(": Fetch topic ") {
            let at = number(line, "] at offset ");
            if self.at != at {
                (self.at, self.answers) = (at, 0);
            }
        } else if line.contains(" MessageSet size 0, error \"Success\",") {
            let end = number(line, ", MaxOffset ")
                .map(|end| number(line, ", LSO ").map_or(end, |lso| lso.min(end)));
            if self.at.zip(end).is_some_and(|(at, end)| at < end) {
                self.answers += 1;
            }
        }
    }
}

/// The number behind a text.
fn number(line: &str, behind: &str) -> Option<u64> {
    let (_, rest) = line.split_once(behind)?;
    let digits = rest.split_once(|c: char| !c.is_ascii_digit()).map_or(rest, |(digits, _)| digits);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "[thrd:h:1/1]: h:1/1: Fetch topic t.1-a [0] at offset 12 (leader epoch -1, current leader epoch 0, v2)";
    const NOTHING: &str = "[thrd:h:1/1]: h:1/1: Enqueue 0 message(s) (0 bytes, 0 ops) on t.1-a [0] fetch queue (qlen 0, v2, last_offset -1, 0 ctrl msgs, 0 aborted msgsets, uncompressed)";
    const EMPTY: &str = "[thrd:h:1/1]: h:1/1: Topic t.1-a [0] MessageSet size 0, error \"Success\", MaxOffset 40, LSO 40, Ver 2/2";

    fn heard(lines: &[(&str, &str)]) -> Unread {
        let unread = Unread::default();
        unread.heed();
        lines.iter().for_each(|(facility, line)| assert!(unread.line(7, facility, line)));
        unread
    }

    #[test]
    fn answers_of_which_nothing_is_made_are_counted_where_the_client_stands() {
        let lines =
            [("FETCH", ASKED), ("CONSUME", NOTHING), ("FETCH", ASKED), ("FETCH", EMPTY), ("FETCH", ASKED)];
        let unread = heard(&lines);
        assert_eq!((unread.at(12), unread.at(11)), (2, 0));
        let on = ASKED.replace("offset 12", "offset 13");
        unread.line(7, "FETCH", &on);
        assert_eq!((unread.at(12), unread.at(13)), (0, 0), "it went on");
    }

    #[test]
    fn what_is_no_sign_of_damage_is_not_counted() {
        let end = EMPTY.replace("MaxOffset 40, LSO 40", "MaxOffset 12, LSO 12");
        let open = EMPTY.replace("LSO 40", "LSO 12");
        let marks = NOTHING.replace("0 ctrl", "3 ctrl");
        let aborted = NOTHING.replace("0 aborted", "1 aborted");
        let error = EMPTY.replace("Success", "Broker: Not leader for partition");
        for (facility, line) in
            [("FETCH", &end), ("FETCH", &open), ("CONSUME", &marks), ("CONSUME", &aborted), ("FETCH", &error)]
        {
            assert_eq!(heard(&[("FETCH", ASKED), (facility, line)]).at(12), 0, "{line}");
        }
        let some =
            NOTHING.replace("Enqueue 0 message(s) (0 bytes, 0 ops)", "Enqueue 2 message(s) (9 bytes, 2 ops)");
        assert_eq!(heard(&[("FETCH", ASKED), ("CONSUME", NOTHING), ("CONSUME", &some)]).at(12), 0);
        let other = Unread::default();
        assert!(!other.line(7, "FETCH", ASKED), "of other clients it is passed on");
    }
}
