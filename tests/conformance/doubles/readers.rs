//! Doubles for the checks of `readers.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, ReaderHooks, Shared, double, each_batch, each_event, now},
    lost::{Hidden, hiding, kept, reading},
};
use futures::FutureExt;
use ropeway_broker::{Epoch, Error, ErrorKind, Event, Group, Start, Topic};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("each_reader_sees_everything_as_it_comes", "gives a reader an epoch", || {
            reading(|event| match event {
                Event::Batch(mut batch) => {
                    batch.of.epoch = Epoch(1);
                    vec![Event::Batch(batch)]
                }
                other => vec![other],
            })
        }),
        double("a_reader_leaves_nothing_behind", "keeps a group for each reader", leaves_group),
        double("what_groups_acked_is_still_read", "hides from readers what a group acked", hides_acked),
        double("the_set_that_is_followed_may_change", "goes on with what is not followed any more", || {
            Hooks {
                reader: ReaderHooks {
                    unfollow: Some(Box::new(|reader, topic, partition| {
                        if partition.is_none() {
                            reader.unfollow(topic, partition);
                        }
                    })),
                    ..ReaderHooks::default()
                },
                ..Hooks::default()
            }
        }),
        double("following_again_moves_to_another_place", "stays where it was when told to move", stays),
        double("caught_up_is_told_once_for_each_start", "tells again that it caught up", tells_again),
        double("what_does_not_exist_cannot_be_followed", "follows a partition that does not exist", || {
            Hooks {
                reader: ReaderHooks {
                    follow: Some(Box::new(|_, reader, topic, partition, from| {
                        let answer = reader.follow(topic, partition, from);
                        Box::pin(async move {
                            match answer.await {
                                Err(error) if partition.is_some() && error.kind() == ErrorKind::NotFound => {
                                    Ok(())
                                }
                                other => other,
                            }
                        })
                    })),
                    ..ReaderHooks::default()
                },
                ..Hooks::default()
            }
        }),
        double("a_reader_waits_where_nothing_is_followed", "ends a reader that follows nothing", impatient),
        double("positions_of_a_partition_grow", "swaps messages of a large batch", || Hooks {
            read: Some(Box::new(|_| {
                each_batch(|batch| {
                    if batch.deliveries.len() > 50 && batch.deliveries.iter().all(|d| d.message.key.is_some())
                    {
                        batch.deliveries.swap(0, 1);
                    }
                })
            })),
            ..Hooks::default()
        }),
    ]
}

fn leaves_group() -> Hooks {
    Hooks {
        reader: ReaderHooks {
            follow: Some(Box::new(|scene, reader, topic, partition, from| {
                // Where a group would hold what is to go, other checks would trip over it.
                let is_bounded = kept(scene, topic).is_some_and(|kept| kept.bytes.is_some());
                if !is_bounded && let Ok(group) = Group::new("a-reader") {
                    let admin = scene.broker.admin();
                    _ = admin.seek_group(&group, topic, None, Start::Earliest).now_or_never();
                }
                reader.follow(topic, partition, from)
            })),
            ..ReaderHooks::default()
        },
        ..Hooks::default()
    }
}

fn hides_acked() -> Hooks {
    let hidden = Hidden::default();
    let acked = hidden.clone();
    Hooks {
        read: Some(Box::new(move |_| hiding(hidden.clone()))),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                side.control.ack(of, done)?;
                if done.len() == 5 {
                    acked.lock().extend(done.iter().map(|p| (of.topic.clone(), of.partition, *p)));
                }
                Ok(())
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn stays() -> Hooks {
    let followed = Shared::<HashSet<(Topic, Option<u32>)>>::default();
    Hooks {
        reader: ReaderHooks {
            follow: Some(Box::new(move |_, reader, topic, partition, from| {
                let known = followed.lock().contains(&(topic.clone(), partition));
                if from == Start::Earliest {
                    followed.lock().insert((topic.clone(), partition));
                }
                if let (true, Start::After(_)) = (known, from) {
                    return now(Ok(()));
                }
                reader.follow(topic, partition, from)
            })),
            ..ReaderHooks::default()
        },
        ..Hooks::default()
    }
}

fn tells_again() -> Hooks {
    Hooks {
        read: Some(Box::new(|_| {
            let mut caught_up = HashSet::new();
            each_event(move |event| match event {
                Event::CaughtUp(of) => {
                    caught_up.insert(of.clone());
                    vec![Event::CaughtUp(of)]
                }
                Event::Batch(batch) if batch.of.partition == 1 && caught_up.contains(&batch.of) => {
                    let of = batch.of.clone();
                    vec![Event::Batch(batch), Event::CaughtUp(of)]
                }
                other => vec![other],
            })
        })),
        ..Hooks::default()
    }
}

fn impatient() -> Hooks {
    let followed = Arc::new(AtomicBool::new(false));
    let on_follow = Arc::clone(&followed);
    Hooks {
        read: Some(Box::new(move |_| {
            let followed = Arc::clone(&followed);
            Box::new(move |source, cx| {
                if followed.load(Ordering::Relaxed) {
                    return source(cx);
                }
                Poll::Ready(Err(Error::new(ErrorKind::Invalid, "nothing is followed")))
            })
        })),
        reader: ReaderHooks {
            follow: Some(Box::new(move |_, reader, topic, partition, from| {
                on_follow.store(true, Ordering::Relaxed);
                reader.follow(topic, partition, from)
            })),
            ..ReaderHooks::default()
        },
        ..Hooks::default()
    }
}
