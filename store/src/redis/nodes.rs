//! The nodes of a cluster, asked at the same time: each what its slots are, following those that move.
//!
//! Not here: taking commands apart (`packed.rs`), who has which slot (`topology.rs`), who waits for the answers (`routed.rs`).

use super::{
    Redis,
    absent::Absent,
    dedicated::Dedicated,
    error::{Error, ErrorKind, Result},
    homes::Homes,
    node::Node,
    packed::{self, Way},
    routed::{Greeting, Question, straight},
    topology::{Topology, beside},
    url::{Address, addresses},
    wire::Reply,
};
use futures::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often a command follows a redirection, or waits for a slot that is moving, before its last answer is given.
const ROUNDS: usize = 16;
/// How long it is waited for a slot that is moving.
const MOVING: Duration = Duration::from_millis(20);
/// Why a command is not done by the node that has its slot now.
const REPLACED: &str = "it took the place of the node that had this slot, and need not have all that it had";
/// What makes a node do a command of a slot that it only gets.
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// The connections to them.
#[derive(Debug)]
pub(super) struct Nodes {
    redis: Redis,
    greeting: Arc<Greeting>,
    lines: HashMap<Arc<str>, Dedicated>,
    absent: HashMap<Arc<str>, Absent>,
}

/// Where a command goes in a cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// To who has this slot: it has a key, or stands beside one that has.
    Slot(u16),
    /// To any node.
    Anywhere,
    /// To all nodes.
    Everywhere,
}

/// A command that is not answered yet.
struct Open {
    at: usize,
    slot: Option<u16>,
    /// With which number of [`super::Homes`] it was decided, where that matters: then it is done by no node that took the place of another since.
    only: Option<u64>,
    /// Where it was sent on to, and whether only for once.
    to: Option<(Address, bool)>,
}

/// What one node is asked.
struct Part {
    node: Arc<Node>,
    commands: Vec<(usize, bool)>,
}

/// The connection to a node, or what is known of it where there is none.
enum Before {
    Open(Box<Dedicated>),
    Absent(Absent),
}

/// How a node is asked.
#[derive(Clone, Copy)]
struct How<'a> {
    greeting: &'a Arc<Greeting>,
    packed: &'a [u8],
    commands: &'a [(Range<usize>, Way)],
    limit: Duration,
}

/// What a node did of its part.
struct Done {
    name: Arc<str>,
    /// The connection, or what is to be known for the next.
    line: std::result::Result<Dedicated, Absent>,
    replies: Vec<(usize, Result<Reply>)>,
}

impl Nodes {
    pub(super) fn new(
        redis: Redis,
        greeting: Greeting,
        lines: HashMap<Arc<str>, Dedicated>,
        absent: HashMap<Arc<str>, Absent>,
    ) -> Self {
        Self { redis, greeting: Arc::new(greeting), lines, absent }
    }

    /// Asks commands; one result for each, in order. Each reply may take `limit`.
    pub(super) async fn ask(&mut self, question: &Question, limit: Duration) -> Vec<Result<Reply>> {
        let packed = &question.packed[..];
        let known = packed::commands(packed).filter(|commands| commands.len() == question.replies);
        let Some(commands) = known else {
            return (0..question.replies)
                .map(|_| Err(Error::settings("what is asked is no command")))
                .collect();
        };
        let mut answers = BTreeMap::new();
        let everywhere = chosen(&commands, Way::Everywhere);
        if !everywhere.is_empty() {
            self.everywhere(packed, &commands, &everywhere, limit, &mut answers).await;
        }
        let open = by_slot(&commands, &question.only);
        let served = self.routed(packed, &commands, open, limit, &mut answers).await;
        for at in chosen(&commands, Way::After) {
            let answer = self.after(&packed[commands[at].0.clone()], &served, limit).await;
            answers.insert(at, answer);
        }
        answers.into_values().collect()
    }

    /// What goes to the nodes by slot. Answers which of them did something.
    async fn routed(
        &mut self,
        packed: &[u8],
        commands: &[(Range<usize>, Way)],
        mut open: Vec<Open>,
        limit: Duration,
        answers: &mut BTreeMap<usize, Result<Reply>>,
    ) -> BTreeSet<Arc<str>> {
        let mut served = BTreeSet::new();
        let latest = Instant::now() + limit;
        for round in 0..ROUNDS {
            if open.is_empty() || round > 0 && Instant::now() > latest {
                break;
            }
            let seen = self.redis.0.topology.looked();
            let parts = Self::parts(&self.redis.0.topology, &open, answers).await;
            let asked: Vec<_> = parts.into_iter().map(|part| self.start(part)).collect();
            let how = How { greeting: &self.greeting, packed, commands, limit };
            let done = join_all(asked.into_iter().map(|(part, line)| run(part, line, how)));
            let mut again = Vec::new();
            let (mut look, mut wait) = (false, false);
            for Done { name, line, replies } in done.await {
                let own = addresses(&name, 0).ok().and_then(|mut own| own.pop());
                for (at, reply) in replies {
                    let to = match (&reply, &own) {
                        (Ok(Reply::Error(text)), Some(own)) => redirection(text, own),
                        _ => None,
                    };
                    look |= reply.is_err() || matches!(to, Some(Redirection::To(_, false)));
                    wait |= matches!(to, Some(Redirection::Wait));
                    match to {
                        None if reply.is_ok() => _ = served.insert(Arc::clone(&name)),
                        None => {}
                        Some(Redirection::To(_, false)) if is_bound(&open, at) => {
                            // It goes where the slots are known to be: nobody knows yet whether that node took another's place.
                            wait |= round > 0;
                            again.push((at, None));
                        }
                        Some(Redirection::To(address, asking)) => again.push((at, Some((address, asking)))),
                        Some(Redirection::Wait) => again.push((at, None)),
                    }
                    answers.insert(at, reply);
                }
                match line {
                    Ok(line) => _ = self.lines.insert(name, line),
                    Err(absent) => _ = self.absent.insert(name, absent),
                }
            }
            if look {
                // What is not found now is told by the answers, and looked for again with the next failure.
                drop(self.redis.0.topology.refresh(seen).await);
            }
            if wait && round + 1 < ROUNDS {
                sleep(MOVING).await;
            }
            open.retain_mut(|command| {
                let next = again.iter_mut().find(|(at, _)| *at == command.at);
                next.is_some_and(|(_, to)| {
                    command.to = to.take();
                    true
                })
            });
        }
        served
    }

    /// What each node is to be asked, in order; what no node can be asked is answered.
    async fn parts(
        topology: &Topology,
        open: &[Open],
        answers: &mut BTreeMap<usize, Result<Reply>>,
    ) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        // Each slot is asked of one node, though somebody else finds meanwhile that it moved: what follows would be done there before what is sent on.
        let mut owners = HashMap::new();
        for command in open {
            let node = match (&command.to, owners.get(&command.slot)) {
                (Some((address, _)), _) => topology.at(address.clone()),
                (None, Some(known)) => Clone::clone(known),
                (None, None) => {
                    let found = topology.owner(command.slot).await;
                    owners.insert(command.slot, found.clone());
                    found
                }
            };
            let asking = command.to.as_ref().is_some_and(|(_, asking)| *asking);
            // Asked after it was found where it goes.
            let node = node.and_then(|node| {
                let replaced = command.only.is_some() && command.is_late(&topology.homes());
                if replaced {
                    Err(Error::new(ErrorKind::Cluster, &node.dialer.name(), REPLACED))
                } else {
                    Ok(node)
                }
            });
            match node {
                Err(error) => _ = answers.insert(command.at, Err(error)),
                Ok(node) => match parts.iter_mut().find(|part| Arc::ptr_eq(&part.node, &node)) {
                    Some(part) => part.commands.push((command.at, asking)),
                    None => parts.push(Part { node, commands: vec![(command.at, asking)] }),
                },
            }
        }
        parts
    }

    /// A part with the connection to its node.
    fn start(&mut self, part: Part) -> (Part, Before) {
        let name = part.node.dialer.name();
        let before = match self.lines.remove(&name) {
            Some(line) if is_over(&line) => Before::Absent(Absent::after(&line, None)),
            Some(line) => Before::Open(Box::new(line)),
            None => Before::Absent(self.absent.remove(&name).unwrap_or_default()),
        };
        (part, before)
    }

    async fn everywhere(
        &mut self,
        packed: &[u8],
        commands: &[(Range<usize>, Way)],
        chosen: &[usize],
        limit: Duration,
        answers: &mut BTreeMap<usize, Result<Reply>>,
    ) {
        let bytes: Vec<u8> = chosen.iter().flat_map(|at| &packed[commands[*at].0.clone()]).copied().collect();
        let asked = self.lines.values_mut().map(|line| straight(line, bytes.clone(), chosen.len(), limit));
        let all = join_all(asked).await;
        // A node whose connection ended is asked when it is connected to again, by the greeting.
        let told = all.into_iter().max_by_key(|replies| replies.iter().filter(|reply| reply.is_ok()).count());
        let none = || Err(Error::settings("no node of the cluster is connected"));
        let told = told.unwrap_or_else(|| chosen.iter().map(|_| none()).collect());
        answers.extend(chosen.iter().copied().zip(told));
    }

    /// Asks each node that did something: the lowest number that one answers.
    async fn after(&mut self, command: &[u8], served: &BTreeSet<Arc<str>>, limit: Duration) -> Result<Reply> {
        let asked = self.lines.iter_mut().filter(|(name, _)| served.contains(*name));
        let asked: Vec<_> = asked.map(|(_, line)| straight(line, command.to_vec(), 1, limit)).collect();
        if asked.len() < served.len() {
            // The connection over which it was done has ended: nobody can tell.
            return Ok(Reply::Int(0));
        }
        let replies: Result<Vec<Reply>> = join_all(asked).await.into_iter().flatten().collect();
        let replies = replies?;
        if let Some(error) = replies.iter().find(|reply| matches!(reply, Reply::Error(_))) {
            return Ok(error.clone());
        }
        Ok(Reply::Int(replies.iter().filter_map(Reply::int).min().unwrap_or(0)))
    }
}

/// Where each of these commands goes in a cluster; `None` where they are none.
#[must_use]
pub fn places(packed: &[u8]) -> Option<Vec<(Range<usize>, Place)>> {
    let commands = packed::commands(packed)?;
    let open = by_slot(&commands, &[]);
    let place = |way| if way == Way::Everywhere { Place::Everywhere } else { Place::Anywhere };
    let mut places: Vec<_> = commands.into_iter().map(|(range, way)| (range, place(way))).collect();
    for Open { at, slot, .. } in open {
        if let Some(slot) = slot {
            places[at].1 = Place::Slot(slot);
        }
    }
    Some(places)
}

fn chosen(commands: &[(Range<usize>, Way)], wanted: Way) -> Vec<usize> {
    (0..commands.len()).filter(|at| commands[*at].1 == wanted).collect()
}

impl Open {
    /// Whether a node took the place of the one for which it was decided.
    fn is_late(&self, homes: &Homes) -> bool {
        self.only.zip(self.slot).is_some_and(|(only, slot)| homes.since_slot(slot) > only)
    }
}

/// Whether a command is to be done by no node that took the place of another.
fn is_bound(open: &[Open], at: usize) -> bool {
    open.iter().any(|command| command.at == at && command.only.is_some())
}

/// The commands that go by slot; those without a key with the next that has one, or the last. `only`: as for [`Question`].
fn by_slot(commands: &[(Range<usize>, Way)], only: &[u64]) -> Vec<Open> {
    let slot = |way: &Way| if let Way::Slot(slot) = way { Some(*slot) } else { None };
    let mut next = commands.iter().rev().find_map(|(_, way)| slot(way));
    let mut open: Vec<Open> = Vec::with_capacity(commands.len());
    for (at, (_, way)) in commands.iter().enumerate().rev() {
        match way {
            Way::Slot(_) => next = slot(way),
            Way::Along => {}
            Way::Everywhere | Way::After => continue,
        }
        open.push(Open {
            at,
            slot: next,
            only: only.get(at).copied().filter(|only| *only < u64::MAX),
            to: None,
        });
    }
    open.reverse();
    open
}

/// Whether nothing more is asked over a connection: it has ended, or answers are still to come that nobody waits for.
fn is_over(line: &Dedicated) -> bool {
    line.has_ended() || line.owed() > 0
}

/// Asks a node its part.
async fn run(part: Part, before: Before, how: How<'_>) -> Done {
    let name = part.node.dialer.name();
    let line = match before {
        Before::Open(line) => Ok(*line),
        Before::Absent(absent) => absent.connect(&part.node, how.greeting, how.limit).await,
    };
    let mut line = match line {
        Ok(line) => line,
        Err((error, absent)) => {
            let replies = part.commands.iter().map(|(at, _)| (*at, Err(error.clone()))).collect();
            return Done { name, line: Err(absent), replies };
        }
    };
    let mut bytes = Vec::new();
    let mut count = 0;
    for (at, asking) in &part.commands {
        if *asking {
            bytes.extend_from_slice(ASKING);
        }
        bytes.extend_from_slice(&how.packed[how.commands[*at].0.clone()]);
        count += 1 + usize::from(*asking);
    }
    let mut told = straight(&mut line, bytes, count, how.limit).await.into_iter();
    let mut replies = Vec::with_capacity(part.commands.len());
    for (at, asking) in part.commands {
        if asking {
            drop(told.next());
        }
        replies.extend(told.next().map(|reply| (at, reply)));
    }
    if is_over(&line) {
        let silent = replies.iter().find_map(|(_, reply)| reply.as_ref().err().filter(|_| !line.has_ended()));
        let absent = Absent::after(&line, silent);
        return Done { name, line: Err(absent), replies };
    }
    Done { name, line: Ok(line), replies }
}

/// What a node says instead of doing something.
enum Redirection {
    /// Somebody else has the slot, or (true) gets it and has the keys already.
    To(Address, bool),
    /// Some of the keys are on their way.
    Wait,
}

fn redirection(text: &[u8], own: &Address) -> Option<Redirection> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split(' ');
    let asking = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        "TRYAGAIN" => return Some(Redirection::Wait),
        _ => return None,
    };
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    Some(Redirection::To(beside(own, host.trim_matches(['[', ']']), port.parse().ok()?), asking))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_key_goes_with_the_next_that_has_one_else_with_the_last() {
        let commands =
            [Way::Along, Way::Slot(3), Way::Everywhere, Way::Along, Way::Slot(5), Way::Along, Way::After];
        let commands: Vec<_> = commands.into_iter().map(|way| (0..0, way)).collect();
        let open: Vec<_> = by_slot(&commands, &[]).iter().map(|open| (open.at, open.slot)).collect();
        assert_eq!(open, [(0, Some(3)), (1, Some(3)), (3, Some(5)), (4, Some(5)), (5, Some(5))]);
        assert_eq!(by_slot(&[(0..0, Way::Along)], &[])[0].slot, None);
        let packed = b"*1\r\n$4\r\nTIME\r\n*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\n*1\r\n$6\r\nSCRIPT\r\n";
        let places = [(0..14, Place::Slot(12182)), (14..36, Place::Slot(12182)), (36..52, Place::Everywhere)];
        assert_eq!(super::places(packed).unwrap(), places);
        assert_eq!(super::places(&packed[..14]).unwrap()[0].1, Place::Anywhere);
    }

    #[test]
    fn a_redirection_is_read_as_nodes_write_it() {
        let own = Address::Tcp { host: "h".into(), port: 1 };
        let to = |text: &str| match redirection(text.as_bytes(), &own) {
            Some(Redirection::To(address, asking)) => format!("{address} {asking}"),
            Some(Redirection::Wait) => "wait".into(),
            None => "none".into(),
        };
        assert_eq!(to("MOVED 3999 127.0.0.1:6381"), "127.0.0.1:6381 false");
        assert_eq!(to("ASK 3999 :6381"), "h:6381 true");
        assert_eq!(to("TRYAGAIN Multiple keys request during rehashing of slot"), "wait");
        assert_eq!(to("ERR MOVED"), "none");
    }
}
