//! A real Redis for tests of scripts: the one that `ROPEWAY_TEST_REDIS_URL` names, else one that is started here.
//!
//! Not here: servers for the suites (`cargo xtask servers`).

use crate::trials::ignore;
use redis::{Commands, Connection, FromRedisValue, Value};
use ropeway_broker::RedisStreams;
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use uuid::Uuid;

/// Why a test is ignored where no server can be had.
pub(super) const NONE: &str =
    "no redis-server: set ROPEWAY_TEST_REDIS_URL, or install it (apt-get install redis-server)";

/// The text of a script of ours.
pub(super) fn script(name: &str) -> &'static str {
    let mut all = RedisStreams::scripts();
    all.find(|(known, _)| *known == name).unwrap_or_else(|| panic!("there is no script {name}")).1
}

/// A connection, and a prefix of names that nobody else uses.
pub(super) struct Server {
    pub(super) redis: Connection,
    pub(super) prefix: String,
    started: Option<Started>,
}

/// Ended when it is dropped.
struct Started {
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Server {
    /// The one that the variable names, or one of its own.
    pub(super) fn get() -> Self {
        match std::env::var("ROPEWAY_TEST_REDIS_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => {
                let redis = redis::Client::open(url).unwrap().get_connection().unwrap();
                Self { redis, prefix: Self::prefix(), started: None }
            }
            None => Self::own(),
        }
    }

    fn prefix() -> String {
        static NAMES: AtomicU32 = AtomicU32::new(0);
        let name = NAMES.fetch_add(1, Ordering::Relaxed);
        format!("t{}-{name}", &Uuid::new_v4().simple().to_string()[..12])
    }

    /// One of its own, by a socket.
    pub(super) fn own() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(dir.path())
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        let child = match child {
            Err(error) if error.kind() == ErrorKind::NotFound => ignore(NONE),
            child => child.unwrap(),
        };
        let started = Some(Started { child, dir });
        Self { started, ..Self::at(&socket) }
    }

    /// One that was started already, by its socket.
    pub(super) fn at(socket: &Path) -> Self {
        let client = redis::Client::open(format!("unix://{}", socket.display())).unwrap();
        for _ in 0..1500 {
            if let Ok(redis) = client.get_connection() {
                return Self { redis, prefix: Self::prefix(), started: None };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not answer");
    }

    /// The socket of [`Self::own`].
    pub(super) fn socket(&self) -> PathBuf {
        self.started.as_ref().unwrap().dir.path().join("socket")
    }

    /// Runs a script of ours.
    pub(super) fn run(&mut self, name: &str, keys: &[&str], args: &[&str]) -> Vec<String> {
        self.run_text(script(name), keys, args)
    }

    /// Runs a script that is none of ours.
    pub(super) fn run_text(&mut self, text: &str, keys: &[&str], args: &[&str]) -> Vec<String> {
        let mut call = redis::cmd("EVAL");
        call.arg(text).arg(keys.len()).arg(keys).arg(args);
        let answer: Value = call
            .query(&mut self.redis)
            .unwrap_or_else(|error| panic!("{}: {error}", text.lines().next().unwrap_or_default()));
        Self::flat(&answer)
    }

    /// Runs a command.
    pub(super) fn ask<T: FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut call = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = call.arg(word));
        call.query(&mut self.redis).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(super) fn hash(&mut self, key: &str, field: &str) -> Option<String> {
        self.redis.hget(key, field).unwrap()
    }

    /// The value that stands behind a name in the answer of `XINFO`.
    pub(super) fn told(&mut self, command: &str, name: &str) -> String {
        let all = Self::flat(&self.ask::<Value>(command));
        let at = all.iter().position(|word| word == name).unwrap();
        all[at + 1].clone()
    }

    /// All words of an answer, in order.
    pub(super) fn flat(value: &Value) -> Vec<String> {
        match value {
            Value::Array(items) => items.iter().flat_map(Self::flat).collect(),
            Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
            Value::SimpleString(text) => vec![text.clone()],
            Value::Int(number) => vec![number.to_string()],
            Value::Nil => vec!["nil".into()],
            other => vec![format!("{other:?}")],
        }
    }
}
