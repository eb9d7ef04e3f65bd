//! The server: one of its own for each turn, with an append-only file that is synced every second, or the one that `ROPEWAY_TEST_REDIS_URL` names.
//!
//! Not here: servers for tests (`cargo xtask servers`).

use super::TOPIC;
use crate::{Result, machine::Stopwatch, rounds::Turn, work::Work};
use ::redis::{Commands, Connection};
use ropeway_broker::{Message, MessageBroker, Target, Topic, TopicSpec};
use std::{
    env,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread::sleep,
    time::Duration,
};

const VARIABLE: &str = "ROPEWAY_TEST_REDIS_URL";

/// A server that is used for one turn.
pub(super) struct Server {
    pub(super) url: String,
    /// What our keys begin with.
    pub(super) prefix: String,
    connection: Connection,
    child: Option<Child>,
}

/// What keeps the cells on Redis from running.
pub(crate) fn missing() -> Option<String> {
    let runs = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    let server = env::var(VARIABLE).is_ok() || runs("redis-server");
    let program = if server { "redis-benchmark" } else { "redis-server" };
    (!server || !runs(program)).then(|| format!("there is no {program} (apt-get install redis)"))
}

impl Server {
    pub(super) fn start(dir: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("rivals-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        if let Ok(url) = env::var(VARIABLE) {
            let connection = ::redis::Client::open(&*url)?.get_connection()?;
            return Ok(Self { url, prefix, connection, child: None });
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()?;
        let url = format!("redis://127.0.0.1:{port}");
        let client = ::redis::Client::open(&*url)?;
        for _ in 0..500 {
            if let Ok(connection) = client.get_connection() {
                return Ok(Self { url, prefix, connection, child: Some(child) });
            }
            sleep(Duration::from_millis(10));
        }
        child.kill()?;
        Err("redis-server does not answer".into())
    }

    /// Our broker on it, and the topic with so many partitions.
    pub(super) async fn broker(&self, partitions: u32) -> Result<Arc<dyn MessageBroker>> {
        let (url, prefix) = (&self.url, &self.prefix);
        let broker = ropeway_broker::connect(&format!("{url}?prefix={prefix}")).await?;
        broker.admin().create_topic(&Topic::new(TOPIC)?, TopicSpec::partitions(partitions)).await?;
        Ok(broker)
    }

    /// Writes messages `0..count`.
    pub(super) async fn fill(broker: &dyn MessageBroker, work: &Work, count: u64) -> Result<()> {
        let target = Target::from(Topic::new(TOPIC)?);
        for from in (0..count).step_by(4096) {
            let batch = (from..count.min(from + 4096)).map(|i| work.message(i)).collect();
            if !broker.publish(&target, batch).await.all_acked() {
                return Err("the topic could not be filled".into());
            }
        }
        Ok(())
    }

    /// The stream of a partition of the topic.
    pub(super) fn log(&self, partition: u32) -> String {
        format!("{}:{{{TOPIC}/{partition}}}:log", self.prefix)
    }

    /// Where another's stream lies.
    pub(super) fn stock(&self) -> String {
        format!("{}:stock", self.prefix)
    }

    /// Processor time that the server took since it was started.
    pub(super) fn cpu(&mut self) -> Result<Duration> {
        Ok(Duration::from_secs_f64(self.info("cpu", &["used_cpu_sys", "used_cpu_user"])?))
    }

    /// Commands that were ever called.
    pub(super) fn commands(&mut self) -> Result<f64> {
        self.info("stats", &["total_commands_processed"])
    }

    fn info(&mut self, section: &str, names: &[&str]) -> Result<f64> {
        let text: String = ::redis::cmd("INFO").arg(section).query(&mut self.connection)?;
        let of = |name: &&str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.trim().parse::<f64>().ok())
        };
        names.iter().map(of).sum::<Option<f64>>().ok_or_else(|| "the server does not tell its figures".into())
    }

    /// How many entries a stream has, and how many bytes the names and values of the last one have.
    pub(super) fn stream(&mut self, key: &str) -> Result<(u64, usize)> {
        let length = self.connection.xlen(key)?;
        let last: Vec<(String, Vec<Vec<u8>>)> = ::redis::cmd("XREVRANGE")
            .arg(key)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query(&mut self.connection)?;
        Ok((length, last.first().map_or(0, |(_, words)| words.iter().map(Vec::len).sum())))
    }

    /// Does what changes something and has no answer.
    pub(super) fn write(&mut self, commands: &::redis::Pipeline) -> Result<()> {
        Ok(commands.query(&mut self.connection)?)
    }

    /// What a turn took since `watch` was started, with the time of the server that `before` was asked for.
    pub(super) fn turn(&mut self, messages: u64, watch: &Stopwatch, before: Duration) -> Result<Turn> {
        let (wall, cpu) = watch.stop();
        let server = self.cpu()?.saturating_sub(before);
        let facts = vec![("server CPU us", server.as_secs_f64() * 1e6 / messages as f64)];
        Ok(Turn { messages, wall, cpu, facts })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            _ = child.kill();
            _ = child.wait();
            return;
        }
        // Not ours: nothing stays there.
        let all = ::redis::cmd("KEYS").arg(format!("{}:*", self.prefix)).query(&mut self.connection);
        let keys: Vec<String> = all.unwrap_or_default();
        keys.chunks(1000).for_each(|keys| _ = self.connection.unlink::<_, u64>(keys));
    }
}

/// The words of an entry that is as long as ours, in every part, and that any client can send: text.
pub(super) fn words(message: &Message) -> Vec<(&'static str, String)> {
    let text = |length: usize| "x".repeat(length);
    vec![
        ("id", text(16)),
        ("ts", message.timestamp.as_millis().to_string()),
        ("key", text(message.key.as_ref().map_or(0, |key| key.len()))),
        ("headers", text(message.headers.packed().len())),
        ("payload", text(message.payload.as_ref().map_or(0, |payload| payload.len()))),
    ]
}
