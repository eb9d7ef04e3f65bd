//! Doubles for the checks of `delay.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, Double, Hooks, Shared, double, each_batch, each_event, text},
    lost::{delivering, publishing},
};
use ropeway_broker::{Event, Message, MessageId, Target, Topic, TopicInfo};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("a_delayed_message_is_never_early_and_comes_once", "is early", || {
            publishing(|scene, message| {
                let ahead = message.deliver_at.map(|at| at.since(scene.now()).as_millis());
                if ahead.is_some_and(|ahead| (650..=720).contains(&ahead)) {
                    message.deliver_at = message.deliver_at.map(|at| at - Duration::from_millis(400));
                }
            })
        }),
        double(
            "a_delayed_message_does_not_hold_others_back",
            "holds others back for a delayed one",
            holds_back,
        ),
        double(
            "delayed_messages_come_when_each_is_due",
            "delivers delayed messages out of turn",
            out_of_turn,
        ),
        double("what_is_due_already_is_delivered_at_once", "makes what is due wait", || {
            publishing(|scene, message| {
                let now = scene.now();
                message.deliver_at = message.deliver_at.map(|at| if at <= now { now + WAIT } else { at });
            })
        }),
        double("what_was_cancelled_is_not_delivered", "says it cancelled what it did not", says_cancelled),
        double("what_cannot_be_cancelled_says_so", "says it cancelled what it does not know", || {
            cancelling(|known, answer| answer || !known)
        }),
        double("delayed_messages_are_counted", "counts no delayed messages", || Hooks {
            admin: AdminHooks {
                describe: Some(Box::new(|described| {
                    described.map(|info| TopicInfo { delayed: info.delayed.map(|_| 0), ..info })
                })),
                ..AdminHooks::default()
            },
            ..Hooks::default()
        }),
        double("delayed_messages_survive_a_reopen", "loses delayed messages when it is closed", || {
            loses_delayed(|ahead| ahead >= Duration::from_secs(1))
        }),
        double(
            "what_became_due_while_closed_is_delivered",
            "loses what becomes due while it is closed",
            || loses_delayed(|ahead| ahead < Duration::from_secs(1)),
        ),
        double(
            "a_delete_takes_delayed_messages_with_it",
            "keeps delayed messages of a deleted topic",
            keeps_delayed,
        ),
        double("a_delayed_message_arrives_as_sent", "does not tell that a message was delayed", || {
            delivering(|message| message.deliver_at = None)
        }),
    ]
}

const WAIT: Duration = Duration::from_secs(10);

/// What was published for later, and how far ahead.
type Ahead = Shared<HashMap<MessageId, Duration>>;

fn noting(ahead: &Ahead) -> Hooks {
    let ahead = ahead.clone();
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let now = scene.now();
            let later = batch.iter().filter_map(|m| Some((m.id, m.deliver_at?.since(now))));
            ahead.lock().extend(later);
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

fn holds_back() -> Hooks {
    let held = Shared::<HashSet<Topic>>::default();
    let on_publish = held.clone();
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let far = scene.now() + Duration::from_secs(3000);
            if batch.iter().any(|message| message.deliver_at > Some(far)) {
                on_publish.lock().insert(to.topic.clone());
            }
            scene.broker.publish(to, batch)
        })),
        consume: Some(Box::new(move |_| {
            let held = held.clone();
            each_batch(move |batch| {
                if held.lock().contains(&batch.of.topic) {
                    batch.deliveries.retain(|delivery| delivery.message.deliver_at.is_some());
                }
            })
        })),
        ..Hooks::default()
    }
}

fn out_of_turn() -> Hooks {
    Hooks {
        consume: Some(Box::new(|_| {
            let mut held = Vec::new();
            each_event(move |event| match event {
                Event::Batch(batch)
                    if batch.deliveries.len() == 1
                        && batch.deliveries[0].message.deliver_at.is_some()
                        && text(&batch.deliveries[0].message) == "0" =>
                {
                    held.push(Event::Batch(batch));
                    Vec::new()
                }
                other => std::iter::once(other).chain(held.drain(..)).collect(),
            })
        })),
        ..Hooks::default()
    }
}

fn says_cancelled() -> Hooks {
    let ahead = Ahead::default();
    let mut hooks = noting(&ahead);
    hooks.admin.cancel = Some(Box::new(move |scene, topic, id| {
        let near = ahead.lock().get(&id).is_some_and(|ahead| (3000..4500).contains(&ahead.as_millis()));
        let broker = Arc::clone(&scene.broker);
        Box::pin(async move { if near { Ok(true) } else { broker.admin().cancel_delayed(&topic, id).await } })
    }));
    hooks
}

fn cancelling(answer: fn(bool, bool) -> bool) -> Hooks {
    let ahead = Ahead::default();
    let mut hooks = noting(&ahead);
    hooks.admin.cancel = Some(Box::new(move |scene, topic, id| {
        let known = ahead.lock().contains_key(&id);
        let broker = Arc::clone(&scene.broker);
        Box::pin(
            async move { broker.admin().cancel_delayed(&topic, id).await.map(|done| answer(known, done)) },
        )
    }));
    hooks
}

fn loses_delayed(lost: fn(Duration) -> bool) -> Hooks {
    let ahead = Ahead::default();
    let mut hooks = noting(&ahead);
    hooks.consume = Some(Box::new(move |side| {
        let (ahead, reopened) = (ahead.clone(), side.scene.opens > 1);
        each_batch(move |batch| {
            let ahead = ahead.lock();
            let is_lost = |id: &MessageId| reopened && ahead.get(id).is_some_and(|ahead| lost(*ahead));
            batch.deliveries.retain(|delivery| !is_lost(&delivery.message.id));
        })
    }));
    hooks
}

fn keeps_delayed() -> Hooks {
    let delayed = Shared::<HashMap<Topic, Vec<(Target, Message)>>>::default();
    let (on_create, deleted) = (delayed.clone(), Shared::<HashSet<Topic>>::default());
    let on_delete = deleted.clone();
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let later = batch.iter().filter(|message| message.deliver_at.is_some());
            let later = later.map(|message| (to.clone(), message.clone()));
            delayed.lock().entry(to.topic.clone()).or_default().extend(later);
            scene.broker.publish(to, batch)
        })),
        admin: AdminHooks {
            delete: Some(Box::new(move |scene, topic| {
                on_delete.lock().insert(topic.clone());
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().delete_topic(&topic).await })
            })),
            create: Some(Box::new(move |scene, topic, spec| {
                let again = deleted.lock().remove(&topic);
                let kept = if again { on_create.lock().remove(&topic) } else { None };
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move {
                    broker.admin().create_topic(&topic, spec).await?;
                    for (to, message) in kept.into_iter().flatten() {
                        _ = broker.publish(&to, vec![message]).await;
                    }
                    Ok(())
                })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}
