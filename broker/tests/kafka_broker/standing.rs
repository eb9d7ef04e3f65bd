//! A controller that stands still: what was to be changed is answered in time, with what is known of it.
//!
//! Not here: topics that lack replicas (`replicas.rs`).

use crate::{
    fake::{Fake, text},
    tests,
};
use ropeway_broker::{ErrorKind, Topic, TopicSpec, connect};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

tests! {
    a_topic_that_no_controller_answers_for_is_told_in_time_as_perhaps_made,
    a_topic_that_is_there_when_another_controller_answers_is_told_as_perhaps_made_by_the_call,
    a_topic_that_another_controller_refuses_is_told_by_its_reason,
}

const CREATE_TOPICS: u16 = 19;
/// How long a call may take by the contract, and what a busy machine needs on top.
const CALL: Duration = Duration::from_secs(35);

/// Who was asked to make a topic, in order.
type Asked = Arc<Mutex<Vec<usize>>>;

/// Two servers; the first one that is asked to make a topic says nothing, and the other is the controller from then on, which says that.
fn servers(says: Option<u16>) -> (Arc<Fake>, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let fake = Fake::start(2, CREATE_TOPICS, move |fake, number, body| {
        noted.lock().unwrap().push(number);
        let first: &AtomicUsize = &fake.controller;
        if first.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return None;
        }
        // How many topics, and the name of the first.
        let name = &body[6..6 + usize::from(u16::from_be_bytes([body[4], body[5]]))];
        let name = text(std::str::from_utf8(name).unwrap());
        says.map(|code| [&[0, 0, 0, 1], &*name, &code.to_be_bytes()].concat())
    });
    (fake, asked)
}

/// What a call says that makes a topic there: its kind and text.
async fn created(says: Option<u16>) -> (ErrorKind, String) {
    let (fake, asked) = servers(says);
    let broker = connect(&format!("kafka://{}?replication=1", fake.addresses())).await.unwrap();
    let began = Instant::now();
    let topic = Topic::new("orders").unwrap();
    let error = broker.admin().create_topic(&topic, TopicSpec::partitions(1)).await.unwrap_err();
    assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    assert_eq!(*asked.lock().unwrap(), [0, 1], "{error}");
    let text = error.to_string();
    assert!(text.contains("orders") && text.contains(&fake.addresses()), "{text}");
    (error.kind(), text)
}

async fn a_topic_that_no_controller_answers_for_is_told_in_time_as_perhaps_made() {
    let (kind, text) = created(None).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("it may be done all the same") && text.contains("Timed out"), "{text}");
}

async fn a_topic_that_is_there_when_another_controller_answers_is_told_as_perhaps_made_by_the_call() {
    // TOPIC_ALREADY_EXISTS
    let (kind, text) = created(Some(36)).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("is there by now"), "{text}");
}

async fn a_topic_that_another_controller_refuses_is_told_by_its_reason() {
    // INVALID_REPLICATION_FACTOR
    let (kind, text) = created(Some(38)).await;
    assert_eq!(kind, ErrorKind::Invalid, "{text}");
    assert!(!text.contains("may be done"), "{text}");
}
