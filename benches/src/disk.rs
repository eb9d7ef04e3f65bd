//! What the disk gives the embedded broker, beside bare writes and fdatasync of the same bytes, in turns. Bare is the best the disk can: the
//! file has its size and its blocks before, so that a sync has nothing but the bytes to write.
//!
//! One cell is a size of payload and how many publishes are under way at a time; bare, as many payloads are written at once and synced.
//! Not here: rounds and ratios (`ratio.rs`).

use crate::{
    DISK_AT_ONCE, DISK_SIZES,
    payload::{Payloads, Sizes, Stamp},
    ratio::{Ratio, first_goes_first},
    report::DiskRow,
};
use bytes::Bytes;
use ropeway_broker::{
    Bound, Durability, Error, ErrorKind, Message, MessageBroker, Publisher, PublisherSettings, Result,
    Target, Topic, TopicSpec,
};
use std::{
    fs::File,
    io::{Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How the disk is measured.
#[derive(Clone, Debug)]
pub struct Disk {
    /// A broker that keeps its data in a directory.
    pub broker: Arc<dyn MessageBroker>,
    /// A file beside that directory. It is made, 16 MiB, and left.
    pub file: PathBuf,
    /// How often both take their turn in each cell; at least 1.
    pub rounds: usize,
    /// How long a turn is.
    pub turn: Duration,
    /// Ends it early.
    pub stop: CancellationToken,
}

impl Disk {
    /// How many turns there are in all.
    #[must_use]
    pub const fn turns(&self) -> u64 {
        (self.rounds * 2 * DISK_SIZES.len() * DISK_AT_ONCE.len()) as u64
    }

    /// Measures every cell; `done` is called after each turn. A cell that was stopped in its first round is left out. The rounds of all
    /// cells take turns as well.
    ///
    /// # Errors
    /// Those of the broker and of the file.
    pub async fn run(&self, done: impl Fn()) -> Result<Vec<DiskRow>> {
        let cells: Vec<(u64, u64)> =
            DISK_SIZES.iter().flat_map(|size| DISK_AT_ONCE.iter().map(|at_once| (*size, *at_once))).collect();
        let mut rounds: Vec<Vec<(f64, f64)>> = vec![Vec::new(); cells.len()];
        for round in 0..self.rounds {
            for ((size, at_once), found) in cells.iter().zip(&mut rounds) {
                let (mut broker, mut bare) = (0.0, 0.0);
                for turn in 0..2 {
                    if self.stop.is_cancelled() {
                        return Ok(rows(&cells, &rounds));
                    }
                    if first_goes_first(round) == (turn == 0) {
                        broker = self.publish(*size, *at_once).await?;
                    } else {
                        bare = self.write(*size, *at_once).await?;
                    }
                    done();
                }
                // A turn that was cut short tells nothing.
                if !self.stop.is_cancelled() {
                    found.push((broker, bare));
                }
            }
        }
        Ok(rows(&cells, &rounds))
    }

    /// Messages a second that were acked as surviving a power cut, with so many under way.
    async fn publish(&self, size: u64, at_once: u64) -> Result<f64> {
        let topic = Topic::new("bench-disk")?;
        self.broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await?;
        let in_flight = Bound { messages: at_once as usize, bytes: 64 << 20 };
        let publisher = Publisher::new(
            self.broker.clone(),
            PublisherSettings { in_flight, ..PublisherSettings::default() },
        )?;
        let payload = payload(size);
        let start = Instant::now();
        let running = (0..at_once).map(|_| {
            let (publisher, payload, stop) = (publisher.clone(), payload.clone(), self.stop.clone());
            let to =
                Target { topic: topic.clone(), partition: Some(0), at_least: Some(Durability::PowerLoss) };
            let turn = self.turn;
            tokio::spawn(async move {
                let mut acked = 0_u64;
                // At least one, however late its turn comes.
                while acked == 0 || (start.elapsed() < turn && !stop.is_cancelled()) {
                    let message = Message::builder().payload(payload.clone()).build();
                    publisher.publish(to.clone(), message).await.map_err(|failed| failed.failed.error)?;
                    acked += 1;
                }
                Ok::<u64, Error>(acked)
            })
        });
        let ended = futures::future::join_all(running.collect::<Vec<_>>()).await;
        let took = start.elapsed();
        let mut acked = 0;
        for ended in ended {
            acked += ended
                .map_err(|error| Error::new(ErrorKind::Closed, format!("a publisher ended: {error}")))??;
        }
        self.broker.admin().delete_topic(&topic).await?;
        Ok(acked as f64 / took.as_secs_f64())
    }

    /// Payloads a second that were appended to a file and synced, so many with one sync.
    async fn write(&self, size: u64, at_once: u64) -> Result<f64> {
        let (path, turn, stop) = (self.file.clone(), self.turn, self.stop.clone());
        let written = tokio::task::spawn_blocking(move || {
            let bytes = payload(size).repeat(at_once as usize);
            let mut file = prepared(&path)?;
            let (start, mut payloads, mut at) = (Instant::now(), 0_u64, 0_u64);
            while payloads == 0 || (start.elapsed() < turn && !stop.is_cancelled()) {
                if at + bytes.len() as u64 > BARE_BYTES {
                    file.rewind()?;
                    at = 0;
                }
                file.write_all(&bytes)?;
                file.sync_data()?;
                at += bytes.len() as u64;
                payloads += at_once;
            }
            let took = start.elapsed();
            Ok::<f64, std::io::Error>(payloads as f64 / took.as_secs_f64())
        });
        written.await.map_err(std::io::Error::other).flatten().map_err(|error| {
            let place = self.file.display();
            Error::new(ErrorKind::Unavailable, format!("could not write and sync {place}")).caused_by(error)
        })
    }
}

/// How much of the disk the bare writes go over, again and again.
const BARE_BYTES: u64 = 16 << 20;

/// The file with all its blocks; made the first time.
fn prepared(path: &Path) -> std::io::Result<File> {
    if let Ok(file) = File::options().write(true).open(path) {
        return Ok(file);
    }
    let mut file = File::create(path)?;
    let block = vec![0; 1 << 20];
    for _ in 0..BARE_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.rewind()?;
    Ok(file)
}

fn payload(size: u64) -> Bytes {
    let size = size as usize;
    let stamp = Stamp { run: 0, producer: 0, key: None, number: 0, intended: Duration::ZERO };
    Sizes::new(size, size).map(|sizes| Payloads::new(sizes, 1).draw(&stamp)).unwrap_or_default()
}

fn rows(cells: &[(u64, u64)], rounds: &[Vec<(f64, f64)>]) -> Vec<DiskRow> {
    let found = cells.iter().zip(rounds).filter_map(|((size, at_once), rounds)| {
        let Ratio { ours, theirs, ratio, low, high } = Ratio::of(rounds)?;
        Some(DiskRow { size: *size, at_once: *at_once, broker: ours, bare: theirs, ratio, low, high })
    });
    found.collect()
}
