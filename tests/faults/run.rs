//! A run: workers started one after another on one broker, each writing its histories, and everything that is left judged.
//!
//! Not here: how a life ends (`kill.rs`, `power_cut.rs`), what the worker does (`worker.rs`), what must hold (`check.rs`).

use crate::{
    check::{Evidence, check},
    history::{self, Event, Id, Open, Place},
    traffic, worker,
};
use rand::{RngExt, rngs::StdRng};
use ropeway_broker::{Event as BusEvent, GapReason, MessageBroker, Position, ReaderExt, Start, Topic};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread::sleep,
    time::Duration,
};

const STEP: Duration = Duration::from_millis(2);
/// How long a worker runs whose failing call does not come.
const LONGEST_FAULTY_LIFE: Duration = Duration::from_secs(4);
/// How long a worker may take to start or to drain.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What an environment variable says, where it is set and can be read.
pub(crate) fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Where a run happens, and the lives that were.
pub(crate) struct Run {
    /// Where the histories are written: never on the disk that fails.
    root: PathBuf,
    url: String,
    /// Given to every worker.
    environment: Vec<(&'static str, String)>,
    /// Per life what each group saw.
    lives: Vec<Vec<Vec<Event>>>,
    counted: usize,
    open: Open,
}

impl Run {
    pub(crate) fn new(root: &Path, url: String) -> Self {
        let (lives, environment) = (Vec::new(), Vec::new());
        Self { root: root.to_owned(), url, environment, lives, counted: 0, open: Open::default() }
    }

    /// Has retention keep that many bytes of each partition.
    pub(crate) fn keep_bytes(&mut self, bytes: u64) {
        self.environment.push((worker::RETENTION, bytes.to_string()));
    }

    /// How many lives ended while publishes, handlers and acks were open.
    pub(crate) const fn counted(&self) -> usize {
        self.counted
    }

    /// How many lives there were.
    pub(crate) const fn lives(&self) -> usize {
        self.lives.len()
    }

    /// One life: started, ended by `end` at a moment drawn by lot, and what its histories say.
    pub(crate) fn live_and_die(
        &mut self,
        early: bool,
        random: &mut StdRng,
        end: impl FnOnce(&mut Worker) -> Result<(), String>,
    ) -> Result<(), String> {
        let life = self.lives.len();
        let mut worker = self.start(life, "publish")?;
        if !early {
            self.wait_until_ready(&mut worker, life)?;
        }
        let longest = if early { 150 } else { 900 };
        sleep(Duration::from_millis(random.random_range(0..longest)));
        if let Some(status) = worker.ended()? {
            return Err(format!("life {life} ended by itself with {status}: {}", self.stderr(life)));
        }
        end(&mut worker)?;
        let seen = history::read_life(&self.history(life))?;
        let at_death: Vec<Open> = seen.iter().map(|events| Open::at_the_end_of(events)).collect();
        if at_death.iter().any(|open| open.counts()) {
            self.counted += 1;
            // Each publish is in the history of every group.
            self.open.publishes += at_death.first().map_or(0, |open| open.publishes);
            self.open.handlers += at_death.iter().map(|open| open.handlers).sum::<usize>();
            self.open.acks += at_death.iter().map(|open| open.acks).sum::<usize>();
        }
        self.lives.push(seen);
        Ok(())
    }

    /// A worker whose members run.
    pub(crate) fn start_ready(&mut self) -> Result<Worker, String> {
        let mut worker = self.start(0, "publish")?;
        self.wait_until_ready(&mut worker, 0)?;
        Ok(worker)
    }

    /// One life in an environment that makes a call fail, and `mark` when it did. It lives on for a while, or ends of its own will.
    /// It has `patience` to tell somebody.
    pub(crate) fn live_with(
        &mut self,
        environment: &[(&str, String)],
        mark: &Path,
        patience: Duration,
    ) -> Result<(), String> {
        let life = self.lives.len();
        let mut worker = self.start_with(life, "publish", environment)?;
        let path = self.history(life);
        let is_told = || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.contains("\nrefused ") || text.contains("\nunknown ")
        };
        wait(LONGEST_FAULTY_LIFE, || Ok(mark.exists() || worker.ended()?.is_some()))?;
        wait(patience, || Ok(is_told() || worker.ended()?.is_some()))?;
        // A while with a broker that knows of its failure.
        sleep(Duration::from_millis(50));
        worker.kill()?;
        self.lives.push(history::read_life(&self.history(life))?);
        Ok(())
    }

    /// Whether somebody in the first life got to know that something failed.
    pub(crate) fn was_told(&self) -> bool {
        let failed = |event: &Event| matches!(event, Event::Refused(_) | Event::Unknown(_));
        self.lives.first().is_some_and(|life| life.iter().flatten().any(failed)) || !self.stderr(0).is_empty()
    }

    /// The last life: it ends of its own will. Then everything is judged; answers what there is to tell.
    pub(crate) fn drain_and_check(&mut self) -> Result<String, String> {
        let life = self.lives.len();
        let mut worker = self.start(life, "drain")?;
        let mut status = None;
        within_patience(|| {
            status = worker.ended()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if status.success() => {}
            Some(status) => {
                return Err(format!("the draining worker ended with {status}: {}", self.stderr(life)));
            }
            None => return Err(format!("nothing was drained within {PATIENCE:?}: {}", self.stderr(life))),
        }
        self.lives.push(history::read_life(&self.history(life))?);
        let mut story = format!(
            "{life} lives ended, {} of them counted, with {} publishes, {} handlers and {} acks open",
            self.counted, self.open.publishes, self.open.handlers, self.open.acks
        );
        let mut wrong = Vec::new();
        for (group, evidence) in self.read()?.iter().enumerate() {
            let (counts, of_group) = check(evidence);
            story += &format!("; group {group}: {counts:?}");
            wrong.extend(of_group.into_iter().map(|why| format!("group {group}: {why}")));
        }
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
        self.start_with(life, role, &[])
    }

    fn start_with(&self, life: usize, role: &str, environment: &[(&str, String)]) -> Result<Worker, String> {
        let start = || {
            let errors = File::create(self.root.join(format!("stderr-{life:03}")))?;
            let child = Command::new(std::env::current_exe()?)
                .env(worker::ROLE, role)
                .env(worker::URL, &self.url)
                .env(worker::HISTORY, self.history(life))
                .env(worker::LIFE, life.to_string())
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .stderr(errors)
                .spawn()?;
            Ok(child)
        };
        start()
            .map(|child| Worker(child, self.history(life)))
            .map_err(|error: std::io::Error| format!("could not start a worker: {error}"))
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
            match worker.ended()? {
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

    /// For each group the lives, the topic and its dead letters, read by a process that had no part in the run.
    fn read(&self) -> Result<Vec<Evidence>, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let broker = ropeway_broker::connect(&self.url).await.map_err(|error| error.to_string())?;
            let names = traffic::names().map_err(|error| error.to_string())?;
            let log = read_topic(&*broker, &names.topic, !self.environment.is_empty()).await?;
            let about = broker.admin().describe_topic(&names.topic).await;
            let about = about.map_err(|error| error.to_string())?;
            let low: Vec<Position> = about.partitions.iter().map(|partition| partition.low).collect();
            let mut evidence = Vec::new();
            for (index, (_, dead)) in names.groups.iter().enumerate() {
                let dead = read_topic(&*broker, dead, false).await?.into_iter().map(|(_, id)| id).collect();
                let atomic = broker.capabilities().atomic_forward;
                let lives = self.lives.iter().map(|life| life[index].clone()).collect();
                evidence.push(Evidence { lives, log: log.clone(), low: low.clone(), dead, atomic });
            }
            broker.close(PATIENCE).await;
            Ok(evidence)
        })
    }
}

/// A child that does not outlive the test, and where its history is.
pub(crate) struct Worker(pub(crate) Child, pub(crate) PathBuf);

impl Worker {
    /// How it ended, where it did.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.0.try_wait().map_err(|error| error.to_string())
    }

    /// Writes into its history that the power is about to go.
    pub(crate) fn cut_begins(&self) -> Result<(), String> {
        history::cut_begins(&self.1).map_err(|error| format!("could not write the history: {error}"))
    }

    /// SIGKILL: nothing in the process gets to know.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.0
            .kill()
            .and_then(|()| self.0.wait())
            .map(drop)
            .map_err(|error| format!("could not kill: {error}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again; `false` where it did not come true within [`PATIENCE`].
pub(crate) fn within_patience(is_true: impl FnMut() -> Result<bool, String>) -> Result<bool, String> {
    wait(PATIENCE, is_true)
}

fn wait(patience: Duration, mut is_true: impl FnMut() -> Result<bool, String>) -> Result<bool, String> {
    for _ in 0..patience.as_millis() / STEP.as_millis() {
        if is_true()? {
            return Ok(true);
        }
        sleep(STEP);
    }
    Ok(false)
}

/// All of a topic, partition by partition in order. Whatever is no message of the test is an error.
async fn read_topic(
    broker: &dyn MessageBroker,
    topic: &Topic,
    is_trimmed: bool,
) -> Result<Vec<(Place, Id)>, String> {
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
            // Retention goes on while this is read; the low mark, which is asked for afterwards, tells how far it came.
            BusEvent::Gap { why: GapReason::Trimmed, .. } if is_trimmed => {}
            other => return Err(format!("unexpected in {topic}: {other:?}")),
        }
    }
    Ok(read)
}
