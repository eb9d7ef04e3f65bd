//! Doubles for the checks of `flow.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, Shared, double, each_batch, each_event, text},
    lost::joining,
};
use ropeway_broker::{Event, Group, Owned};
use std::{
    collections::{HashMap, HashSet},
    task::{Context, Waker},
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("no_more_messages_are_in_flight_than_the_bound", "delivers one message too many", || {
            joining(|subscription| {
                if subscription.in_flight.messages == 10 {
                    subscription.in_flight.messages = 11;
                }
            })
        }),
        double("no_more_bytes_are_in_flight_than_the_bound", "delivers more bytes than asked for", || {
            joining(|subscription| {
                if subscription.in_flight.bytes == 5_500 {
                    subscription.in_flight.bytes = 6_500;
                }
            })
        }),
        double(
            "one_message_larger_than_the_bound_is_delivered_alone",
            "takes no notice of a bound that is small",
            || {
                joining(|subscription| {
                    if subscription.in_flight.bytes == 1000 {
                        subscription.in_flight.bytes = 1 << 20;
                    }
                })
            },
        ),
        double("the_bound_holds_over_all_partitions", "counts some partitions too low", || {
            joining(|subscription| {
                if subscription.in_flight.messages == 40 {
                    subscription.in_flight.messages = 50;
                }
            })
        }),
        double("a_partition_takes_no_more_than_its_share", "gives a partition a share too large", || {
            joining(|subscription| {
                if subscription.in_flight.messages == 256 {
                    subscription.in_flight.messages = 512;
                }
            })
        }),
        double(
            "what_goes_makes_room_for_what_stays",
            "forgets the room that a hand-over makes",
            forgets_room,
        ),
        double("a_topic_that_is_not_settled_does_not_stall_another", "stalls one topic for another", stalls),
        double(
            "a_paused_partition_delivers_nothing_and_goes_on_where_it_was",
            "takes no notice of a pause",
            || Hooks {
                control: ControlHooks { pause: Some(Box::new(|_, _, _| {})), ..ControlHooks::default() },
                ..Hooks::default()
            },
        ),
        double(
            "a_pause_keeps_membership_epoch_and_what_is_in_flight",
            "drops acks of what is paused",
            drops_while_paused,
        ),
        double("a_pause_of_what_is_not_owned_does_nothing", "pauses whatever has that number", pauses_other),
        double(
            "nothing_is_lost_with_a_future_that_is_dropped",
            "loses what came between two polls",
            loses_one,
        ),
        double("the_last_one_who_polled_is_woken", "wakes who polled before", || Hooks {
            consume: Some(Box::new(|_| {
                let mut before: Option<Waker> = None;
                Box::new(move |source, cx| {
                    let waker = before.replace(cx.waker().clone());
                    source(&mut Context::from_waker(waker.as_ref().unwrap_or_else(|| cx.waker())))
                })
            })),
            ..Hooks::default()
        }),
    ]
}

fn stalls() -> Hooks {
    Hooks {
        consume: Some(Box::new(|side| {
            let subscription = side.subscription.clone();
            each_batch(move |batch| {
                let stalled = subscription.topics.get(1) == Some(&batch.of.topic);
                if stalled && subscription.in_flight.messages == 200 {
                    batch.deliveries.clear();
                }
            })
        })),
        ..Hooks::default()
    }
}

fn forgets_room() -> Hooks {
    Hooks {
        consume: Some(Box::new(|side| {
            let bound = side.subscription.in_flight.messages;
            let mut handed_over = false;
            each_event(move |event| {
                handed_over |= bound == 12 && matches!(event, Event::Gone(..));
                if handed_over && matches!(event, Event::Batch(_)) { Vec::new() } else { vec![event] }
            })
        })),
        ..Hooks::default()
    }
}

fn drops_while_paused() -> Hooks {
    let paused = Shared::<HashSet<Owned>>::default();
    let on_ack = paused.clone();
    Hooks {
        control: ControlHooks {
            pause: Some(Box::new(move |side, of, now| {
                if now {
                    paused.lock().insert(of.clone())
                } else {
                    paused.lock().remove(of)
                };
                side.control.pause(of, now);
            })),
            ack: Some(Box::new(
                move |side, of, done| {
                    if on_ack.lock().contains(of) { Ok(()) } else { side.control.ack(of, done) }
                },
            )),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn pauses_other() -> Hooks {
    let owned = Shared::<HashMap<(Group, u32), Owned>>::default();
    let on_pause = owned.clone();
    Hooks {
        consume: Some(Box::new(move |side| {
            let (owned, group) = (owned.clone(), side.subscription.group.clone());
            each_event(move |event| {
                if let Event::Assigned(list) = &event {
                    owned.lock().extend(list.iter().map(|a| ((group.clone(), a.of.partition), a.of.clone())));
                }
                vec![event]
            })
        })),
        control: ControlHooks {
            pause: Some(Box::new(move |side, of, paused| {
                let known = on_pause.lock().get(&(side.subscription.group.clone(), of.partition)).cloned();
                side.control.pause(known.as_ref().unwrap_or(of), paused);
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn loses_one() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            let mut single = 0;
            each_batch(move |batch| {
                let one = batch.deliveries.len() == 1 && batch.deliveries[0].message.key.is_none();
                single += usize::from(one);
                if one && single == 20 && text(&batch.deliveries[0].message) == "19" {
                    batch.deliveries.clear();
                }
            })
        })),
        ..Hooks::default()
    }
}
