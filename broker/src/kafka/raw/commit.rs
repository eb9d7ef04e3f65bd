//! Commits of a consumer: asked for at once, answered later on a queue of their own, with what each partition has become.
//!
//! A commit replaces what was stored beside the offset before, so each brings its metadata. Not here: who decides what is committed (`../members`).

#![expect(unsafe_code, reason = "commits by the C library")]

use super::{
    code::{Code, Trouble},
    consumer::{Consumer, Told},
    list::{List, Names, Place},
    native,
    queue::Queue,
};
use std::{ptr, time::Duration};

// A token travels as a pointer.
const _: () = assert!(size_of::<usize>() >= size_of::<u64>(), "the Kafka backend needs a machine of 64 bits");

/// The queue of answers, and how many have not come.
pub(super) struct Commits {
    queue: Queue,
    open: usize,
}

impl Commits {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, open: 0 }
    }

    /// Whether answers are to come.
    pub(super) fn any(&self) -> bool {
        self.open > 0
    }

    /// Shows answers that have come. Returns how many.
    pub(super) fn show(&mut self, names: &mut Names, take: &mut dyn FnMut(Told<'_>)) -> usize {
        let mut shown = 0;
        while self.open > 0
            && let Some(event) = self.queue.poll(Duration::ZERO)
        {
            if event.kind() != rdkafka_sys::RD_KAFKA_EVENT_OFFSET_COMMIT {
                continue;
            }
            self.open -= 1;
            shown += 1;
            let result = event.code().check();
            let token = event.token().addr() as u64;
            take(Told::Committed { result, partitions: event.answers(names), token });
        }
        shown
    }
}

impl Consumer {
    /// Asks for a commit of these offsets, each the next one to read. Does not wait; the answer comes as [`Told::Committed`] with `token`, once, also where
    /// no server can be reached. `Err` where nothing was asked for.
    pub(in crate::kafka) fn commit(&mut self, places: &[Place], token: u64) -> Result<(), Trouble> {
        if places.is_empty() {
            // Without a list the library would commit what it believes to be done.
            return Err(Trouble::new(Code::NO_OFFSET, "there is nothing to commit"));
        }
        let list = List::of(places)?;
        let (open, _) = self.parts_mut()?;
        // SAFETY: client and queue are alive; the list is copied. There is no callback: the answer is an event, and `token` is only a number in it.
        let code = unsafe {
            native::rd_kafka_commit_queue(
                open.client.native(),
                list.native(),
                open.commits.queue.native(),
                None,
                ptr::without_provenance_mut(token as usize),
            )
        };
        Code(code).check()?;
        open.commits.open += 1;
        Ok(())
    }
}
