//! Doubles for the checks of `groups.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, Shared, double, each_batch, each_event, nameless, text},
    lost::{joining, telling},
};
use ropeway_broker::{Error, ErrorKind, Event, GoneReason, Group, Topic};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::Poll,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "the_first_event_tells_what_was_assigned_even_if_it_is_nothing",
            "tells nothing where nothing was assigned",
            || {
                telling(|event| match event {
                    Event::Assigned(list) if list.is_empty() => Vec::new(),
                    other => vec![other],
                })
            },
        ),
        double(
            "every_partition_is_owned_by_exactly_one_member",
            "never assigns the last of 8 partitions",
            || {
                telling(|event| match event {
                    Event::Assigned(mut list) => {
                        list.retain(|assignment| assignment.of.partition != 7);
                        vec![Event::Assigned(list)]
                    }
                    other => vec![other],
                })
            },
        ),
        double(
            "a_storm_of_joins_and_leaves_loses_and_repeats_nothing",
            "loses a message when many members come and go",
            storm,
        ),
        double(
            "a_static_name_that_comes_back_gets_what_it_had",
            "forgets static names that left",
            forgets_names,
        ),
        double(
            "a_second_member_of_a_static_name_takes_over",
            "ends a member whose name was taken as closed",
            || Hooks {
                consume: Some(Box::new(|_| {
                    Box::new(|source, cx| match source(cx) {
                        Poll::Ready(Err(error)) if error.kind() == ErrorKind::Fenced => {
                            Poll::Ready(Err(Error::new(ErrorKind::Closed, "the member was closed")))
                        }
                        other => other,
                    })
                })),
                ..Hooks::default()
            },
        ),
        double("each_group_gets_everything", "keeps a message from the second group", second_group),
        double(
            "a_dropped_answer_of_subscribe_leaves_no_member",
            "keeps a member nobody waited for",
            keeps_members,
        ),
        double("a_topic_that_does_not_exist_is_refused_by_name", "does not name the topic it misses", || {
            Hooks {
                subscribe: Some(Box::new(|scene, subscription| {
                    let answer = scene.broker.subscribe(subscription);
                    Box::pin(async move { answer.await.map_err(|error| nameless(&error)) })
                })),
                ..Hooks::default()
            }
        }),
        double("a_bound_of_nothing_is_refused", "takes a bound of nothing for one", || {
            joining(|subscription| {
                let bound = &mut subscription.in_flight;
                (bound.messages, bound.bytes) = (bound.messages.max(1), bound.bytes.max(1));
            })
        }),
        double(
            "topics_can_be_changed_in_the_same_membership",
            "takes what falls away without a hand-over",
            takes_away,
        ),
        double(
            "a_change_to_a_topic_that_does_not_exist_changes_nothing",
            "drops all topics when one is missing",
            drops_topics,
        ),
        double("partitions_of_several_topics_come_to_one_member", "mixes topics up", mixes_topics),
    ]
}

fn storm() -> Hooks {
    Hooks {
        consume: Some(Box::new(|side| {
            let side = Arc::clone(side);
            let mut lost = side.nth != 12;
            each_batch(move |batch| {
                if !lost {
                    lost = true;
                    let gone = batch.deliveries.remove(0);
                    _ = side.control.ack(&batch.of, &[gone.position]);
                }
            })
        })),
        ..Hooks::default()
    }
}

fn forgets_names() -> Hooks {
    let left = Shared::<HashSet<Arc<str>>>::default();
    let gone = left.clone();
    Hooks {
        subscribe: Some(Box::new(move |scene, mut subscription| {
            if let Some(name) = subscription.member.take() {
                let new = if left.lock().contains(&name) { Arc::from(format!("z{name}")) } else { name };
                subscription.member = Some(new);
            }
            scene.broker.subscribe(subscription)
        })),
        control: ControlHooks {
            close: Some(Box::new(move |side, deadline| {
                gone.lock().extend(side.subscription.member.clone());
                side.control.close(deadline)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn second_group() -> Hooks {
    let first = Shared::<HashMap<Topic, Group>>::default();
    Hooks {
        consume: Some(Box::new(move |side| {
            let (first, side) = (first.clone(), Arc::clone(side));
            for topic in &side.subscription.topics {
                first.lock().entry(topic.clone()).or_insert_with(|| side.subscription.group.clone());
            }
            each_batch(move |batch| {
                if first.lock().get(&batch.of.topic) == Some(&side.subscription.group) {
                    return;
                }
                batch.deliveries.retain(|delivery| {
                    let lost = delivery.message.key.is_some() && text(&delivery.message) == "29";
                    if lost {
                        _ = side.control.ack(&batch.of, &[delivery.position]);
                    }
                    !lost
                });
            })
        })),
        ..Hooks::default()
    }
}

fn keeps_members() -> Hooks {
    Hooks {
        subscribe: Some(Box::new(|scene, subscription| {
            let (send, receive) = tokio::sync::oneshot::channel();
            let answer = scene.broker.subscribe(subscription);
            tokio::spawn(async move {
                // What nobody takes is never dropped.
                std::mem::forget(send.send(answer.await));
            });
            Box::pin(async move {
                receive.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the runtime ended")))
            })
        })),
        ..Hooks::default()
    }
}

fn takes_away() -> Hooks {
    let changed = Shared::<HashSet<Group>>::default();
    let on_change = changed.clone();
    Hooks {
        consume: Some(Box::new(move |side| {
            let (changed, group) = (changed.clone(), side.subscription.group.clone());
            each_event(move |event| match event {
                Event::Gone(of, GoneReason::GivenUp) if changed.lock().contains(&group) => {
                    vec![Event::Gone(of, GoneReason::Lost)]
                }
                other => vec![other],
            })
        })),
        control: ControlHooks {
            set_topics: Some(Box::new(move |side, topics| {
                on_change.lock().insert(side.subscription.group.clone());
                side.control.set_topics(topics)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn drops_topics() -> Hooks {
    Hooks {
        control: ControlHooks {
            set_topics: Some(Box::new(|side, topics| {
                let (control, scene) = (Arc::clone(&side.control), Arc::clone(&side.scene));
                let answer = side.control.set_topics(topics);
                Box::pin(async move {
                    let changed = answer.await;
                    if changed.is_err()
                        && let Ok(other) = Topic::new("in-its-place")
                    {
                        // There is no topic to fall back to but one of its own.
                        let spec = ropeway_broker::TopicSpec::partitions(1);
                        _ = scene.broker.admin().create_topic(&other, spec).await;
                        _ = control.set_topics(vec![other]).await;
                    }
                    changed
                })
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn mixes_topics() -> Hooks {
    Hooks {
        consume: Some(Box::new(|side| {
            let topics = side.subscription.topics.clone();
            each_batch(move |batch| {
                let wrong =
                    batch.of.partition == 1 && batch.deliveries.iter().any(|d| text(&d.message) == "11");
                if let (true, [first, _]) = (wrong, &topics[..]) {
                    batch.of.topic = first.clone();
                }
            })
        })),
        ..Hooks::default()
    }
}
