//! Doubles for the checks of `handover.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, Double, Hooks, Shared, double, each_event},
    lost::{Moment, losing, side_door, telling, with_side_doors},
};
use ropeway_broker::{Epoch, Event, GoneReason, Group, Topic};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "each_partition_ends_in_one_gone_with_its_reason",
            "tells closed partitions as given up",
            wrong_reason,
        ),
        double("what_is_told_of_a_partition_has_its_order", "tells that it caught up after Gone", late_word),
        double("after_revoking_no_batch_comes", "delivers after Revoking", || Hooks {
            consume: Some(Box::new(|side| {
                let scene = Arc::clone(&side.scene);
                let (mut assigned, mut delivered) = (0, false);
                with_side_doors(move |event| {
                    delivered |= matches!(event, Event::Batch(_));
                    if let Event::Assigned(list) = event {
                        assigned += list.len();
                    }
                    let Event::Revoking { partitions, .. } = event else { return Vec::new() };
                    if delivered || assigned != 2 {
                        return Vec::new();
                    }
                    let open = partitions.iter();
                    open.filter_map(|of| Some((of.clone(), side_door(&scene, &of.topic, of.partition)?)))
                        .collect()
                })
            })),
            ..Hooks::default()
        }),
        double(
            "what_is_kept_too_long_is_taken_when_the_drain_time_is_over",
            "promises more time than there is",
            || {
                telling(|event| match event {
                    Event::Revoking { partitions, left } => {
                        vec![Event::Revoking { partitions, left: left * 2 }]
                    }
                    other => vec![other],
                })
            },
        ),
        double(
            "what_is_given_up_unasked_goes_to_another_member",
            "tells what goes to another as lost",
            || unasked(2),
        ),
        double(
            "what_the_only_member_gives_up_comes_back_in_a_new_epoch",
            "tells what comes back as lost",
            || unasked(1),
        ),
        double("acks_given_before_give_up_take_effect", "loses the last acks of a hand-over", || {
            losing(Moment::GiveUp, 3)
        }),
        double(
            "the_next_owner_gets_nothing_before_the_last_one_lost_it",
            "takes a partition while it is drained",
            takes_early,
        ),
        double("an_assignment_tells_where_it_resumes", "does not tell where it resumes", || {
            telling(|event| match event {
                Event::Assigned(mut list) => {
                    list.iter_mut().for_each(|assignment| assignment.resumed = None);
                    vec![Event::Assigned(list)]
                }
                other => vec![other],
            })
        }),
        double("epochs_grow_with_each_owner", "gives two owners the same epoch", || {
            wrong_epoch(3, |opens| opens == 1, |first| first)
        }),
        double("epochs_grow_across_a_reopen", "begins with epoch one again on another node", || {
            wrong_epoch(2, |opens| opens >= 3, |_| Epoch(1))
        }),
    ]
}

fn wrong_reason() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            let mut revoked = false;
            each_event(move |event| {
                revoked |= matches!(event, Event::Revoking { .. });
                match event {
                    Event::Gone(of, GoneReason::Closed) if revoked => {
                        vec![Event::Gone(of, GoneReason::GivenUp)]
                    }
                    other => vec![other],
                }
            })
        })),
        ..Hooks::default()
    }
}

fn late_word() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            let mut revoked = false;
            each_event(move |event| {
                revoked |= matches!(event, Event::Revoking { .. });
                match event {
                    Event::Gone(of, GoneReason::Closed) if revoked => {
                        vec![Event::Gone(of.clone(), GoneReason::Closed), Event::CaughtUp(of)]
                    }
                    other => vec![other],
                }
            })
        })),
        ..Hooks::default()
    }
}

/// In a group of that many joins, what is given up without having been revoked is told as lost.
fn unasked(joins: usize) -> Hooks {
    Hooks {
        consume: Some(Box::new(move |side| {
            let side = Arc::clone(side);
            let mut revoked = HashSet::new();
            each_event(move |event| {
                if let Event::Revoking { partitions, .. } = &event {
                    revoked.extend(partitions.iter().cloned());
                }
                match event {
                    Event::Gone(of, GoneReason::GivenUp) if !revoked.contains(&of) => {
                        let joined = side.scene.joins.lock().ok();
                        let joined = joined.and_then(|joins| joins.get(&side.subscription.group).copied());
                        let why = if joined == Some(joins) { GoneReason::Lost } else { GoneReason::GivenUp };
                        vec![Event::Gone(of, why)]
                    }
                    other => vec![other],
                }
            })
        })),
        ..Hooks::default()
    }
}

fn takes_early() -> Hooks {
    let acks = Shared::<HashSet<Group>>::default();
    let on_ack = acks.clone();
    let mut hooks = Hooks {
        consume: Some(Box::new(move |side| {
            let (acks, group) = (acks.clone(), side.subscription.group.clone());
            let mut count = 0;
            each_event(move |event| match event {
                Event::Batch(batch) => {
                    count += batch.deliveries.len();
                    vec![Event::Batch(batch)]
                }
                Event::Revoking { partitions, left } if count == 16 && !acks.lock().contains(&group) => {
                    let gone = partitions.iter().map(|of| Event::Gone(of.clone(), GoneReason::Lost));
                    let gone: Vec<_> = gone.collect();
                    std::iter::once(Event::Revoking { partitions, left }).chain(gone).collect()
                }
                other => vec![other],
            })
        })),
        ..Hooks::default()
    };
    hooks.control.ack = Some(Box::new(move |side, of, done| {
        on_ack.lock().insert(side.subscription.group.clone());
        side.control.ack(of, done)
    }));
    hooks
}

/// From that join of a group on and in that opening of the store, an assignment tells an epoch that was had before, by the first one; but
/// only in groups that were delivered nothing, of topics of one partition.
fn wrong_epoch(join: usize, open: fn(usize) -> bool, epoch: fn(Epoch) -> Epoch) -> Hooks {
    let first = Shared::<HashMap<Group, Epoch>>::default();
    let delivered = Shared::<HashSet<Group>>::default();
    let single = Shared::<HashSet<Topic>>::default();
    let made = single.clone();
    Hooks {
        consume: Some(Box::new(move |side| {
            let late = side.nth >= join && open(side.scene.opens);
            let (first, delivered, single) = (first.clone(), delivered.clone(), single.clone());
            let group = side.subscription.group.clone();
            each_event(move |mut event| {
                match &mut event {
                    Event::Batch(_) => _ = delivered.lock().insert(group.clone()),
                    Event::Assigned(list) if !delivered.lock().contains(&group) => {
                        for of in
                            list.iter_mut().map(|a| &mut a.of).filter(|of| single.lock().contains(&of.topic))
                        {
                            let first = *first.lock().entry(group.clone()).or_insert(of.epoch);
                            if late {
                                of.epoch = epoch(first);
                            }
                        }
                    }
                    _ => {}
                }
                vec![event]
            })
        })),
        admin: AdminHooks {
            create: Some(Box::new(move |scene, topic, spec| {
                if spec.partitions == 1 {
                    made.lock().insert(topic.clone());
                }
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().create_topic(&topic, spec).await })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}
