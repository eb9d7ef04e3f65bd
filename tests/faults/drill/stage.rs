//! Where a drill happens: processes that come and go, the history they share, and the judge who reads along.
//!
//! Every two seconds a member joins, leaves or is killed, whatever else happens. Not here: servers and faults (`redis/`, `kafka/`), what must hold (`judge.rs`).

use super::{
    judge::Judge,
    member, process,
    rules::{Counts, Rules},
};
use crate::{history::Writer, run::Worker, traffic, worker};
use rand::{RngExt, rngs::StdRng};
use ropeway_broker::{ErrorKind, MessageBroker, Timestamp, TopicSpec};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};
use tokio::time::Instant;

/// How often it looks.
const STEP: Duration = Duration::from_millis(5);
/// How often a member joins or leaves.
const CHURN: Duration = Duration::from_secs(2);
/// How many members there are.
const MEMBERS: std::ops::RangeInclusive<usize> = 2..=5;
/// How long anything may take that no fault hinders, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often members may be fenced by themselves in one drill.
const MOST_FENCED: u64 = 2;

/// What processes are given.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// One URL for each way to the server.
    pub(crate) urls: Vec<String>,
    /// Messages a second of all publishers.
    pub(crate) rate: u32,
    /// As for [`member::AT_LEAST`], of the publisher on each way.
    pub(crate) at_least: Vec<Option<&'static str>>,
    /// Of one publisher, what is not answered at the most.
    pub(crate) in_flight: usize,
}

/// A process.
pub(crate) struct Process {
    pub(crate) number: u32,
    role: &'static str,
    side: usize,
    /// Its static name, if it is a member that has one.
    name: Option<String>,
    worker: Worker,
    input: Option<ChildStdin>,
    pub(crate) is_stopped: bool,
}

impl Process {
    fn is_leaving(&self) -> bool {
        self.input.is_none()
    }

    pub(crate) fn is_member(&self) -> bool {
        self.role == member::CONSUME && !self.is_leaving()
    }

    pub(crate) fn signal(&mut self, name: &str) -> Result<(), String> {
        self.is_stopped = name == "STOP";
        process::signal(self.worker.0.id(), name)
    }
}

/// The stage.
pub(crate) struct Stage {
    root: PathBuf,
    load: Load,
    history: Writer,
    tail: BufReader<File>,
    part: String,
    began: Timestamp,
    pub(crate) processes: Vec<Process>,
    next: u32,
    churned: Instant,
    /// The way that is cut off, where one is: who is there neither works nor is taken away, so that somebody works on another.
    pub(crate) cut_off: Option<usize>,
    pub(crate) random: StdRng,
    judge: Judge,
    /// By the name of what happened: milliseconds until something that was published after it was acked, and handled in each partition.
    recoveries: BTreeMap<&'static str, Vec<(u128, u128)>>,
}

impl Stage {
    pub(crate) fn new(root: &Path, load: Load, rules: Rules, random: StdRng) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", root.display());
        std::fs::create_dir_all(root).map_err(failed)?;
        let (path, began) = (root.join("history"), Timestamp::now());
        let history = Writer::share(&path, 0, began).map_err(failed)?;
        let tail = BufReader::new(File::open(&path).map_err(failed)?);
        Ok(Self {
            root: root.to_owned(),
            load,
            history,
            tail,
            part: String::new(),
            began,
            processes: Vec::new(),
            next: 1,
            churned: Instant::now(),
            cut_off: None,
            random,
            judge: Judge::new(rules),
            recoveries: BTreeMap::new(),
        })
    }

    /// Makes the topics, starts publishers and members on every way, and waits until all of it works.
    pub(crate) fn open(&mut self) -> Result<(), String> {
        ask(&self.load.urls[0], async |broker| {
            let names = traffic::names()?;
            for topic in [&names.topic, &names.groups[0].1] {
                let spec = TopicSpec::partitions(traffic::PARTITIONS);
                match broker.admin().create_topic(topic, spec).await {
                    Err(error) if error.kind() != ErrorKind::Exists => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })?;
        for side in 0..self.load.urls.len() {
            self.spawn(member::PUBLISH, side, None)?;
            self.spawn(member::CONSUME, side, Some(format!("static-{side}")))?;
        }
        self.spawn(member::CONSUME, 0, None)?;
        self.recover("start", PATIENCE)?;
        self.note("recovered");
        Ok(())
    }

    fn now(&self) -> u64 {
        Timestamp::now().since(self.began).as_millis() as u64
    }

    /// Writes what happens into the history.
    pub(crate) fn note(&self, what: &str) {
        self.history.note(format_args!("{what}"));
    }

    fn spawn(&mut self, role: &'static str, side: usize, name: Option<String>) -> Result<(), String> {
        let number = self.next;
        self.next += 1;
        let start = || {
            let errors = File::create(self.stderr(number))?;
            let mut command = Command::new(std::env::current_exe()?);
            command
                .env(worker::ROLE, role)
                .env(worker::URL, &self.load.urls[side])
                .env(worker::HISTORY, self.root.join("history"))
                .env(worker::LIFE, number.to_string())
                .env(member::BEGAN, self.began.as_millis().to_string())
                .env(member::IN_FLIGHT, self.load.in_flight.to_string())
                .env(member::RATE, (self.load.rate / self.load.urls.len() as u32).to_string())
                .envs(self.load.at_least[side].map(|at_least| (member::AT_LEAST, at_least)))
                .envs(name.as_ref().map(|name| (member::MEMBER, name)))
                .stdin(Stdio::piped())
                .stderr(errors);
            command.spawn()
        };
        let mut child = start().map_err(|error| format!("could not start a process: {error}"))?;
        let input = child.stdin.take();
        let worker = Worker(child, PathBuf::new());
        self.processes.push(Process { number, role, side, name, worker, input, is_stopped: false });
        Ok(())
    }

    fn stderr(&self, number: u32) -> PathBuf {
        self.root.join(format!("stderr-{number:03}"))
    }

    /// Looks at everything once: what was written, who ended, who comes and goes.
    pub(crate) fn tick(&mut self) -> Result<(), String> {
        self.read()?;
        let mut ended = Vec::new();
        for (at, process) in self.processes.iter_mut().enumerate() {
            if let Some(status) = process.worker.ended()? {
                ended.push((at, status));
            }
        }
        for (at, status) in ended.into_iter().rev() {
            let process = self.processes.remove(at);
            if !process.is_leaving() || !status.success() {
                self.ended_by_itself(process, status)?;
            }
        }
        if self.judge.wrong().len() >= 200 {
            return Err(format!("too much is wrong: {:#?}", &self.judge.wrong()[..20]));
        }
        sleep(STEP);
        Ok(())
    }

    /// A member of Kafka with a static name may be fenced by a request of its own whose answer was lost (`docs/kafka.md`): it is started again, as who
    /// runs it would. Nobody else may end by itself.
    fn ended_by_itself(&mut self, process: Process, status: ExitStatus) -> Result<(), String> {
        let Process { number, role, side, name, .. } = process;
        let said = std::fs::read_to_string(self.stderr(number)).unwrap_or_default();
        let is_fenced =
            name.is_some() && self.load.urls[side].starts_with("kafka") && said.contains("Fenced");
        if !is_fenced || self.counts().fenced == MOST_FENCED {
            return Err(format!("process {number} ({role}) ended by itself with {status}: {said}"));
        }
        self.note(&format!("fenced {number}"));
        self.spawn(role, side, name)
    }

    /// Has the judge read what was written since.
    fn read(&mut self) -> Result<(), String> {
        loop {
            match self.tail.read_line(&mut self.part) {
                Ok(0) => return Ok(()),
                Ok(_) if self.part.ends_with('\n') => {
                    self.judge.see(self.part.trim_end());
                    self.part.clear();
                }
                Ok(_) => {}
                Err(error) => return Err(format!("could not read the history: {error}")),
            }
        }
    }

    /// Lets time pass, with members coming and going.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        let since = Instant::now();
        while since.elapsed() < time {
            self.churn()?;
            self.tick()?;
        }
        Ok(())
    }

    /// Lets time pass until something is true.
    pub(crate) fn wait(
        &mut self,
        limit: Duration,
        mut is_true: impl FnMut(&Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let since = Instant::now();
        while !is_true(self)? {
            self.pass(STEP)?;
            if since.elapsed() > limit {
                return Err(format!("waited {limit:?} in vain"));
            }
        }
        Ok(())
    }

    fn churn(&mut self) -> Result<(), String> {
        if self.churned.elapsed() < CHURN {
            return Ok(());
        }
        // What a server's start took is made up for, but never two at once.
        self.churned = (self.churned + CHURN).max(Instant::now() - CHURN / 2);
        let members = self.working().len();
        if members <= *MEMBERS.start() || members < *MEMBERS.end() && self.random.random_bool(0.5) {
            let side = self.random.random_range(0..self.load.urls.len());
            self.note("joins");
            return self.spawn(member::CONSUME, side, None);
        }
        if self.random.random_ratio(1, 3) { self.kill_member() } else { self.leave() }
    }

    /// The members that run, and that are not cut off.
    fn working(&self) -> Vec<usize> {
        let works = |process: &Process| {
            process.is_member() && !process.is_stopped && Some(process.side) != self.cut_off
        };
        (0..self.processes.len()).filter(|at| works(&self.processes[*at])).collect()
    }

    /// Sends all members that work a signal; with `CONT` also those that are stopped.
    pub(crate) fn signal_members(&mut self, name: &str) -> Result<(), String> {
        let all = |process: &&mut Process| process.is_member() && (name == "CONT" || !process.is_stopped);
        for process in self.processes.iter_mut().filter(all) {
            if process.is_stopped {
                self.history.note(format_args!("goes {}", process.number));
            }
            process.signal(name)?;
        }
        Ok(())
    }

    /// A member that works, drawn by lot.
    pub(crate) fn member(&mut self) -> Result<usize, String> {
        let all = self.working();
        if all.is_empty() {
            return Err("there is no member".into());
        }
        Ok(all[self.random.random_range(0..all.len())])
    }

    fn leave(&mut self) -> Result<(), String> {
        let member = self.member()?;
        self.note("leaves");
        self.processes[member].input = None;
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill_member(&mut self) -> Result<(), String> {
        let at = self.member()?;
        let mut process = self.processes.remove(at);
        process.worker.kill()?;
        self.note(&format!("killed {}", process.number));
        Ok(())
    }

    /// Waits until what is published from now on is acked, and handled in each partition, and remembers how long that took.
    pub(crate) fn recover(&mut self, name: &'static str, limit: Duration) -> Result<(), String> {
        let since = self.now();
        self.judge.watch(since);
        let begun = Instant::now();
        let mut published = None;
        loop {
            self.churn()?;
            self.tick()?;
            let took = begun.elapsed().as_millis();
            let (is_published, is_handled) = self.judge.progress();
            if is_published {
                published.get_or_insert(took);
            }
            if is_published && is_handled {
                self.recoveries.entry(name).or_default().push((published.unwrap_or(took), took));
                return Ok(());
            }
            if begun.elapsed() > limit {
                let stuck = self.judge.stuck();
                return Err(format!(
                    "{name}: no progress within {limit:?}, {since} ms after the beginning: published again: {is_published}; nothing new was handled of partitions {stuck:?}"
                ));
            }
        }
    }

    /// Ends the publishers, lets the members finish, ends them, and has what `read` finds in the log judged. Answers the story.
    pub(crate) fn close(
        mut self,
        direct: &str,
        read: impl FnOnce(&mut Judge) -> Result<(), String>,
    ) -> Result<String, String> {
        let length = Timestamp::now().since(self.began);
        self.end(member::PUBLISH)?;
        let (mut since, mut least) = (Instant::now(), u64::MAX);
        loop {
            self.tick()?;
            let left = ask(direct, async |broker| {
                let partitions =
                    broker.admin().describe_group(&traffic::names()?.groups[0].0).await?.partitions;
                let missing = (traffic::PARTITIONS as usize).saturating_sub(partitions.len()) as u64;
                Ok(missing + partitions.iter().map(|partition| partition.lag.unwrap_or(1)).sum::<u64>())
            })?;
            if left == 0 {
                break;
            }
            if left < least {
                (since, least) = (Instant::now(), left);
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{left} messages are left, and none was handled for {PATIENCE:?}"));
            }
        }
        self.end(member::CONSUME)?;
        self.read()?;
        let Self { mut judge, recoveries, .. } = self;
        read(&mut judge)?;
        let (counts, wrong) = judge.finish();
        let mut story = format!("{} s; {counts:?}\n{}", length.as_secs(), table(&recoveries));
        if wrong.is_empty() {
            return Ok(story);
        }
        _ = writeln!(story, "{} things are wrong:", wrong.len());
        wrong.iter().take(30).for_each(|why| story.push_str(&format!("{why}\n")));
        Err(story)
    }

    fn end(&mut self, role: &str) -> Result<(), String> {
        self.processes
            .iter_mut()
            .filter(|process| process.role == role)
            .for_each(|process| process.input = None);
        let since = Instant::now();
        while self.processes.iter().any(|process| process.role == role) {
            self.tick()?;
            if since.elapsed() > PATIENCE {
                return Err(format!("the processes of {role} did not end within {PATIENCE:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn counts(&self) -> Counts {
        self.judge.counts
    }

    /// How many publishes are not answered, as far as was written.
    pub(crate) fn in_flight(&self) -> u64 {
        self.judge.in_flight()
    }
}

/// Asks a broker something, as an operator would.
pub(crate) fn ask<T>(
    url: &str,
    question: impl AsyncFnOnce(&dyn MessageBroker) -> ropeway_broker::Result<T>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let broker = ropeway_broker::connect(url).await.map_err(|error| error.to_string())?;
        let answer = question(&*broker).await;
        broker.close(PATIENCE).await;
        answer.map_err(|error| error.to_string())
    })
}

/// How long each kind of fault took to get over.
fn table(recoveries: &BTreeMap<&'static str, Vec<(u128, u128)>>) -> String {
    let mut text =
        "until what is published afterwards is acked | handled in every partition, in ms (median, most)\n"
            .to_owned();
    for (name, all) in recoveries {
        let column = |of: fn(&(u128, u128)) -> u128| {
            let mut times: Vec<u128> = all.iter().map(of).collect();
            times.sort_unstable();
            (times[times.len() / 2], times[times.len() - 1])
        };
        let ((acked, longest_acked), (handled, longest)) = (column(|both| both.0), column(|both| both.1));
        _ = writeln!(
            text,
            "  {name:<38} {:>3} x | {acked:>6} {longest_acked:>6} | {handled:>6} {longest:>6}",
            all.len()
        );
    }
    text
}
