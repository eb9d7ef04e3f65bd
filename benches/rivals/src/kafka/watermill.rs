//! Watermill, a library in Go, on the same server: a small program of its own (`watermill/main.go`), which `go` builds when the first turn comes.
//!
//! Ours beside it is that of `publish.rs` and `consume.rs`. Not here: what the program does.

use super::{Consume, Publish, Rival, ground::Ground};
use crate::{
    Result,
    cell::Pair,
    rounds::{Plan, Turn},
    work::Work,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Where the source of the program is.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/watermill");
const PAYLOAD: usize = 64;
const PARTITIONS: u32 = 4;

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Publish,
    Subscribe,
}

/// What keeps the cells with Watermill from running.
pub(crate) fn missing() -> Option<String> {
    let runs =
        Command::new("go").arg("version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    (!runs).then(|| "there is no `go` to build Watermill with".to_owned())
}

/// The pair of such a cell.
pub(crate) struct Watermill {
    way: Way,
    ours: Box<dyn Pair>,
    messages: u64,
    /// The program, and the directory that it is in.
    program: Option<(PathBuf, tempfile::TempDir)>,
    turns: u32,
}

impl Watermill {
    /// Ours has `messages`, Watermill a part of them.
    pub(crate) fn pair(plan: &Plan, way: Way, messages: u64, part: u64) -> Box<dyn Pair> {
        let ours = match way {
            Way::Publish => Publish::pair(plan, PAYLOAD, messages),
            Way::Subscribe => Consume::pair(plan, PAYLOAD, messages, Rival::Loop),
        };
        Box::new(Self { way, ours, messages: plan.messages(messages / part), program: None, turns: 0 })
    }

    fn program(&mut self) -> Result<&Path> {
        if self.program.is_none() {
            let dir = tempfile::tempdir()?;
            let program = dir.path().join("watermill");
            let built = Command::new("go")
                .args(["build", "-o"])
                .arg(&program)
                .arg(".")
                .current_dir(SOURCE)
                .status()?;
            if !built.success() {
                return Err("go could not build Watermill; what it says stands above".into());
            }
            self.program = Some((program, dir));
        }
        self.program
            .as_ref()
            .map(|(program, _)| program.as_path())
            .ok_or_else(|| "there is no program".into())
    }
}

impl Pair for Watermill {
    fn ours(&mut self, dir: &Path) -> Result<Turn> {
        self.ours.ours(dir)
    }

    fn rival(&mut self, _: &Path) -> Result<Turn> {
        let (messages, warm) = (self.messages, (self.messages / 5).max(1));
        let ground = Ground::make(PARTITIONS)?;
        self.turns += 1;
        let (verb, last) = match self.way {
            Way::Publish => ("publish", PAYLOAD.to_string()),
            Way::Subscribe => {
                ground.fill(&Work::new(PAYLOAD), warm + messages)?;
                ("subscribe", format!("{}-{}", ground.topic, self.turns))
            }
        };
        let mut command = Command::new(self.program()?);
        command.args([
            verb,
            ground.servers(),
            ground.topic.as_str(),
            &warm.to_string(),
            &messages.to_string(),
            &last,
        ]);
        let output = command.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut told =
            text.split_whitespace().filter_map(|number| number.parse().ok().map(Duration::from_nanos));
        let (Some(wall), Some(cpu), true) = (told.next(), told.next(), output.status.success()) else {
            return Err(format!("the program with Watermill ended with {}", output.status).into());
        };
        let written = ground.length()?;
        if written != warm + messages {
            return Err(format!("{written} messages are there instead of {}", warm + messages).into());
        }
        Ok(Turn { messages, wall, cpu, facts: Vec::new() })
    }
}
