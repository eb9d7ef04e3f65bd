//! Doubles for the checks of `forward.rs`.
//!
//! Not here: what doubles share (`lost.rs`).

use super::{
    hooks::{ControlHooks, Double, Hooks, Side, double, now},
    lost::{Hidden, hiding},
};
use ropeway_broker::{Answer, ErrorKind, Message, Outcomes, Owned, Position, Published, Target};
use std::sync::Arc;

pub(crate) fn doubles() -> Vec<Double> {
    vec![
        double("forward_publishes_and_acks", "forwards without an ack", || {
            forwarding(|side, of, done, out| {
                let done = if done.len() == 2 { &[] } else { done };
                side.control.forward(of, done, out)
            })
        }),
        double("forward_to_several_topics_keeps_outcomes_in_order", "answers in an order of its own", || {
            forwarding(|side, of, done, out| {
                let several = out.len() == 5;
                changed(side.control.forward(of, done, out), move |outcomes| {
                    if several {
                        outcomes.0.reverse();
                    }
                })
            })
        }),
        double("forward_is_all_or_nothing", "writes what is good of a forward it refuses", halves),
        double("forward_that_is_refused_acks_nothing", "acks what it could not forward", acks_refused),
        double("forward_by_a_former_owner_writes_nothing", "publishes for a former owner", for_former),
        double("a_dropped_answer_of_forward_takes_nothing_back", "forwards when somebody waits", || {
            forwarding(|side, of, done, out| {
                let (control, of, done) = (Arc::clone(&side.control), of.clone(), done.to_vec());
                Box::pin(async move { control.forward(&of, &done, out).await })
            })
        }),
        double("forward_survives_a_crash_whole", "loses one half of a forward in a crash", one_half),
        double("confirm_tells_who_owns_the_partition", "confirms everybody", || Hooks {
            control: ControlHooks {
                confirm: Some(Box::new(|side, answer| {
                    if side.subscription.member.is_some() { answer } else { now(Ok(())) }
                })),
                ..ControlHooks::default()
            },
            ..Hooks::default()
        }),
    ]
}

fn forwarding(
    forward: impl Fn(&Side, &Owned, &[Position], Vec<(Target, Message)>) -> Answer<Outcomes>
    + Send
    + Sync
    + 'static,
) -> Hooks {
    let control = ControlHooks { forward: Some(Box::new(forward)), ..ControlHooks::default() };
    Hooks { control, ..Hooks::default() }
}

fn changed(
    answer: Answer<Outcomes>,
    change: impl FnOnce(&mut Outcomes) + Send + 'static,
) -> Answer<Outcomes> {
    Box::pin(async move {
        let mut outcomes = answer.await;
        change(&mut outcomes);
        outcomes
    })
}

fn is_failure(outcomes: &Outcomes, kind: ErrorKind) -> bool {
    let mut failed = outcomes.0.iter().filter_map(Published::failed);
    failed.any(|failed| failed.error.kind() == kind)
}

fn halves() -> Hooks {
    forwarding(|side, of, done, out| {
        let (broker, answer) = (Arc::clone(&side.scene.broker), side.control.forward(of, done, out.clone()));
        Box::pin(async move {
            let outcomes = answer.await;
            if is_failure(&outcomes, ErrorKind::TooLarge) {
                for (to, message) in out.into_iter().filter(|(_, message)| message.size() < 1000) {
                    _ = broker.publish(&to, vec![message]).await;
                }
            }
            outcomes
        })
    })
}

fn acks_refused() -> Hooks {
    forwarding(|side, of, done, out| {
        let (control, of, done) = (Arc::clone(&side.control), of.clone(), done.to_vec());
        changed(side.control.forward(&of, &done, out), move |outcomes| {
            if is_failure(outcomes, ErrorKind::NotFound) {
                _ = control.ack(&of, &done);
            }
        })
    })
}

fn for_former() -> Hooks {
    forwarding(|side, of, done, out| {
        let (broker, named) = (Arc::clone(&side.scene.broker), side.subscription.member.is_some());
        let answer = side.control.forward(of, done, out.clone());
        Box::pin(async move {
            let outcomes = answer.await;
            if !named && is_failure(&outcomes, ErrorKind::Fenced) {
                for (to, message) in out {
                    _ = broker.publish(&to, vec![message]).await;
                }
            }
            outcomes
        })
    })
}

fn one_half() -> Hooks {
    let (hidden, written) = (Hidden::default(), Hidden::default());
    let (for_readers, to_hide) = (hidden.clone(), hidden);
    let mut hooks = {
        let written = written.clone();
        forwarding(move |side, of, done, out| {
            let (written, targets) = (written.clone(), out.iter().map(|(to, _)| to.topic.clone()));
            let targets: Vec<_> = targets.collect();
            changed(side.control.forward(of, done, out), move |outcomes| {
                for (topic, outcome) in targets.into_iter().zip(&outcomes.0) {
                    if let Published::Acked { partition, position: Some(position), .. } = outcome {
                        written.lock().insert((topic, *partition, *position));
                    }
                }
            })
        })
    };
    hooks.reopened = Some(Box::new(move |_| {
        to_hide.lock().extend(written.lock().iter().cloned());
        now(())
    }));
    hooks.read = Some(Box::new(move |_| hiding(for_readers.clone())));
    hooks
}
