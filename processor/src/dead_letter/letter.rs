//! Making a dead letter that its topic takes.
//!
//! A letter is the message and its record. Where that is more than the topic takes, the largest fields (the error's text, values of
//! headers) are cut and marked until it fits; where that is not enough, the payload is left out, and its place says where it is.
//! Not here: what the record says (`record.rs`).

use super::record::{FailureRecord, PREFIX, rounds_before};
use crate::verdict::cut;
use ropeway_broker::{Headers, Message, MessageId};

/// A cut text or value keeps that many bytes.
const KEPT: usize = 128;
/// The most names of cut headers that are told, in bytes.
const MAX_CUT_NAMES: usize = 512;
/// What the record may take of the number of headers a message may have.
const RECORD_HEADERS: usize = 20;

/// A dead letter in the making.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    record: FailureRecord,
    /// The message as it lies in its topic.
    original: Message,
    /// The largest letter that may be tried.
    limit: usize,
}

impl Letter {
    /// A letter for a topic that takes messages of `max_message` bytes. What an earlier record in the message says is replaced; only the
    /// number of rounds goes on.
    pub(crate) fn new(original: Message, mut record: FailureRecord, max_message: usize) -> Self {
        record.round = rounds_before(&original.headers).saturating_add(1);
        record.cut.clear();
        record.payload_left_out = None;
        Self { record, original, limit: max_message }
    }

    pub(crate) const fn record(&self) -> &FailureRecord {
        &self.record
    }

    /// Notes that a letter of that size was refused as too large: the next one will be smaller.
    pub(crate) fn refused(&mut self, size: usize) {
        self.limit = self.limit.min(size / 4 * 3);
    }

    /// The letter. The same each time, unless it was refused between.
    pub(crate) fn message(&self) -> Message {
        let whole = self.draft(Draft::default());
        if self.fits(&whole) {
            return whole;
        }
        let least = self.draft(Draft { keep: Some(KEPT), ..Draft::default() });
        let without_payload = !self.fits(&least);
        // The largest fields first: a lower and lower limit for every field, until it fits.
        let mut keep = self.largest_field();
        while keep > KEPT {
            let draft = self.draft(Draft { keep: Some(keep), without_payload, ..Draft::default() });
            if self.fits(&draft) {
                return draft;
            }
            keep = (keep / 2).max(KEPT);
        }
        let draft = self.draft(Draft { keep: Some(KEPT), without_payload, ..Draft::default() });
        if self.fits(&draft) {
            return draft;
        }
        let draft = self.draft(Draft { keep: Some(KEPT), without_payload, without_headers: true });
        if self.fits(&draft) {
            return draft;
        }
        self.draft(Draft { keep: Some(KEPT), without_payload: true, without_headers: true })
    }

    fn fits(&self, draft: &Message) -> bool {
        draft.check(self.limit).is_ok()
    }

    fn largest_field(&self) -> usize {
        let headers =
            self.original.headers.iter().map(|(_, value)| value.map_or(0, <[u8]>::len)).max().unwrap_or(0);
        headers.max(self.record.error.len())
    }

    fn draft(&self, draft: Draft) -> Message {
        let mut record = self.record.clone();
        let mut names = 0;
        let mut mark = |cut: &mut Vec<String>, name: &str| {
            names += name.len() + 1;
            if names <= MAX_CUT_NAMES && !name.contains(',') {
                cut.push(name.to_owned());
            }
        };
        if let Some(keep) = draft.keep
            && record.error.len() > keep
        {
            cut(&mut record.error, keep);
            mark(&mut record.cut, "error");
        }
        let mut payload = self.original.payload.clone();
        if draft.without_payload
            && let Some(left_out) = payload.take()
        {
            record.payload_left_out = Some(left_out.len() as u64);
            mark(&mut record.cut, "payload");
        }
        let mut headers = Headers::builder();
        let mut count = 0;
        let mut left_out = false;
        for (name, value) in self.original.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX)) {
            count += 1;
            if draft.without_headers || count > Headers::MAX_COUNT - RECORD_HEADERS {
                left_out = true;
                continue;
            }
            let kept = value.map(|value| &value[..value.len().min(draft.keep.unwrap_or(usize::MAX))]);
            if kept.map(<[u8]>::len) != value.map(<[u8]>::len) {
                mark(&mut record.cut, name);
            }
            headers = headers.add(name, kept);
        }
        if left_out {
            mark(&mut record.cut, "headers");
        }
        Message {
            id: self.id(),
            key: self.original.key.clone(),
            headers: record.write(headers).build(),
            payload,
            timestamp: self.original.timestamp,
            deliver_at: None,
        }
    }

    fn id(&self) -> MessageId {
        let record = &self.record;
        MessageId::derived(&[
            b"dead-letter",
            record.group.as_str().as_bytes(),
            record.topic.as_str().as_bytes(),
            &record.partition.to_be_bytes(),
            &record.position.0.to_be_bytes(),
            &record.position.1.to_be_bytes(),
        ])
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Draft {
    /// No field has more bytes than that.
    keep: Option<usize>,
    without_payload: bool,
    without_headers: bool,
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::example;
    use super::*;
    use proptest::prelude::*;

    fn parsed(letter: &Message) -> FailureRecord {
        FailureRecord::parse(letter).unwrap().unwrap()
    }

    #[test]
    fn a_letter_is_the_message_unchanged_and_its_record() {
        let original = Message::builder()
            .key("k")
            .header("a", "1")
            .header("a", [0xff])
            .null_header("n")
            .payload("p")
            .build();
        let letter = Letter::new(original.clone(), example(), 10_000).message();
        assert_eq!(
            (&letter.key, &letter.payload, letter.timestamp),
            (&original.key, &original.payload, original.timestamp)
        );
        assert_eq!(letter.headers.filtered(|name| !name.starts_with(PREFIX)), original.headers);
        assert_ne!(letter.id, original.id);
        let again = Letter::new(original, example(), 10_000).message();
        assert_eq!(letter.id, again.id, "a repeat is recognised");
        let record = parsed(&letter);
        assert_eq!((record.round, record.payload_left_out, record.cut.len()), (1, None, 0));
    }

    #[test]
    fn a_letter_that_fails_again_has_one_record_and_counts_the_round() {
        let first = Letter::new(Message::builder().header("a", "1").build(), example(), 10_000).message();
        let second = Letter::new(first.clone(), FailureRecord { attempts: 9, ..example() }, 10_000).message();
        assert_eq!(second.headers.count(), first.headers.count());
        let record = parsed(&second);
        assert_eq!((record.round, record.attempts), (2, 9));
    }

    #[test]
    fn the_largest_fields_go_first_and_the_payload_last() {
        let original = Message::builder()
            .header("big", vec![b'x'; 5000])
            .header("small", "s")
            .payload(vec![0; 3000])
            .build();
        let error = "e".repeat(4000);
        let record = FailureRecord { error, ..example() };
        let letter = Letter::new(original.clone(), record.clone(), 8000).message();
        letter.check(8000).unwrap();
        let told = parsed(&letter);
        assert_eq!(told.cut, ["error", "big"]);
        assert_eq!(letter.payload, original.payload);
        assert_eq!(letter.headers.get_str("small"), Some("s"));
        let letter = Letter::new(original, record, 3000).message();
        letter.check(3000).unwrap();
        let told = parsed(&letter);
        assert_eq!((letter.payload, told.payload_left_out), (None, Some(3000)));
        assert!(told.cut.contains(&"payload".to_owned()));
        assert_eq!(
            (told.topic.as_str(), told.partition, told.position),
            ("orders", 3, ropeway_broker::Position(7, 42))
        );
    }

    #[test]
    fn a_message_with_as_many_headers_as_there_may_be_still_makes_a_letter() {
        let original =
            (0..Headers::MAX_COUNT).fold(Message::builder(), |b, i| b.header(&format!("h{i}"), "v")).build();
        let letter = Letter::new(original, example(), 10_000_000).message();
        letter.check(10_000_000).unwrap();
        assert!(parsed(&letter).cut.contains(&"headers".to_owned()));
    }

    proptest! {
        #[test]
        fn a_letter_fits_wherever_its_least_form_does(
            values in proptest::collection::vec(0usize..3000, 0..20), payload in 0usize..5000, error in 0usize..5000, limit in 1200usize..20_000,
        ) {
            let original = values.iter().enumerate()
                .fold(Message::builder(), |b, (i, n)| b.header(&format!("h{i}"), vec![b'v'; *n]))
                .payload(vec![1; payload]).build();
            let record = FailureRecord { error: "e".repeat(error), ..example() };
            let letter = Letter::new(original.clone(), record, limit).message();
            letter.check(limit).unwrap();
            let told = parsed(&letter);
            prop_assert_eq!(letter.payload.is_none(), told.payload_left_out.is_some());
            let changed = letter.headers.filtered(|name| !name.starts_with(PREFIX)) != original.headers;
            prop_assert!(!changed || !told.cut.is_empty());
        }
    }

    #[test]
    fn a_refused_letter_gets_smaller_until_it_is_the_least() {
        let original = Message::builder().payload(vec![0; 100_000]).build();
        let mut letter = Letter::new(original, example(), usize::MAX);
        for _ in 0..20 {
            let size = letter.message().size();
            letter.refused(size);
        }
        assert!(letter.message().size() < 1500);
    }
}
