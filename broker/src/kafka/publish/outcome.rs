//! From what the client library reports of records to what became of messages.
//!
//! The persistence status of a report decides, and nothing else: the same code comes with messages that are in the log and with others that are not.
//! Pure. Not here: where reports come from (`../raw`), when nobody waits for them any longer (`answer.rs`).

use super::{
    super::{
        facts::Described,
        failure::{self, BACKEND},
        raw::{Code, Report, Trouble, Written},
    },
    placing::Placed,
};
use crate::{Error, ErrorKind, Message, Outcomes, Published, Target};
use std::{mem, sync::Arc};

/// A batch that was handed to the client library, or a part of it, without what it said of it.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) to: Target,
    /// The whole batch.
    pub(super) messages: Arc<Vec<Message>>,
    /// What was handed over of it, in order.
    pub(super) placed: Vec<Placed>,
    /// What was not, by place in the batch, in order.
    pub(super) refused: Vec<(u32, Error)>,
    pub(super) described: Arc<Described>,
    pub(super) servers: Arc<str>,
}

impl Batch {
    /// What became of each message. `report` is asked once for each that was handed over, in order: `None` is one of which nothing was heard.
    pub(super) fn outcomes(mut self, mut report: impl FnMut() -> Option<Report>) -> Outcomes {
        let durability = self.described.durability();
        let mut outcomes = Vec::with_capacity(self.placed.len() + self.refused.len());
        let mut refused = mem::take(&mut self.refused).into_iter();
        let mut last = None;
        for Placed { at, .. } in &self.placed {
            while refused.as_slice().first().is_some_and(|(place, _)| place < at) {
                outcomes.extend(refused.next().map(|refused| self.not_handed(refused)));
            }
            outcomes.push(match report() {
                Some(Report { written: Written::Yes, partition, offset, .. }) => Published::Acked {
                    partition: u32::try_from(partition).unwrap_or_default(),
                    position: self.described.at(offset),
                    durability,
                },
                report => self.failed(*at, report, &mut last),
            });
        }
        outcomes.extend(refused.map(|refused| self.not_handed(refused)));
        Outcomes(outcomes)
    }

    /// One that was handed over and is not known to be in the log. Most failures of a batch are the same, so `last` is the latest: one text for all of them.
    fn failed(&self, at: u32, report: Option<Report>, last: &mut Option<(Code, Error)>) -> Published {
        let Some(report) = report else {
            let error = told(&self.to, unheard(&self.servers, &self.described));
            return Published::unknown(error, self.message(at));
        };
        let error = match last {
            Some((code, error)) if *code == report.code => error.clone(),
            _ => {
                let why = reason(&self.servers, &self.described, report.code, report.written);
                last.insert((report.code, told(&self.to, why))).1.clone()
            }
        };
        match report.written {
            Written::No => Published::not_written(error, self.message(at)),
            Written::Yes | Written::Perhaps => Published::unknown(error, self.message(at)),
        }
    }

    fn not_handed(&self, (at, error): (u32, Error)) -> Published {
        Published::not_written(told(&self.to, error), self.message(at))
    }

    /// Only what failed is given back.
    fn message(&self, at: u32) -> Message {
        self.messages[at as usize].clone()
    }
}

/// An error of publishing there.
pub(super) fn told(to: &Target, error: Error) -> Error {
    error.during(format!("publish to topic {:?}", to.topic)).on(BACKEND)
}

/// Nothing was heard until the deadline.
fn unheard(servers: &str, described: &Described) -> Error {
    match described.hindered() {
        Some(why) => {
            Error::new(ErrorKind::Unavailable, format!("kafka {servers} did not answer in time: {why}"))
        }
        None => failure::late(servers),
    }
}

/// Why a record was not acked.
fn reason(servers: &str, described: &Described, code: Code, written: Written) -> Error {
    match code {
        // Each message was measured before: it went with others into a batch that the topic did not take.
        Code::MSG_SIZE_TOO_LARGE => Error::new(
            ErrorKind::Unavailable,
            format!(
                "kafka {servers} did not take the batch it was in, which is larger than the topic's max.message.bytes is now; try again"
            ),
        ),
        Code::MSG_TIMED_OUT | Code::TIMED_OUT => unheard(servers, described),
        Code::NONE => Error::new(
            ErrorKind::Unavailable,
            format!(
                "kafka {servers} took what was sent behind it, and did not say whether it took this; publish it again"
            ),
        ),
        Code::PURGE_QUEUE | Code::PURGE_INFLIGHT => {
            Error::new(ErrorKind::Closed, "the broker was closed before the servers answered; open it again")
        }
        Code::FATAL => Error::new(
            ErrorKind::Unavailable,
            format!(
                "kafka {servers} refused the sequence of this publisher, which begins a new one; try again"
            ),
        ),
        code => {
            let error = failure::failed(servers, &Trouble { code, text: code.text() });
            // What is perhaps written is not wrong as it stands.
            match written {
                Written::Perhaps if !error.is_retryable() => {
                    Error::new(ErrorKind::Unavailable, error.context().to_owned())
                }
                _ => error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Durability, Position, Topic,
        kafka::facts::{PartitionFacts, TopicConfig},
    };

    fn placed(places: impl IntoIterator<Item = u32>) -> Vec<Placed> {
        places.into_iter().map(|at| Placed { at, partition: 3 }).collect()
    }

    fn batch(count: usize, refused: Vec<(u32, Error)>) -> Batch {
        let facts = PartitionFacts { led: true, replicas: 1, in_sync: 1 };
        Batch {
            to: Target::from(Topic::new("orders").unwrap()),
            messages: Arc::new(
                (0..count).map(|i| Message::builder().payload(i.to_string()).build()).collect(),
            ),
            placed: placed((0..count as u32).filter(|at| refused.iter().all(|(place, _)| place != at))),
            refused,
            described: Arc::new(Described::new([7; 16], vec![facts; 4], TopicConfig::parse(|_| None))),
            servers: "h:1".into(),
        }
    }

    const fn report(written: Written, code: Code, offset: i64) -> Option<Report> {
        Some(Report { written, code, partition: 3, offset })
    }

    fn outcomes(batch: Batch, reports: Vec<Option<Report>>) -> Vec<Published> {
        let mut reports = reports.into_iter();
        let outcomes = batch.outcomes(|| reports.next().flatten()).0;
        assert!(reports.next().is_none(), "each report was asked for");
        outcomes
    }

    #[test]
    fn the_status_decides_whatever_the_code_says() {
        let batch = batch(5, Vec::new());
        let sent = batch.messages.clone();
        let life = batch.described.life;
        let all = outcomes(
            batch,
            vec![
                report(Written::Yes, Code::NONE, 41),
                report(Written::No, Code::MSG_TIMED_OUT, 99),
                report(Written::Perhaps, Code::MSG_TIMED_OUT, 99),
                // Concluded from what came behind it: nobody says where it is.
                report(Written::Perhaps, Code::NONE, -1),
                None,
            ],
        );
        let acked = |outcome: &Published| match outcome {
            Published::Acked { partition, position, durability } => {
                Some((*partition, *position, *durability))
            }
            _ => None,
        };
        assert_eq!(acked(&all[0]), Some((3, Some(Position(life, 41)), Durability::ProcessCrash)));
        assert!(matches!(&all[1], Published::NotWritten(failed) if failed.message == sent[1]));
        assert!(matches!(&all[2], Published::Unknown(failed) if failed.message == sent[2]));
        assert!(
            matches!(&all[3], Published::Unknown(failed) if failed.message == sent[3] && failed.error.is_retryable() && failed.error.to_string().contains("did not say"))
        );
        assert!(
            matches!(&all[4], Published::Unknown(failed) if failed.message == sent[4] && failed.error.kind() == ErrorKind::Unavailable)
        );
    }

    #[test]
    fn what_was_refused_stands_at_its_place() {
        let large = Error::new(ErrorKind::TooLarge, "too large");
        let all = outcomes(
            batch(4, vec![(0, large.clone()), (2, large)]),
            vec![report(Written::Yes, Code::NONE, 1), report(Written::Yes, Code::NONE, 2)],
        );
        let kinds: Vec<_> =
            all.iter().map(|outcome| outcome.failed().map(|failed| failed.error.kind())).collect();
        assert_eq!(kinds, [Some(ErrorKind::TooLarge), None, Some(ErrorKind::TooLarge), None]);
        let error = &all[0].failed().unwrap().error;
        assert_eq!((error.backend(), error.operation()), ("kafka", "publish to topic \"orders\""));
    }

    #[test]
    fn a_part_answers_for_its_own_messages() {
        let large = Error::new(ErrorKind::TooLarge, "too large");
        let mut batch = batch(6, vec![(4, large)]);
        batch.placed = placed([1, 5]);
        let sent = batch.messages.clone();
        let all = outcomes(
            batch,
            vec![report(Written::No, Code::MSG_TIMED_OUT, -1), report(Written::Yes, Code::NONE, 9)],
        );
        assert!(matches!(&all[0], Published::NotWritten(failed) if failed.message == sent[1]));
        assert!(matches!(&all[1], Published::NotWritten(failed) if failed.message == sent[4]));
        assert!(all[2].is_acked() && all.len() == 3);
    }

    #[test]
    fn failures_say_what_can_be_done() {
        for (code, written, kind, why) in [
            (Code::MSG_SIZE_TOO_LARGE, Written::No, ErrorKind::Unavailable, "max.message.bytes"),
            (Code::MSG_TIMED_OUT, Written::No, ErrorKind::Unavailable, "h:1"),
            (Code::PURGE_QUEUE, Written::No, ErrorKind::Closed, "closed"),
            (Code::FATAL, Written::Perhaps, ErrorKind::Unavailable, "sequence"),
            (Code::UNKNOWN_TOPIC_OR_PART, Written::No, ErrorKind::NotFound, "create"),
            (Code::TOPIC_AUTHORIZATION_FAILED, Written::No, ErrorKind::Unauthorized, "kafka-acls"),
            (Code::TOPIC_AUTHORIZATION_FAILED, Written::Perhaps, ErrorKind::Unavailable, "kafka-acls"),
        ] {
            let all = outcomes(batch(1, Vec::new()), vec![report(written, code, -1)]);
            let error = &all[0].failed().unwrap().error;
            assert_eq!(error.kind(), kind, "{code:?}");
            assert!(error.context().contains(why), "{error}");
        }
    }

    #[test]
    fn too_few_replicas_are_named_where_nothing_was_heard() {
        let mut batch = batch(1, Vec::new());
        let facts = PartitionFacts { led: true, replicas: 3, in_sync: 1 };
        let config = TopicConfig { min_insync: 2, ..TopicConfig::parse(|_| None) };
        batch.described = Arc::new(Described::new([7; 16], vec![facts], config));
        let all = outcomes(batch, vec![report(Written::No, Code::MSG_TIMED_OUT, -1)]);
        let error = &all[0].failed().unwrap().error;
        assert!(error.context().contains("1 replicas in sync and needs 2"), "{error}");
    }
}
