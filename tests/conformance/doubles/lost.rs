//! Differences that several doubles share: acks that get lost on the way, messages that come by a side door, a broker that hides some.
//!
//! Not here: the doubles themselves (a file per group of checks).

use super::hooks::{ControlHooks, Hooks, Scene, Shared, Side, Tap, each_batch, each_event};
use futures::FutureExt;
use ropeway_broker::{Delivery, Event, Group, Message, Owned, Position, Reader, Retention, Start, Topic};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// When the acks that were given last, and that nothing followed, get lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    GiveUp,
    Drop,
    BrokerClose,
}

#[derive(Default)]
struct Lane {
    seen: BTreeMap<Position, Message>,
    pending: Vec<Position>,
    again: Vec<Position>,
}

type Lanes = Shared<HashMap<(Group, Topic, u32), Lane>>;

fn lazy(side: &Side) -> bool {
    side.subscription.ack_interval >= Duration::from_secs(60)
}

/// Loses the acks of one call, of that many positions, when the next thing that happens is `moment`: what they were for comes again.
pub(crate) fn losing(moment: Moment, count: usize) -> Hooks {
    let lanes = Lanes::default();
    let lose = move |lane: &mut Lane| {
        let pending = std::mem::take(&mut lane.pending);
        if pending.len() == count {
            lane.again = pending;
        }
    };
    let (on_ack, on_flush, on_give_up, on_drop, on_close) =
        (lanes.clone(), lanes.clone(), lanes.clone(), lanes.clone(), lanes.clone());
    Hooks {
        consume: Some(Box::new(move |side| again(side, lanes.clone()))),
        control: ControlHooks {
            ack: Some(Box::new(move |side, of, done| {
                side.control.ack(of, done)?;
                let mut lanes = on_ack.lock();
                lanes.entry(key(side, of)).or_default().pending = done.to_vec();
                Ok(())
            })),
            flush: Some(Box::new(move |side| {
                on_flush.lock().values_mut().for_each(|lane| lane.pending.clear());
                side.control.flush()
            })),
            give_up: Some(Box::new(move |side, of| {
                if moment == Moment::GiveUp && lazy(side) {
                    on_give_up.lock().get_mut(&key(side, of)).map(lose);
                }
                side.control.give_up(of);
            })),
            ..ControlHooks::default()
        },
        dropped: Some(Box::new(move |side| {
            if moment == Moment::Drop && lazy(side) {
                on_drop.lock().values_mut().for_each(lose);
            }
        })),
        close: Some(Box::new(move |scene, deadline| {
            if moment == Moment::BrokerClose {
                on_close.lock().values_mut().for_each(lose);
            }
            scene.broker.close(deadline)
        })),
        ..Hooks::default()
    }
}

fn key(side: &Side, of: &Owned) -> (Group, Topic, u32) {
    (side.subscription.group.clone(), of.topic.clone(), of.partition)
}

/// Remembers what comes, and lets what was lost come again with the next batch.
fn again(side: &Arc<Side>, lanes: Lanes) -> Tap {
    let (of_batch, of_poll, side) = (lanes.clone(), lanes, Arc::clone(side));
    let mut inner = each_batch(move |batch| {
        let mut lanes = of_batch.lock();
        let lane = lanes.entry(key(&side, &batch.of)).or_default();
        for position in std::mem::take(&mut lane.again) {
            if let Some(message) = lane.seen.get(&position) {
                batch.deliveries.push(Delivery { position, message: message.clone() });
            }
        }
        batch.deliveries.sort_by_key(|delivery| delivery.position);
        let seen = batch.deliveries.iter().map(|d| (d.position, d.message.clone()));
        lane.seen.extend(seen);
    });
    Box::new(move |source, cx| {
        of_poll.lock().values_mut().for_each(|lane| lane.pending.clear());
        inner(source, cx)
    })
}

/// A reader of what comes from now on, by which a consumer gets what it should not.
pub(crate) fn side_door(scene: &Scene, topic: &Topic, partition: u32) -> Option<Box<dyn Reader>> {
    let mut reader = scene.broker.read().now_or_never()?.ok()?;
    reader.follow(topic, Some(partition), Start::Latest).now_or_never()?.ok()?;
    Some(reader)
}

/// Readers by which a consumer gets what it should not, and as what it is told.
pub(crate) type Doors = Shared<Vec<(Owned, Box<dyn Reader>)>>;

/// A tap that also tells what comes by side doors.
pub(crate) fn by_side_doors(doors: Doors) -> Tap {
    Box::new(move |source, cx| {
        let polled = source(cx);
        if polled.is_ready() {
            return polled;
        }
        for (of, reader) in doors.lock().iter_mut() {
            while let Poll::Ready(Ok(event)) = reader.poll_next(cx) {
                if let Event::Batch(mut batch) = event {
                    batch.of = of.clone();
                    return Poll::Ready(Ok(Event::Batch(batch)));
                }
            }
        }
        Poll::Pending
    })
}

/// The same; `open` says which doors an event opens.
pub(crate) fn with_side_doors(
    mut open: impl FnMut(&Event) -> Vec<(Owned, Box<dyn Reader>)> + Send + 'static,
) -> Tap {
    let doors = Doors::default();
    let mut by_doors = by_side_doors(doors.clone());
    Box::new(move |source, cx| {
        let polled = by_doors(source, cx);
        if let Poll::Ready(Ok(event)) = &polled {
            doors.lock().extend(open(event));
        }
        polled
    })
}

/// Positions that nobody is to see.
pub(crate) type Hidden = Shared<BTreeSet<(Topic, u32, Position)>>;

/// A tap that hides them.
pub(crate) fn hiding(hidden: Hidden) -> Tap {
    each_batch(move |batch| {
        let hidden = hidden.lock();
        let of = &batch.of;
        batch.deliveries.retain(|d| !hidden.contains(&(of.topic.clone(), of.partition, d.position)));
    })
}

/// Consumers and readers tell each event as `map` has it.
pub(crate) fn telling(map: fn(Event) -> Vec<Event>) -> Hooks {
    Hooks { consume: Some(Box::new(move |_| each_event(map))), ..Hooks::default() }
}

/// Readers tell each event as `map` has it.
pub(crate) fn reading(map: fn(Event) -> Vec<Event>) -> Hooks {
    Hooks { read: Some(Box::new(move |_| each_event(map))), ..Hooks::default() }
}

/// Consumers and readers get each message as `map` has it.
pub(crate) fn delivering(map: fn(&mut Message)) -> Hooks {
    let tap = move || {
        each_batch(move |batch| batch.deliveries.iter_mut().for_each(|delivery| map(&mut delivery.message)))
    };
    Hooks {
        consume: Some(Box::new(move |_| tap())),
        read: Some(Box::new(move |_| tap())),
        ..Hooks::default()
    }
}

/// Messages are published as `map` has them.
pub(crate) fn publishing(map: fn(&Scene, &mut Message)) -> Hooks {
    Hooks {
        publish: Some(Box::new(move |scene, to, mut batch| {
            batch.iter_mut().for_each(|message| map(scene, message));
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

/// What a topic keeps.
pub(crate) fn kept(scene: &Scene, topic: &Topic) -> Option<Retention> {
    let described = scene.broker.admin().describe_topic(topic).now_or_never()?.ok()?;
    Some(described.spec.retention)
}

/// Members join as `map` has it.
pub(crate) fn joining(map: fn(&mut ropeway_broker::Subscription)) -> Hooks {
    Hooks {
        subscribe: Some(Box::new(move |scene, mut subscription| {
            map(&mut subscription);
            scene.broker.subscribe(subscription)
        })),
        ..Hooks::default()
    }
}
