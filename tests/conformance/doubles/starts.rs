//! Doubles for the checks of `starts.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, ReaderHooks, Scene, Shared, double, each_batch, text},
    lost::joining,
};
use futures::FutureExt;
use ropeway_broker::{Answer, ErrorKind, Group, Reader, Result, Start, Topic};
use std::{collections::HashSet, sync::Arc};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("earliest_starts_with_the_first_message", "starts with the second message", skips_first),
        double(
            "latest_starts_with_what_comes_from_now_on",
            "reads all where the latest was asked for",
            || {
                following(|scene, reader, topic, partition, from| {
                    let single = scene.broker.admin().describe_topic(topic).now_or_never();
                    let single = matches!(single, Some(Ok(info)) if info.partitions.len() == 1);
                    let all = from == Start::Latest && partition.is_none() && single;
                    reader.follow(topic, partition, if all { Start::Earliest } else { from })
                })
            },
        ),
        double(
            "a_time_starts_with_the_first_message_the_log_took_then",
            "takes a time for the latest",
            || {
                joining(|subscription| {
                    if let Start::Time(_) = subscription.start {
                        subscription.start = Start::Latest;
                    }
                })
            },
        ),
        double("at_a_position_starts_there", "starts after the position it was told", || {
            joining(|subscription| {
                if let Start::At(position) = subscription.start {
                    subscription.start = Start::After(position);
                }
            })
        }),
        double("after_a_position_starts_behind_it", "starts at the position it was to start after", || {
            joining(|subscription| {
                if let Start::After(position) = subscription.start {
                    subscription.start = Start::At(position);
                }
            })
        }),
        double(
            "a_start_is_for_groups_without_a_position_only",
            "moves a group to where a newcomer wants to start",
            moves_groups,
        ),
        double(
            "a_start_is_stored_before_the_first_delivery",
            "stores a start with the first ack",
            forgets_start,
        ),
        double(
            "a_position_of_another_life_of_the_topic_is_refused",
            "starts at the beginning for a position of another life",
            || {
                following(|_, reader, topic, partition, from| {
                    let refused = reader.follow(topic, partition, from);
                    match refused.now_or_never() {
                        Some(Err(error)) if error.kind() == ErrorKind::Invalid => {
                            reader.follow(topic, partition, Start::Earliest)
                        }
                        Some(answer) => super::hooks::now(answer),
                        None => reader.follow(topic, partition, from),
                    }
                })
            },
        ),
        double(
            "partitions_that_are_added_start_at_their_beginning",
            "skips what came first in a partition that was added",
            skips_added,
        ),
    ]
}

fn following(
    follow: impl Fn(&Scene, &mut dyn Reader, &Topic, Option<u32>, Start) -> Answer<Result<()>>
    + Send
    + Sync
    + 'static,
) -> Hooks {
    let reader = ReaderHooks { follow: Some(Box::new(follow)), ..ReaderHooks::default() };
    Hooks { reader, ..Hooks::default() }
}

fn skips_first() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            each_batch(|batch| {
                let nine = batch.deliveries.len() == 9;
                if nine && batch.deliveries.last().is_some_and(|last| text(&last.message) == "101") {
                    batch.deliveries.remove(0);
                }
            })
        })),
        ..Hooks::default()
    }
}

fn moves_groups() -> Hooks {
    Hooks {
        subscribe: Some(Box::new(|scene, subscription| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move {
                let there = broker.admin().describe_group(&subscription.group).await.is_ok();
                if let (true, Start::At(_)) = (there, subscription.start) {
                    for topic in &subscription.topics {
                        let start = subscription.start;
                        _ = broker.admin().seek_group(&subscription.group, topic, None, start).await;
                    }
                }
                broker.subscribe(subscription).await
            })
        })),
        ..Hooks::default()
    }
}

fn forgets_start() -> Hooks {
    let acked = Shared::<HashSet<Group>>::default();
    let on_ack = acked.clone();
    Hooks {
        subscribe: Some(Box::new(move |scene, subscription| {
            let broker = Arc::clone(&scene.broker);
            let forget = subscription.start == Start::Latest && !acked.lock().contains(&subscription.group);
            Box::pin(async move {
                if forget {
                    _ = broker.admin().delete_group(&subscription.group).await;
                }
                broker.subscribe(subscription).await
            })
        })),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                on_ack.lock().insert(side.subscription.group.clone());
                side.control.ack(of, done)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn skips_added() -> Hooks {
    let latest = Shared::<HashSet<Topic>>::default();
    let skipping = latest.clone();
    let mut hooks = following(move |_, reader, topic, partition, from| {
        if partition.is_none() && from == Start::Latest {
            latest.lock().insert(topic.clone());
        }
        reader.follow(topic, partition, from)
    });
    hooks.read = Some(Box::new(move |_| {
        let skipping = skipping.clone();
        each_batch(move |batch| {
            if batch.of.partition == 2 && skipping.lock().remove(&batch.of.topic) {
                batch.deliveries.remove(0);
            }
        })
    }));
    hooks
}
