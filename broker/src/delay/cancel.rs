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
    let mut waiting = site.desk.ask(partition, token)?;
    if let Some(at) = ask(site, partition, &Record::Cancel { token, id }).await? {
        site.desk.lies(token, at);
    }
    let answer = async {
        select! {
            biased;
            Ok(answer) = &mut waiting.told => Ok(answer),
            answer = follow(site, partition, token) => answer,
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

/// Looks for the answer in the log: another process may own the partition. Who looks tells the others what it finds for them.
async fn follow(site: &Site, partition: u32, token: u128) -> Result<bool> {
    sleep(if site.desk.owns(partition) { OWN } else { OTHERS }).await;
    let _turn = site.desk.looks(partition).await;
    let mut reader = site.ground.read().await?;
    let first = site.desk.first(partition);
    let from = first.map_or_else(|| Start::Time(site.ground.now() - Duration::from_secs(60)), Start::After);
    reader.follow(&site.names.internal, Some(partition), from).await?;
    loop {
        if let Some(answer) = next_answers(site, &mut *reader, token).await? {
            return Ok(answer);
        }
    }
}

/// The answer, where the next event has it. Answers to others are told.
async fn next_answers(site: &Site, reader: &mut dyn Reader, token: u128) -> Result<Option<bool>> {
    let Event::Batch(batch) = reader.next().await? else { return Ok(None) };
    let mut own = None;
    for delivery in &batch.deliveries {
        match Record::unpack(&delivery.message) {
            Ok(Record::Answer { token: of, cancelled }) if of == token => own = Some(cancelled),
            Ok(Record::Answer { token: of, cancelled }) => _ = site.desk.answer(of, cancelled),
            _ => {}
        }
    }
    Ok(own)
}
