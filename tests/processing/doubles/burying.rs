//! Twists of dead letters.
//!
//! Not here: what fails (`handling.rs`).

use super::{
    bus::{Letter, Line},
    twist::{Passed, Twist},
};
use ropeway_broker::{
    Answer, Durability, Event as BusEvent, Headers, Message, MessageId, Outcomes, Published, Timestamp,
};
use ropeway_processor::FAILURE_HEADERS;
use std::{sync::Arc, time::Duration};

/// A difference in the letters themselves.
#[derive(Debug)]
pub(crate) struct Rewritten(pub(crate) fn(Message) -> Message);

impl Twist for Rewritten {
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        line.forward(letter.map(self.0))
    }
}

/// A letter whose record has another value there, or none.
pub(crate) fn with(message: Message, field: &str, value: Option<&str>) -> Message {
    let name = format!("{FAILURE_HEADERS}{field}");
    let without = message.headers.filtered(|other| other != name);
    let headers = match value {
        Some(value) => without.with(&name, Some(value.as_bytes())),
        None => without,
    };
    Message { headers, ..message }
}

pub(crate) fn dated_anew(message: Message) -> Message {
    Message { timestamp: Timestamp::from_millis(1), ..message }
}

pub(crate) fn without_null_headers(message: Message) -> Message {
    let valued = message.headers.iter().filter(|(_, value)| value.is_some());
    let headers = valued.fold(Headers::builder(), |headers, (name, value)| headers.add(name, value)).build();
    Message { headers, ..message }
}

pub(crate) fn without_the_handler(message: Message) -> Message {
    with(message, "handler", None)
}

pub(crate) fn without_marks(message: Message) -> Message {
    with(message, "cut", None)
}

pub(crate) fn always_the_first_round(message: Message) -> Message {
    with(message, "round", Some("1"))
}

pub(crate) fn with_an_id_by_lot(message: Message) -> Message {
    Message { id: MessageId::new(), ..message }
}

/// Each letter is written twice.
#[derive(Debug)]
pub(crate) struct Twice;

impl Twist for Twice {
    fn bury(self: Arc<Self>, line: Arc<Line>, mut letter: Letter) -> Answer<Outcomes> {
        let count = letter.out.len();
        letter.out.extend_from_within(..);
        let answer = line.forward(letter);
        Box::pin(async move {
            let mut outcomes = answer.await;
            outcomes.0.truncate(count);
            outcomes
        })
    }
}

/// The source of a letter is not acked.
#[derive(Debug)]
pub(crate) struct KeepsTheSource;

impl Twist for KeepsTheSource {
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        line.forward(Letter { done: Vec::new(), ..letter })
    }
}

/// A letter that cannot be written is dropped with its message.
#[derive(Debug)]
pub(crate) struct DropsWhatIsRefused;

impl Twist for DropsWhatIsRefused {
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        let answer = line.forward(letter.clone());
        Box::pin(async move {
            let outcomes = answer.await;
            if !outcomes.0.iter().any(|outcome| matches!(outcome, Published::NotWritten(_))) {
                return outcomes;
            }
            let acked = line.control.ack(&letter.of, &letter.done);
            acked.map_or(outcomes, |()| taken_for_written(&letter))
        })
    }
}

/// A letter that may be written is as good as written.
#[derive(Debug)]
pub(crate) struct BelievesTheUnknown;

impl Twist for BelievesTheUnknown {
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        let answer = line.forward(letter.clone());
        Box::pin(async move {
            let outcomes = answer.await;
            let unknown = outcomes.0.iter().any(|outcome| matches!(outcome, Published::Unknown(_)));
            if unknown { taken_for_written(&letter) } else { outcomes }
        })
    }
}

/// The key goes on while its letter is being written.
#[derive(Debug)]
pub(crate) struct WritesLater;

impl Twist for WritesLater {
    fn bury(self: Arc<Self>, line: Arc<Line>, letter: Letter) -> Answer<Outcomes> {
        let told = taken_for_written(&letter);
        tokio::spawn(async move {
            for _ in 0..1000 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if line.forward(letter.clone()).await.all_acked() {
                    return;
                }
            }
        });
        Box::pin(std::future::ready(told))
    }
}

fn taken_for_written(letter: &Letter) -> Outcomes {
    let acked = |_: &_| Published::Acked { partition: 0, position: None, durability: Durability::Volatile };
    Outcomes(letter.out.iter().map(acked).collect())
}

/// A record that is no message is passed over.
#[derive(Debug)]
pub(crate) struct SkipsUnreadable;

impl Twist for SkipsUnreadable {
    fn deliver(&self, line: &Line, event: BusEvent) -> Passed {
        match event {
            BusEvent::Unreadable { of, position, .. } if line.control.ack(&of, &[position]).is_ok() => {
                Passed::Never
            }
            other => Passed::Now(other),
        }
    }
}
