//! Doubles for the checks of `settle.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, Shared, Side, double, each_batch, now, text},
    lost::{Moment, joining, losing},
};
use ropeway_broker::{Delivery, ErrorKind, Owned, Position, Start};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("each_message_comes_exactly_once", "delivers one message twice", delivers_twice),
        double(
            "what_was_acked_does_not_come_again_to_the_group",
            "rolls the position back when a consumer closes",
            rolls_back,
        ),
        double(
            "acks_out_of_order_survive_a_crash_and_only_the_rest_comes_again",
            "forgets in a crash what was done beyond the position",
            || forgets_holes(true),
        ),
        double(
            "acks_out_of_order_survive_a_reopen_and_only_the_rest_comes_again",
            "forgets when it is closed what was done beyond the position",
            || forgets_holes(false),
        ),
        double(
            "acks_out_of_order_hold_for_the_next_owner",
            "loses acks beyond the position in a hand-over",
            || losing(Moment::GiveUp, 2),
        ),
        double("acking_twice_is_once", "refuses a position that is there twice", refuses_repeats),
        double(
            "an_ack_after_the_partition_went_is_refused_as_fenced",
            "says nothing to acks of what was given up",
            silent_after_give_up,
        ),
        double(
            "an_ack_after_close_is_refused_as_fenced",
            "says nothing to acks after close",
            silent_after_close,
        ),
        double(
            "a_position_that_was_not_delivered_is_refused_with_the_whole_call",
            "acks the half of a call that it refuses",
            acks_half,
        ),
        double(
            "what_was_dropped_without_ack_comes_to_the_next_owner",
            "acks what it delivered when the consumer is dropped",
            acks_on_drop,
        ),
        double("what_was_acked_before_a_drop_takes_effect", "loses the last acks of a drop", || {
            losing(Moment::Drop, 2)
        }),
        double("an_ack_takes_effect_within_the_interval", "lets acks wait for a flush", || {
            joining(|subscription| subscription.ack_interval = Duration::from_secs(60))
        }),
        double("flush_answers_when_acks_took_effect", "answers a flush before it is done", || keeps_acks(2)),
        double("what_was_flushed_survives_a_crash", "answers a flush it never does", || no_flush(3)),
        double("acks_may_come_from_any_thread", "hears acks of its own thread only", one_thread),
    ]
}

fn delivers_twice() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            each_batch(|batch| {
                let again: Vec<Delivery> =
                    batch.deliveries.iter().filter(|d| text(&d.message) == "450").cloned().collect();
                batch.deliveries.extend(again);
            })
        })),
        ..Hooks::default()
    }
}

fn rolls_back() -> Hooks {
    let last = Shared::<HashMap<(ropeway_broker::Group, u32), Position>>::default();
    let acked = last.clone();
    Hooks {
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                let group = side.subscription.group.clone();
                acked.lock().extend(done.last().map(|position| ((group, of.partition), *position)));
                side.control.ack(of, done)
            })),
            close: Some(Box::new(move |side, deadline| {
                let (answer, last) = (side.control.close(deadline), last.clone());
                let (broker, group) = (Arc::clone(&side.scene.broker), side.subscription.group.clone());
                Box::pin(async move {
                    let left = answer.await;
                    for (of, positions) in &left {
                        let back = last.lock().get(&(group.clone(), of.partition)).copied();
                        if let (Some(back), [first, second]) = (back, &positions[..])
                            && back.next() == *first
                            && first.next() == *second
                        {
                            let to = Start::At(back);
                            _ = broker.admin().seek_group(&group, &of.topic, Some(of.partition), to).await;
                        }
                    }
                    left
                })
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

/// A seek to where the group is: that forgets what it did beyond.
fn forgets_holes(crash: bool) -> Hooks {
    Hooks {
        reopened: Some(Box::new(move |scene| {
            let (broker, now) = (Arc::clone(&scene.broker), scene.crashed == crash);
            Box::pin(async move {
                let admin = broker.admin();
                for group in admin.groups().await.unwrap_or_default().into_iter().filter(|_| now) {
                    let Ok(info) = admin.describe_group(&group).await else { continue };
                    for of in info.partitions {
                        if let Some(position) = of.position {
                            let to = Start::At(position);
                            _ = admin.seek_group(&group, &of.topic, Some(of.partition), to).await;
                        }
                    }
                }
            })
        })),
        ..Hooks::default()
    }
}

fn acking(
    ack: impl Fn(&Side, &Owned, &[Position]) -> ropeway_broker::Result<()> + Send + Sync + 'static,
) -> Hooks {
    Hooks {
        control: ControlHooks { ack: Some(Box::new(ack)), ..ControlHooks::default() },
        ..Hooks::default()
    }
}

fn refuses_repeats() -> Hooks {
    acking(|side, of, done| {
        let mut seen = HashSet::new();
        if done.iter().all(|position| seen.insert(position)) {
            return side.control.ack(of, done);
        }
        Err(ropeway_broker::Error::new(ErrorKind::Invalid, "a position is there twice"))
    })
}

/// An ack that is refused as fenced is taken to be done, where `when` says so.
fn silent(when: impl Fn(&Side, &Owned) -> bool + Send + Sync + 'static) -> Hooks {
    acking(move |side, of, done| match side.control.ack(of, done) {
        Err(error) if error.kind() == ErrorKind::Fenced && when(side, of) => Ok(()),
        other => other,
    })
}

fn silent_after_give_up() -> Hooks {
    let given_up = Shared::<HashSet<Owned>>::default();
    let known = given_up.clone();
    let mut hooks = silent(move |_, of| known.lock().contains(of));
    hooks.control.give_up = Some(Box::new(move |side, of| {
        given_up.lock().insert(of.clone());
        side.control.give_up(of);
    }));
    hooks
}

fn silent_after_close() -> Hooks {
    let closed = Shared::<HashSet<ropeway_broker::Group>>::default();
    let known = closed.clone();
    let mut hooks = silent(move |side, _| known.lock().contains(&side.subscription.group));
    hooks.control.close = Some(Box::new(move |side, deadline| {
        closed.lock().insert(side.subscription.group.clone());
        side.control.close(deadline)
    }));
    hooks
}

fn acks_half() -> Hooks {
    acking(|side, of, done| {
        let whole = side.control.ack(of, done);
        if whole.as_ref().is_err_and(|error| error.kind() == ErrorKind::Invalid) {
            done.iter().for_each(|position| _ = side.control.ack(of, &[*position]));
        }
        whole
    })
}

fn acks_on_drop() -> Hooks {
    let delivered = Shared::<BTreeMap<(ropeway_broker::Group, usize), Vec<(Owned, Position)>>>::default();
    let (on_ack, on_drop) = (delivered.clone(), delivered.clone());
    let mut hooks = acking(move |side, of, done| {
        // Who acks at all is left alone.
        on_ack.lock().remove(&(side.subscription.group.clone(), side.nth));
        side.control.ack(of, done)
    });
    hooks.consume = Some(Box::new(move |side| {
        let (delivered, key) = (delivered.clone(), (side.subscription.group.clone(), side.nth));
        each_batch(move |batch| {
            let positions = batch.deliveries.iter().map(|d| (batch.of.clone(), d.position));
            delivered.lock().entry(key.clone()).or_default().extend(positions);
        })
    }));
    hooks.dropped = Some(Box::new(move |side| {
        let key = (side.subscription.group.clone(), side.nth);
        for (of, position) in on_drop.lock().remove(&key).unwrap_or_default() {
            _ = side.control.ack(&of, &[position]);
        }
    }));
    hooks
}

/// Where acks may wait for long, a flush does nothing after an ack of that many positions.
fn no_flush(count: usize) -> Hooks {
    let last = Shared::<usize>::default();
    let known = last.clone();
    let mut hooks = acking(move |side, of, done| {
        *last.lock() = done.len();
        side.control.ack(of, done)
    });
    hooks.control.flush = Some(Box::new(move |side| {
        let lazy = side.subscription.ack_interval >= Duration::from_secs(60);
        if lazy && *known.lock() == count { now(Vec::new()) } else { side.control.flush() }
    }));
    hooks
}

/// Keeps acks of that many positions for itself where acks may wait for long, until the partition goes; a flush does not let them go.
fn keeps_acks(count: usize) -> Hooks {
    let kept = Shared::<Vec<(Arc<dyn ropeway_broker::Control>, Owned, Vec<Position>)>>::default();
    let let_go = {
        let kept = kept.clone();
        move || kept.lock().drain(..).for_each(|(control, of, done)| _ = control.ack(&of, &done))
    };
    let (on_close, on_drop, on_broker) = (let_go.clone(), let_go.clone(), let_go.clone());
    let mut hooks = acking(move |side, of, done| {
        if side.subscription.ack_interval < Duration::from_secs(60) || done.len() != count {
            return side.control.ack(of, done);
        }
        kept.lock().push((Arc::clone(&side.control), of.clone(), done.to_vec()));
        Ok(())
    });
    hooks.control.give_up = Some(Box::new(move |side, of| {
        let_go();
        side.control.give_up(of);
    }));
    hooks.control.close = Some(Box::new(move |side, deadline| {
        on_close();
        side.control.close(deadline)
    }));
    hooks.dropped = Some(Box::new(move |_| on_drop()));
    hooks.close = Some(Box::new(move |scene, deadline| {
        on_broker();
        scene.broker.close(deadline)
    }));
    hooks
}

fn one_thread() -> Hooks {
    let own = std::thread::current().id();
    acking(
        move |side, of, done| {
            if std::thread::current().id() == own { side.control.ack(of, done) } else { Ok(()) }
        },
    )
}
