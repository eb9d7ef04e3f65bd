//! A double as a backend of the suite: the wrapper around a correct one, `memory:` where nothing else is said.
//!
//! Not here: the correct backends (`tests/support`).

use super::{
    hooks::{Hooks, Scene},
    wrap::Wrapped,
};
use ropeway_broker::{
    Answer, MessageBroker, Position, PublisherSettings, Result, Timestamp, Topic,
    conformance::{Backend, Provides, Publishing, Setup, Store},
};
use ropeway_tests::backends::Outlived;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Runtime;

/// A backend with a difference.
pub(crate) struct Doubled {
    correct: Arc<dyn Backend>,
    hooks: Arc<Hooks>,
}

impl Doubled {
    /// `memory:` with it.
    pub(crate) fn new(hooks: fn() -> Hooks) -> Self {
        Self::over(Arc::new(Outlived), hooks)
    }

    pub(crate) fn over(correct: Arc<dyn Backend>, hooks: fn() -> Hooks) -> Self {
        Self { correct, hooks: Arc::new(hooks()) }
    }
}

impl fmt::Debug for Doubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doubled").finish_non_exhaustive()
    }
}

impl Backend for Doubled {
    fn name(&self) -> &str {
        "double"
    }

    fn absent(&self) -> Option<String> {
        self.correct.absent()
    }

    fn provides(&self) -> Provides {
        self.correct.provides()
    }

    fn runtime(&self) -> std::io::Result<Runtime> {
        self.correct.runtime()
    }

    fn slack(&self) -> Duration {
        self.correct.slack()
    }

    fn publisher(
        &self,
        broker: Arc<dyn MessageBroker>,
        settings: PublisherSettings,
    ) -> Result<Arc<dyn Publishing>> {
        let publisher = self.correct.publisher(broker, settings)?;
        Ok(match &self.hooks.publisher {
            Some(hook) => hook(publisher, &settings),
            None => publisher,
        })
    }

    fn store(&self, setup: Setup) -> Result<Box<dyn Store>> {
        Ok(Box::new(Place {
            correct: Arc::from(self.correct.store(setup)?),
            hooks: Arc::clone(&self.hooks),
            state: Arc::default(),
        }))
    }
}

#[derive(Default)]
struct State {
    opens: usize,
    crashed: bool,
    inner: Option<Arc<dyn MessageBroker>>,
    joins: Arc<Mutex<HashMap<ropeway_broker::Group, usize>>>,
}

struct Place {
    correct: Arc<dyn Store>,
    hooks: Arc<Hooks>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.correct.fmt(f)
    }
}

impl Store for Place {
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>> {
        let (store, hooks, state) =
            (Arc::clone(&self.correct), Arc::clone(&self.hooks), Arc::clone(&self.state));
        Box::pin(async move {
            let broker = store.open().await?;
            let scene = {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.opens += 1;
                state.inner = Some(Arc::clone(&broker));
                let crashed = std::mem::take(&mut state.crashed);
                let (opens, joins) = (state.opens, Arc::clone(&state.joins));
                Scene { broker, store, opens, crashed, joins }
            };
            if let (Some(hook), 2..) = (&hooks.reopened, scene.opens) {
                hook(&scene).await;
            }
            Ok(Arc::new(Wrapped::new(scene, hooks)) as Arc<dyn MessageBroker>)
        })
    }

    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.crashed = true;
        drop(broker);
        match state.inner.take() {
            Some(inner) => self.correct.crash(inner),
            None => super::hooks::now(()),
        }
    }

    fn plant_unreadable(
        &self,
        _: &Arc<dyn MessageBroker>,
        topic: &Topic,
        partition: u32,
        raw: &[u8],
    ) -> Answer<Result<Position>> {
        let inner = self.state.lock().unwrap_or_else(PoisonError::into_inner).inner.clone();
        match inner {
            Some(inner) => self.correct.plant_unreadable(&inner, topic, partition, raw),
            None => super::hooks::now(Err(ropeway_broker::Error::new(
                ropeway_broker::ErrorKind::Closed,
                "no broker is open",
            ))),
        }
    }

    fn now(&self) -> Timestamp {
        self.correct.now()
    }
}
