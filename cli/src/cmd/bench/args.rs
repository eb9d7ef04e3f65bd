//! What the verbs of `bench` take.

use crate::settings::duration;
use clap::{Args, value_parser};
use ropeway_bench::{
    drive::{Amount, Work},
    keys::KeySpread,
    metric::{Assertion, FailIf},
    pace::Rate,
    payload::Sizes,
};
use ropeway_broker::Topic;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What is told at the end, and what must hold.
#[derive(Args, Clone, Debug)]
pub(crate) struct Telling {
    /// Call the run that, in its report
    #[arg(long, value_name = "TEXT")]
    pub(super) name: Option<String>,
    /// Write the report as JSON to FILE, for `bench compare`
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Write the report as a page with plots to FILE
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// End with 3 where that does not hold, such as 'e2e.p99<20ms', 'lost==0'; again for more
    #[arg(long = "assert", value_name = "EXPR")]
    pub(super) assertions: Vec<Assertion>,
}

/// What is in a message, and the topic.
#[derive(Args, Clone, Debug)]
pub(crate) struct Messages {
    /// Bytes of payload: 128B, 1KiB, or a range such as 200B..4KiB; half of them compress
    #[arg(long, default_value = "1KiB")]
    pub(super) size: Sizes,
    /// Which keys: none, uniform:N, zipf:S,N or hot:P,N (one key has the share P)
    #[arg(long, default_value = "uniform:1000")]
    pub(super) keys: KeySpread,
    /// Partitions of the topic bench-..., which is made
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = value_parser!(u32).range(1..=4096))]
    pub(super) partitions: u32,
    /// Leave the topic where it is, to be looked at or consumed again
    #[arg(long)]
    pub(super) keep: bool,
}

/// What `bench pub` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sending {
    /// That many messages, warm-up apart
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "duration", value_parser = value_parser!(u64).range(1..=10_000_000_000))]
    pub(super) msgs: Option<u64>,
    /// For that long, warm-up apart; at most a day [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = time)]
    pub(super) duration: Option<Duration>,
    /// Let nothing count for so long at the start [default: 1s; 0s with --msgs]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) warmup: Option<Duration>,
    /// Messages in a time, such as 50k/s [default: as fast as it goes]
    #[arg(long)]
    pub(super) rate: Option<Rate>,
    /// Tasks that share the load
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u32).range(1..=256))]
    pub(super) producers: u32,
    #[command(flatten)]
    pub(super) messages: Messages,
    #[command(flatten)]
    pub(super) telling: Telling,
}

/// What `bench sub` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sub {
    /// Consume that topic from its beginning, in a group that is deleted afterwards; nothing is published
    #[arg(long, conflicts_with_all = ["msgs", "size", "keys", "partitions", "keep"])]
    pub(super) topic: Option<Topic>,
    /// Publish that many messages first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u64).range(1..=10_000_000_000))]
    pub(super) msgs: u64,
    /// Members of the group
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u32).range(1..=256))]
    pub(super) consumers: u32,
    #[command(flatten)]
    pub(super) messages: Messages,
    #[command(flatten)]
    pub(super) telling: Telling,
}

/// What `bench e2e` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndToEnd {
    /// Members of the group
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = value_parser!(u32).range(1..=256))]
    pub(super) consumers: u32,
    #[command(flatten)]
    pub(super) sending: Sending,
}

/// What `bench handler` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Handler {
    /// What a handler does: 0, 1ms or 50ms (sleep), spin:1ms (compute)
    #[arg(long, default_value = "0")]
    pub(super) work: Work,
    /// Handlers that run at a time, for each consumer
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = value_parser!(u32).range(1..=65_536))]
    pub(super) concurrency: u32,
    #[command(flatten)]
    pub(super) load: EndToEnd,
}

/// What `bench embedded` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Embedded {
    /// Measure the disk of that directory; what is made in it is removed afterwards
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Turns of each in every cell
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
    pub(super) rounds: u16,
    /// How long a turn is; at most a minute
    #[arg(long, default_value = "250ms", value_name = "DURATION", value_parser = turn)]
    pub(super) turn: Duration,
    #[command(flatten)]
    pub(super) telling: Telling,
}

/// What `bench compare` takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Compare {
    /// The report that is compared with
    pub(super) base: PathBuf,
    /// The report that is compared
    pub(super) new: PathBuf,
    /// End with 3 where one of these differences holds
    #[arg(long, value_name = "EXPR", num_args = 1..)]
    pub(super) fail_if: Vec<FailIf>,
}

fn bounded(text: &str, most: Duration, named: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() || time > most {
        return Err(format!("it takes more than 0 and at most {named}"));
    }
    Ok(time)
}

fn time(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(86_400), "a day")
}

fn turn(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_secs(60), "a minute")
}

impl Sending {
    /// How much is sent.
    pub(super) fn amount(&self) -> Amount {
        match self.msgs {
            Some(messages) => Amount::Messages(messages),
            None => Amount::Time(self.duration.unwrap_or(Duration::from_secs(10))),
        }
    }

    /// How long nothing counts.
    pub(super) fn warm_up(&self) -> Duration {
        let default = if self.msgs.is_some() { Duration::ZERO } else { Duration::from_secs(1) };
        self.warmup.unwrap_or(default)
    }

    /// What was asked for, for the report.
    pub(super) fn shown(&self) -> BTreeMap<String, String> {
        let mut shown = self.messages.shown();
        match self.amount() {
            Amount::Messages(messages) => shown.insert("msgs".into(), messages.to_string()),
            Amount::Time(time) => shown.insert("duration".into(), format!("{time:?}")),
        };
        shown.insert("warmup".into(), format!("{:?}", self.warm_up()));
        shown.insert(
            "rate".into(),
            self.rate.map_or_else(|| "as fast as it goes".into(), |rate| rate.to_string()),
        );
        shown.insert("producers".into(), self.producers.to_string());
        shown
    }
}

impl Messages {
    /// What was asked for, for the report.
    pub(super) fn shown(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("size".into(), self.size.to_string()),
            ("keys".into(), self.keys.to_string()),
            ("partitions".into(), self.partitions.to_string()),
        ])
    }
}
