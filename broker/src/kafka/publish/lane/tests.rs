//! What waits for its topic is handed over or given back, each once, and in its order: without a server, which nobody here waits for.
//!
//! Not here: the same on a real server (`broker/tests/kafka_broker/publishing.rs`).

use super::*;
use crate::{
    BrokerUrl,
    kafka::{
        facts::{PartitionFacts, TopicConfig},
        raw,
        settings::KafkaSettings,
    },
    queued::Queued,
};
use std::{
    pin::Pin,
    task::{Context, Wake, Waker},
};
use tokio::runtime::Builder;

fn lane() -> Arc<Lane> {
    let settings = KafkaSettings::of_url(&BrokerUrl::parse("kafka://127.0.0.1:1").unwrap()).unwrap();
    let (notes, servers): (Arc<raw::Notes>, Arc<str>) = (Arc::default(), settings.named().into());
    let admin = raw::Admin::open(settings.admin().conf().unwrap(), Arc::clone(&notes)).unwrap();
    let client = settings.admin().config().create().unwrap();
    let topics = Arc::new(Topics::new(Arc::new(admin), Arc::new(client), Arc::clone(&servers)));
    let lines = Lines::open(settings, notes).unwrap();
    let means = Means { topics, lines, counted: Arc::default(), servers };
    Lane::new(Topic::new("t").unwrap(), Arc::new(means))
}

fn parcel(lane: &Lane, deadline: Instant) -> Parcel {
    let messages = Arc::new(vec![Message::builder().payload("x").build()]);
    let held = Queued::new(1, 1).hold(1, 1).unwrap();
    Parcel { to: (&lane.topic).into(), messages, deadline, held }
}

/// One that waits, where somebody asks for the topic already.
fn waits(lane: &Arc<Lane>, deadline: Instant) -> Waiting {
    lane.state().asking = true;
    match lane.take(parcel(lane, deadline), Instant::now()) {
        Taken::Waits(waiting) => waiting,
        Taken::Sent(_) => panic!("the topic is not known"),
    }
}

/// What an answer to a question that was asked then says.
fn ready(lane: &Lane, at: Instant) -> Arc<Ready> {
    let facts = PartitionFacts { led: true, replicas: 1, in_sync: 1 };
    let described = Arc::new(Described::new([7; 16], vec![facts], TopicConfig::parse(|_| None)));
    let line = lane.means.lines.line(1 << 20).unwrap();
    let topic = line.producer.topic("t").unwrap();
    Arc::new(Ready { described, line, topic, known: 1, at, changes: lane.means.topics.changes() })
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_an_answer_is_handed_over_however_long_that_took() {
    let lane = lane();
    let asked = Instant::now();
    let mut waiting = waits(&lane, asked + Duration::from_secs(30));
    tokio::time::advance(FRESH * 3).await;
    let ready = ready(&lane, asked);
    assert!(lane.hand_over(&ready), "else nothing is ever published where servers are slow");
    assert!(matches!(waiting.handed.try_recv(), Ok(Handed::Sent(_))));
    // What is published from now on asks again.
    lane.state().ready = Some(ready);
    let later = lane.take(parcel(&lane, asked + Duration::from_secs(30)), Instant::now());
    assert!(matches!(later, Taken::Waits(_)) && lane.state().asking);
}

#[tokio::test]
async fn nothing_goes_over_a_client_any_more_that_a_topic_leaves() {
    let lane = lane();
    let (now, old) = (Instant::now(), ready(&lane, Instant::now()));
    let later = now + Duration::from_secs(30);
    // Somebody asks for the topic, beside publishing.
    (lane.state().ready, lane.state().asking) = (Some(Arc::clone(&old)), true);
    let Begun::Now(_, _, begun) = lane.begin(parcel(&lane, later), now) else { panic!("it is known") };
    let mut leaves = std::pin::pin!(lane.leave(&old));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(leaves.as_mut().poll(&mut cx).is_pending(), "one is just being handed over");
    drop(begun);
    // It would be behind what goes over the other client from then on, or before it.
    assert!(matches!(lane.take(parcel(&lane, later), now), Taken::Waits(_)));
    timeout_at(later, leaves).await.unwrap();
}

/// Publishes again as soon as it is told something.
struct Again(Arc<Lane>);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        _ = self.0.take(parcel(&self.0, Instant::now() + Duration::from_secs(30)), Instant::now());
    }
}

#[tokio::test]
async fn who_publishes_again_when_it_is_given_back_is_asked_for_by_one() {
    let lane = lane();
    let mut waiting = waits(&lane, Instant::now());
    let waker = Waker::from(Arc::new(Again(Arc::clone(&lane))));
    assert!(Pin::new(&mut waiting.handed).poll(&mut Context::from_waker(&waker)).is_pending());
    let over = lane.nobody_waits();
    assert!(matches!(waiting.handed.try_recv(), Ok(Handed::Refused(_))));
    let state = lane.state();
    assert_eq!((state.waiting.len(), state.asking), (1, true), "another asks for what came");
    assert!(over, "two that hand over would take what waits out of each other's hands");
}

#[test]
fn a_runtime_that_ends_leaves_the_topic_to_be_asked_for_by_others() {
    let lane = lane();
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    let publishes = || {
        let later = Instant::now() + Duration::from_secs(30);
        assert!(matches!(lane.take(parcel(&lane, later), Instant::now()), Taken::Waits(_)));
    };
    let first = runtime();
    first.block_on(async { publishes() });
    assert!(lane.state().asking);
    first.shutdown_background();
    assert!(!lane.state().asking, "who asked is gone");
    let second = runtime();
    second.block_on(async { publishes() });
    assert!(lane.state().asking);
    let ended = second.handle().clone();
    second.shutdown_background();
    let _entered = ended.enter();
    publishes();
    assert!(!lane.state().asking, "nobody can ask there");
}
