//! Kills a worker again and again with SIGKILL, lets the last life drain, and has everything that is left judged.
//!
//! `ROPEWAY_TEST_KILLS` kills (default 20) must count: at that moment publishes, handlers and acks were open. Some more come while the
//! worker is still starting; those count for nothing and must do no harm. `ROPEWAY_TEST_SEED` repeats the moments.
//! Not here: what the worker does (`worker.rs`), what must hold (`check.rs`).

use crate::{
    check::{Evidence, check},
    history::{self, Event, Id, Open, Place},
    traffic, worker,
};
use libtest_mimic::Failed;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ropeway_broker::{Event as BusEvent, MessageBroker, ReaderExt, Start, Topic};
use std::{
    collections::BTreeSet,
    fs::File,
    path::PathBuf,
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

const STEP: Duration = Duration::from_millis(2);
/// How long a worker may take to start or to drain.
const PATIENCE: Duration = Duration::from_secs(90);

/// The trial.
pub(crate) fn embedded_survives_kills() -> Result<(), Failed> {
    let kills: usize = number("ROPEWAY_TEST_KILLS").unwrap_or(20);
    let seed: u64 = number("ROPEWAY_TEST_SEED").unwrap_or_else(rand::random);
    let root = tempfile::tempdir()?;
    let run = Run { directory: root.path().join("broker"), root: root.path().to_owned() };
    let mut random = StdRng::seed_from_u64(seed);
    let result = run.kill_and_check(kills, &mut random);
    match result {
        Ok(story) => {
            eprintln!("seed {seed}: {story}");
            Ok(())
        }
        Err(why) => {
            let kept = root.keep();
            Err(format!("{why}\nseed {seed}; histories and broker are kept in {}", kept.display()).into())
        }
    }
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

struct Run {
    root: PathBuf,
    directory: PathBuf,
}

impl Run {
    fn kill_and_check(&self, kills: usize, random: &mut StdRng) -> Result<String, String> {
        let mut lives = Vec::new();
        let (mut counted, mut open) = (0, Open::default());
        while counted < kills {
            if lives.len() >= kills * 4 + 10 {
                return Err(format!("only {counted} of {} kills found everything open", lives.len()));
            }
            let early = random.random_ratio(1, 6);
            let life = self.live_and_die(lives.len(), early, random)?;
            let at_death = Open::at_the_end_of(&life);
            if at_death.counts() {
                counted += 1;
                open.publishes += at_death.publishes;
                open.handlers += at_death.handlers;
                open.acks += at_death.acks;
            }
            lives.push(life);
        }
        let killed = lives.len();
        lives.push(self.drain(killed)?);
        let evidence = self.read(lives)?;
        let (counts, wrong) = check(&evidence);
        let story = format!(
            "{killed} kills, {counted} of them counted, with {} publishes, {} handlers and {} acks open; {counts:?}",
            open.publishes, open.handlers, open.acks
        );
        if wrong.is_empty() {
            return Ok(story);
        }
        let some: Vec<String> = wrong.iter().take(20).cloned().collect();
        Err(format!("{story}\n{} things are wrong:\n{}", wrong.len(), some.join("\n")))
    }

    fn history(&self, life: usize) -> PathBuf {
        self.root.join(format!("history-{life:03}"))
    }

    fn start(&self, life: usize, role: &str) -> Result<Worker, String> {
        let start = || {
            let errors = File::create(self.root.join(format!("stderr-{life:03}")))?;
            let child = Command::new(std::env::current_exe()?)
                .env(worker::ROLE, role)
                .env(worker::DIRECTORY, &self.directory)
                .env(worker::HISTORY, self.history(life))
                .env(worker::LIFE, life.to_string())
                .stderr(errors)
                .spawn()?;
            Ok(child)
        };
        start().map(Worker).map_err(|error: std::io::Error| format!("could not start a worker: {error}"))
    }

    /// One life: started, killed at a moment drawn by lot, and what its history says.
    fn live_and_die(&self, life: usize, early: bool, random: &mut StdRng) -> Result<Vec<Event>, String> {
        let mut worker = self.start(life, "publish")?;
        if !early {
            self.wait_until_ready(&mut worker, life)?;
        }
        let longest = if early { 150 } else { 900 };
        sleep(Duration::from_millis(random.random_range(0..longest)));
        if let Some(status) = worker.0.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("life {life} ended by itself with {status}: {}", self.stderr(life)));
        }
        // SIGKILL: nothing in the process gets to know.
        worker.0.kill().and_then(|()| worker.0.wait()).map_err(|error| format!("could not kill: {error}"))?;
        let path = self.history(life);
        if path.exists() { history::read(&path) } else { Ok(Vec::new()) }
    }

    /// The last life: it ends of its own will.
    fn drain(&self, life: usize) -> Result<Vec<Event>, String> {
        let mut worker = self.start(life, "drain")?;
        let mut status = None;
        within_patience(|| {
            status = worker.0.try_wait().map_err(|error| error.to_string())?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if status.success() => history::read(&self.history(life)),
            Some(status) => Err(format!("the draining worker ended with {status}: {}", self.stderr(life))),
            None => Err(format!("nothing was drained within {PATIENCE:?}: {}", self.stderr(life))),
        }
    }

    /// Waits until the members of a worker run.
    fn wait_until_ready(&self, worker: &mut Worker, life: usize) -> Result<(), String> {
        let path = self.history(life);
        let ready = || {
            std::fs::read_to_string(&path)
                .is_ok_and(|text| text.starts_with("ready\n") || text.contains("\nready\n"))
        };
        let is_ready = within_patience(|| {
            if ready() {
                return Ok(true);
            }
            match worker.0.try_wait().map_err(|error| error.to_string())? {
                Some(status) => {
                    Err(format!("life {life} ended by itself with {status}: {}", self.stderr(life)))
                }
                None => Ok(false),
            }
        })?;
        if is_ready { Ok(()) } else { Err(format!("life {life} was not ready within {PATIENCE:?}")) }
    }

    fn stderr(&self, life: usize) -> String {
        std::fs::read_to_string(self.root.join(format!("stderr-{life:03}"))).unwrap_or_default()
    }

    /// The lives with the topic and its dead letters, read by a process that had no part in the run.
    fn read(&self, lives: Vec<Vec<Event>>) -> Result<Evidence, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let url = format!("embedded:{}", self.directory.display());
            let broker = ropeway_broker::connect(&url).await.map_err(|error| error.to_string())?;
            let (topic, _, dead) = traffic::names().map_err(|error| error.to_string())?;
            let log = read_topic(&*broker, &topic).await?;
            let dead = read_topic(&*broker, &dead).await?.into_iter().map(|(_, id)| id).collect();
            broker.close(PATIENCE).await;
            Ok(Evidence { lives, log, dead })
        })
    }
}

/// A child that does not outlive the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again; `false` where it did not come true in time.
fn within_patience(mut is_true: impl FnMut() -> Result<bool, String>) -> Result<bool, String> {
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if is_true()? {
            return Ok(true);
        }
        sleep(STEP);
    }
    Ok(false)
}

async fn read_topic(broker: &dyn MessageBroker, topic: &Topic) -> Result<Vec<(Place, Id)>, String> {
    let failed = |error: ropeway_broker::Error| format!("could not read {topic}: {error}");
    let mut reader = broker.read().await.map_err(failed)?;
    reader.follow(topic, None, Start::Earliest).await.map_err(failed)?;
    let mut left: BTreeSet<u32> = (0..traffic::PARTITIONS).collect();
    let mut read = Vec::new();
    while !left.is_empty() {
        match reader.next().await.map_err(failed)? {
            BusEvent::Batch(batch) => {
                for delivery in &batch.deliveries {
                    let place =
                        Place { partition: batch.of.partition, position: delivery.position.to_string() };
                    read.push((place, traffic::id(&delivery.message)?));
                }
            }
            BusEvent::CaughtUp(of) => {
                left.remove(&of.partition);
            }
            other => return Err(format!("unexpected in {topic}: {other:?}")),
        }
    }
    Ok(read)
}
