//! Doubles for the checks of `order.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::hooks::{ControlHooks, Double, Hooks, Shared, Side, double, each_batch, each_event};
use ropeway_broker::{Control, Delivery, ErrorKind, Event, Group, Owned, Position, Topic};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "order_of_a_key_holds_whatever_the_order_of_acks",
            "swaps two messages of a key under load",
            swaps,
        ),
        double(
            "order_of_a_key_holds_while_members_join_and_leave",
            "repeats a message when a member left",
            repeats,
        ),
        double(
            "a_former_owner_can_neither_ack_nor_forward",
            "takes acks of an epoch that is over",
            takes_stale_acks,
        ),
        double(
            "the_position_of_a_group_only_grows_and_never_passes_what_is_not_acked",
            "commits an offset past an open message",
            commits_past_open,
        ),
    ]
}

fn swaps() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            each_batch(|batch| {
                let list = &mut batch.deliveries;
                let pair = (0..list.len()).filter(|i| is_of_load(&list[*i])).find_map(|i| {
                    let same = |j: &usize| list[*j].message.key == list[i].message.key;
                    (i + 1..list.len()).find(same).map(|j| (i, j))
                });
                if let Some((i, j)) = pair {
                    list.swap(i, j);
                }
            })
        })),
        ..Hooks::default()
    }
}

/// Of the keys `k0` to `k19` those that only the check under load has.
fn is_of_load(delivery: &Delivery) -> bool {
    let key = delivery.message.key.as_deref().unwrap_or_default();
    key.len() == 3 && (&b"k15"[..]..=&b"k19"[..]).contains(&key)
}

type Last = Shared<HashMap<(Group, Topic, u32), Delivery>>;

fn repeats() -> Hooks {
    let (last, left) = (Last::default(), Shared::<HashSet<Group>>::default());
    let on_close = left.clone();
    Hooks {
        consume: Some(Box::new(move |side| {
            let (last, left, side) = (last.clone(), left.clone(), Arc::clone(side));
            let mut fresh: HashSet<(Topic, u32)> = HashSet::new();
            each_event(move |mut event| {
                let group = &side.subscription.group;
                if let Event::Assigned(list) = &event {
                    fresh.extend(list.iter().map(|a| (a.of.topic.clone(), a.of.partition)));
                }
                if let Event::Batch(batch) = &mut event {
                    let key = (group.clone(), batch.of.topic.clone(), batch.of.partition);
                    let first = fresh.remove(&(batch.of.topic.clone(), batch.of.partition));
                    let before = last.lock().get(&key).cloned();
                    if let (true, true, Some(before)) = (first, left.lock().contains(group), before) {
                        batch.deliveries.insert(0, before);
                    }
                    last.lock().extend(batch.deliveries.last().map(|delivery| (key, delivery.clone())));
                }
                vec![event]
            })
        })),
        control: ControlHooks {
            close: Some(Box::new(move |side, deadline| {
                if deadline == Duration::from_secs(5) {
                    on_close.lock().insert(side.subscription.group.clone());
                }
                side.control.close(deadline)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

/// An ack of a static name's former owner is taken for one of who owns the partition now, and takes effect.
fn takes_stale_acks() -> Hooks {
    let owners = Shared::<HashMap<(Group, Topic, u32), (Arc<dyn Control>, Owned)>>::default();
    let known = owners.clone();
    let key = |side: &Side, of: &Owned| (side.subscription.group.clone(), of.topic.clone(), of.partition);
    Hooks {
        consume: Some(Box::new(move |side| {
            let (owners, side) = (owners.clone(), Arc::clone(side));
            each_event(move |event| {
                if let Event::Assigned(list) = &event {
                    let now = |of: &Owned| (key(&side, of), (Arc::clone(&side.control), of.clone()));
                    owners.lock().extend(list.iter().map(|assignment| now(&assignment.of)));
                }
                vec![event]
            })
        })),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| match side.control.ack(of, done) {
                Err(error) if error.kind() == ErrorKind::Fenced && side.subscription.member.is_some() => {
                    match known.lock().get(&key(side, of)) {
                        Some((control, now)) => control.ack(now, done),
                        None => Err(error),
                    }
                }
                other => other,
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}

/// Where acks are stored every 10 ms, an ack is one of all that was delivered before it, too.
fn commits_past_open() -> Hooks {
    let soon = |side: &Side| side.subscription.ack_interval == Duration::from_millis(10);
    let delivered = Shared::<BTreeSet<(Group, Position)>>::default();
    let known = delivered.clone();
    Hooks {
        consume: Some(Box::new(move |side| {
            let (delivered, group) = (delivered.clone(), side.subscription.group.clone());
            each_batch(move |batch| {
                let positions = batch.deliveries.iter().map(|delivery| (group.clone(), delivery.position));
                delivered.lock().extend(positions);
            })
        })),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                let (Some(last), true) = (done.iter().max(), soon(side)) else {
                    return side.control.ack(of, done);
                };
                let group = &side.subscription.group;
                let before = |(of, position): &&(Group, Position)| of == group && position <= last;
                let all: Vec<Position> = known.lock().iter().filter(before).map(|(_, at)| *at).collect();
                side.control.ack(of, &all)
            })),
            ..ControlHooks::default()
        },
        ..Hooks::default()
    }
}
