//! Doubles for the checks of `admin.rs` and `group_admin.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::hooks::{AdminHooks, ControlHooks, Double, Hooks, Shared, double, nameless};
use ropeway_broker::{
    Consumer, Error, ErrorKind, GroupInfo, GroupPartition, Health, Result, Start, Statistics, TopicInfo,
    TopicSpec,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) fn doubles() -> Vec<Double> {
    let mut doubles = topics();
    doubles.extend(groups());
    doubles
}

fn topics() -> Vec<Double> {
    vec![
        double(
            "a_topic_that_was_made_can_be_used_at_once",
            "makes a topic that is not what was asked for",
            || describing(|info| info.spec.retention.bytes = Some(1)),
        ),
        double("a_topic_that_exists_is_not_made_again", "says it made what exists", || {
            creating(|spec| spec, |answer| unless(answer, ErrorKind::Exists))
        }),
        double("a_number_of_partitions_that_cannot_be_is_refused", "takes no partitions for one", || {
            creating(|spec| TopicSpec { partitions: spec.partitions.max(1), ..spec }, |answer| answer)
        }),
        double("what_cannot_be_kept_is_refused", "does not compact and does not say so", || {
            creating(
                |mut spec| {
                    spec.retention.compact = false;
                    spec
                },
                |answer| answer,
            )
        }),
        double(
            "a_topic_that_does_not_exist_is_told_by_its_name",
            "does not name the topic it cannot purge",
            || purging(|_, answer| answer.map_err(|error| nameless(&error))),
        ),
        double("topics_are_listed_by_name", "lists topics in any order", || {
            on_admin(AdminHooks {
                topics: Some(Box::new(|listed| listed.map(|list| list.into_iter().rev().collect()))),
                ..AdminHooks::default()
            })
        }),
        double("a_description_tells_where_a_partition_begins_and_ends", "miscounts messages", || {
            describing(|info| {
                for of in &mut info.partitions {
                    of.messages = of.messages.map(|count| if count == 5 { 6 } else { count });
                }
            })
        }),
        double("a_topic_grows_and_does_not_shrink", "says it shrank a topic", || {
            on_admin(AdminHooks {
                grow: Some(Box::new(|answer| unless(answer, ErrorKind::Invalid))),
                ..AdminHooks::default()
            })
        }),
        double("a_purge_names_what_does_not_exist", "purges a partition that does not exist", || {
            purging(
                |partition, answer| {
                    if partition.is_some() { unless(answer, ErrorKind::NotFound) } else { answer }
                },
            )
        }),
        double(
            "a_topic_in_use_is_not_deleted_and_its_groups_are_named",
            "does not name the groups that use a topic",
            || {
                on_admin(AdminHooks {
                    delete: Some(Box::new(|scene, topic| {
                        let broker = Arc::clone(&scene.broker);
                        Box::pin(async move {
                            let answer = broker.admin().delete_topic(&topic).await;
                            answer.map_err(|error| match error.kind() {
                                ErrorKind::Conflict => nameless(&error),
                                _ => error,
                            })
                        })
                    })),
                    ..AdminHooks::default()
                })
            },
        ),
        double(
            "a_delete_that_is_refused_is_not_seen",
            "hides a topic while it looks who uses it",
            hides_while_it_looks,
        ),
        double("a_deleted_topic_is_gone", "goes on listing what was deleted", lists_deleted),
        double("a_broker_that_works_says_so", "is never quite well", || Hooks {
            health: Some(Box::new(|health| match health {
                Health::Up => Health::Degraded("it could be better".into()),
                other => other,
            })),
            ..Hooks::default()
        }),
        double("statistics_count_what_happened", "counts one ack too many", || Hooks {
            statistics: Some(Box::new(|mut statistics: Statistics| {
                statistics.acked += u64::from(statistics.acked > 0);
                statistics
            })),
            ..Hooks::default()
        }),
    ]
}

fn groups() -> Vec<Double> {
    vec![
        double("a_group_is_described_with_members_owners_and_epochs", "does not tell all owners", || {
            describing_group(|of| {
                if of.partition == 1 {
                    of.owner = None;
                }
            })
        }),
        double("lag_counts_what_lies_behind_the_position", "counts one too few", || {
            describing_group(|of| of.lag = of.lag.map(|lag| if lag == 5 { 4 } else { lag }))
        }),
        double(
            "unfinished_leaves_out_what_is_done_beyond_the_position",
            "counts what is done beyond the position as open",
            || describing_group(|of| of.unfinished = of.lag),
        ),
        double(
            "lag_in_time_is_the_age_of_the_oldest_that_is_not_done",
            "measures time in its own way",
            || describing_group(|of| of.lag_time = of.lag_time.map(|lag| lag * 10)),
        ),
        double("groups_are_listed_by_name", "lists groups in any order", || {
            on_admin(AdminHooks {
                groups: Some(Box::new(|listed| listed.map(|list| list.into_iter().rev().collect()))),
                ..AdminHooks::default()
            })
        }),
        double(
            "a_group_that_does_not_exist_is_told_by_its_name",
            "does not name the group it misses",
            || {
                on_admin(AdminHooks {
                    describe_group: Some(Box::new(|described| described.map_err(|error| nameless(&error)))),
                    ..AdminHooks::default()
                })
            },
        ),
        double(
            "a_seek_moves_a_group_and_forgets_what_it_did_beyond",
            "moves a group one too far back",
            || seeking(|to| if let Start::After(p) = to { Start::At(p) } else { to }),
        ),
        double(
            "a_static_name_that_closed_is_no_member",
            "keeps the place of a static name that closed",
            keeps_names,
        ),
        double("a_seek_makes_the_group", "makes no group for a seek", makes_no_group),
        double(
            "a_seek_of_a_group_with_members_is_refused_and_names_them",
            "does not name the members that are in the way of a seek",
            || seek_answers(|error| (error.kind() == ErrorKind::Conflict).then(|| Err(nameless(error)))),
        ),
        double("a_seek_names_what_does_not_exist", "seeks in a topic that does not exist", || {
            seek_answers(|error| (error.kind() == ErrorKind::NotFound).then_some(Ok(())))
        }),
        double("a_deleted_group_is_forgotten", "says it deleted a group that it keeps", || {
            deleting_group(|there, answer| if there { None } else { Some(answer) })
        }),
        double(
            "a_group_with_members_is_not_deleted_and_they_are_named",
            "does not name the members that are in the way of a delete",
            || {
                deleting_group(|_, answer| {
                    Some(answer.map_err(|error| match error.kind() {
                        ErrorKind::Conflict => nameless(&error),
                        _ => error,
                    }))
                })
            },
        ),
    ]
}

fn on_admin(admin: AdminHooks) -> Hooks {
    Hooks { admin, ..Hooks::default() }
}

/// The answer, but not that error.
fn unless(answer: Result<()>, kind: ErrorKind) -> Result<()> {
    match answer {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

fn describing(change: fn(&mut TopicInfo)) -> Hooks {
    on_admin(AdminHooks {
        describe: Some(Box::new(move |described| {
            described.map(|mut info| {
                change(&mut info);
                info
            })
        })),
        ..AdminHooks::default()
    })
}

fn describing_group(change: fn(&mut GroupPartition)) -> Hooks {
    on_admin(AdminHooks {
        describe_group: Some(Box::new(move |described| {
            described.map(|mut info: GroupInfo| {
                info.partitions.iter_mut().for_each(change);
                info
            })
        })),
        ..AdminHooks::default()
    })
}

fn creating(spec: fn(TopicSpec) -> TopicSpec, answer: fn(Result<()>) -> Result<()>) -> Hooks {
    on_admin(AdminHooks {
        create: Some(Box::new(move |scene, topic, wanted| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move { answer(broker.admin().create_topic(&topic, spec(wanted)).await) })
        })),
        ..AdminHooks::default()
    })
}

fn purging(answer: fn(Option<u32>, Result<()>) -> Result<()>) -> Hooks {
    on_admin(AdminHooks {
        purge: Some(Box::new(move |scene, topic, partition, before| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(
                async move { answer(partition, broker.admin().purge_topic(&topic, partition, before).await) },
            )
        })),
        ..AdminHooks::default()
    })
}

/// Hides every topic as long as a delete takes.
fn hides_while_it_looks() -> Hooks {
    let hidden = Arc::new(AtomicBool::new(false));
    let hides = Arc::clone(&hidden);
    on_admin(AdminHooks {
        delete: Some(Box::new(move |scene, topic| {
            let (broker, hidden) = (Arc::clone(&scene.broker), Arc::clone(&hides));
            Box::pin(async move {
                hidden.store(true, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                let answer = broker.admin().delete_topic(&topic).await;
                hidden.store(false, Ordering::Relaxed);
                answer
            })
        })),
        describe: Some(Box::new(move |answer| {
            if hidden.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::NotFound, "there is no such topic"));
            }
            answer
        })),
        ..AdminHooks::default()
    })
}

fn lists_deleted() -> Hooks {
    let deleted = Shared::<BTreeSet<ropeway_broker::Topic>>::default();
    let on_delete = deleted.clone();
    on_admin(AdminHooks {
        delete: Some(Box::new(move |scene, topic| {
            let (broker, deleted) = (Arc::clone(&scene.broker), on_delete.clone());
            Box::pin(async move {
                broker.admin().delete_topic(&topic).await?;
                deleted.lock().insert(topic);
                Ok(())
            })
        })),
        topics: Some(Box::new(move |listed| {
            let mut all: BTreeSet<_> = listed?.into_iter().collect();
            all.extend(deleted.lock().iter().cloned());
            Ok(all.into_iter().collect())
        })),
        ..AdminHooks::default()
    })
}

fn seeking(map: fn(Start) -> Start) -> Hooks {
    on_admin(AdminHooks {
        seek: Some(Box::new(move |scene, group, topic, partition, to| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move { broker.admin().seek_group(&group, &topic, partition, map(to)).await })
        })),
        ..AdminHooks::default()
    })
}

fn seek_answers(instead: fn(&Error) -> Option<Result<()>>) -> Hooks {
    on_admin(AdminHooks {
        seek: Some(Box::new(move |scene, group, topic, partition, to| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move {
                let answer = broker.admin().seek_group(&group, &topic, partition, to).await;
                answer.or_else(|error| instead(&error).unwrap_or(Err(error)))
            })
        })),
        ..AdminHooks::default()
    })
}

/// The member is there again as soon as it closed, and stays until another takes over.
fn keeps_names() -> Hooks {
    let kept = Shared::<Vec<Box<dyn Consumer>>>::default();
    Hooks {
        control: ControlHooks {
            close: Some(Box::new(move |side, deadline| {
                let closed = side.control.close(deadline);
                let (kept, broker) = (kept.clone(), Arc::clone(&side.scene.broker));
                let subscription = side.subscription.clone();
                Box::pin(async move {
                    let left = closed.await;
                    if subscription.member.is_some() {
                        let again = broker.subscribe(subscription).await;
                        kept.lock().extend(again);
                    }
                    left
                })
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn makes_no_group() -> Hooks {
    on_admin(AdminHooks {
        seek: Some(Box::new(|scene, group, topic, partition, to| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move {
                let there = broker.admin().describe_group(&group).await.is_ok();
                broker.admin().seek_group(&group, &topic, partition, to).await?;
                if !there {
                    _ = broker.admin().delete_group(&group).await;
                }
                Ok(())
            })
        })),
        ..AdminHooks::default()
    })
}

/// `answer` is told whether the group could be deleted; `None` is a yes without a deed.
fn deleting_group(answer: fn(bool, Result<()>) -> Option<Result<()>>) -> Hooks {
    on_admin(AdminHooks {
        delete_group: Some(Box::new(move |scene, group| {
            let broker = Arc::clone(&scene.broker);
            Box::pin(async move {
                let described = broker.admin().describe_group(&group).await;
                let free = described.is_ok_and(|info| info.members.is_empty());
                if free && answer(true, Ok(())).is_none() {
                    return Ok(());
                }
                let deleted = broker.admin().delete_group(&group).await;
                answer(false, deleted).unwrap_or(Ok(()))
            })
        })),
        ..AdminHooks::default()
    })
}
