//! Reading as a member of a group: what was printed is acked, nothing else is.
//!
//! Not here: reading without a group (`reading.rs`), what is printed (`printer.rs`).

use super::{Args, Next, deadline, next, printer::Printer, tell_gap};
use crate::{
    exit::Exit,
    failure::Failure,
    session::{Session, out_of_time, within},
};
use ropeway_broker::{
    Batch, Bound, ConsumerExt, Control, Event, GoneReason, Group, MessageBroker, Owned, Position, Start,
    Subscription,
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Consumes until there is enough, then leaves the group.
///
/// # Errors
/// Those of the broker and of stdout; out of time; acks that did not take effect (5).
pub(super) async fn run(
    args: &Args,
    group: &Group,
    broker: Arc<dyn MessageBroker>,
    session: &mut Session,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let consume = &session.settings.consume;
    let subscription = Subscription {
        start: args.offset.unwrap_or(Start::Earliest),
        in_flight: Bound { messages: consume.messages.0, bytes: consume.bytes.0 },
        ack_interval: consume.ack_interval,
        drain: consume.drain,
        ..Subscription::new(group.clone(), args.topics.iter().cloned())
    };
    let consumer = within(session.request(), "join the group", broker.subscribe(subscription)).await;
    let mut consumer = consumer.map_err(|failure| {
        failure.of_topic(if let [topic] = &args.topics[..] { topic.as_str() } else { "TOPIC" })
    })?;
    let control = consumer.control();
    let deadline = deadline(session);
    let mut member = Member { control: control.clone(), caught_up: None };
    let done = async {
        while !(printer.is_full() || args.until.is_some() && member.is_caught_up()) {
            match next(consumer.next(), deadline, session).await? {
                Next::Stop => break,
                Next::Event(event) => member.take(event, session, printer)?,
            }
        }
        Ok(())
    };
    let done = done.await;
    let left = leave(&*control, session).await;
    done.and(left)
}

/// Acks take effect, and the rest is for the next owner.
async fn leave(control: &dyn Control, session: &Session) -> Result<(), Failure> {
    let flushed = tokio::time::timeout(session.settings.time.stop, control.flush()).await;
    control.close(Duration::ZERO).await;
    let Ok(lost) = flushed else {
        return Err(out_of_time("ack what was printed", session.settings.time.stop));
    };
    let Some((of, why)) = lost.first() else {
        return Ok(());
    };
    let what = format!("acks in {} partitions did not take effect", lost.len());
    let hint = format!("what was printed of {}/{} and others will come again", of.topic, of.partition);
    Err(Failure::new(what).caused_by(why).exits(Exit::Partial).hint(hint))
}

/// A member, and which of its partitions are caught up; `None` before anything was assigned.
struct Member {
    control: Arc<dyn Control>,
    caught_up: Option<HashMap<Owned, bool>>,
}

impl Member {
    fn is_caught_up(&self) -> bool {
        self.caught_up.as_ref().is_some_and(|owned| owned.values().all(|caught_up| *caught_up))
    }

    fn take(&mut self, event: Event, session: &mut Session, printer: &mut Printer) -> Result<(), Failure> {
        match event {
            Event::Assigned(assigned) => {
                let owned = self.caught_up.get_or_insert_default();
                for assignment in assigned {
                    tracing::info!(topic = %assignment.of.topic, partition = assignment.of.partition, "assigned");
                    owned.insert(assignment.of, false);
                }
            }
            Event::Batch(batch) => self.print(&batch, session, printer)?,
            Event::Unreadable { of, position, why, .. } => {
                printer.unreadable_record(&session.notes, &of, position, &why);
                self.ack(&of, &[position], session);
            }
            Event::Gap { of, from, to, why } => tell_gap(session, &of, (from, to, why)),
            Event::CaughtUp(of) => {
                if let Some(caught_up) = self.caught_up.as_mut().and_then(|owned| owned.get_mut(&of)) {
                    *caught_up = true;
                }
            }
            // All that was printed is acked already.
            Event::Revoking { partitions, .. } => {
                partitions.iter().for_each(|of| self.control.give_up(of));
            }
            Event::Gone(of, why) => {
                if why == GoneReason::Lost {
                    session.notes.warn(&format!("{}/{} went to another owner", of.topic, of.partition));
                }
                if let Some(owned) = &mut self.caught_up {
                    owned.remove(&of);
                }
            }
        }
        Ok(())
    }

    /// Prints, and acks what is out.
    fn print(&self, batch: &Batch, session: &mut Session, printer: &mut Printer) -> Result<(), Failure> {
        let mut done: Vec<Position> = Vec::with_capacity(batch.deliveries.len());
        for delivery in &batch.deliveries {
            if printer.is_full() {
                break;
            }
            printer.print(&mut session.out, &batch.of, delivery)?;
            done.push(delivery.position);
        }
        session.out.flush()?;
        self.ack(&batch.of, &done, session);
        Ok(())
    }

    fn ack(&self, of: &Owned, done: &[Position], session: &Session) {
        if let Err(error) = self.control.ack(of, done) {
            let count = done.len();
            session.notes.warn(&format!(
                "{}/{}: {count} messages were printed and not acked, and will come again: {error}",
                of.topic, of.partition
            ));
        }
    }
}
