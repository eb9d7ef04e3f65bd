//! `ropeway demo`: the main job on real records.
//!
//! Here: the run from start to report. The parts: the records (`source.rs`, `record.rs`), what is computed (`totals.rs`), publishing
//! (`feed.rs`), the consumer group (`members.rs`), its handler (`handling.rs`) and what it leaves behind (`ledger.rs`, `books.rs`), seeded
//! faults (`fault.rs`); and those who judge: `order.rs`, `audit.rs`. What is told: `report.rs`. Where the demo's things are: `place.rs`.

mod audit;
mod books;
mod fault;
mod feed;
mod handling;
mod ledger;
mod members;
mod order;
mod place;
mod record;
mod report;
mod source;
mod totals;

use crate::{exit::Exit, failure::Failure, output::Progress, session::Session, settings::Format};
use audit::DeadLetters;
use books::{Books, Plan};
use feed::{Fed, Feed};
use handling::Handling;
use ledger::{Entry, Ledger};
use members::{Crew, Members, Replaced};
use place::Place;
use record::{Record, Reported};
use report::{Report, SinceReset, ThisRun};
use ropeway_broker::MessageBroker;
use ropeway_processor::Metrics;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// What `demo` takes.
#[derive(Debug, clap::Args)]
#[command(long_about = "Run the main job on real records.\n\n\
    10,000 reports of aircraft striking wildlife (FAA, public domain; the program brings them) are published to the topic demo.strikes, \
    with the airport as key. The members of group demo handle them in the order of each airport and keep totals; reports that \
    contradict themselves end in demo.strikes.demo.dlq with the reason. One first attempt in a hundred fails on purpose and is tried \
    again; one member is aborted with work in flight and replaced. At the end the result is compared with a plain loop over the file, \
    and the order is judged from the history of completions.\n\n\
    A second run goes on: where an earlier one was stopped (Ctrl-C, kill) it finishes what that began, else it publishes another \
    round, and all counts and totals go on. What the handlers did is kept in demo.ledger beside the broker's data. The program \
    ends with code 3 where something was lost, out of order, or wrong.")]
pub(crate) struct Args {
    /// Start anew: delete the topics, the group and the ledger of earlier runs of the demo, and nothing else
    #[arg(long)]
    pub(crate) reset: bool,
    /// Members of the consumer group
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) members: u8,
    /// Publish that many records in a new round, from the start of the file
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) records: u64,
    /// Publish at most that many records a second [default: as fast as it goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Chooses which first attempts fail
    #[arg(long, default_value_t = 42, value_name = "N")]
    pub(crate) seed: u64,
}

/// Runs the demo.
///
/// # Errors
/// Those of the broker and of the ledger; code 3 where the result is wrong.
pub(crate) async fn run(args: Args, session: &mut Session) -> Result<(), Failure> {
    let records = source::records()
        .map_err(|error| Failure::new("the records in the program cannot be read").caused_by(&error))?;
    let broker = session.broker().await?;
    let place = Place::of(session.settings.broker.url.reveal())?;
    if args.reset {
        place.reset(&*broker, &session.stop, |line| session.notes.say(line)).await?;
        session.notes.say("started anew: the demo's topics, group and ledger are deleted");
    }
    place.prepare(&*broker).await?;
    let (mut ledger, mut books) = place.open_ledger()?;
    let logged = place.logged(&*broker).await?;
    if books.rounds.is_empty() && !logged.is_empty() {
        let what = format!("topic {} has reports of another run, and its ledger is gone", place.topic);
        return Err(Failure::new(what).hint("start anew with `demo --reset`"));
    }
    let plan = books.plan(&logged, args.records);
    if plan.new_round {
        let round = Entry::Round(args.records);
        ledger.append(&round).map_err(|error| place.ledger_failure(&error))?;
        books.enter(&round);
    }
    say_what_comes(session, &args, &books, &plan);
    let mut job = Job::start(&args, session, place, broker, (ledger, books), &plan, &records).await?;
    let replaced = job.watch(session).await?;
    let (report, wrong) = job.report(session, &records, replaced).await?;
    print(session, &report)?;
    if wrong {
        return Err(Failure::new(format!("the demo found {} things wrong", report.wrong.len()))
            .exits(Exit::Assertion)
            .hint("the report says which"));
    }
    Ok(())
}

fn say_what_comes(session: &Session, args: &Args, books: &Books, plan: &Plan) {
    let Plan { new_round, publish, waiting } = plan;
    let notes = &session.notes;
    if *new_round {
        let round = books.rounds.len();
        notes.say(&format!("round {round}: publishing {} records: {}", publish.len(), source::TITLE));
    } else {
        let (publish, waiting) = (publish.len(), waiting.len());
        notes.say(&format!(
            "going on: {waiting} published records are not handled yet, {publish} are not published yet"
        ));
    }
    notes.say(&format!(
        "{} members handle them in key order; 1 % of first attempts (1 in {}) fail on purpose, chosen by seed {}, and are tried again",
        args.members,
        fault::ONE_IN,
        args.seed
    ));
}

/// The program as it was called.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "ropeway".to_owned())
}

fn print(session: &mut Session, report: &Report) -> Result<(), Failure> {
    let json = match session.settings.output.format {
        Format::Json => serde_json::to_string_pretty(report),
        Format::Ndjson => serde_json::to_string(report),
        Format::Table | Format::Raw => Ok(report.lines().join("\n")),
    };
    let text =
        json.map_err(|error| Failure::new("the report cannot be written as JSON").caused_by(&error))?;
    session.out.line(&text)
}

/// A run that is under way.
struct Job {
    place: Place,
    broker: Arc<dyn MessageBroker>,
    handling: Arc<Handling>,
    members: Option<Members>,
    member_count: usize,
    flat_out: bool,
    fed: Arc<Fed>,
    feed: Option<tokio::task::JoinHandle<ropeway_broker::Result<()>>>,
    stop_feed: CancellationToken,
    progress: Option<Progress>,
    begun: Instant,
    /// Reports that were finished before.
    before: u64,
    /// Reports to be finished in all.
    of: u64,
}

impl Job {
    async fn start(
        args: &Args,
        session: &Session,
        place: Place,
        broker: Arc<dyn MessageBroker>,
        (ledger, books): (Ledger, Books),
        plan: &Plan,
        records: &[Record],
    ) -> Result<Self, Failure> {
        let reports: Vec<Reported> = plan
            .publish
            .iter()
            .filter_map(|number| {
                Some(Reported { number: *number, record: records.get(books.row(*number)?)?.clone() })
            })
            .collect();
        let first = plan.publish.first().copied().unwrap_or(0);
        let count = plan.publish.last().map_or(0, |last| usize::try_from(last - first + 1).unwrap_or(0));
        let (before, of) = (books.finished.len() as u64, books.reports());
        let handling = Handling::new(args.seed, (ledger, books), (first, count))
            .map_err(|error| Failure::new("the histogram cannot be made").caused_by(&error))?;
        let handling = Arc::new(handling);
        let member_count = usize::from(args.members);
        let (topic, group) = (place.topic.clone(), place.group.clone());
        let metrics = Metrics::register(&session.metrics)?;
        let crew =
            Crew { broker: broker.clone(), topic: topic.clone(), group, metrics, handling: handling.clone() };
        let members = Members::start(crew, member_count).await?;
        let (fed, stop_feed) = (Arc::new(Fed::default()), CancellationToken::new());
        let feed =
            Feed { broker: broker.clone(), topic, rate: args.rate, deadline: session.settings.time.request };
        let begun = Instant::now();
        let feed = tokio::spawn(feed.run(reports, handling.clone(), fed.clone(), stop_feed.clone()));
        Ok(Self {
            place,
            broker,
            handling,
            members: Some(members),
            member_count,
            flat_out: args.rate.is_none(),
            fed,
            feed: Some(feed),
            stop_feed,
            progress: Some(Progress::new(&session.notes, "handled", Some(of))),
            begun,
            before,
            of,
        })
    }

    /// Watches until everything is finished, nothing moves any more, or the program should stop. A third of the way, one member is
    /// aborted and replaced.
    async fn watch(&mut self, session: &Session) -> Result<Option<Replaced>, Failure> {
        const LOOK: Duration = Duration::from_millis(2);
        /// Longer than the slowest rate leaves between two records, and than a bus takes to find out that a member is gone: on Kafka 30 s.
        const LEAST_PATIENCE: Duration = Duration::from_secs(90);
        /// When it is said what is waited for.
        const STILL: Duration = Duration::from_secs(3);
        let patience = session.settings.time.request.max(LEAST_PATIENCE);
        let mut replaced = None;
        let (mut moved, mut last, mut told) = (Instant::now(), self.before, false);
        loop {
            let handled = self.handling.finished();
            if let Some(progress) = &self.progress {
                progress.at(handled);
            }
            if handled >= self.of || session.stop.is_asked() || self.fed.failed().is_some() {
                break;
            }
            if handled > last {
                (moved, last) = (Instant::now(), handled);
            } else if moved.elapsed() > patience {
                session.notes.say(&format!("nothing moved for {patience:?}: giving up"));
                break;
            } else if moved.elapsed() > STILL && !std::mem::replace(&mut told, true) {
                session.notes.say(
                    "nothing moves: what a member had that is gone comes again when its session is over (`session` of kafka, `lease` of redis)",
                );
            }
            if replaced.is_none()
                && handled - self.before >= (self.of - self.before) / 3
                && let Some(members) = &mut self.members
            {
                replaced = members.replace_busiest().await?;
                if let Some(Replaced { member, in_flight, by }) = &replaced {
                    session.notes.say(&format!(
                        "{member} is aborted with {in_flight} messages in flight, as a crash would; {by} takes its place"
                    ));
                }
            }
            let _ = timeout(LOOK, session.stop.asked()).await;
        }
        self.stop_feed.cancel();
        self.progress = None;
        Ok(replaced)
    }

    /// Ends the members, reads what is left on the bus, and compares. Also whether something is wrong.
    async fn report(
        mut self,
        session: &Session,
        records: &[Record],
        replaced: Option<Replaced>,
    ) -> Result<(Report, bool), Failure> {
        if let Some(feed) = self.feed.take() {
            feed.await.map_err(|error| Failure::new("publishing ended in a panic").caused_by(&error))??;
        }
        if let Some(members) = self.members.take() {
            members.stop(session.settings.time.stop).await;
        }
        let logged: BTreeSet<u64> = self.place.logged(&*self.broker).await?;
        let mut dead = DeadLetters::default();
        dead.may_repeat = !self.broker.capabilities().atomic_forward;
        place::read(&*self.broker, &self.place.dead_letters, |letter| dead.see(letter)).await?;
        let interrupted = session.stop.is_asked() && self.handling.finished() < self.of;
        let (run, books) = self.handling.so_far(|books, run| (run.clone(), books.clone()));
        let mut audit = audit::audit(records, &books, &logged, &dead, !interrupted);
        if let Some((count, why)) = self.fed.failed() {
            audit.wrong.push(format!("{count} records could not be published, first: {why}"));
        }
        let seconds = run.last.map_or(0.0, |last| last.duration_since(self.begun).as_secs_f64());
        let retried = self.handling.failed_attempts();
        let mut this_run = ThisRun::new(self.member_count, self.fed.acked(), retried, &run, seconds);
        this_run.replaced = replaced;
        this_run.flat_out = self.flat_out;
        let published = logged.union(&books.finished).count() as u64;
        let report = Report {
            ok: audit.wrong.is_empty(),
            interrupted,
            data: source::TITLE,
            broker: session.settings.broker.url.to_string(),
            topic: self.place.topic.to_string(),
            group: self.place.group.to_string(),
            dead_letter_topic: self.place.dead_letters.to_string(),
            this_run,
            since_reset: SinceReset::new(&books, published, &dead, &audit, interrupted),
            dead_letter_reasons: dead.reasons(),
            airports: report::busiest(&books, 5),
            wrong: audit.wrong,
            next: self.place.next(&program(), &session.settings.broker.url.to_string()),
        };
        let wrong = !report.ok;
        Ok((report, wrong))
    }
}
