//! Reading without a group.
//!
//! Not here: membership and acks (`joining.rs`), what is printed (`printer.rs`).

use super::{Args, Next, deadline, next, printer::Printer, tell_gap};
use crate::{
    failure::Failure,
    session::{Session, within},
};
use ropeway_broker::{Event, MessageBroker, ReaderExt, Start, Topic};
use std::{collections::HashSet, sync::Arc};

/// Reads until there is enough.
///
/// # Errors
/// Those of the broker and of stdout; out of time.
pub(super) async fn run(
    args: &Args,
    broker: Arc<dyn MessageBroker>,
    session: &mut Session,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let wait = session.request();
    let mut reader = within(wait, "open a reader", broker.read()).await?;
    // What has to be caught up with: nothing that is added later.
    let mut left: HashSet<(Topic, u32)> = HashSet::new();
    let start = if args.until.is_some() { Start::Earliest } else { Start::Latest };
    let start = args.offset.unwrap_or(start);
    for topic in &args.topics {
        let about = within(wait, "describe the topic", broker.admin().describe_topic(topic)).await;
        let about = about.map_err(|failure| failure.of_topic(topic.as_str()))?;
        let partitions = 0..u32::try_from(about.partitions.len()).unwrap_or(u32::MAX);
        left.extend(
            partitions.filter(|p| args.partition.is_none_or(|only| only == *p)).map(|p| (topic.clone(), p)),
        );
        within(wait, "read the topic", reader.follow(topic, args.partition, start)).await?;
    }
    let deadline = deadline(session);
    while !(printer.is_full() || args.until.is_some() && left.is_empty()) {
        match next(reader.next(), deadline, session).await? {
            Next::Stop => break,
            Next::Event(Event::Batch(batch)) => {
                for delivery in &batch.deliveries {
                    printer.print(&mut session.out, &batch.of, delivery)?;
                }
            }
            Next::Event(Event::Unreadable { of, position, why, .. }) => {
                printer.unreadable_record(&session.notes, &of, position, &why);
            }
            Next::Event(Event::Gap { of, from, to, why }) => tell_gap(session, &of, (from, to, why)),
            Next::Event(Event::CaughtUp(of)) => _ = left.remove(&(of.topic, of.partition)),
            Next::Event(Event::Assigned(_) | Event::Revoking { .. } | Event::Gone(..)) => {}
        }
    }
    Ok(())
}
