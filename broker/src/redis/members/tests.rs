//! What a member decides, without a server: each test is told what the server answered, and looks at what is to be done and told.
//!
//! Not here: the scripts (`group_scripts.rs`), the contract on a real server (the conformance suite).

mod away;
mod confirms;
mod logs;
mod room;

use super::{
    core::{Core, Rules},
    duty::{Job, Stored},
    share::{Commit, Taken},
    table::{Counts, name, partition, tests::table},
};
use crate::{
    Bound, Epoch, Error, ErrorKind, Event, GapReason, Owned, Position, Result, Topic,
    balance::TopicPartition,
    members::{self, Core as _},
    redis::{
        feed::Brought,
        follow::{Counts as Counted, Entry, Marks},
        keys::Keys,
    },
};
use bytes::Bytes;
use std::{collections::BTreeMap, task::Waker, time::Duration};
use tokio::{sync::oneshot, time::Instant};

const LIFE: u64 = 5;
const DRAIN: Duration = Duration::from_secs(4);
const LEASE: Duration = Duration::from_secs(9);

fn topic() -> Topic {
    Topic::new("t").unwrap()
}

fn of(number: u32, epoch: u64) -> Owned {
    Owned { topic: topic(), partition: number, epoch: Epoch(epoch) }
}

fn p(seq: u64) -> Position {
    Position(LIFE, seq)
}

/// A member `a` of a topic of `count` partitions, and a server that does what it is told.
struct Play {
    core: Core,
    now: Instant,
    asked: Vec<(&'static str, &'static str)>,
    owners: Vec<(String, String)>,
    counts: Counts,
    epoch: u64,
    commits: Vec<Commit>,
    released: Vec<String>,
    before: Option<Position>,
    /// What logs have.
    end: u64,
    /// Partitions for which the server answers with this.
    away: BTreeMap<u32, Error>,
}

impl Play {
    fn of(count: u32) -> Self {
        let now = Instant::now();
        let rules = Rules {
            name: "a".into(),
            server: "h:1".into(),
            common: members::Rules {
                bound: Bound { messages: 8, bytes: 1 << 20 },
                ack_interval: Duration::from_millis(100),
                drain: DRAIN,
            },
            lease: LEASE,
        };
        let core = Core::new(rules, [topic()].into(), now);
        Self {
            core,
            now,
            asked: vec![("a", "m-1 t")],
            owners: Vec::new(),
            counts: [(topic(), count)].into(),
            epoch: 0,
            commits: Vec::new(),
            released: Vec::new(),
            before: None,
            end: 999,
            away: BTreeMap::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn own(&mut self, key: &TopicPartition, owner: Option<&str>) {
        self.owners.retain(|(of, _)| *of != name(key));
        self.owners.extend(owner.map(|owner| (name(key), owner.to_owned())));
    }

    fn look(&mut self) {
        let owners: Vec<_> = self.owners.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let table = table(&self.asked, &owners, &[]);
        let topics = self.core.topics();
        _ = self.core.held(table, self.counts.clone(), Some(&topics), self.now);
    }

    /// Does what is to be done until there is nothing; answers that as words.
    fn act(&mut self) -> String {
        let mut done = Vec::new();
        for _ in 0..50 {
            _ = self.core.tick(self.now);
            match self.core.next_job(self.now) {
                Job::Wait(_) => return done.join(", "),
                Job::End => {
                    done.push("end".to_owned());
                    return done.join(", ");
                }
                Job::Renew { .. } | Job::Join { .. } => self.look(),
                Job::Forward => unreachable!("nothing is forwarded here"),
                Job::Commit(commits) => {
                    done.push("commit".into());
                    let all =
                        commits.iter().map(|commit| self.reach(commit.of.partition, Stored::Yes)).collect();
                    _ = self.core.stored(&commits, all, self.now);
                    self.commits.extend(commits);
                }
                Job::Release { verb, whom, partitions } => {
                    for key in &partitions {
                        self.own(key, (verb == "to").then_some(whom.as_str()));
                        self.released.push(name(key));
                    }
                    done.push(format!(
                        "{verb} {}",
                        partitions.iter().map(name).collect::<Vec<_>>().join(" ")
                    ));
                    self.core.released(&partitions);
                }
                Job::Claim(partitions) => {
                    partitions.iter().for_each(|key| self.own(key, Some("a")));
                    self.core.claimed(partitions.len(), partitions.clone());
                    done.push("claim".into());
                }
                Job::TakeOver(partitions) => {
                    let taken = partitions
                        .iter()
                        .map(|key| {
                            let taken = self.taken(key);
                            self.reach(key.1, Some(taken))
                        })
                        .collect();
                    _ = self.core.taken(&partitions, taken, self.now);
                    done.push(format!("take {}", partitions.iter().map(name).collect::<Vec<_>>().join(" ")));
                }
                Job::Leave => {
                    done.push("leave".into());
                    _ = self.core.left();
                }
            }
        }
        panic!("it never rests: {done:?}");
    }

    fn reach<T>(&self, partition: u32, done: T) -> Result<T> {
        self.away.get(&partition).cloned().map_or(Ok(done), Err)
    }

    fn taken(&mut self, key: &TopicPartition) -> Taken {
        self.epoch += 1;
        Taken {
            of: Owned { topic: key.0.clone(), ..of(key.1, self.epoch) },
            keys: Keys::new("x").unwrap().partition(&key.0, key.1),
            life: Some(LIFE),
            position: p(1),
            read: Some(0),
            map: Vec::new(),
            resumed: self.before.is_some(),
            before: self.before,
            counts: Counted { added: self.end, length: self.end, last: p(self.end) },
        }
    }

    /// What the user is told by now.
    fn told(&mut self) -> String {
        let mut all = Vec::new();
        for _ in 0..100 {
            let event = match self.core.poll(Waker::noop(), self.now).0 {
                None => break,
                Some(Err(error)) => {
                    all.push(format!("ended {}", error.kind().as_str()));
                    break;
                }
                Some(Ok(event)) => event,
            };
            let at = |of: &Owned| format!("{}@{}", of.partition, of.epoch);
            all.push(match event {
                Event::Assigned(list) => {
                    format!("assigned {}", list.iter().map(|a| at(&a.of)).collect::<Vec<_>>().join(" "))
                }
                Event::Revoking { partitions, .. } => {
                    format!("revoking {}", partitions.iter().map(at).collect::<Vec<_>>().join(" "))
                }
                Event::Gone(of, why) => format!("gone {} {why:?}", at(&of)),
                Event::Batch(batch) => {
                    let seqs = batch.deliveries.iter().map(|d| d.position.1.to_string());
                    format!("{}: {}", at(&batch.of), seqs.collect::<Vec<_>>().join(" "))
                }
                Event::Gap { of, why, .. } => format!("gap {} {}", at(&of), why.as_str()),
                Event::CaughtUp(_) => continue,
                Event::Unreadable { of, .. } => format!("unreadable {}", at(&of)),
            });
        }
        all.join(", ")
    }

    /// A read that brings these of one partition, and nothing of the others. Whether who polls is called then.
    fn read(&mut self, number: u32, seqs: std::ops::RangeInclusive<u64>, life: Option<u64>) -> bool {
        let plan = self.core.plan(Duration::from_secs(1), self.now);
        let field = (Bytes::from_static(b"payload"), Bytes::from_static(b"x"));
        let brought = plan.asks.iter().map(|ask| {
            let mine = ask.keys == Keys::new("x").unwrap().partition(&topic(), number);
            let entries = seqs.clone().filter(|seq| mine && p(*seq) > ask.after);
            let entries = entries.map(|seq| Entry { at: p(seq), fields: vec![field.clone()] }).collect();
            let life = if mine { life } else { Some(LIFE) };
            Brought { entries, marks: Marks { life, removed: None } }
        });
        let brought = brought.collect();
        self.core.take(&plan, brought, self.now).0.is_some()
    }

    fn ack(&mut self, of: &Owned, seqs: &[u64]) -> Result<()> {
        let positions: Vec<_> = seqs.iter().map(|seq| p(*seq)).collect();
        self.core.owner.ack(of, &positions, self.now).map(|_| ())
    }
}

fn key(number: u32) -> TopicPartition {
    partition(&format!("t/{number}")).unwrap()
}

#[test]
fn what_is_free_and_should_be_ours_is_claimed_then_taken_over_then_told() {
    let mut play = Play::of(2);
    assert_eq!(play.act(), "claim, take t/0 t/1");
    assert_eq!(play.told(), "assigned 0@1 1@2");
    assert_eq!(play.act(), "");
    // What another owns is not claimed, and a member without work is told so.
    let mut play = Play::of(1);
    play.asked.push(("b", "m-2 t"));
    play.own(&key(0), Some("b"));
    assert_eq!(play.act(), "");
    assert_eq!(play.told(), "assigned ");
}

#[test]
fn a_partition_that_the_table_says_is_ours_is_taken_over_or_given_back() {
    let mut play = Play::of(1);
    play.own(&key(0), Some("a"));
    assert_eq!(play.act(), "take t/0", "the answer to a claim was lost");
    let mut play = Play::of(1);
    let gone = (Topic::new("gone").unwrap(), 0);
    play.own(&gone, Some("a"));
    assert_eq!(play.act(), "stay gone/0, claim, take t/0");
}

#[test]
fn a_newcomer_makes_it_revoke_and_nothing_is_released_before_the_last_commit() {
    let mut play = Play::of(2);
    play.act();
    play.told();
    play.read(1, 1..=3, Some(LIFE));
    assert_eq!(play.told(), "1@2: 1 2 3");
    play.asked.push(("b", "m-2 t"));
    play.core.news();
    assert_eq!(play.act(), "");
    play.read(1, 4..=5, Some(LIFE));
    assert_eq!(play.told(), "revoking 1@2", "and no batch after it");
    play.ack(&of(1, 2), &[2]).unwrap();
    _ = play.core.give_up(&of(1, 2), play.now);
    assert_eq!(play.ack(&of(1, 2), &[1]).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(play.told(), "", "acks given before take effect first");
    assert_eq!(play.act(), "commit, stay t/1");
    assert_eq!(play.told(), "gone 1@2 GivenUp");
    let store = play.commits[0].store.clone().unwrap();
    assert_eq!((store.position, store.read, store.beyond), (p(1), Some(0), Some(1)));
    assert!(!store.map.is_empty(), "what is done beyond it is kept");
    assert_eq!(play.act(), "", "what is free is the other's");
}

#[test]
fn what_is_kept_too_long_goes_when_the_drain_time_is_over_polled_or_not() {
    for polled in [true, false] {
        let mut play = Play::of(2);
        play.act();
        play.told();
        play.asked.push(("b", "m-2 t"));
        play.core.news();
        play.act();
        play.pass(DRAIN / 2);
        if polled {
            assert_eq!(play.told(), "revoking 1@2");
        }
        play.pass(DRAIN * 3 / 4);
        let released = play.act();
        if polled {
            // The time runs from the moment it was told.
            assert_eq!(released, "");
            play.pass(DRAIN / 2);
            assert_eq!(play.act(), "stay t/1");
        } else {
            assert_eq!(released, "stay t/1");
        }
        assert_eq!(play.told(), "gone 1@2 DrainOver");
    }
}

#[test]
fn a_drain_that_is_over_is_told_although_the_server_does_not_answer() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=1, Some(LIFE));
    play.told();
    play.ack(&of(0, 1), &[1]).unwrap();
    _ = play.core.close(Duration::ZERO, None, play.now);
    assert_eq!(play.told(), "");
    play.pass(Duration::from_millis(1100));
    _ = play.core.tick(play.now);
    assert_eq!(play.told(), "gone 0@1 Closed");
}

#[test]
fn what_is_given_up_unasked_goes_to_another_and_stays_there() {
    let mut play = Play::of(2);
    play.asked.push(("b", "m-2 t"));
    play.own(&key(1), Some("b"));
    assert_eq!(play.act(), "claim, take t/0");
    play.told();
    _ = play.core.give_up(&of(0, 1), play.now);
    assert_eq!(play.act(), "to t/0");
    assert_eq!(play.owners[1], ("t/0".into(), "b".into()));
    // Seen from the other: it was handed something, and does not hand it back to even the load out.
    play.own(&key(0), Some("a"));
    play.own(&key(1), Some("a"));
    play.core.news();
    assert_eq!(play.act(), "take t/0 t/1");
    play.core.news();
    play.act();
    assert_eq!(play.told(), "gone 0@1 GivenUp, assigned 0@2 1@3");
    // With another membership it is evened out.
    play.asked.push(("c", "m-3 t"));
    play.core.news();
    play.act();
    assert_eq!(play.told(), "revoking 1@3");
}

#[test]
fn the_only_member_gets_back_what_it_gives_up_in_a_new_epoch() {
    let mut play = Play::of(1);
    play.act();
    _ = play.core.give_up(&of(0, 1), play.now);
    assert_eq!(play.act(), "stay t/0, claim, take t/0");
    assert_eq!(play.told(), "assigned 0@1, gone 0@1 GivenUp, assigned 0@2");
}

#[test]
fn a_commit_of_a_former_owner_is_over_and_tells_that_it_is_lost() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=2, Some(LIFE));
    play.told();
    play.ack(&of(0, 1), &[1]).unwrap();
    let (flush, mut flushed) = oneshot::channel();
    let (confirm, mut confirmed) = oneshot::channel();
    _ = play.core.owner.flush(flush);
    _ = play.core.owner.confirm(&of(0, 1), confirm);
    let Job::Commit(commits) = play.core.next_job(play.now) else { panic!("no commit") };
    play.own(&key(0), Some("b"));
    play.asked.push(("b", "m-2 t"));
    _ = play.core.stored(&commits, vec![Ok(Stored::Over)], play.now);
    assert_eq!(flushed.try_recv().unwrap()[0].1.kind(), ErrorKind::Fenced);
    assert_eq!(confirmed.try_recv().unwrap().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(play.told(), "gone 0@1 Lost");
    assert_eq!(play.ack(&of(0, 1), &[2]).unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn acks_are_stored_after_the_interval_and_those_that_come_meanwhile_later() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=4, Some(LIFE));
    play.told();
    play.ack(&of(0, 1), &[1]).unwrap();
    assert_eq!(play.act(), "", "not before the interval");
    play.pass(Duration::from_millis(100));
    let Job::Commit(commits) = play.core.next_job(play.now) else { panic!("no commit") };
    play.ack(&of(0, 1), &[2, 3]).unwrap();
    _ = play.core.stored(&commits, vec![Ok(Stored::Yes)], play.now);
    assert_eq!(commits[0].store.clone().unwrap().position, p(2));
    play.pass(Duration::from_millis(100));
    assert_eq!(play.act(), "commit");
    let store = play.commits[0].store.clone().unwrap();
    assert_eq!((store.position, store.read), (p(4), Some(3)));
    play.pass(Duration::from_millis(100));
    assert_eq!(play.act(), "", "nothing is left");
}

#[test]
fn a_lease_that_nobody_answers_for_ends_handing_out_and_one_that_is_over_loses_all() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.pass(Duration::from_secs(7));
    play.read(0, 1..=2, Some(LIFE));
    assert_eq!(play.told(), "", "another may own it by now");
    assert_eq!(play.act(), "", "it is renewed");
    assert_eq!(play.told(), "0@1: 1 2");
    _ = play.core.lost();
    assert_eq!(play.told(), "gone 0@1 Lost");
    play.own(&key(0), None);
    let Job::Join { topics } = play.core.next_job(play.now) else { panic!("it does not join again") };
    assert_eq!(topics, "t");
    play.core.joined();
    play.look();
    assert_eq!(play.act(), "claim, take t/0");
    assert_eq!(play.told(), "assigned 0@2");
}

#[test]
fn who_lost_its_name_ends() {
    let mut play = Play::of(1);
    play.act();
    _ = play.core.fenced("g");
    assert_eq!(play.act(), "end");
    assert_eq!(play.told(), "assigned 0@1, gone 0@1 Lost, ended fenced");
}

#[test]
fn a_topic_that_was_made_again_is_lost_and_told_first_in_a_new_epoch() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=2, Some(LIFE));
    play.read(0, 1..=2, Some(LIFE + 1));
    assert_eq!(play.told(), "gone 0@1 Lost", "what was read of the other life is not told");
    play.before = Some(p(3));
    assert_eq!(play.act(), "take t/0");
    assert_eq!(play.told(), format!("assigned 0@2, gap 0@2 {}", GapReason::Recreated.as_str()));
}

#[test]
fn no_more_is_in_flight_than_the_bound_and_an_ack_makes_room() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=20, Some(LIFE));
    assert_eq!(play.told(), "0@1: 1 2 3 4 5 6 7 8");
    play.ack(&of(0, 1), &[3, 4]).unwrap();
    play.ack(&of(0, 1), &[3]).unwrap();
    assert_eq!(play.told(), "0@1: 9 10");
    assert_eq!(play.ack(&of(0, 1), &[1, 11]).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn who_polls_is_called_for_what_comes_while_a_partition_waits_for_room() {
    let mut play = Play::of(2);
    play.act();
    play.told();
    play.read(0, 1..=20, Some(LIFE));
    assert!(play.told().starts_with("0@1: 1 2"));
    assert_eq!(play.act(), "");
    assert!(play.read(1, 1..=1, Some(LIFE)), "the other partition has something");
    assert_eq!(play.told(), "1@2: 1");
    play.core.lose(&key(0));
    assert!(play.core.tick(play.now).is_some(), "it is told that one is lost");
}

#[test]
fn who_closes_gives_up_what_is_idle_and_tells_what_was_not_acked() {
    let mut play = Play::of(2);
    play.act();
    play.told();
    play.read(0, 1..=2, Some(LIFE));
    play.told();
    let (answer, mut answered) = oneshot::channel();
    let stirred = play.core.close(Duration::from_secs(5), Some(answer), play.now);
    assert!(stirred.waker.is_some(), "it is told at once that the idle one is gone");
    assert_eq!(play.act(), "leaving t/1");
    play.ack(&of(0, 1), &[1]).unwrap();
    assert_eq!(play.told(), "gone 1@2 Closed");
    assert!(answered.try_recv().is_err());
    play.pass(Duration::from_secs(5));
    assert_eq!(play.act(), "commit, leaving t/0, leave, end");
    assert_eq!(play.told(), "gone 0@1 Closed, ended closed");
    assert_eq!(answered.try_recv().unwrap(), vec![(of(0, 1), vec![p(2)])]);
}

#[test]
fn who_polls_is_called_where_something_is_taken_over_after_closing() {
    let mut play = Play::of(1);
    play.told();
    _ = play.core.close(Duration::from_secs(5), None, play.now);
    play.told();
    let taken = play.taken(&key(0));
    assert!(play.core.taken(&[key(0)], vec![Ok(Some(taken))], play.now).waker.is_some());
    assert_eq!(play.told(), "assigned 0@1, gone 0@1 Closed");
}

#[test]
fn who_is_dropped_commits_and_leaves() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    play.read(0, 1..=2, Some(LIFE));
    play.told();
    play.ack(&of(0, 1), &[1]).unwrap();
    _ = play.core.abandon(play.now);
    assert_eq!(play.act(), "commit, leaving t/0, leave, end");
}

#[test]
fn other_topics_in_the_same_membership_revoke_what_falls_away() {
    let mut play = Play::of(1);
    play.act();
    play.told();
    let other = Topic::new("u").unwrap();
    play.counts.insert(other.clone(), 1);
    _ = play.core.set_topics(vec![other]).unwrap();
    play.asked = vec![("a", "m-1 u")];
    assert_eq!(play.act(), "claim, take u/0");
    assert!(play.told().starts_with("revoking 0@1"), "what is kept keeps its epoch");
}
