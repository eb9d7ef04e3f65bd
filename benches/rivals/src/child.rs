//! Processes of this program's own: started so that they can be watched or killed from outside.
//!
//! Not here: what they do (`arms/steady.rs`, `arms/reopen.rs`, `tasks.rs`, `kafka/instructions.rs`).

use crate::{
    Result,
    arms::{reopen, steady},
    kafka::{Side, instructions},
    tasks::slowly,
};
use clap::Subcommand;
use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, exit},
    thread,
};

/// What such a process does.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Publishes and consumes.
    #[command(hide = true)]
    Steady { dir: PathBuf, messages: u64, retention: u64 },
    /// Publishes until it is killed.
    #[command(hide = true)]
    Fill { dir: PathBuf, messages: u64 },
    /// Handles slowly what lies on a server, until it is killed.
    #[command(hide = true)]
    Backlog { url: String, topic: String },
    /// Publishes to Kafka.
    #[command(hide = true)]
    KafkaPublish { side: Side, messages: u64 },
}

impl Role {
    pub(crate) fn play(&self) -> Result<()> {
        // Who started it holds the other end: without it nobody would end this process.
        thread::spawn(|| {
            _ = io::copy(&mut io::stdin(), &mut io::sink());
            exit(1);
        });
        match self {
            Self::Steady { dir, messages, retention } => steady::inside(dir, *messages, *retention),
            Self::Fill { dir, messages } => reopen::inside(dir, *messages),
            Self::Backlog { url, topic } => slowly(url, topic),
            Self::KafkaPublish { side, messages } => instructions::publish(*side, *messages),
        }
    }
}

/// Starts this program in a role. The process ends when the answer is dropped or this process ends.
pub(crate) fn start(role: &str, dir: &Path, numbers: &[String], stdout: Stdio) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(role).arg(dir).args(numbers).stdin(Stdio::piped()).stdout(stdout);
    Ok(command.spawn()?)
}
