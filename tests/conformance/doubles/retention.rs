//! Doubles for the checks of `retention.rs`.
//!
//! Each is wrong on the topics of its check only, which it knows by what they keep. Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, Double, Hooks, Shared, double, each_event, now},
    lost::kept,
};
use ropeway_broker::{
    Answer, Error, ErrorKind, Event, GapReason, Outcomes, Published, Retention, Start, Topic,
};
use std::{collections::HashSet, sync::Arc, time::Duration};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("what_is_too_old_goes_once_live_groups_have_finished_it", "keeps what is too old", || {
            making(|retention, partitions| {
                // That check has no second member, and the others want nothing to go.
                if partitions == 1 {
                    retention.age = None;
                }
            })
        }),
        double(
            "what_is_too_old_stays_until_a_live_group_has_finished_it",
            "removes what is too old when a group has no member",
            removes_without_member,
        ),
        double(
            "a_group_that_was_sought_in_one_partition_keeps_the_others_too",
            "keeps nothing of partitions in which a group was not sought",
            removes_unsought,
        ),
        double("no_more_bytes_stay_than_the_bound_and_a_piece", "keeps three times the bytes", || {
            making(|retention, _| {
                if retention.bytes == Some(2000) {
                    retention.bytes = Some(6000);
                }
            })
        }),
        double(
            "the_newest_message_stays_however_small_the_bound",
            "removes the newest message where the bound is small",
            removes_newest,
        ),
        double(
            "a_reader_is_told_from_where_to_where_retention_removed",
            "tells a reader of a gap and not where it ends",
            tells_no_end,
        ),
        double(
            "at_its_bound_a_topic_takes_no_more_while_a_live_group_lags",
            "takes whatever comes at the bound",
            || {
                making(|retention, _| {
                    if retention.bytes == Some(3000) {
                        retention.bytes = None;
                    }
                })
            },
        ),
        double(
            "at_its_bound_a_topic_keeps_what_a_live_group_has_not_finished",
            "makes room at the bound at the cost of a group",
            makes_room,
        ),
        double(
            "a_topic_at_its_bound_goes_on_when_the_group_has_finished",
            "takes nothing any more once it was at its bound",
            stays_at_bound,
        ),
    ]
}

/// Topics are made with what `map` makes of what they should keep and of their number of partitions.
fn making(map: fn(&mut Retention, u32)) -> Hooks {
    Hooks {
        admin: AdminHooks {
            create: Some(Box::new(move |scene, topic, mut spec| {
                map(&mut spec.retention, spec.partitions);
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().create_topic(&topic, spec).await })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}

fn removes_without_member() -> Hooks {
    Hooks {
        subscribe: Some(Box::new(|scene, subscription| {
            let topic = subscription.topics[0].clone();
            let is_aged = kept(scene, &topic).is_some_and(|kept| kept.age.is_some());
            let joins = scene.joins.lock().map_or(0, |joins| *joins.get(&subscription.group).unwrap_or(&0));
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move {
                if is_aged && joins > 0 {
                    broker.admin().purge_topic(&topic, None, Start::Latest).await?;
                }
                broker.subscribe(subscription).await
            })
        })),
        ..Hooks::default()
    }
}

fn removes_unsought() -> Hooks {
    Hooks {
        admin: AdminHooks {
            seek: Some(Box::new(|scene, group, topic, partition, to| {
                let is_aged = kept(scene, &topic).is_some_and(|kept| kept.age.is_some());
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move {
                    broker.admin().seek_group(&group, &topic, partition, to).await?;
                    if is_aged {
                        let (broker, topic) = (Arc::clone(&broker), topic.clone());
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_secs(3)).await;
                            broker.admin().purge_topic(&topic, Some(1), Start::Latest).await
                        });
                    }
                    Ok(())
                })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}

/// What was published to a topic that keeps so many bytes is answered as `then` has it.
fn answering(
    bytes: u64,
    then: fn(Arc<dyn ropeway_broker::MessageBroker>, Topic, Outcomes) -> Answer<Outcomes>,
) -> Hooks {
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let answer = scene.broker.publish(to, batch);
            let concerned = kept(scene, &to.topic).is_some_and(|kept| kept.bytes == Some(bytes));
            let (broker, topic) = (Arc::clone(&scene.broker), to.topic.clone());
            Box::pin(async move {
                let outcomes = answer.await;
                if concerned { then(broker, topic, outcomes).await } else { outcomes }
            })
        })),
        ..Hooks::default()
    }
}

fn removes_newest() -> Hooks {
    answering(1, |broker, topic, outcomes| {
        Box::pin(async move {
            _ = broker.admin().purge_topic(&topic, None, Start::Latest).await;
            outcomes
        })
    })
}

fn was_throttled(outcomes: &Outcomes) -> bool {
    let throttled = |outcome: &Published| matches!(outcome, Published::NotWritten(failed) if failed.error.kind() == ErrorKind::Throttled);
    outcomes.0.iter().any(throttled)
}

fn makes_room() -> Hooks {
    answering(4000, |broker, topic, outcomes| {
        Box::pin(async move {
            if was_throttled(&outcomes)
                && let Ok(described) = broker.admin().describe_topic(&topic).await
            {
                let low = Start::After(described.partitions[0].low);
                _ = broker.admin().purge_topic(&topic, None, low).await;
            }
            outcomes
        })
    })
}

fn stays_at_bound() -> Hooks {
    let full = Shared::<HashSet<Topic>>::default();
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            if full.lock().contains(&to.topic) {
                let error = Error::new(ErrorKind::Throttled, "it is full");
                return now(Outcomes::all_not_written(&error, batch));
            }
            let answer = scene.broker.publish(to, batch);
            let (full, topic) = (full.clone(), to.topic.clone());
            Box::pin(async move {
                let outcomes = answer.await;
                if was_throttled(&outcomes) {
                    full.lock().insert(topic);
                }
                outcomes
            })
        })),
        ..Hooks::default()
    }
}

fn tells_no_end() -> Hooks {
    Hooks {
        read: Some(Box::new(|scene| {
            let scene = Arc::clone(scene);
            each_event(move |event| match event {
                Event::Gap { of, from, why: GapReason::Trimmed, .. }
                    if kept(&scene, &of.topic).is_some_and(|kept| kept.bytes.is_some()) =>
                {
                    vec![Event::Gap { of, from, to: None, why: GapReason::Trimmed }]
                }
                other => vec![other],
            })
        })),
        ..Hooks::default()
    }
}
