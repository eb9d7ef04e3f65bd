//! The consumer group: its members, one of which is aborted with work in flight and replaced.

use super::{feed::EVENT_TYPE, handling::Handling, record::Reported};
use ropeway_broker::{Group, MessageBroker, Result, Subscription, Topic};
use ropeway_processor::{Context, Metrics, Processor, RetryPolicy, Router, json};
use std::{sync::Arc, time::Duration};

/// What all members have in common.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(crate) broker: Arc<dyn MessageBroker>,
    pub(crate) topic: Topic,
    pub(crate) group: Group,
    pub(crate) metrics: Metrics,
    pub(crate) handling: Arc<Handling>,
}

/// The members that run.
#[derive(Debug)]
pub(crate) struct Members {
    crew: Crew,
    running: Vec<(String, Processor)>,
    started: usize,
}

/// A member was aborted and replaced.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Replaced {
    pub(crate) member: String,
    /// Messages that it held and had not finished.
    pub(crate) in_flight: u64,
    pub(crate) by: String,
}

impl Members {
    /// Starts that many.
    ///
    /// # Errors
    /// Those of the broker.
    pub(crate) async fn start(crew: Crew, count: usize) -> Result<Self> {
        let mut members = Self { crew, running: Vec::new(), started: 0 };
        for _ in 0..count {
            members.add().await?;
        }
        Ok(members)
    }

    async fn add(&mut self) -> Result<String> {
        self.started += 1;
        let name = format!("member-{}", self.started);
        let (handling, member) = (Arc::clone(&self.crew.handling), name.clone());
        let handle = move |report: Reported, cx: Context| {
            let (handling, member) = (Arc::clone(&handling), member.clone());
            async move { handling.handle(&member, report, cx).await }
        };
        let router = Router::new().on(EVENT_TYPE, json(handle));
        let mut subscription = Subscription::new(self.crew.group.clone(), [self.crew.topic.clone()]);
        subscription.member = Some(Arc::from(name.as_str()));
        let retry = RetryPolicy { first_delay: Duration::from_millis(20), ..RetryPolicy::default() };
        let processor = Processor::builder(Arc::clone(&self.crew.broker), subscription)
            .router(router)
            .retry(retry)
            .metrics(&self.crew.metrics)
            .start()
            .await?;
        self.running.push((name.clone(), processor));
        Ok(name)
    }

    /// Aborts the member with the most in flight, as a crash would, and starts another. `None`: nobody has anything in flight now.
    ///
    /// # Errors
    /// Those of the broker.
    pub(crate) async fn replace_busiest(&mut self) -> Result<Option<Replaced>> {
        let busy = |(i, (_, processor)): (usize, &(String, Processor))| (processor.snapshot().in_flight, i);
        let Some((in_flight, i)) =
            self.running.iter().enumerate().map(busy).max().filter(|(busy, _)| *busy > 0)
        else {
            return Ok(None);
        };
        let (member, processor) = self.running.swap_remove(i);
        processor.abort();
        let by = self.add().await?;
        Ok(Some(Replaced { member, in_flight, by }))
    }

    /// Lets them finish what they have, at most that long.
    pub(crate) async fn stop(self, deadline: Duration) {
        let ends = self.running.iter().map(|(_, processor)| processor.shutdown(deadline));
        futures::future::join_all(ends).await;
    }
}
