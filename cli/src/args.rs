//! The grammar `ropeway <noun> <verb>`: nouns and what all of them take.
//!
//! Not here: what one verb takes (beside the verb, in `cmd/`), what a value may be (`settings/`).

use crate::{
    cmd, demo, exit,
    settings::{Color, Flag, Format, Setting},
};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

/// Ropeway: event processing on a message bus.
#[derive(Debug, Parser)]
#[command(name = "ropeway", version, propagate_version = true, after_help = exit::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every verb takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Globals {
    /// Read settings from FILE too (or ROPEWAY_CONFIG); again: later ones win
    #[arg(short, long, global = true, value_name = "FILE", env = "ROPEWAY_CONFIG", hide_env = true)]
    pub(crate) config: Vec<PathBuf>,
    /// The broker: embedded:DIR, memory:, redis://HOST or kafka://HOST [default: embedded:./.ropeway]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) broker: Option<String>,
    /// What goes to stdout: table, json, ndjson or raw [default: table]
    #[arg(short, long, global = true, value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) output: Option<Format>,
    /// Log and tell nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more; again: more still
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Use colours: auto, always or never; NO_COLOR counts as never [default: auto]
    #[arg(long, global = true, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) color: Option<Color>,
    /// Show no progress
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
    /// How long the broker may take over a request [default: 30s]; bounds the whole run of `sub` where it is given
    #[arg(long, global = true, value_name = "DURATION", value_parser = crate::settings::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Do what destroys without asking
    #[arg(short, long, global = true)]
    pub(crate) yes: bool,
    /// Serve /metrics, /healthz and /readyz there while the verb runs
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    OnBus(OnBus),
    /// Settings: show, check
    Config {
        /// What to do
        #[command(subcommand)]
        verb: cmd::config::Verb,
    },
    /// Print a script that completes the program's words in a shell
    Completions(cmd::completions::Args),
}

/// The nouns that need a session: a broker, or a long look at a directory.
#[derive(Debug, Subcommand)]
pub(crate) enum OnBus {
    /// Run the main job on real records: publish, process in key order, dead-letter, and check the result
    Demo(demo::Args),
    /// Topics: list, create, describe, grow, purge, delete
    Topic {
        /// What to do
        #[command(subcommand)]
        verb: cmd::topic::Verb,
    },
    /// Publish: one message, or those of a file or stdin
    Pub(Box<cmd::publish::Args>),
    /// Print messages: as a reader, or as a member of a group
    Sub(cmd::subscribe::Args),
    /// Groups: list, describe, lag, reset, delete
    Group {
        /// What to do
        #[command(subcommand)]
        verb: cmd::group::Verb,
    },
    /// The directory of an embedded broker: check, export
    #[cfg(feature = "embedded")]
    Data {
        /// What to do
        #[command(subcommand)]
        verb: cmd::directory::Verb,
    },
    /// Dead letters: list, show
    Dlq {
        /// What to do
        #[command(subcommand)]
        verb: cmd::dlq::Verb,
    },
    /// Tell what a broker can, guarantees and lacks, how it is misconfigured, and how to mend that
    Doctor(cmd::doctor::Args),
    /// Measure: pub, sub, e2e, handler, embedded, compare
    Bench {
        /// What to do
        #[command(subcommand)]
        verb: Box<cmd::bench::Verb>,
    },
}

impl Globals {
    /// The settings that were given as flags.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let mut flags = Vec::new();
        let mut add = |key, name, value: Option<String>| {
            flags.extend(value.map(|value| Flag { key, name, value }));
        };
        add("broker.url", "--broker", self.broker.clone());
        add("output.format", "--output", self.output.map(|format| format.show()));
        add("output.color", "--color", self.color.map(|color| color.show()));
        add("output.progress", "--no-progress", self.no_progress.then(|| "false".to_owned()));
        add("output.log", "--quiet", self.quiet.then(|| "error".to_owned()));
        let level = ["info", "debug", "trace"].get(usize::from(self.verbose.clamp(1, 3)) - 1);
        add("output.log", "--verbose", level.filter(|_| self.verbose > 0).map(|level| (*level).to_owned()));
        add("time.request", "--timeout", self.timeout.map(|timeout| timeout.show()));
        add("http.listen", "--listen", self.listen.clone());
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }
}
