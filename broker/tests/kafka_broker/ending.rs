//! A process that ends while its clients live, or are just being closed, behind TLS: it ends well, as nothing of it is used once the library of TLS has cleaned up.
//!
//! Processes of this program do that, many times. Not here: the end of one client (`../kafka/lifetimes.rs`).

use crate::{server::name, tests};
use futures::future::join_all;
use ropeway_broker::{Group, Message, Start, Subscription, Target, Topic, TopicSpec, connect};
use std::{
    env,
    process::{Child, Command, exit},
    time::Duration,
};
use tokio::time::{Instant, sleep};

tests! {
    a_process_that_ends_beside_clients_with_tls_ends_well,
}

/// What a process of this program is told that it is to end so: which topic, and what it does before.
const ENDS: &str = "ROPEWAY_TEST_KAFKA_ENDS";
/// How often each way is tried, where nothing else is said (`ROPEWAY_TEST_TIMES`). Where OpenSSL cleans up at the end of the process, about one in a hundred of
/// them ends by SIGSEGV.
const TIMES: usize = 4;
/// How many end at a time.
const AT_ONCE: usize = 4;
/// How long a process may take.
const LONG: Duration = Duration::from_secs(60);
/// What is done: with all of it, and how many milliseconds before the end.
const WAYS: &[(&str, u64)] =
    &[("open", 0), ("open", 0), ("open", 300), ("dropped", 0), ("dropped", 10), ("closed", 0)];

fn url() -> String {
    let (host, user, password, files) = crate::connecting::secured();
    format!("kafka+ssl://{user}:{password}@{host}?ca={files}/ca.crt&session=6s")
}

async fn a_process_that_ends_beside_clients_with_tls_ends_well() {
    let broker = connect(&url()).await.unwrap();
    let topic = name("ends");
    broker.admin().create_topic(&topic, TopicSpec::partitions(4)).await.unwrap();
    let times = env::var("ROPEWAY_TEST_TIMES").map_or(TIMES, |times| times.parse().unwrap());
    let mut left: Vec<_> = (0..times).flat_map(|_| WAYS.iter().copied()).collect();
    let mut running: Vec<(Child, Instant, (&str, u64))> = Vec::new();
    while !left.is_empty() || !running.is_empty() {
        while running.len() < AT_ONCE
            && let Some((what, millis)) = left.pop()
        {
            let mut program = Command::new(env::current_exe().unwrap());
            program.env(ENDS, format!("{topic} {what} {millis}"));
            running.push((program.spawn().unwrap(), Instant::now(), (what, millis)));
        }
        running.retain_mut(|(child, began, way)| match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{way:?}: {status}");
                false
            }
            None if began.elapsed() > LONG => {
                _ = child.kill();
                panic!("{way:?}: it does not end");
            }
            None => true,
        });
        sleep(Duration::from_millis(5)).await;
    }
}

/// Does what the environment says, if it says so, and ends the process.
pub(crate) fn end() {
    let Ok(told) = env::var(ENDS) else { return };
    let mut words = told.split(' ');
    let topic = Topic::new(words.next().unwrap()).unwrap();
    let (what, millis) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = connect(&url()).await.unwrap();
        let group = |number| Group::new(format!("of-{topic}-{}-{number}", std::process::id())).unwrap();
        let joins =
            (0..3).map(|number| broker.subscribe(Subscription::new(group(number % 2), [topic.clone()])));
        let members: Vec<_> = join_all(joins).await.into_iter().map(Result::unwrap).collect();
        let mut reader = broker.read().await.unwrap();
        reader.follow(&topic, None, Start::Earliest).await.unwrap();
        let batch = (0..100).map(|number| Message::builder().payload(number.to_string()).build()).collect();
        let published = broker.publish(&Target::from(&topic), batch);
        match what {
            "open" => {}
            "dropped" => drop((members, reader, published, broker)),
            _ => {
                drop(members);
                broker.close(Duration::from_millis(50)).await;
            }
        }
        sleep(Duration::from_millis(millis)).await;
        exit(0);
    });
}
