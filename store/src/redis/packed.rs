//! Commands as bytes, taken apart again: where each begins, and where in a cluster it goes. Pure.
//!
//! Not here: which key decides (`slots.rs`), who sends them (`routed.rs`).

use super::slots::slot_of_words;
use std::ops::Range;

/// How many words of a command are looked at for its key.
const LOOKED_AT: usize = 64;

/// Where a command goes in a cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// To who has the slot.
    Slot(u16),
    /// It has no key: with the one behind it that has one, else with the one before it, else anywhere.
    Along,
    /// To every node that is connected: what is kept by each for itself, as scripts are.
    Everywhere,
    /// To the nodes that did what stands before it, when they have done it: `WAIT`.
    After,
}

/// Takes commands apart; `None` where they are none.
pub(super) fn commands(packed: &[u8]) -> Option<Vec<(Range<usize>, Way)>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < packed.len() {
        let begin = at;
        let words = number(packed, &mut at, b'*')?;
        let mut first: Vec<&[u8]> = Vec::with_capacity(words.min(LOOKED_AT));
        for _ in 0..words {
            let length = number(packed, &mut at, b'$')?;
            let word = packed.get(at..at.checked_add(length)?)?;
            at += length + 2;
            if first.len() < LOOKED_AT {
                first.push(word);
            }
        }
        if words == 0 || at > packed.len() {
            return None;
        }
        all.push((begin..at, way(&first)));
    }
    Some(all)
}

fn way(words: &[&[u8]]) -> Way {
    match words.first() {
        Some(name) if name.eq_ignore_ascii_case(b"WAIT") => Way::After,
        Some(name) if name.eq_ignore_ascii_case(b"SCRIPT") => Way::Everywhere,
        _ => slot_of_words(words).map_or(Way::Along, Way::Slot),
    }
}

/// The number behind a sign, up to the end of its line.
fn number(packed: &[u8], at: &mut usize, sign: u8) -> Option<usize> {
    let rest = packed.get(*at..)?;
    let digits = rest.strip_prefix(&[sign])?;
    let end = digits.iter().take(20).position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
    *at += 1 + end + 2;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::cmd;

    #[test]
    fn each_command_is_found_with_where_it_goes() {
        let all = [
            cmd("GET").arg("foo").take(),
            cmd("TIME"),
            cmd("SCRIPT").arg("LOAD").arg("return {}\r\n*1\r\n").take(),
            cmd("EVALSHA").arg("hash").arg(1).arg("{foo}x").arg("").take(),
            cmd("WAIT").arg(1).arg(100).take(),
        ];
        let packed: Vec<Vec<u8>> = all.iter().map(::redis::Cmd::get_packed_command).collect();
        let whole = packed.concat();
        let found = commands(&whole).unwrap();
        let slot = Way::Slot(12182);
        assert_eq!(
            found.iter().map(|(_, way)| *way).collect::<Vec<_>>(),
            [slot, Way::Along, Way::Everywhere, slot, Way::After]
        );
        let cut: Vec<&[u8]> = found.iter().map(|(range, _)| &whole[range.clone()]).collect();
        assert_eq!(cut, packed);
    }

    #[test]
    fn what_is_no_command_is_told() {
        for bad in [
            "GET foo\r\n",
            "*1\r\n$3\r\nGE",
            "*0\r\n",
            "*1\r\n$99999999999999999999\r\n",
            "*2\r\n$1\r\na\r\n",
        ] {
            assert_eq!(commands(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(commands(b"").unwrap(), []);
    }
}
