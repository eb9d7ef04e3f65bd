//! Many tasks over a store that one thread writes to: as a service would publish to an embedded database.
//!
//! Each task has one message on its way. The thread writes all that wait in one transaction, with no timer, and answers them: the larger a
//! transaction gets, the longer it takes, and the more wait for the next one. It is what the embedded broker does, without a log, a queue
//! with a bound, or anything else.

use super::publish::{FIRST_AT_ONCE, Parts, Store, Written};
use crate::{Result, machine::Stopwatch, work::Work};
use ropeway_broker::Message;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
};
use tokio::{sync::oneshot, task::JoinSet};

/// A message on its way, and where its task waits.
type Sent = (u64, Message, oneshot::Sender<()>);

/// Writes them, `at_once` at a time but for the first.
pub(super) fn publish(
    mut store: Box<dyn Store>,
    work: &Work,
    at_once: u64,
    parts: &Parts,
) -> Result<Written> {
    let Parts { first, timed } = parts.clone();
    let (sender, receiver) = mpsc::channel::<Sent>();
    let commits = Arc::new(AtomicU64::new(0));
    let counted = commits.clone();
    let writer = thread::spawn(move || {
        let written = write(&mut *store, &receiver, &counted);
        written.map(|()| store).map_err(|error| error.to_string())
    });
    let work = Arc::new(work.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let watched = runtime.block_on(async {
        send(&sender, &work, FIRST_AT_ONCE, 0..first).await?;
        send(&sender, &work, at_once, first..timed.start).await?;
        let before = commits.load(Relaxed);
        let watch = Stopwatch::start();
        send(&sender, &work, at_once, timed).await?;
        let (wall, cpu) = watch.stop();
        Result::Ok((wall, cpu, commits.load(Relaxed) - before))
    });
    drop(sender);
    let store = writer.join().map_err(|_| "the thread that writes panicked")??;
    let (wall, cpu, commits) = watched?;
    Ok((store, wall, cpu, commits))
}

/// Writes what comes until nobody sends any more.
fn write(store: &mut dyn Store, receiver: &mpsc::Receiver<Sent>, commits: &AtomicU64) -> Result<()> {
    let (mut batch, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(first) = receiver.recv() {
        for (number, message, waits) in std::iter::once(first).chain(receiver.try_iter()) {
            batch.push((number, message));
            waiting.push(waits);
        }
        store.write(&batch)?;
        commits.fetch_add(1, Relaxed);
        batch.clear();
        // Who does not wait any more has failed, and says so itself.
        waiting.drain(..).for_each(|waits| _ = waits.send(()));
    }
    Ok(())
}

/// So many tasks, each with one message on its way, until all are answered.
async fn send(
    sender: &mpsc::Sender<Sent>,
    work: &Arc<Work>,
    at_once: u64,
    messages: Range<u64>,
) -> Result<()> {
    let next = Arc::new(AtomicU64::new(messages.start));
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (sender, work, next, end) = (sender.clone(), work.clone(), next.clone(), messages.end);
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Relaxed);
                if i >= end {
                    return true;
                }
                let (waits, answer) = oneshot::channel();
                if sender.send((i, work.message(i), waits)).is_err() || answer.await.is_err() {
                    return false;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if !ended? {
            return Err("a message was not written".into());
        }
    }
    Ok(())
}
