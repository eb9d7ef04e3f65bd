//! Which call fails, and how: pure, seeded, so that a run can be repeated.
//!
//! Not here: what failing means for a call (`wrap/fault/mod.rs`, `consumer.rs`).

use crate::{Error, ErrorKind, Result};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::time::Duration;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`MessageBroker::publish`](crate::MessageBroker::publish), decided for each message.
    Publish,
    /// [`Control::forward`](crate::Control::forward), decided for each call.
    Forward,
    /// [`Control::ack`](crate::Control::ack).
    Ack,
    /// [`Control::confirm`](crate::Control::confirm).
    Confirm,
    /// [`Control::flush`](crate::Control::flush): every partition that is owned is named.
    Flush,
    /// [`Consumer::poll_next`](crate::Consumer::poll_next): the consumer ends with that error.
    Poll,
    /// [`MessageBroker::subscribe`](crate::MessageBroker::subscribe).
    Subscribe,
    /// [`MessageBroker::read`](crate::MessageBroker::read).
    Read,
    /// Every call of [`Admin`](crate::Admin).
    Admin,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// Nothing is done, and that is said: publishing answers *not written*, everything else the error.
    Refuse(ErrorKind),
    /// Nothing is done, and nobody can tell: *unknown*. For `Publish` and `Forward`.
    LoseRequest(ErrorKind),
    /// It is done, and nobody can tell: *unknown*. For `Publish` and `Forward`.
    LoseAnswer(ErrorKind),
    /// It is done twice, and answered once. For `Publish`.
    Duplicate,
    /// It is done at once and answered later. For `Publish`, `Forward`, `Confirm` and `Flush`.
    Delay(Duration),
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Times {
    /// The next so many.
    Next(u32),
    /// Until [`Fault::heal`](super::Fault::heal).
    Always,
    /// Each with this probability, by a generator started with `seed`.
    Share {
        /// 0 to 1.
        probability: f64,
        /// The same seed makes the same choices in the same order of calls.
        seed: u64,
    },
}

#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    operation: Operation,
    injection: Injection,
    when: When,
}

#[derive(Debug)]
enum When {
    Left(u32),
    Always,
    Share(f64, Box<SmallRng>),
}

impl Script {
    pub(super) fn add(&mut self, operation: Operation, injection: Injection, times: Times) -> Result<()> {
        use Operation::{Confirm, Flush, Forward, Publish};
        let fits = match injection {
            Injection::Refuse(_) => true,
            Injection::LoseRequest(_) | Injection::LoseAnswer(_) => matches!(operation, Publish | Forward),
            Injection::Duplicate => operation == Publish,
            Injection::Delay(_) => matches!(operation, Publish | Forward | Confirm | Flush),
        };
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why).during("inject a fault"));
        if !fits {
            return invalid(format!("{injection:?} cannot happen to {operation:?}; see `Injection`"));
        }
        let when = match times {
            Times::Next(left) => When::Left(left),
            Times::Always => When::Always,
            Times::Share { probability, seed } if (0.0..=1.0).contains(&probability) => {
                When::Share(probability, Box::new(SmallRng::seed_from_u64(seed)))
            }
            Times::Share { probability, .. } => {
                return invalid(format!("a probability is 0 to 1, not {probability}"));
            }
        };
        self.rules.push(Rule { operation, injection, when });
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// What happens to the next call of that kind: the first rule that fires.
    pub(super) fn next(&mut self, operation: Operation) -> Option<Injection> {
        for rule in self.rules.iter_mut().filter(|rule| rule.operation == operation) {
            let fires = match &mut rule.when {
                When::Left(0) => false,
                When::Left(left) => {
                    *left -= 1;
                    true
                }
                When::Always => true,
                When::Share(probability, generator) => generator.random_bool(*probability),
            };
            if fires {
                return Some(rule.injection);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fire_as_often_as_asked_and_a_seed_repeats() {
        let mut script = Script::default();
        let refuse = Injection::Refuse(ErrorKind::Throttled);
        script.add(Operation::Ack, refuse, Times::Next(2)).unwrap();
        let fired: Vec<_> = (0..4).map(|_| script.next(Operation::Ack).is_some()).collect();
        assert_eq!(fired, [true, true, false, false]);
        assert_eq!(script.next(Operation::Publish), None);
        let run = |seed| {
            let mut script = Script::default();
            script.add(Operation::Publish, refuse, Times::Share { probability: 0.3, seed }).unwrap();
            (0..200).map(|_| script.next(Operation::Publish).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let count = run(7).into_iter().filter(|fired| *fired).count();
        assert!((30..90).contains(&count), "{count}");
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        let mut script = Script::default();
        let error = script.add(Operation::Ack, Injection::Duplicate, Times::Always).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let share = Times::Share { probability: 1.5, seed: 0 };
        assert!(script.add(Operation::Publish, Injection::Duplicate, share).is_err());
    }
}
