//! The messages of the test, and what should become of each: decided by key and number alone, so that every life agrees.

use crate::history::Id;
use ropeway_broker::{Group, Message, Result, Timestamp, Topic};

/// The type of the events.
pub(crate) const EVENT_TYPE: &str = "fault.test";
/// Partitions of the topic and of its dead letters.
pub(crate) const PARTITIONS: u32 = 8;

/// How many groups handle every message, each for itself.
pub(crate) const GROUPS: usize = 2;

/// The topic, and the groups with their dead-letter topics.
pub(crate) struct Names {
    pub(crate) topic: Topic,
    pub(crate) groups: [(Group, Topic); GROUPS],
}

pub(crate) fn names() -> Result<Names> {
    let topic = Topic::new("work")?;
    let group = |name| {
        let group = Group::new(name)?;
        let dead = topic.dead_letters_of(&group);
        Ok((group, dead))
    };
    let groups = [group("crew")?, group("office")?];
    Ok(Names { topic, groups })
}

/// Whether it is published to be delivered later: such messages have keys of their own, for they have no order.
pub(crate) fn is_delayed(id: &Id) -> bool {
    id.key.starts_with('d')
}

/// Whether it is of a drill, where many small messages are published.
pub(crate) fn is_small(id: &Id) -> bool {
    id.key.starts_with('r')
}

/// Whether the handler rejects it.
pub(crate) fn is_rejected(id: &Id) -> bool {
    id.number % if is_small(id) { 131 } else { 13 } == 5
}

/// Whether the first attempt at it fails.
pub(crate) fn fails_first(id: &Id) -> bool {
    id.number % if is_small(id) { 71 } else { 7 } == 3
}

/// The message: its payload begins with the id, and is up to 2 kB long, of a drill up to 64 bytes.
pub(crate) fn message(id: &Id, deliver_at: Option<Timestamp>) -> Message {
    let message = Message::builder().key(id.key.clone()).event_type(EVENT_TYPE).payload(payload(id));
    match deliver_at {
        Some(at) => message.deliver_at(at).build(),
        None => message.build(),
    }
}

fn payload(id: &Id) -> String {
    let filler = usize::try_from(id.number * 37 % if is_small(id) { 50 } else { 2000 }).unwrap_or(0);
    format!("{id} {}", "x".repeat(filler))
}

/// Which message it is; what is wrong where a byte of it differs from what was sent.
pub(crate) fn id(message: &Message) -> std::result::Result<Id, String> {
    let text = message.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok());
    let id: Option<Id> = text.and_then(|text| text.split(' ').next()?.parse().ok());
    let (Some(text), Some(id)) = (text, id) else {
        return Err(format!("a message is none of the test's: {message:?}"));
    };
    if text != payload(&id) || message.key.as_deref() != Some(id.key.as_bytes()) {
        return Err(format!("the bytes of {id} were changed"));
    }
    if message.event_type() != Some(EVENT_TYPE) {
        return Err(format!("the headers of {id} were changed"));
    }
    Ok(id)
}

/// Ends the worker: what it found makes the test fail.
pub(crate) fn stop(why: &str) -> ! {
    eprintln!("worker: {why}");
    std::process::exit(3);
}
