//! The conformance suite over a broker in memory whose delay is this folder's, on a paused clock; and doubles of it that the suite notices.
//!
//! Not here: the broker (`memory.rs`), the suite (`../../conformance/delay.rs`).

use super::memory::{Log, Memory};
use crate::{
    Answer, Clock, MessageBroker, Result, Timestamp,
    conformance::{Backend, Provides, Setup, Store, Verdict, checks},
    delay::record::Record,
};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Moves by a clock that is ahead.
    Early,
    /// Loses what owners and callers write about cancels.
    LosesCancels,
    /// Loses what is delayed.
    LosesMessages,
}

#[derive(Debug)]
struct Delayed {
    flaw: Flaw,
    /// It can be opened again: then the log stays open.
    reopen: bool,
}

impl Backend for Delayed {
    fn name(&self) -> &str {
        "delay"
    }

    fn provides(&self) -> Provides {
        Provides { reopen: self.reopen, ..Provides::default() }
    }

    fn runtime(&self) -> std::io::Result<Runtime> {
        Builder::new_current_thread().enable_all().start_paused(true).build()
    }

    fn slack(&self) -> Duration {
        Duration::from_millis(20)
    }

    fn store(&self, _: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(Place { flaw: self.flaw, closes: !self.reopen, log: OnceLock::new() }))
    }
}

#[derive(Debug)]
struct Place {
    flaw: Flaw,
    closes: bool,
    log: OnceLock<Log>,
}

impl Place {
    fn log(&self) -> &Log {
        self.log.get_or_init(|| Log::new().expect("a broker in memory can be opened"))
    }

    fn broker(&self) -> Arc<dyn MessageBroker> {
        let mut log = self.log().shared();
        match self.flaw {
            Flaw::None => {}
            Flaw::Early => log.ahead = Duration::from_millis(400),
            Flaw::LosesCancels => {
                log.loses = |_, message| matches!(Record::unpack(message), Ok(Record::Cancel { .. }));
            }
            Flaw::LosesMessages => {
                log.loses = |_, message| matches!(Record::unpack(message), Ok(Record::Message(_)));
            }
        }
        let mut memory = Memory::new(log);
        memory.closes = self.closes;
        Arc::new(memory)
    }
}

impl Store for Place {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        Box::pin(std::future::ready(Ok(self.broker())))
    }

    fn now(&self) -> Timestamp {
        self.log().clock.now()
    }
}

/// What the checks of these groups come to that do not fail; panics of those that do are told by name.
fn run(flaw: Flaw, groups: &[&str]) -> (Vec<(&'static str, Verdict)>, Vec<&'static str>) {
    let backend: Arc<dyn Backend> = Arc::new(Delayed { flaw, reopen: groups == ["delay"] });
    let (mut told, failed) = (Vec::new(), Mutex::new(Vec::new()));
    for check in checks().filter(|check| groups.contains(&check.group)) {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check.run(&backend)));
        match ran {
            Ok(Ok(verdict)) => told.push((check.name, verdict)),
            Ok(Err(_)) | Err(_) => failed.lock().unwrap().push(check.name),
        }
    }
    (told, failed.into_inner().unwrap())
}

#[test]
fn the_promises_of_delay_are_kept() {
    let (told, failed) = run(Flaw::None, &["delay"]);
    assert!(failed.is_empty(), "{failed:?}");
    for (name, verdict) in &told {
        assert_eq!(*verdict, Verdict::Kept, "{name}");
    }
    assert!(told.len() >= 11, "{}", told.len());
}

#[test]
fn the_promises_of_publishing_and_closing_are_kept_beside_it() {
    let (told, failed) = run(Flaw::None, &["publish", "fidelity", "close", "settle", "admin"]);
    assert!(failed.is_empty(), "{failed:?}");
    assert!(told.len() >= 30, "{}", told.len());
}

#[test]
fn doubles_are_noticed() {
    let noticed = |flaw, check| {
        let (_, failed) = run(flaw, &["delay"]);
        assert!(failed.contains(&check), "{flaw:?}: {failed:?}");
    };
    noticed(Flaw::Early, "a_delayed_message_is_never_early_and_comes_once");
    noticed(Flaw::LosesCancels, "what_was_cancelled_is_not_delivered");
    noticed(Flaw::LosesMessages, "a_delayed_message_arrives_as_sent");
}
