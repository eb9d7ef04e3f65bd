//! What `doctor` tells: findings by severity, and what follows from them.
//!
//! Not here: how it is printed (`mod.rs`), who finds what (`local.rs`, `redis/`, `kafka/`).

use ropeway_broker::Capabilities;
use serde::Serialize;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Fine,
    /// Good to know; nothing has to be done.
    Note,
    /// It works, and less is promised or protected than could be.
    Warning,
    /// What was acked may be lost, or something does not work.
    Error,
}

impl Level {
    /// The name in every format.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The colour on a terminal.
    pub(super) const fn color(self) -> Option<&'static str> {
        match self {
            Self::Fine => Some("32"),
            Self::Note => None,
            Self::Warning => Some("33"),
            Self::Error => Some("31"),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Which server of several; `None` where it is about none.
    pub(super) server: Option<String>,
    /// What was looked at: a name for scripts.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What is so, and what follows from it.
    pub(super) says: String,
    /// What to do, in this order.
    pub(super) fix: Vec<String>,
}

impl Finding {
    pub(super) fn new(check: &'static str, level: Level, says: impl Into<String>) -> Self {
        Self { server: None, check, level, says: says.into(), fix: Vec::new() }
    }

    /// Adds what to do.
    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix.push(fix.into());
        self
    }

    /// Says which server it is about.
    #[cfg(any(test, feature = "kafka", feature = "redis"))]
    pub(super) fn at(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// The URL, without what is secret in it.
    pub(super) broker: String,
    pub(super) backend: &'static str,
    /// The worst of the findings; a note counts as fine.
    pub(super) verdict: Level,
    pub(super) guarantees: Vec<String>,
    pub(super) can: Vec<String>,
    pub(super) lacks: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(broker: String, backend: &'static str, findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Fine);
        let verdict = if worst == Level::Note { Level::Fine } else { worst };
        Self {
            broker,
            backend,
            verdict,
            guarantees: Vec::new(),
            can: Vec::new(),
            lacks: Vec::new(),
            findings,
        }
    }

    /// Says what an open broker told of itself.
    pub(super) fn capable(mut self, of: Capabilities) -> Self {
        let both = [
            (
                of.atomic_forward,
                "dead letter and ack in one step",
                "dead letter and ack are two steps: a crash between them repeats the message",
            ),
            (
                of.replay,
                "reading again what was acked, until retention removes it",
                "what was acked cannot be read again",
            ),
            (of.shared_by_processes, "several processes at a time", "one process at a time"),
            (of.compaction, "compaction", "compaction (keeping only the last message of each key)"),
        ];
        for (has, can, lacks) in both {
            let list = if has { &mut self.can } else { &mut self.lacks };
            list.push(if has { can } else { lacks }.to_owned());
        }
        self.can.push("delayed messages, cancelled while they wait".to_owned());
        self
    }

    /// The whole in a sentence.
    pub(super) fn sentence(&self) -> String {
        let count = |level: Level, word: &str| match self
            .findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
        {
            0 => None,
            1 => Some(format!("1 {word}")),
            many => Some(format!("{many} {word}s")),
        };
        let counts: Vec<String> =
            [count(Level::Error, "error"), count(Level::Warning, "warning")].into_iter().flatten().collect();
        match counts.is_empty() {
            true => format!("{} is well", self.broker),
            false => format!("{}: {}", self.broker, counts.join(" and ")),
        }
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor {
            return format!("{:.1} {unit}", bytes as f64 / factor as f64);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict_and_a_note_is_fine() {
        let of = |levels: &[Level]| {
            let findings = levels.iter().map(|level| Finding::new("x", *level, "y")).collect();
            let report = Report::new("redis://h".into(), "redis", findings);
            (report.verdict, report.sentence())
        };
        assert_eq!(of(&[]), (Level::Fine, "redis://h is well".into()));
        assert_eq!(of(&[Level::Note, Level::Fine]).0, Level::Fine);
        assert_eq!(of(&[Level::Warning, Level::Note]), (Level::Warning, "redis://h: 1 warning".into()));
        let several = of(&[Level::Error, Level::Warning, Level::Error]);
        assert_eq!(several, (Level::Error, "redis://h: 2 errors and 1 warning".into()));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!([size(5), size(1536), size(3 << 30)], ["5 B", "1.5 KiB", "3.0 GiB"]);
    }
}
