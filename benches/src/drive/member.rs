//! Those who take what is sent: members of a group that ack what comes, or processors that run handlers.
//!
//! Not here: what handlers do (`work.rs`), when it ends (`mod.rs`).

use super::{Handling, Load, Recorder, Taking};
use crate::payload::Stamp;
use ropeway_broker::{Consumer, ConsumerExt, Control, Event, MessageBroker, Position, Result, Subscription};
use ropeway_processor::{Processor, ProcessorSettings, Router, Verdict, raw};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// The members that run.
pub(super) struct Members {
    consumers: Vec<(Arc<dyn Control>, JoinHandle<()>)>,
    processors: Vec<Processor>,
}

impl Members {
    /// Joins the group with all of them; answers when each is a member.
    ///
    /// # Errors
    /// Those of subscribing.
    pub(super) async fn join(load: &Load, taking: &Taking, recorder: &Arc<Recorder>) -> Result<Self> {
        let mut members = Self { consumers: Vec::new(), processors: Vec::new() };
        for number in 0..taking.members {
            let mut subscription = Subscription::new(taking.group.clone(), [load.topic.clone()]);
            subscription.in_flight = taking.in_flight;
            subscription.member = Some(Arc::from(format!("bench-{number}")));
            match taking.handling {
                Some(handling) => {
                    let processor = handle(&load.broker, subscription, handling, recorder).await?;
                    members.processors.push(processor);
                }
                None => {
                    let consumer = load.broker.subscribe(subscription).await?;
                    let control = consumer.control();
                    let task = tokio::spawn(consume(consumer, recorder.clone()));
                    members.consumers.push((control, task));
                }
            }
        }
        Ok(members)
    }

    /// Acks what came and leaves.
    pub(super) async fn leave(self, deadline: Duration) {
        let closing = self.consumers.into_iter().map(|(control, task)| async move {
            control.close(deadline).await;
            // It ends by itself when all it owned is gone.
            let abort = task.abort_handle();
            if tokio::time::timeout(deadline, task).await.is_err() {
                abort.abort();
            }
        });
        futures::future::join_all(closing).await;
        futures::future::join_all(self.processors.iter().map(|processor| processor.shutdown(deadline))).await;
    }
}

async fn consume(mut consumer: Box<dyn Consumer>, recorder: Arc<Recorder>) {
    let control = consumer.control();
    loop {
        match consumer.next().await {
            Ok(Event::Batch(batch)) => {
                let stamps = batch.deliveries.iter().map(|delivery| {
                    let payload = delivery.message.payload.as_deref().unwrap_or_default();
                    (Stamp::read(payload), payload.len())
                });
                recorder.came(stamps);
                let done: Vec<Position> = batch.deliveries.iter().map(|delivery| delivery.position).collect();
                // A refused ack means that another member has them: they come again, and are counted as that.
                let _ = control.ack(&batch.of, &done);
            }
            Ok(Event::Unreadable { of, position, .. }) => {
                recorder.came([(None, 0)]);
                let _ = control.ack(&of, &[position]);
            }
            Ok(Event::Gap { .. }) => recorder.gap(),
            Ok(Event::Revoking { partitions, .. }) => partitions.iter().for_each(|of| control.give_up(of)),
            Ok(Event::Assigned(_) | Event::CaughtUp(_) | Event::Gone(..)) => {}
            Err(error) if error.kind() == ropeway_broker::ErrorKind::Closed => return,
            Err(error) => return recorder.broken(error),
        }
    }
}

async fn handle(
    broker: &Arc<dyn MessageBroker>,
    subscription: Subscription,
    handling: Handling,
    recorder: &Arc<Recorder>,
) -> Result<Processor> {
    let recorder = recorder.clone();
    let handler = move |event: ropeway_processor::Event, _| {
        let recorder = recorder.clone();
        async move {
            handling.work.perform().await;
            let payload = event.payload().map(|payload| &payload[..]).unwrap_or_default();
            recorder.came([(Stamp::read(payload), payload.len())]);
            Ok::<_, Infallible>(Verdict::Done)
        }
    };
    let settings = ProcessorSettings { concurrency: handling.concurrency, ..ProcessorSettings::default() };
    let router = Router::new().on("*", raw(handler));
    Processor::builder(broker.clone(), subscription).router(router).settings(settings).start().await
}
