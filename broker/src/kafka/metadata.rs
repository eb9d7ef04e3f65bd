//! What stands beside a committed offset: as text, since Kafka keeps nothing else, and in at most 4,096 bytes.
//!
//! Form: `rw1:LIFE:EPOCH:OLDEST:BEFORE:MAP`. The life is the fold of the topic's id, in hexadecimal digits: Kafka may keep the offsets of a group over the end of
//! a topic, and an offset of another life is no position. The epoch is that of the last owner. Oldest is the timestamp of the message at the position, in
//! milliseconds, or empty where it is not known. Before is where the group was in an earlier life, or nothing. The map is what
//! [`AckWindow::encode`] makes, in Base64 without padding. Every commit replaces all of it. Not here: who commits
//! (`members/`), who reads it without joining (`group_admin.rs`).

use crate::{AckWindow, Epoch, Position, Timestamp};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD as BASE64};

/// What ours begins with.
const MARK: &str = "rw1:";
/// The most that a server takes by default (`offset.metadata.max.bytes`), in bytes.
pub(super) const MOST: usize = 4096;
/// The mark, 16 digits of the life, 20 of the epoch and of the oldest, a position of two numbers, and what parts them.
pub(super) const HEAD: usize = MARK.len() + 16 + 1 + 20 + 1 + 20 + 1 + 41 + 1;
/// How large a map may be, so that it fits with the rest, in bytes.
pub(super) const MAX_MAP: usize = map_of(MOST);

/// The same where a server takes so many bytes.
pub(super) const fn map_of(most: usize) -> usize {
    most.saturating_sub(HEAD) / 4 * 3
}

/// What we keep beside an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The life of the topic that the offset is of.
    pub(super) life: u64,
    /// The epoch of the last owner; 0: nobody owned it yet, a start was stored.
    pub(super) epoch: Epoch,
    /// When the message at the position was made, where it is known.
    pub(super) oldest: Option<Timestamp>,
    /// Where the group was before the topic was made again or the log lost its end, until something of what is there now is done.
    pub(super) before: Option<Position>,
    /// What is done beyond the position; empty: nothing.
    pub(super) map: Vec<u8>,
}

/// What stands beside an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: somebody else committed it.
    None,
    /// What we keep there.
    Ours(Metadata),
    /// What somebody else keeps there, or ours damaged: not looked at.
    Foreign,
}

impl Metadata {
    /// As it is stored. A map of more than [`MAX_MAP`] is left out: that means more repeats, and nothing else.
    pub(super) fn encode(&self) -> String {
        let Self { life, epoch, oldest, before, map } = self;
        let oldest = oldest.map(|oldest| oldest.as_millis().to_string()).unwrap_or_default();
        let before = before.map(|before| before.to_string()).unwrap_or_default();
        let mut text = format!("{MARK}{life:x}:{epoch}:{oldest}:{before}:");
        if map.len() <= MAX_MAP {
            BASE64.encode_string(map, &mut text);
        }
        text
    }

    /// How many positions beyond `position` are done.
    pub(super) fn done_beyond(&self, position: Position) -> u64 {
        // A damaged map counts as none, as it does for who resumes.
        let Ok(window) = AckWindow::restore(position, &self.map) else { return 0 };
        let known = window.until().1.saturating_sub(position.1);
        known.saturating_sub(window.holes() as u64)
    }
}

/// Reads what stands there.
pub(super) fn parse(stored: Option<&[u8]>) -> Known {
    let Some(stored) = stored.filter(|stored| !stored.is_empty()) else { return Known::None };
    ours(stored).map_or(Known::Foreign, Known::Ours)
}

fn ours(stored: &[u8]) -> Option<Metadata> {
    let rest = std::str::from_utf8(stored).ok().filter(|text| text.len() <= MOST)?.strip_prefix(MARK)?;
    let mut words = rest.split(':');
    let life = u64::from_str_radix(words.next()?, 16).ok()?;
    let epoch = Epoch(words.next()?.parse().ok()?);
    let oldest = match words.next()? {
        "" => None,
        millis => Some(Timestamp::from_millis(millis.parse().ok()?)),
    };
    let before = match words.next()? {
        "" => None,
        before => Some(before.parse().ok()?),
    };
    let map = BASE64.decode(words.next()?).ok()?;
    words.next().is_none().then_some(Metadata { life, epoch, oldest, before, map })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn metadata(map: Vec<u8>) -> Metadata {
        Metadata {
            life: u64::MAX,
            epoch: Epoch(u64::MAX),
            oldest: Some(Timestamp::from_millis(i64::MIN)),
            before: Some(Position(u64::MAX, u64::MAX)),
            map,
        }
    }

    #[test]
    fn it_fits_however_large_its_parts_are_and_a_map_that_does_not_is_left_out() {
        let most = metadata(vec![0xff; MAX_MAP]).encode();
        assert!(most.len() <= MOST && most.len() > MOST - 8, "{}", most.len());
        let more = metadata(vec![0xff; MAX_MAP + 1]);
        let Known::Ours(read) = parse(Some(more.encode().as_bytes())) else { panic!("it is ours") };
        assert_eq!(read, Metadata { map: Vec::new(), ..more });
    }

    #[test]
    fn what_others_keep_there_is_told_apart() {
        assert_eq!(parse(None), Known::None);
        assert_eq!(parse(Some(b"")), Known::None);
        for foreign in [
            "x",
            "rw1:",
            "rw1:1:2:3",
            "rw1:1:2:3:",
            "rw1:1:2::::",
            "rw1:g:2:::",
            "rw1:1:-2:::",
            "rw1:1:2:x::",
            "rw1:1:2::7:",
            "rw1:1:2:::*",
            "rw2:1:2:::",
            "rw1:1:2:::YQ==",
        ] {
            assert_eq!(parse(Some(foreign.as_bytes())), Known::Foreign, "{foreign}");
        }
        assert_eq!(parse(Some(b"rw1:\xff:2:::")), Known::Foreign);
        assert_eq!(parse(Some(&[b"rw1:1:2:::".as_slice(), &[b'A'; MOST]].concat())), Known::Foreign);
    }

    #[test]
    fn what_is_done_beyond_the_position_is_counted() {
        let at = |offset| Position(9, offset);
        let mut window = AckWindow::new(at(10));
        (10..20).for_each(|offset| _ = window.deliver(at(offset)));
        [12, 13, 19].iter().for_each(|offset| _ = window.ack(at(*offset)));
        let map = window.encode(MAX_MAP).0;
        let stored = Metadata { life: 9, epoch: Epoch(1), oldest: None, before: None, map };
        assert_eq!(stored.done_beyond(at(10)), 3);
        assert_eq!(stored.done_beyond(at(11)), 0, "it is the map of another position");
        assert_eq!(Metadata { map: Vec::new(), ..stored }.done_beyond(at(10)), 0);
    }

    proptest! {
        #[test]
        fn it_is_read_as_it_was_written(life: u64, epoch: u64, oldest: Option<i64>, before: Option<(u64, u64)>, map: Vec<u8>) {
            let oldest = oldest.map(Timestamp::from_millis);
            let before = before.map(|(life, offset)| Position(life, offset));
            let stored = Metadata { life, epoch: Epoch(epoch), oldest, before, map };
            let text = stored.encode();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(parse(Some(text.as_bytes())), Known::Ours(stored));
        }

        #[test]
        fn whatever_stands_there_is_read_without_harm(stored: Vec<u8>) {
            parse(Some(&[MARK.as_bytes(), &stored].concat()));
            parse(Some(&stored));
        }
    }
}
