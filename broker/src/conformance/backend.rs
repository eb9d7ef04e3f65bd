//! What a backend supplies so that it can be checked.
//!
//! Not here: what is checked (the files of the groups), who runs it (`suite.rs`).

use crate::{
    Answer, Error, ErrorKind, Message, MessageBroker, Position, PublishFailed, Publisher, PublisherSettings,
    Receipt, Result, Target, Timestamp, Topic,
};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// A backend under test.
pub trait Backend: Debug + Send + Sync + 'static {
    /// The first part of the names of its trials: `memory`, `embedded`, `redis`.
    fn name(&self) -> &str;

    /// Why it cannot be checked here, such as a server that is not running: then all its trials are shown as ignored, with this.
    fn absent(&self) -> Option<String> {
        None
    }

    /// What it runs on, for people: `Redis 7.0.15`.
    fn runs_on(&self) -> String {
        "this process".into()
    }

    /// What can be done to it from outside.
    fn provides(&self) -> Provides {
        Provides::default()
    }

    /// The runtime of one trial. Default: one thread, real time. A backend that lives in this process without threads does better with a
    /// paused clock.
    ///
    /// # Errors
    /// Those of the machine.
    fn runtime(&self) -> std::io::Result<Runtime> {
        Builder::new_current_thread().enable_all().build()
    }

    /// How late a promise about time may be kept, as machines are. Default: 3 s.
    fn slack(&self) -> Duration {
        Duration::from_secs(3)
    }

    /// The publisher that is checked over this backend: [`Publisher`], unless a double is to show that a check can fail.
    ///
    /// # Errors
    /// `Invalid` names the setting that is out of bounds.
    fn publisher(
        &self,
        broker: Arc<dyn MessageBroker>,
        settings: PublisherSettings,
    ) -> Result<Arc<dyn Publishing>> {
        Ok(Arc::new(Publisher::new(broker, settings)?))
    }

    /// A place for one trial that holds nothing of another. For a server: the server itself, as names are new in each trial.
    ///
    /// # Errors
    /// Those of the backend; the trial fails with it.
    fn store(&self, setup: Setup) -> Result<Box<dyn Store>>;
}

/// What can be done to a backend from outside. What is not provided makes the checks that need it `ignored`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provides {
    /// Its store outlives the broker: [`Store::open`] works again after `close`.
    pub reopen: bool,
    /// [`Store::crash`] ends it without a word, and what was acked survives that.
    pub crash: bool,
    /// [`Store::plant_unreadable`] works.
    pub unreadable: bool,
    /// [`Setup::dedup_window`] is heeded.
    pub dedup: bool,
    /// [`Setup::piece`] is heeded, so that retention can be seen at work.
    pub retention: bool,
    /// Who owns what is not for members to choose: what one gives up unasked comes back to it.
    pub assigns: bool,
    /// A second member of a static name is refused while the first lives, instead of taking over.
    pub holds_names: bool,
    /// A static name stays a member for a while after it closed, so that what it had waits for it.
    pub keeps_names: bool,
}

/// What a trial wants of its store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// A message id that was acked is recognised for that long. `None`: not at all.
    pub dedup_window: Option<Duration>,
    /// Retention removes pieces of at most that many bytes and what was published at once; see [`Retention`](crate::Retention). `None`: of
    /// whatever size.
    pub piece: Option<u64>,
}

/// Where a backend keeps what it keeps.
pub trait Store: Debug + Send + Sync {
    /// Opens a broker on it: at the start, after the broker before was closed, or after [`Self::crash`].
    fn open(&self) -> Answer<Result<Arc<dyn MessageBroker>>>;

    /// Ends what works on it as `kill -9` would: nothing is flushed or told. The broker is not used after that.
    fn crash(&self, broker: Arc<dyn MessageBroker>) -> Answer<()> {
        drop(broker);
        Box::pin(std::future::ready(()))
    }

    /// Appends a record that is no message, and answers where it lies.
    fn plant_unreadable(
        &self,
        _broker: &Arc<dyn MessageBroker>,
        _topic: &Topic,
        _partition: u32,
        _raw: &[u8],
    ) -> Answer<Result<Position>> {
        let error = Error::new(ErrorKind::Unsupported, "this store cannot plant an unreadable record");
        Box::pin(std::future::ready(Err(error)))
    }

    /// What time it is for the broker.
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What is checked of a [`Publisher`].
pub trait Publishing: Debug + Send + Sync {
    /// [`Publisher::enqueue`].
    fn enqueue(&self, to: Target, message: Message) -> Answer<Result<Outcome, PublishFailed>>;

    /// [`Publisher::flush`].
    fn flush(&self, deadline: Duration) -> Answer<Result<()>>;

    /// [`Publisher::close`].
    fn close(&self, deadline: Duration) -> Answer<Result<()>>;
}

/// The outcome of one message.
pub type Outcome = Answer<Result<Receipt, PublishFailed>>;

impl Publishing for Publisher {
    fn enqueue(&self, to: Target, message: Message) -> Answer<Result<Outcome, PublishFailed>> {
        let publisher = self.clone();
        Box::pin(async move {
            let pending = Self::enqueue(&publisher, to, message).await?;
            Ok(Box::pin(pending) as Outcome)
        })
    }

    fn flush(&self, deadline: Duration) -> Answer<Result<()>> {
        let publisher = self.clone();
        Box::pin(async move { Self::flush(&publisher, deadline).await })
    }

    fn close(&self, deadline: Duration) -> Answer<Result<()>> {
        let publisher = self.clone();
        Box::pin(async move { Self::close(&publisher, deadline).await })
    }
}
