//! `ropeway bench`: measures a broker.
//!
//! Here: the verbs. What they take: `args.rs`. A load on a broker: `load.rs`; the disk beside the embedded broker: `disk.rs`; two reports:
//! `compare.rs`; what is told at the end: `tell.rs`. How it is measured is the crate `ropeway-bench`.

mod args;
mod compare;
mod disk;
mod load;
mod tell;

use crate::{failure::Failure, session::Session};

const JSON: &str = "\
JSON: {schema_version, run_id, name, kind, started_at, version, host, broker, parameters, phases,
  interrupted, rates: {throughput, bytes, intended, saturated}, series, latency: {publish, delay, e2e},
  saturated_latency, integrity: {sent, received, lost, duplicated, reordered, unexpected, untold},
  failed, disk}; times are seconds, what was not measured is null; raw prints the summary
Figures for --assert: throughput, bytes, publish.p99, delay.p99, e2e.p99 (mean, p50, p75, p90, p95, p99,
  p99.9, p99.99, max), sent, received, lost, duplicated, reordered, unexpected, untold, failed";

const OPEN_LOOP: &str = "\
With --rate messages have a timetable, and latency counts from when each was to be sent; a run that
misses its rate by more than 1 % is saturated and has no latency. Without --rate they go as fast as the
broker takes them.";

/// What `bench` takes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Publish, and nothing else: how fast, and how long until a message is acked
    #[command(after_help = format!("Examples:\n  ropeway bench pub --rate 50k/s --size 1KiB --assert 'publish.p99<20ms'\n  \
        ropeway bench pub --broker memory: --msgs 1000000 -o json\n{OPEN_LOOP}\n{JSON}"))]
    Pub(args::Sending),
    /// Consume what is there, as fast as it goes: of a topic, or of one that is filled first
    #[command(after_help = format!("Examples:\n  ropeway bench sub --msgs 500000 --consumers 2\n  ropeway bench sub --topic orders\n{JSON}"))]
    Sub(args::Sub),
    /// Publish and consume at once: how long from when a message was to be sent until it came, and what was lost
    #[command(after_help = format!("Examples:\n  ropeway bench e2e --rate 20k/s --keys zipf:1.1,100000 --html run.html\n  \
        ropeway bench e2e --duration 60s --assert 'e2e.p99<20ms' --assert 'lost==0'\n{OPEN_LOOP}\n{JSON}"))]
    E2e(args::EndToEnd),
    /// Publish, and handle in the processor's worker pool, in key order
    #[command(after_help = format!("Examples:\n  ropeway bench handler --work 1ms --keys hot:0.2,1000 --rate 5k/s\n  \
        ropeway bench handler --work spin:1ms --concurrency 2\n{OPEN_LOOP}\n{JSON}"))]
    Handler(args::Handler),
    /// What this machine's disk gives the embedded broker: durable publishes beside bare writes and fdatasync
    #[command(after_help = "\
Examples:
  ropeway bench embedded --dir /var/lib/ropeway
  ropeway bench embedded --rounds 9 --assert 'disk.1024x64.ratio>=0.85'
Payloads of 64 B and 1 KiB; 1, 64 and 1,024 publishes under way at a time, beside as many payloads
written at once and synced. Both take turns, so that their ratio holds where other work slows the disk.
JSON: as of the other verbs; disk: [{size, at_once, broker, bare, ratio, low, high}]; broker and bare are
  messages a second, low and high hold the ratio nine of ten times; raw prints the summary
Figures for --assert: disk.64x1.ratio, disk.1024x64.broker, disk.1024x1024.bare, ...")]
    Embedded(args::Embedded),
    /// Compare two reports that --out wrote
    #[command(after_help = "\
Examples:
  ropeway bench compare base.json new.json --fail-if 'throughput<-5%' 'e2e.p99>+10%'
JSON: [{figure, base, new, percent}]; null where a run does not have it; ends with 3 where --fail-if holds")]
    Compare(args::Compare),
}

/// Runs a verb.
///
/// # Errors
/// What is asked for is not acceptable (2); what must hold does not (3); messages that were not acked (5); those of the broker.
pub(crate) async fn run(verb: Verb, session: &mut Session) -> Result<(), Failure> {
    match verb {
        Verb::Pub(args) => load::publish(args, session).await,
        Verb::Sub(args) => Box::pin(load::subscribe(args, session)).await,
        Verb::E2e(args) => Box::pin(load::end_to_end(args, session)).await,
        Verb::Handler(args) => Box::pin(load::handler(args, session)).await,
        Verb::Embedded(args) => disk::run(args, session).await,
        Verb::Compare(args) => compare::run(&args, session),
    }
}
