//! Doubles for the checks of `order.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::hooks::{AdminHooks, ControlHooks, Double, Hooks, Shared, double, each_batch, each_event};
use ropeway_broker::{Delivery, ErrorKind, Event, Group, Position, Topic};
use std::{
    collections::{HashMap, HashSet},
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
        double("a_former_owner_can_neither_ack_nor_forward", "takes acks of a former owner", || Hooks {
            control: ControlHooks {
                ack: Some(Box::new(|side, of, done| match side.control.ack(of, done) {
                    Err(error) if error.kind() == ErrorKind::Fenced && side.subscription.member.is_some() => {
                        Ok(())
                    }
                    other => other,
                })),
                ..ControlHooks::default()
            },
            ..Hooks::default()
        }),
        double(
            "the_position_of_a_group_only_grows_and_never_passes_what_is_not_acked",
            "shows a position past what is not acked",
            passes,
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

fn passes() -> Hooks {
    Hooks {
        admin: AdminHooks {
            describe_group: Some(Box::new(|described| {
                let mut info = described?;
                for of in &mut info.partitions {
                    if of.lag > of.unfinished && of.lag >= Some(10) {
                        of.position = of.position.map(Position::next);
                    }
                }
                Ok(info)
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}
