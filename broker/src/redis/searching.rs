//! Several messages of a log of which nobody knows whether they are in it: those that the server did not take before one that it took.
//!
//! A server refuses in passing (it is a replica, or reads its data) and takes what was sent behind that a moment later. Where the connection ended before
//! both answers, only the log tells. What was refused must not be sent again then, as it would come behind: so the log is searched first, and who was
//! overtaken is given back as not written. Pure. Not here: the connection (`writer.rs`), what is known by answers (`settling.rs`).

use super::{
    failure::{refused, strange},
    keys::PartitionKeys,
    request::Request,
    scripts,
    write::{Entry, LOOKED_AT, Write, overtaken},
};
use crate::{Error, Position, Result};
use ropeway_store::redis::Reply;
use std::{collections::HashMap, sync::Arc};

/// What is looked for in one log.
#[derive(Debug)]
pub(super) struct Search {
    keys: Arc<PartitionKeys>,
    /// Nothing of it lies before.
    behind: Position,
    /// Places in the write, in the order in which they were sent.
    entries: Vec<usize>,
}

/// What is kept from being sent again, since its log could not be searched, and why.
pub(super) type Withheld = (Vec<Entry>, Option<Error>);

/// What is to be searched before a write is sent again: logs with several messages that may be there.
pub(super) fn needed(write: &Write) -> Vec<Search> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<Search> = Vec::new();
    for (at, entry) in write.entries.iter().enumerate() {
        let (None, Some(behind)) = (&entry.later, entry.unknown) else { continue };
        let place = *places.entry(entry.keys.log()).or_insert(all.len());
        if place == all.len() {
            all.push(Search { keys: Arc::clone(&entry.keys), behind, entries: Vec::new() });
        }
        all[place].behind = all[place].behind.min(behind);
        all[place].entries.push(at);
    }
    all.retain(|search| search.entries.len() > 1);
    all
}

/// The commands that search; each has one answer.
pub(super) fn request(searches: &[Search], write: &Write) -> Request {
    let mut request = Request::default();
    for search in searches {
        let call = request.call_in_full(&scripts::FIND, &[search.keys.log()], 2 + search.entries.len());
        call.word(search.behind.to_string()).word(LOOKED_AT.to_string());
        search
            .entries
            .iter()
            .for_each(|at| _ = call.word(write.entries[*at].message.id.as_u128().to_be_bytes()));
    }
    request
}

/// Gives back what was overtaken, and withholds what could not be searched.
pub(super) fn settle(
    searches: Vec<Search>,
    answers: Vec<Result<Reply>>,
    write: &mut Write,
    server: &str,
) -> Withheld {
    let (mut over, mut kept) = (vec![false; write.entries.len()], vec![false; write.entries.len()]);
    let mut failure = None;
    for (search, answer) in searches.into_iter().zip(answers) {
        match found(&search, answer, server) {
            Ok(Some(seen)) => {
                // In their order: what is not there and stands before one that is.
                let last = seen.there.iter().rposition(Option::is_some).unwrap_or(0);
                for (place, (at, there)) in search.entries.iter().zip(&seen.there).enumerate() {
                    over[*at] = there.is_none() && place < last;
                    // It is certain that it is not there; else it is known where to look.
                    write.entries[*at].unknown = (!over[*at]).then(|| there.map_or(seen.until, before));
                }
            }
            // Too much came since: then nothing of it is sent again, as each is looked for from there.
            Ok(None) => search.entries.iter().for_each(|at| write.entries[*at].unknown = Some(search.behind)),
            Err(error) if error.is_retryable() => {
                // And what is behind it in that log, sent or not.
                let same = |entry: &Entry| entry.keys.log() == search.keys.log();
                write.entries.iter().zip(&mut kept).for_each(|(entry, kept)| *kept |= same(entry));
                failure = Some(error);
            }
            // The server answers the same to who is sent again, and that is told.
            Err(_) => {}
        }
    }
    let (mut over, mut kept) = (over.into_iter(), kept.into_iter());
    let mut withheld = Vec::new();
    for entry in std::mem::take(&mut write.entries) {
        match (over.next(), kept.next()) {
            (Some(true), _) => write.give_back_one(entry, &overtaken(server)),
            (_, Some(true)) => withheld.push(entry),
            _ => write.entries.push(entry),
        }
    }
    (withheld, failure)
}

/// What is in a log.
struct Seen {
    until: Position,
    there: Vec<Option<Position>>,
}

/// What was found; `None`: there is too much to look at.
fn found(search: &Search, answer: Result<Reply>, server: &str) -> Result<Option<Seen>> {
    let about = format_args!("script {} of {}", scripts::FIND.name, search.keys.log());
    let items = match answer? {
        Reply::Error(text) => return Err(refused(server, about, &text)),
        Reply::Array(items) => items,
        other => return Err(strange(server, about, &[other])),
    };
    let words: Vec<&str> = items.iter().map_while(Reply::text).collect();
    let place = |word: &&str| -> Result<Option<Position>> {
        if word.is_empty() { Ok(None) } else { word.parse().map(Some) }
    };
    match words[..] {
        ["far"] => Ok(None),
        ["found", until, ref there @ ..] if there.len() == search.entries.len() => {
            match (until.parse::<Position>(), there.iter().map(place).collect::<Result<Vec<_>>>()) {
                (Ok(until), Ok(there)) => Ok(Some(Seen { until, there })),
                _ => Err(strange(server, about, &items)),
            }
        }
        _ => Err(strange(server, about, &items)),
    }
}

/// The place right before one.
const fn before(place: Position) -> Position {
    match place.1.checked_sub(1) {
        Some(number) => Position(place.0, number),
        None => Position(place.0.saturating_sub(1), u64::MAX),
    }
}
