//! Doubles for the checks of `publish.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{AdminHooks, Double, Hooks, Scene, Shared, double, now, text},
    lost::{Hidden, hiding, publishing},
};
use ropeway_broker::{
    Answer, Durability, Error, ErrorKind, Headers, Message, MessageId, Outcomes, Part, Position, Published,
    Target, TopicInfo, partition_for_key,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double(
            "each_message_of_a_batch_has_its_own_outcome",
            "refuses a whole batch for one message",
            whole_batch,
        ),
        double("what_is_not_written_is_given_back_as_it_was", "gives messages back without headers", bare),
        double("an_empty_batch_answers_an_empty_list", "answers something for nothing", something),
        double(
            "parts_of_a_batch_have_each_message_once_and_keep_the_order_of_calls",
            "tells the outcomes of a part in another order",
            || in_parts(|parts| parts.iter_mut().for_each(|part| part.places.reverse())),
        ),
        double(
            "parts_of_a_batch_have_each_message_once_and_keep_the_order_of_calls",
            "leaves a message out of its parts",
            || in_parts(|parts| parts.iter_mut().for_each(|part| _ = part.places.pop())),
        ),
        double("what_was_acked_survives_a_crash", "loses the last message in a crash", || after(true, 1)),
        double("what_was_acked_is_there_after_a_reopen", "loses a message when it is closed", || {
            after(false, 10)
        }),
        double("a_dropped_answer_takes_nothing_back", "publishes when somebody waits", lazy),
        double("an_answer_dropped_half_way_leaves_one_whole_copy", "publishes when polled twice", half_way),
        double(
            "with_much_in_flight_each_message_is_acked_or_refused_and_never_lost",
            "drops what overflows its buffer",
            || of_many(|_, _, _| now(acked_nowhere())),
        ),
        double(
            "with_much_in_flight_each_message_is_acked_or_refused_and_never_lost",
            "says not written of what is in the log",
            || of_many(not_written),
        ),
        double("a_repeated_id_is_written_once", "forgets which ids it saw", forgetful),
        double("calls_keep_their_order", "turns a batch of one key around", backwards),
        double(
            "publishers_at_the_same_time_lose_and_repeat_nothing",
            "writes a message twice under load",
            || twice(150),
        ),
        double(
            "a_partition_of_ones_own_choice_is_taken_whatever_the_key",
            "lets the key choose although a partition was named",
            || retarget(|to, batch| to.partition == Some(3) && batch.iter().all(|m| m.key.is_some())),
        ),
        double("a_partition_that_does_not_exist_is_refused", "writes elsewhere when told nowhere", elsewhere),
        double("a_key_goes_to_the_partition_of_the_java_client", "has a partitioner of its own", partitioner),
        double("messages_without_key_are_spread", "puts all without key into one partition", one_partition),
        double("a_durability_that_cannot_be_given_is_refused", "takes no notice of `at_least`", careless),
        double("an_ack_tells_what_the_topic_promises", "describes more than it acks", boasting),
        double("an_ack_tells_where_the_message_lies", "tells the position after", position_after),
    ]
}

fn whole_batch() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            if batch.len() > 1 && batch.iter().any(|message| message.size() > 1 << 20) {
                let error = Error::new(ErrorKind::TooLarge, "one of the messages is too large");
                return now(Outcomes::all_not_written(&error, batch));
            }
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

/// Changes the parts of large batches.
fn in_parts(change: fn(&mut [Part])) -> Hooks {
    Hooks {
        publish_in_parts: Some(Box::new(move |scene, to, batch| {
            let mut parts = scene.broker.publish_in_parts(to, batch);
            if batch.len() > 500 {
                change(&mut parts);
            }
            parts
        })),
        ..Hooks::default()
    }
}

fn bare() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            let answer = scene.broker.publish(to, batch);
            Box::pin(async move {
                let mut outcomes = answer.await;
                for outcome in &mut outcomes.0 {
                    if let Published::NotWritten(failed) = outcome
                        && failed.error.kind() == ErrorKind::NotFound
                    {
                        failed.message.headers = Headers::new();
                    }
                }
                outcomes
            })
        })),
        ..Hooks::default()
    }
}

fn something() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            if batch.is_empty() {
                let error = Error::new(ErrorKind::Invalid, "there is nothing to publish");
                return now(Outcomes(vec![Published::not_written(error, Message::builder().build())]));
            }
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

/// Hides the last message of the last batch of that size, after a crash or a close.
fn after(crash: bool, size: usize) -> Hooks {
    let (hidden, last) =
        (Hidden::default(), Shared::<Option<(ropeway_broker::Topic, u32, Position)>>::default());
    let (to_hide, known, for_readers) = (hidden.clone(), last.clone(), hidden.clone());
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let (answer, known, topic, right) = (
                scene.broker.publish(to, batch.clone()),
                known.clone(),
                to.topic.clone(),
                batch.len() == size,
            );
            Box::pin(async move {
                let outcomes = answer.await;
                if let (true, Some(Published::Acked { partition, position: Some(position), .. })) =
                    (right, outcomes.0.last())
                {
                    *known.lock() = Some((topic, *partition, *position));
                }
                outcomes
            })
        })),
        reopened: Some(Box::new(move |scene| {
            if scene.crashed == crash {
                to_hide.lock().extend(last.lock().take());
            }
            now(())
        })),
        consume: Some(Box::new(move |_| hiding(hidden.clone()))),
        read: Some(Box::new(move |_| hiding(for_readers.clone()))),
        ..Hooks::default()
    }
}

fn lazy() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            if batch.len() != 2 || batch.iter().any(|message| message.key.is_some()) {
                return scene.broker.publish(to, batch);
            }
            let (broker, to) = (Arc::clone(&scene.broker), to.clone());
            Box::pin(async move { broker.publish(&to, batch).await })
        })),
        ..Hooks::default()
    }
}

fn half_way() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            if batch.iter().all(|message| message.size() < 20_000 || message.size() > 20_010) {
                return scene.broker.publish(to, batch);
            }
            let (broker, to) = (Arc::clone(&scene.broker), to.clone());
            Box::pin(async move {
                tokio::task::yield_now().await;
                broker.publish(&to, batch).await
            })
        })),
        ..Hooks::default()
    }
}

/// One of many messages of 64 KiB is answered otherwise.
fn of_many(answer: fn(&Scene, &Target, Vec<Message>) -> Answer<Outcomes>) -> Hooks {
    let count = AtomicUsize::new(0);
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let large = batch.iter().all(|m| m.payload.as_ref().is_some_and(|p| p.len() == 65_536));
            if batch.len() == 1 && large && count.fetch_add(1, Ordering::Relaxed) == 200 {
                return answer(scene, to, batch);
            }
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

fn acked_nowhere() -> Outcomes {
    let (partition, position) = (0, Some(Position(1, 1)));
    Outcomes(vec![Published::Acked { partition, position, durability: Durability::Volatile }])
}

/// It is in the log when this is said.
fn not_written(scene: &Scene, to: &Target, batch: Vec<Message>) -> Answer<Outcomes> {
    let answer = scene.broker.publish(to, batch.clone());
    Box::pin(async move {
        drop(answer.await);
        let error = Error::new(ErrorKind::Throttled, "there is no room for it");
        Outcomes::all_not_written(&error, batch)
    })
}

fn forgetful() -> Hooks {
    let seen = Shared::<HashSet<MessageId>>::default();
    Hooks {
        publish: Some(Box::new(move |scene, to, mut batch| {
            for message in &mut batch {
                if !seen.lock().insert(message.id) {
                    message.id = MessageId::new();
                }
            }
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

fn backwards() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, mut batch| {
            let key = batch.first().and_then(|message| message.key.clone());
            if key.is_none() || batch.len() < 2 || batch.iter().any(|message| message.key != key) {
                return scene.broker.publish(to, batch);
            }
            batch.reverse();
            let answer = scene.broker.publish(to, batch);
            Box::pin(async move {
                let mut outcomes = answer.await;
                outcomes.0.reverse();
                outcomes
            })
        })),
        ..Hooks::default()
    }
}

fn twice(nth: usize) -> Hooks {
    let count = AtomicUsize::new(1);
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let single = batch.len() == 1 && batch[0].key.is_some() && batch[0].size() < 1000;
            if single && count.fetch_add(1, Ordering::Relaxed) == nth {
                drop(scene.broker.publish(to, batch.clone()));
            }
            scene.broker.publish(to, batch)
        })),
        ..Hooks::default()
    }
}

fn retarget(when: fn(&Target, &[Message]) -> bool) -> Hooks {
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let to = if when(to, &batch) { Target { partition: None, ..to.clone() } } else { to.clone() };
            scene.broker.publish(&to, batch)
        })),
        ..Hooks::default()
    }
}

fn elsewhere() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            let (broker, to) = (Arc::clone(&scene.broker), to.clone());
            let answer = broker.publish(&to, batch.clone());
            Box::pin(async move {
                let outcomes = answer.await;
                let nowhere = outcomes.0.iter().any(|outcome| {
                    outcome.failed().is_some_and(|failed| failed.error.kind() == ErrorKind::NotFound)
                });
                if !nowhere || to.partition.is_none() {
                    return outcomes;
                }
                broker.publish(&Target { partition: None, ..to }, batch).await
            })
        })),
        ..Hooks::default()
    }
}

fn partitioner() -> Hooks {
    let partitions = Shared::<HashMap<ropeway_broker::Topic, u32>>::default();
    let made = partitions.clone();
    Hooks {
        publish: Some(Box::new(move |scene, to, batch| {
            let mut to = to.clone();
            let count = partitions.lock().get(&to.topic).copied();
            if let (1, None, Some(count), Some(key)) =
                (batch.len(), to.partition, count, batch.first().and_then(|m| m.key.as_ref()))
            {
                to.partition = Some((partition_for_key(key, count) + 1) % count);
            }
            scene.broker.publish(&to, batch)
        })),
        admin: AdminHooks {
            create: Some(Box::new(move |scene, topic, spec| {
                made.lock().insert(topic.clone(), spec.partitions);
                let broker = Arc::clone(&scene.broker);
                Box::pin(async move { broker.admin().create_topic(&topic, spec).await })
            })),
            ..AdminHooks::default()
        },
        ..Hooks::default()
    }
}

fn one_partition() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            let keyless = batch.iter().all(|message| message.key.is_none());
            let partition = if keyless { to.partition.or(Some(0)) } else { to.partition };
            scene.broker.publish(&Target { partition, ..to.clone() }, batch)
        })),
        ..Hooks::default()
    }
}

fn careless() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            scene.broker.publish(&Target { at_least: None, ..to.clone() }, batch)
        })),
        ..Hooks::default()
    }
}

fn boasting() -> Hooks {
    Hooks {
        admin: AdminHooks {
            describe: Some(Box::new(|described| {
                described.map(|info| TopicInfo { durability: Durability::Replicated, ..info })
            })),
            ..AdminHooks::default()
        },
        ..publishing(|_, _| {})
    }
}

fn position_after() -> Hooks {
    Hooks {
        publish: Some(Box::new(|scene, to, batch| {
            let wrong = to.partition == Some(2) && batch.len() == 1 && text(&batch[0]).parse::<u8>().is_ok();
            let answer = scene.broker.publish(to, batch);
            Box::pin(async move {
                let mut outcomes = answer.await;
                for outcome in outcomes.0.iter_mut().filter(|_| wrong) {
                    if let Published::Acked { position, .. } = outcome {
                        *position = position.map(Position::next);
                    }
                }
                outcomes
            })
        })),
        ..Hooks::default()
    }
}
