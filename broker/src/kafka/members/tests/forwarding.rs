//! What is forwarded where a backend, or the runtime, breaks off.
//!
//! Not here: what is decided of acks (`storing.rs`), forwards that nothing breaks (the conformance suite).

use super::*;
use crate::{
    Answer, Consumer as _, Outcomes, Published, Target,
    counted::Counted,
    members::{GroupConsumer, Shell},
};
use std::{
    future::{pending, ready},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    time::timeout,
};

/// A member whose forwards are published so.
#[derive(Debug)]
struct Alone {
    core: Mutex<Core>,
    counted: Counted,
    runtime: Handle,
    publish: fn(Vec<Message>) -> Answer<Outcomes>,
}

impl Shell for Alone {
    type Core = Core;

    const BACKEND: &'static str = "alone";

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap()
    }

    fn stir(&self, _: Stirred) {}

    fn counted(&self) -> &Counted {
        &self.counted
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn late(&self) -> Error {
        Error::new(ErrorKind::Unavailable, "late")
    }

    async fn ensure(&self, _: &[Topic]) -> Result<()> {
        Ok(())
    }

    fn publish(&self, _: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
        (self.publish)(batch)
    }

    fn kill(&self) {}
}

/// Forwards a message, breaks something off, and looks at the answer: it may be written, and its source is not acked.
fn forward(runtime: Runtime, publish: fn(Vec<Message>) -> Answer<Outcomes>, ends: bool) {
    let mut play = Play::owning(1);
    play.publish(0, 1);
    play.read(0, 9);
    assert_eq!(play.told(), "batch 0: 0");
    let of = play.owned(0);
    let (core, counted, handle) = (Mutex::new(play.core), Counted::default(), runtime.handle().clone());
    let member = Arc::new(Alone { core, counted, runtime: handle, publish });
    let consumer = GroupConsumer::new(Arc::clone(&member));
    let control = consumer.control();
    let message = Message::builder().payload("x").build();
    let answer = control.forward(&of, &[p(0)], vec![(topic().into(), message.clone())]);
    let runtime = (!ends).then_some(runtime);
    let here = Builder::new_current_thread().enable_time().build().unwrap();
    let outcomes = here.block_on(async { timeout(Duration::from_secs(10), answer).await.unwrap() });
    assert!(
        matches!(&outcomes.0[..], [Published::Unknown(failed)] if failed.message == message),
        "{outcomes:?}"
    );
    assert_eq!(member.core().owner.shares[&key(0)].unacked(), [p(0)]);
    drop(runtime);
}

#[test]
fn a_forward_of_which_a_backend_tells_nothing_acks_nothing() {
    forward(Runtime::new().unwrap(), |_| Box::pin(ready(Outcomes(Vec::new()))), false);
}

#[test]
fn a_forward_whose_runtime_ends_has_an_outcome_for_each_message() {
    forward(Runtime::new().unwrap(), |_| Box::pin(pending()), true);
}
