//! Doubles for the checks of `gaps.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, Double, Hooks, double, each_event},
    lost::{kept, reading, telling},
};
use futures::FutureExt;
use ropeway_broker::{Event, GapReason, Start};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "a_group_is_told_of_what_was_removed_before_it_saw_it",
            "tells a group nothing of what was removed",
            || telling(without_trimmed),
        ),
        double(
            "a_reader_is_told_of_what_was_removed_before_it_saw_it",
            "tells a reader nothing of what was removed",
            hides_purges,
        ),
        double(
            "a_start_at_what_was_removed_goes_on_with_the_next_there_is",
            "starts at the end where the position was removed",
            starts_at_end,
        ),
        double("what_was_purged_is_unseen_at_once", "leaves one message of a purge", || {
            purging(|before| if let Start::After(position) = before { Start::At(position) } else { before })
        }),
        double(
            "a_group_is_told_that_its_topic_was_made_again",
            "tells nothing of a topic that was made again",
            || {
                telling(|event| match event {
                    Event::Gap { why: GapReason::Recreated, .. } => Vec::new(),
                    other => vec![other],
                })
            },
        ),
        double(
            "what_was_seen_and_then_removed_is_no_gap",
            "tells of a gap behind what was seen",
            invents_gap,
        ),
        double("an_unreadable_record_is_in_flight_like_a_message", "skips what it cannot read", || Hooks {
            consume: Some(Box::new(|side| {
                let side = Arc::clone(side);
                each_event(move |event| match event {
                    Event::Unreadable { of, position, .. } => {
                        _ = side.control.ack(&of, &[position]);
                        Vec::new()
                    }
                    other => vec![other],
                })
            })),
            ..Hooks::default()
        }),
        double(
            "an_unreadable_record_is_told_to_a_reader",
            "tells a reader nothing of what it cannot read",
            || {
                reading(|event| match event {
                    Event::Unreadable { .. } => Vec::new(),
                    other => vec![other],
                })
            },
        ),
    ]
}

fn without_trimmed(event: Event) -> Vec<Event> {
    match event {
        Event::Gap { why: GapReason::Trimmed, .. } => Vec::new(),
        other => vec![other],
    }
}

/// Those of retention are told.
fn hides_purges() -> Hooks {
    Hooks {
        read: Some(Box::new(|scene| {
            let scene = Arc::clone(scene);
            each_event(move |event| match event {
                Event::Gap { ref of, .. }
                    if kept(&scene, &of.topic).is_some_and(|kept| kept.bytes.is_some()) =>
                {
                    vec![event]
                }
                other => without_trimmed(other),
            })
        })),
        ..Hooks::default()
    }
}

fn purging(map: fn(Start) -> Start) -> Hooks {
    Hooks {
        admin: AdminHooks {
            purge: Some(Box::new(move |scene, topic, partition, before| {
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().purge_topic(&topic, partition, map(before)).await })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}

fn starts_at_end() -> Hooks {
    Hooks {
        subscribe: Some(Box::new(|scene, mut subscription| {
            let described = scene.broker.admin().describe_topic(&subscription.topics[0]).now_or_never();
            if let (Start::At(position), Some(Ok(info))) = (subscription.start, described) {
                let low = info.partitions[0].low;
                if low.0 == position.0 && low > position {
                    subscription.start = Start::Latest;
                }
            }
            scene.broker.subscribe(subscription)
        })),
        ..Hooks::default()
    }
}

fn invents_gap() -> Hooks {
    let purged = Arc::new(AtomicBool::new(false));
    let on_purge = Arc::clone(&purged);
    Hooks {
        consume: Some(Box::new(move |_| {
            let purged = Arc::clone(&purged);
            each_event(move |event| match event {
                Event::Batch(batch) if purged.swap(false, Ordering::Relaxed) => {
                    let of = batch.of.clone();
                    vec![
                        Event::Gap { of, from: None, to: None, why: GapReason::Trimmed },
                        Event::Batch(batch),
                    ]
                }
                other => vec![other],
            })
        })),
        admin: AdminHooks {
            purge: Some(Box::new(move |scene, topic, partition, before| {
                on_purge.fetch_or(matches!(before, Start::After(_)), Ordering::Relaxed);
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().purge_topic(&topic, partition, before).await })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}
