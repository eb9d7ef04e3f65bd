//! Describing a processor and starting it.
//!
//! Not here: what the settings mean (`settings.rs`), what it does then (`driver.rs`).

use super::{
    Processor, driver::Driver, ending::Endings, letters::Letters, look::Looks, partitions::Partitions,
    snapshot::Counters, work::Running,
};
use crate::{
    ProcessorSettings, RetryPolicy, Router,
    layer::Runner,
    metrics::{Level, Metrics},
    pool::core::Core,
    retry::Backoff,
    router::Plans,
};
use futures::stream::FuturesUnordered;
use ropeway_broker::{Clock, Error, ErrorKind, MessageBroker, Result, Subscription, SystemClock, Topic};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Describes a [`Processor`]. What is left out has the defaults of [`ProcessorSettings`].
#[derive(Debug)]
#[must_use = "a processor runs once it is started"]
pub struct ProcessorBuilder {
    broker: Arc<dyn MessageBroker>,
    subscription: Subscription,
    router: Router,
    settings: ProcessorSettings,
    dead_letters: Option<Topic>,
    metrics: Option<Metrics>,
    clock: Arc<dyn Clock>,
}

impl ProcessorBuilder {
    pub(super) fn new(broker: Arc<dyn MessageBroker>, subscription: Subscription) -> Self {
        Self {
            broker,
            subscription,
            router: Router::new(),
            settings: ProcessorSettings::default(),
            dead_letters: None,
            metrics: None,
            clock: Arc::new(SystemClock::default()),
        }
    }

    /// Which handlers get which event.
    pub fn router(mut self, router: Router) -> Self {
        self.router = router;
        self
    }

    /// All settings at once.
    pub fn settings(mut self, settings: ProcessorSettings) -> Self {
        self.settings = settings;
        self
    }

    /// How often and how soon a failed attempt is repeated: sets [`ProcessorSettings::retry`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// How many events are handled at a time: sets [`ProcessorSettings::concurrency`].
    pub const fn concurrency(mut self, concurrency: usize) -> Self {
        self.settings.concurrency = concurrency;
        self
    }

    /// One dead-letter topic for all topics, instead of `<topic>.<group>.dlq` for each. It is made at the start where it is missing, with as
    /// many partitions as the topic it serves.
    pub fn dead_letter_topic(mut self, topic: Topic) -> Self {
        self.dead_letters = Some(topic);
        self
    }

    /// Where it counts. Left out: nowhere.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = Some(metrics.clone());
        self
    }

    /// The clock for the times in dead letters and the ages of messages. Left out: the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Joins the group and starts to handle.
    ///
    /// # Errors
    /// `Invalid` for settings, a policy, or a router without handlers; `NotFound` for a topic that does not exist; those of making
    /// the dead-letter topics and of subscribing.
    pub async fn start(self) -> Result<Processor> {
        self.settings.check()?;
        self.router.check()?;
        if self.subscription.topics.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the subscription names no topic; name at least one"));
        }
        let letters =
            Letters::open(self.broker.admin(), &self.subscription, self.dead_letters.as_ref()).await?;
        let metrics = self.metrics.clone().map_or_else(Metrics::unregistered, Ok)?;
        let consumer = self.broker.subscribe(self.subscription.clone()).await?;
        let counters = Arc::new(Counters::default());
        let (commands, inbox) = mpsc::channel(4);
        let (end, ended) = watch::channel(None);
        let driver = self.driver(consumer, letters, &metrics, counters.clone(), inbox);
        let task = tokio::spawn(async move {
            let result = Box::pin(driver.run()).await;
            // A processor that nobody holds has nobody to tell.
            let _ = end.send(Some(result));
        });
        Ok(Processor { commands, task: task.abort_handle(), counters, ended })
    }

    fn driver(
        self,
        consumer: Box<dyn ropeway_broker::Consumer>,
        letters: Letters,
        metrics: &Metrics,
        counters: Arc<Counters>,
        commands: mpsc::Receiver<super::Shutdown>,
    ) -> Driver {
        let Subscription { topics, group, in_flight, .. } = self.subscription;
        let system = self.broker.capabilities().backend;
        let handlers = self.router.routes().iter();
        let runner = Runner {
            timeout: self.settings.attempt_timeout,
            broker: Some(self.broker.clone()),
            group: Some(group.clone()),
            metrics: handlers
                .map(|route| {
                    metrics.of_handler(&route.name, &route.types.to_string(), system, &group, &topics)
                })
                .collect(),
        };
        let all = CancellationToken::new();
        let pool = metrics.of_pool(group.as_str());
        let of_group = metrics.of_group(&group, &topics);
        let runner = Arc::new(runner);
        let looks = Looks::new(runner.clone(), &pool.wait);
        let running = Running {
            runner: runner.clone(),
            metrics: of_group.clone(),
            waited: pool.wait.clone(),
            bounds: looks.bounds,
        };
        Driver {
            control: consumer.control(),
            broker: self.broker,
            consumer,
            group,
            clock: self.clock,
            plans: Plans::new(self.router),
            letters,
            runner,
            looks,
            core: Core::new(running, self.settings.concurrency, &pool),
            partitions: Partitions::new(in_flight),
            endings: Endings::default(),
            burials: FuturesUnordered::new(),
            backoff: Backoff::new(self.settings.seed),
            settings: self.settings,
            counters,
            full: Level::new(of_group.full.clone()),
            held: Level::new(of_group.held.clone()),
            metrics: of_group,
            commands,
            drain: None,
            ended: None,
            end_by: None,
            _all: all.clone().drop_guard(),
            all,
        }
    }
}
