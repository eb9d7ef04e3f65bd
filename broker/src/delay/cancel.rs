//! Taking a delayed message back: the question goes into the log, and who owns the partition answers.
//!
//! Not here: what is answered (`shelf.rs`).

use super::{job::Site, record::Record};
use crate::{
    Error, ErrorKind, Event, MessageId, Position, Published, Reader, ReaderExt, Result, Start, Target,
};
use std::time::Duration;
use tokio::{
    select,
    time::{sleep, timeout},
};
use uuid::Uuid;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(25);
/// After what time the answer is looked for in the log where this process owns the partition: it may have been another's when it was asked.
const OWN: Duration = Duration::from_secs(1);
/// The same, where it does not.
const OTHERS: Duration = Duration::from_millis(50);

pub(super) async fn cancel(site: &Site, id: MessageId) -> Result<bool> {
    let partition = site.names.shelf_of(id);
    let token = Uuid::new_v4().as_u128();
    let mut waiting = site.desk.ask(token)?;
    let at = ask(site, partition, &Record::Cancel { token, id }).await?;
    let answer = async {
        select! {
            biased;
            Ok(answer) = &mut waiting.told => Ok(answer),
            answer = follow(site, partition, token, at) => answer,
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        let why = format!(
            "nobody who moves delayed messages answered within {PATIENCE:?}; it may or may not be taken back"
        );
        Err(Error::new(ErrorKind::Unavailable, why))
    })
}

/// Appends the question; where it lies.
async fn ask(site: &Site, partition: u32, cancel: &Record) -> Result<Option<Position>> {
    let to = Target { partition: Some(partition), ..(&site.names.internal).into() };
    let carrier = cancel.pack(site.ground.now());
    match site.ground.put(&to, vec![carrier]).await.0.pop() {
        Some(Published::Acked { position, .. }) => Ok(position),
        Some(Published::NotWritten(failed) | Published::Unknown(failed)) => Err(failed.error),
        None => Err(Error::new(ErrorKind::Unavailable, "the backend answered no outcome")),
    }
}

/// Looks for the answer in the log: another process may own the partition.
async fn follow(site: &Site, partition: u32, token: u128, at: Option<Position>) -> Result<bool> {
    sleep(if site.desk.owns(partition) { OWN } else { OTHERS }).await;
    let mut reader = site.ground.read().await?;
    let from = at.map_or_else(|| Start::Time(site.ground.now() - Duration::from_secs(60)), Start::After);
    reader.follow(&site.names.internal, Some(partition), from).await?;
    loop {
        if let Some(answer) = answer_in(&mut *reader, token).await? {
            return Ok(answer);
        }
    }
}

/// The answer, where the next event has it.
async fn answer_in(reader: &mut dyn Reader, token: u128) -> Result<Option<bool>> {
    let Event::Batch(batch) = reader.next().await? else { return Ok(None) };
    Ok(batch.deliveries.iter().find_map(|delivery| match Record::unpack(&delivery.message) {
        Ok(Record::Answer { token: of, cancelled }) if of == token => Some(cancelled),
        _ => None,
    }))
}
