//! A load on a broker: a topic of its own, producers, consumers or handlers, and the topic gone again.
//!
//! Not here: how it is measured (`ropeway-bench`), what is told (`tell.rs`).

use super::{
    args::{EndToEnd, Handler, Messages, Sending, Sub, Telling},
    tell,
};
use crate::{
    exit::Exit,
    failure::Failure,
    output::Progress,
    session::{Session, within},
};
use ropeway_bench::{
    drive::{self, Amount, Counting, Handling, Load, Measured, Recorder, Taking, Work},
    figures,
    integrity::Integrity,
};
use ropeway_broker::{Bound, ErrorKind, Group, MessageBroker, MessageId, Topic, TopicInfo, TopicSpec};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The topic and the group of a run.
struct Place {
    broker: Arc<dyn MessageBroker>,
    id: String,
    topic: Topic,
    group: Group,
    /// Whether the topic was made for the run, and goes with it.
    goes: bool,
    about: TopicInfo,
}

impl Place {
    /// Makes a topic, or finds one.
    async fn open(found: Option<Topic>, messages: &Messages, session: &mut Session) -> Result<Self, Failure> {
        let broker = session.broker().await?;
        let wait = session.request();
        // The end of an id is by lot.
        let id = format!("{:08x}", MessageId::new().as_u128() as u32);
        let name = format!("bench-{id}");
        let goes = found.is_none() && !messages.keep;
        let topic = match found {
            Some(topic) => topic,
            None => {
                let topic = Topic::new(&name)?;
                let spec = TopicSpec::partitions(messages.partitions);
                within(wait, "make the topic", broker.admin().create_topic(&topic, spec)).await?;
                topic
            }
        };
        let about = within(wait, "describe the topic", broker.admin().describe_topic(&topic)).await?;
        Ok(Self { broker, id, topic, group: Group::new(&name)?, goes, about })
    }

    /// Removes what was made for the run. What cannot be removed is told.
    async fn leave(&self, session: &Session) {
        let (admin, wait) = (self.broker.admin(), session.request());
        let told = |what: &str, done: Result<(), Failure>| {
            if let Err(failure) = done
                && failure.exit() != Exit::NotFound
            {
                session.notes.warn(&format!("{what} is left behind: {}", failure.what()));
            }
        };
        let what = format!("group {}", self.group);
        told(&what, within(wait, "delete the group", admin.delete_group(&self.group)).await);
        if self.goes {
            for topic in [&self.topic, &self.topic.dead_letters_of(&self.group)] {
                told(
                    &format!("topic {topic}"),
                    within(wait, "delete the topic", admin.delete_topic(topic)).await,
                );
            }
        } else {
            session.notes.say(&format!("topic {} is kept", self.topic));
        }
    }
}

/// A run that is prepared.
struct Run<'a> {
    kind: &'static str,
    place: Place,
    load: Load,
    counting: Counting,
    integrity: Option<Integrity>,
    parameters: BTreeMap<String, String>,
    telling: &'a Telling,
}

/// Publishes.
pub(super) async fn publish(args: Sending, session: &mut Session) -> Result<(), Failure> {
    tell::prepare(&args.telling)?;
    let place = Place::open(None, &args.messages, session).await?;
    let load = load(&place, Some(sending(&args, session)), None, args.warm_up(), session);
    let run = Run {
        kind: "pub",
        parameters: args.shown(),
        place,
        load,
        counting: Counting::Acked,
        integrity: None,
        telling: &args.telling,
    };
    run.go(session).await
}

/// Publishes and consumes at once.
pub(super) async fn end_to_end(args: EndToEnd, session: &mut Session) -> Result<(), Failure> {
    both("e2e", args, None, session).await
}

/// Publishes and handles at once.
pub(super) async fn handler(args: Handler, session: &mut Session) -> Result<(), Failure> {
    let handling = Handling { work: args.work, concurrency: args.concurrency as usize };
    both("handler", args.load, Some(handling), session).await
}

async fn both(
    kind: &'static str,
    args: EndToEnd,
    handling: Option<Handling>,
    session: &mut Session,
) -> Result<(), Failure> {
    let EndToEnd { consumers, sending: args } = args;
    tell::prepare(&args.telling)?;
    // Refused before a topic is made.
    Integrity::new(0, args.producers, args.messages.keys.keys()).map_err(Failure::usage)?;
    let place = Place::open(None, &args.messages, session).await?;
    let run = drive::run_of(&place.topic);
    let integrity = Integrity::new(run, args.producers, args.messages.keys.keys()).map_err(Failure::usage)?;
    let mut parameters = args.shown();
    parameters.insert("consumers".into(), consumers.to_string());
    if let Some(Handling { work, concurrency }) = handling {
        parameters.insert("work".into(), work.to_string());
        parameters.insert("concurrency".into(), concurrency.to_string());
    }
    let taking = taking(&place, consumers, handling, None, session);
    let load = load(&place, Some(sending(&args, session)), Some(taking), args.warm_up(), session);
    let run = Run {
        kind,
        parameters,
        place,
        load,
        counting: Counting::Arrived,
        integrity: Some(integrity),
        telling: &args.telling,
    };
    run.go(session).await
}

/// Consumes what is there.
pub(super) async fn subscribe(args: Sub, session: &mut Session) -> Result<(), Failure> {
    tell::prepare(&args.telling)?;
    let found = args.topic.is_some();
    let place = Place::open(args.topic.clone(), &args.messages, session).await?;
    let mut parameters = BTreeMap::from([("consumers".to_owned(), args.consumers.to_string())]);
    let (integrity, expected) = if found {
        parameters.insert("topic".into(), place.topic.to_string());
        (None, place.about.partitions.iter().map(|partition| partition.messages).sum())
    } else {
        parameters.extend(args.messages.shown());
        parameters.insert("msgs".into(), args.msgs.to_string());
        match fill(&place, &args, session).await {
            Ok((filled, sent)) => (Some(filled), Some(sent)),
            Err(failure) => {
                place.leave(session).await;
                return Err(failure);
            }
        }
    };
    let taking = taking(&place, args.consumers, None, expected, session);
    let load = load(&place, None, Some(taking), Duration::ZERO, session);
    let run = Run {
        kind: "sub",
        parameters,
        place,
        load,
        counting: Counting::Drained,
        integrity,
        telling: &args.telling,
    };
    run.go(session).await
}

/// Publishes what is consumed afterwards; also what to expect then.
async fn fill(place: &Place, args: &Sub, session: &Session) -> Result<(Integrity, u64), Failure> {
    session.notes.say(&format!("publishing {} messages first", figures::count(args.msgs)));
    let sending = drive::Sending {
        producers: 1,
        rate: None,
        amount: Amount::Messages(args.msgs),
        keys: args.messages.keys,
        sizes: args.messages.size.clone(),
        in_flight: in_flight(session),
    };
    let load = load(place, Some(sending), None, Duration::ZERO, session);
    let recorder = Arc::new(Recorder::new(Duration::ZERO, Counting::Acked, None));
    drive_it(&load, &recorder, Some(args.msgs), session).await?;
    let sent = recorder.done();
    if let Some(error) = recorder.measured(None).error {
        return Err(error.into());
    }
    let keys = args.messages.keys.keys();
    let mut integrity = Integrity::new(drive::run_of(&place.topic), 1, keys).map_err(Failure::usage)?;
    (0..sent).for_each(|_| integrity.sent(0));
    Ok((integrity, sent))
}

const fn in_flight(session: &Session) -> Bound {
    Bound { messages: session.settings.publish.messages.0, bytes: session.settings.publish.bytes.0 }
}

fn sending(args: &Sending, session: &Session) -> drive::Sending {
    drive::Sending {
        producers: args.producers,
        rate: args.rate,
        amount: args.amount(),
        keys: args.messages.keys,
        sizes: args.messages.size.clone(),
        in_flight: in_flight(session),
    }
}

fn taking(
    place: &Place,
    members: u32,
    handling: Option<Handling>,
    expected: Option<u64>,
    session: &Session,
) -> Taking {
    let settings = &session.settings.consume;
    // What waits for a handler is more than what has one.
    let least = handling.map_or(0, |handling| handling.concurrency * 2);
    let in_flight = Bound { messages: settings.messages.0.max(least), bytes: settings.bytes.0 };
    Taking { group: place.group.clone(), members, in_flight, handling, expected }
}

fn load(
    place: &Place,
    sending: Option<drive::Sending>,
    taking: Option<Taking>,
    warm_up: Duration,
    session: &Session,
) -> Load {
    let work =
        taking.as_ref().and_then(|taking| taking.handling).map_or(Duration::ZERO, |handling| match handling
            .work
        {
            Work::None => Duration::ZERO,
            Work::Sleep(time) | Work::Spin(time) => time,
        });
    Load {
        broker: place.broker.clone(),
        topic: place.topic.clone(),
        sending,
        taking,
        warm_up,
        patience: session.request() + work,
        stop: CancellationToken::new(),
    }
}

/// Runs a load with progress, until its end or Ctrl-C.
async fn drive_it(
    load: &Load,
    recorder: &Arc<Recorder>,
    total: Option<u64>,
    session: &Session,
) -> Result<(), Failure> {
    const LOOK: Duration = Duration::from_millis(100);
    let progress = Progress::new(&session.notes, "messages", total);
    let mut running = Box::pin(load.run(recorder));
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = &mut running => return ended.map_err(Failure::from),
            () = session.stop.asked(), if !load.stop.is_cancelled() => load.stop.cancel(),
            _ = tick.tick() => progress.at(recorder.done()),
        }
    }
}

impl Run<'_> {
    async fn go(self, session: &mut Session) -> Result<(), Failure> {
        let started = crate::time::shown(ropeway_broker::Timestamp::now());
        let Load { sending, taking, warm_up, .. } = &self.load;
        let total = match sending.as_ref().map(|sending| sending.amount) {
            Some(Amount::Messages(messages)) if warm_up.is_zero() => Some(messages),
            Some(_) => None,
            None => taking.as_ref().and_then(|taking| taking.expected),
        };
        let recorder = Arc::new(Recorder::new(*warm_up, self.counting, self.integrity));
        let ended = drive_it(&self.load, &recorder, total, session).await;
        let measured = recorder.measured(self.load.sending.as_ref().and_then(|sending| {
            let rate = sending.rate?.in_a_second();
            let planned = match sending.amount {
                Amount::Messages(messages) => messages as f64 / rate,
                Amount::Time(time) => time.as_secs_f64(),
            };
            // Who stops it early asks for no more than until then.
            let until = recorder.elapsed().saturating_sub(*warm_up).as_secs_f64();
            Some((rate, if session.stop.is_asked() { planned.min(until) } else { planned }))
        }));
        self.place.leave(session).await;
        ended?;
        let durability = Some(self.place.about.durability.as_str().to_owned());
        let mut report = tell::report(self.kind, &self.place.id, started, durability, session);
        report.broker.kind = self.place.broker.capabilities().backend.to_owned();
        report.parameters = self.parameters;
        let Measured { phases, rates, series, latency, integrity, failed, gaps, error } = measured;
        (report.phases, report.rates, report.series) = (phases, rates, series);
        (report.integrity, report.failed) = (integrity, failed);
        report.put_latency(latency);
        if gaps > 0 {
            session.notes.warn(&format!("{gaps} times messages were gone before they were seen"));
        }
        tell::tell(report, self.telling, session)?;
        match error {
            None => Ok(()),
            Some(error) if failed == 0 || error.kind() == ErrorKind::NotFound => Err(error.into()),
            Some(error) => {
                let what = format!("{} messages were not published", figures::count(failed));
                Err(Failure::new(what).caused_by(&error).by_broker(error.kind()).exits(Exit::Partial))
            }
        }
    }
}
