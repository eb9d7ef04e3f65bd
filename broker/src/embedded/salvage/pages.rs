//! Pages of a keyspace of which parts cannot be read: what lies before and behind them is.
//!
//! A block that is damaged fails every read that meets it. Where it begins and ends is found by trying: the range is cut until it can be read.

use crate::{Result, embedded::core::store_error};
use bytes::Bytes;
use ropeway_store::{Direction, Error, KeyValue, Keyspace, Limit, Page, SalvagedStore};
use std::ops::ControlFlow;

/// Entries of a page; of bytes a page has at most 1 MiB and one entry.
const PAGE: usize = 1024;
/// Bytes of a key that count where the end of what is damaged is looked for.
const DIGITS: usize = 64;

/// An entry; or why some cannot be read that lie there.
pub(super) type Entry = Result<(Bytes, Bytes), String>;

/// Visits all entries from `from` up to but without `to` that can be read, in their order, and tells where some cannot.
///
/// # Errors
/// The store is closed.
pub(super) fn each(
    store: &SalvagedStore,
    space: Keyspace,
    from: &[u8],
    to: &[u8],
    visit: &mut dyn FnMut(Entry) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let range = Range { store, space };
    let mut from = from.to_vec();
    let mut items = PAGE;
    while from.as_slice() < to {
        let (page, why) = match range.scan(&from, to, items)? {
            Ok(page) => (page, None),
            Err(_) if items > 1 => {
                items = 1;
                continue;
            }
            Err(why) => (range.before_damage(&from, to)?, Some(why)),
        };
        items = (items * 2).min(PAGE);
        if let Some((last, _)) = page.items.last() {
            from = [last, &[0][..]].concat();
        }
        let is_end = !page.more && why.is_none();
        for entry in page.items {
            if visit(Ok(entry))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if let Some(why) = why {
            if visit(Err(why))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            from = range.behind_damage(&from, to)?;
            items = 1;
        }
        if is_end {
            break;
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Whether a read failed because of what is stored; other failures are errors.
fn told<T>(read: ropeway_store::Result<T>) -> Result<Result<T, String>> {
    match read {
        Ok(found) => Ok(Ok(found)),
        Err(error @ (Error::Closed | Error::Dropped | Error::Key { .. })) => Err(store_error(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// The value of a key; or why it cannot be read.
///
/// # Errors
/// The store is closed.
pub(super) fn get(
    store: &SalvagedStore,
    space: Keyspace,
    key: &[u8],
) -> Result<Result<Option<Bytes>, String>> {
    told(store.get(space, key))
}

struct Range<'a> {
    store: &'a SalvagedStore,
    space: Keyspace,
}

impl Range<'_> {
    fn scan(&self, from: &[u8], to: &[u8], items: usize) -> Result<Result<Page, String>> {
        let limit = Limit::items(items);
        told(self.store.scan(self.space, from, Some(to), Direction::Forward, limit))
    }

    /// What can be read from `from` on, where a read from there to `to` fails.
    fn before_damage(&self, from: &[u8], to: &[u8]) -> Result<Page> {
        let (mut low, mut high) = (digits(from), digits(to));
        let mut best = Page::default();
        while let Some(middle) = between(&low, &high) {
            match self.scan(from, &middle, PAGE)? {
                Ok(page) => {
                    low = middle;
                    best = page;
                }
                Err(_) => high = middle,
            }
        }
        Ok(best)
    }

    /// From where on something can be read, where a read from `from` fails. Looked for near `from` first, so that nothing is passed over that lies
    /// between two damaged parts, unless they are close.
    fn behind_damage(&self, from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        let (mut low, end) = (digits(from), digits(to));
        let mut high = end;
        for bit in 0..DIGITS * 8 {
            let Some(next) = plus(&low, bit).filter(|next| *next < end) else { break };
            if self.scan(&next, to, 1)?.is_ok() {
                high = next;
                break;
            }
            low = next;
        }
        while let Some(middle) = between(&low, &high) {
            if self.scan(&middle, to, 1)?.is_ok() { high = middle } else { low = middle }
        }
        Ok(if high >= end { to.to_vec() } else { high.to_vec() })
    }
}

type Digits = [u8; DIGITS];

/// A key as a fraction.
fn digits(key: &[u8]) -> Digits {
    let mut digits = [0; DIGITS];
    for (digit, byte) in digits.iter_mut().zip(key) {
        *digit = *byte;
    }
    digits
}

/// What lies in the middle, where something does.
fn between(low: &Digits, high: &Digits) -> Option<Digits> {
    let mut sum = [0_u16; DIGITS];
    for ((sum, low), high) in sum.iter_mut().zip(low).zip(high) {
        *sum = u16::from(*low) + u16::from(*high);
    }
    for digit in (1..DIGITS).rev() {
        sum[digit - 1] += sum[digit] >> 8;
        sum[digit] &= 0xff;
    }
    let mut middle = [0; DIGITS];
    let mut carry = 0;
    for (digit, sum) in middle.iter_mut().zip(sum) {
        let whole = sum + (carry << 8);
        *digit = u8::try_from(whole >> 1).unwrap_or(u8::MAX);
        carry = whole & 1;
    }
    (middle > *low && middle < *high).then_some(middle)
}

/// With that bit added, counted from the last one.
fn plus(digits: &Digits, bit: usize) -> Option<Digits> {
    let mut sum = *digits;
    let mut add = 1_u16 << (bit % 8);
    for digit in sum[..DIGITS - bit / 8].iter_mut().rev() {
        let whole = u16::from(*digit) + add;
        *digit = u8::try_from(whole & 0xff).unwrap_or(u8::MAX);
        add = whole >> 8;
        if add == 0 {
            return Some(sum);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_middle_lies_between_and_is_found_until_nothing_does(low in proptest::collection::vec(any::<u8>(), 0..70), high in proptest::collection::vec(any::<u8>(), 0..70)) {
            let (low, high) = (digits(&low), digits(&high));
            let (mut low, high) = (low.min(high), low.max(high));
            let mut steps = 0;
            while let Some(middle) = between(&low, &high) {
                prop_assert!(low < middle && middle < high);
                low = middle;
                steps += 1;
            }
            prop_assert!(steps <= DIGITS * 8);
            prop_assert!(low == high || plus(&low, 0) == Some(high));
        }

        #[test]
        fn a_bit_more_is_more(key in proptest::collection::vec(any::<u8>(), 0..70), bit in 0..DIGITS * 8) {
            let key = digits(&key);
            match plus(&key, bit) {
                Some(more) => prop_assert!(more > key),
                None => prop_assert!(key[0] == 0xff || bit / 8 == DIGITS - 1),
            }
        }
    }
}
