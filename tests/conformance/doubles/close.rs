//! Doubles for the checks of `close.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, ControlHooks, Double, Hooks, Shared, double, each_batch},
    lost::{Doors, Moment, by_side_doors, losing, side_door},
};
use ropeway_broker::{Error, ErrorKind, Event, GoneReason, Group, Outcomes, Owned};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "a_closing_consumer_gives_up_at_once_what_is_idle",
            "keeps what is idle until all is done",
            keeps_idle,
        ),
        double(
            "a_closing_consumer_keeps_what_is_in_flight_until_it_is_acked",
            "gives up at once what is in flight",
            gives_up_all,
        ),
        double(
            "a_closing_consumer_ends_at_its_deadline_and_tells_what_was_not_acked",
            "does not tell what was not acked",
            || {
                closing(|side, deadline| {
                    let answer = side.control.close(deadline);
                    Box::pin(async move {
                        let left = answer.await;
                        if deadline == Duration::from_millis(300) { Vec::new() } else { left }
                    })
                })
            },
        ),
        double("a_closing_consumer_gets_no_more_batches", "goes on delivering to who closes", delivers_on),
        double("an_ended_consumer_answers_the_same_again", "answers otherwise when asked again", || Hooks {
            consume: Some(Box::new(|_| {
                let mut ended = false;
                Box::new(move |source, cx| match source(cx) {
                    Poll::Ready(Err(_)) if std::mem::replace(&mut ended, true) => {
                        Poll::Ready(Err(Error::new(ErrorKind::Invalid, "it has ended before")))
                    }
                    other => other,
                })
            })),
            ..Hooks::default()
        }),
        double("after_close_every_call_answers_closed", "lists no groups after close", || Hooks {
            admin: AdminHooks {
                groups: Some(Box::new(|listed| match listed {
                    Err(error) if error.kind() == ErrorKind::Closed => Ok(Vec::new()),
                    other => other,
                })),
                ..AdminHooks::default()
            },
            ..Hooks::default()
        }),
        double("close_ends_consumers_and_readers", "leaves readers waiting when it is closed", || Hooks {
            read: Some(Box::new(|_| {
                Box::new(|source, cx| match source(cx) {
                    Poll::Ready(Err(_)) => Poll::Pending,
                    other => other,
                })
            })),
            ..Hooks::default()
        }),
        double(
            "close_answers_what_was_taken_over_before",
            "forgets open publishes when it is closed",
            forgets_open,
        ),
        double("acks_given_before_close_take_effect", "loses the last acks when it is closed", || {
            losing(Moment::BrokerClose, 2)
        }),
        double("closing_twice_is_once", "never answers when it is closed again and again", || {
            let counts = Shared::<HashMap<usize, usize>>::default();
            Hooks {
                close: Some(Box::new(move |scene, deadline| {
                    let times =
                        *counts.lock().entry(scene.opens).and_modify(|count| *count += 1).or_insert(1);
                    if times > 2 {
                        return Box::pin(std::future::pending());
                    }
                    scene.broker.close(deadline)
                })),
                ..Hooks::default()
            }
        }),
    ]
}

type Left = ropeway_broker::Answer<Vec<(Owned, Vec<ropeway_broker::Position>)>>;

fn closing(close: impl Fn(&super::hooks::Side, Duration) -> Left + Send + Sync + 'static) -> Hooks {
    let control = ControlHooks { close: Some(Box::new(close)), ..ControlHooks::default() };
    Hooks { control, ..Hooks::default() }
}

fn keeps_idle() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            let mut held: VecDeque<Event> = VecDeque::new();
            let mut ended = None;
            Box::new(move |source, cx| {
                loop {
                    if ended.is_some()
                        && let Some(event) = held.pop_front()
                    {
                        return Poll::Ready(Ok(event));
                    }
                    match source(cx) {
                        Poll::Ready(Ok(Event::Gone(of, GoneReason::Closed))) => {
                            held.push_back(Event::Gone(of, GoneReason::Closed));
                        }
                        Poll::Ready(Err(error)) if ended.is_none() && !held.is_empty() => ended = Some(error),
                        other => return other,
                    }
                }
            })
        })),
        ..Hooks::default()
    }
}

/// How many messages each group was delivered and did not ack.
type Open = Shared<HashMap<Group, usize>>;

fn counting(open: &Open) -> Hooks {
    let (on_batch, on_ack) = (open.clone(), open.clone());
    Hooks {
        consume: Some(Box::new(move |side| {
            let (open, group) = (on_batch.clone(), side.subscription.group.clone());
            each_batch(move |batch| *open.lock().entry(group.clone()).or_default() += batch.deliveries.len())
        })),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                let mut open = on_ack.lock();
                let count = open.entry(side.subscription.group.clone()).or_default();
                *count = count.saturating_sub(done.len());
                side.control.ack(of, done)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

fn gives_up_all() -> Hooks {
    let open = Open::default();
    let mut hooks = counting(&open);
    hooks.control.close = Some(Box::new(move |side, deadline| {
        let much = open.lock().get(&side.subscription.group).is_some_and(|count| *count >= 5);
        side.control.close(if much { Duration::ZERO } else { deadline })
    }));
    hooks
}

fn delivers_on() -> Hooks {
    let owned = Shared::<HashMap<Group, Vec<Owned>>>::default();
    let doors = Shared::<HashMap<Group, Doors>>::default();
    let (on_close, opening) = (owned.clone(), doors.clone());
    let mut hooks = closing(move |side, deadline| {
        let group = &side.subscription.group;
        if deadline == Duration::from_secs(60) {
            let doors = opening.lock().entry(group.clone()).or_default().clone();
            for of in on_close.lock().remove(group).unwrap_or_default() {
                doors.lock().extend(side_door(&side.scene, &of.topic, of.partition).map(|door| (of, door)));
            }
        }
        side.control.close(deadline)
    });
    hooks.consume = Some(Box::new(move |side| {
        let (owned, group) = (owned.clone(), side.subscription.group.clone());
        let mut by_doors = by_side_doors(doors.lock().entry(group.clone()).or_default().clone());
        Box::new(move |source, cx| {
            let polled = by_doors(source, cx);
            if let Poll::Ready(Ok(Event::Assigned(list))) = &polled {
                owned.lock().entry(group.clone()).or_default().extend(list.iter().map(|a| a.of.clone()));
            }
            polled
        })
    }));
    hooks
}

fn forgets_open() -> Hooks {
    let closed = Arc::new(AtomicBool::new(false));
    let on_close = Arc::clone(&closed);
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let (answer, closed) = (scene.broker.publish(to, batch.clone()), Arc::clone(&closed));
            let before = closed.load(Ordering::Relaxed);
            Box::pin(async move {
                let outcomes = answer.await;
                if !before && closed.load(Ordering::Relaxed) {
                    let error = Error::new(ErrorKind::Closed, "the broker was closed");
                    return Outcomes::all_unknown(&error, batch);
                }
                outcomes
            })
        })),
        close: Some(Box::new(move |scene, deadline| {
            on_close.store(true, Ordering::Relaxed);
            scene.broker.close(deadline)
        })),
        ..Hooks::default()
    }
}
