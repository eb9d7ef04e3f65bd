//! Requests on the pools: sent to where their keys are, redirected, tried again where that is allowed.
//!
//! Not here: one try on one connection (`node.rs`, `link.rs`), requests that keep their order (`lane.rs`).

use super::{
    Redis,
    error::{Error, ErrorKind, Outcome, Result},
    link::Request,
    node::Node,
    slots::slot_of,
    topology::beside,
    url::{Address, addresses},
};
use ::redis::{Cmd, Pipeline, Value, cmd};
use futures::future::join_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// How often a request follows a redirection of a cluster before it fails.
const HOPS: usize = 5;

/// How long it is looked who has the slots of a server that does not answer.
const LOOK: Duration = Duration::from_secs(1);

/// When a request may be sent again by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resend {
    /// Only when it certainly was not done. What may have been done fails as [`Outcome::Unknown`].
    NotDone,
    /// Also when nobody knows whether it was done: doing it twice is the same as once.
    Idempotent,
}

/// What each server answered, by its address: one result for each command, in order, or why there are none.
pub type Everywhere = BTreeMap<Arc<str>, Result<Vec<Result<Value>>>>;

/// Where a request goes.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// To who has the slot; anywhere, where there is none.
    Slot(Option<u16>),
    Node(&'a Arc<Node>),
}

impl Redis {
    /// Asks one thing. What waits on the server (`XREAD BLOCK`, `BLPOP`) belongs on a [`Dedicated`](super::Dedicated) connection: here it takes
    /// one from the pool, and ends with the [time limit](super::RedisSettings::request_timeout).
    ///
    /// Dropping the call leaves open whether it was done, once it was written.
    ///
    /// # Errors
    /// What the server refused, or what kept the answer away; [`Error::outcome`] says whether it may have been done.
    pub async fn query(&self, command: &Cmd, resend: Resend) -> Result<Value> {
        let timer = self.0.metrics.start();
        let mut result = self.repeated(Way::Slot(slot_of(command)), Request::One(command), resend).await;
        if is_unknown_script(&result)
            && let Some(full) = self.0.scripts.in_full(command)
        {
            result = self.repeated(Way::Slot(slot_of(&full)), Request::One(&full), resend).await;
        }
        let result = result.and_then(|answers| answers.into_iter().next().unwrap_or(Ok(Value::Nil)));
        timer.end("query", result.as_ref().err());
        result
    }

    /// Asks several things at once and gives one result for each, in order. They are not one step: others may come between them, and each
    /// succeeds or fails alone. Those for one server are done in order. In a cluster, a command without keys goes where the one before it goes.
    ///
    /// Each is written once, or, where the whole of what goes to a server may be sent again, again. Dropping the call leaves open what was
    /// done.
    pub async fn pipeline(&self, commands: Vec<Cmd>, resend: Resend) -> Vec<Result<Value>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let timer = self.0.metrics.start();
        let results = match self.0.topology.single() {
            Some(node) => {
                let commands = pipe(commands);
                let mut results = self.on(node, &commands, resend).await;
                self.load_missing(node, &commands, &mut results, resend).await;
                results
            }
            None => self.spread(commands, resend).await,
        };
        timer.end("pipeline", results.iter().find_map(|result| result.as_ref().err()));
        results
    }

    /// Does several things as one step, all or none, and gives one result for each, in order. In a cluster their keys share a slot.
    ///
    /// All or none is about being done at all: one that fails when its turn comes (a wrong type) does not take the others back.
    ///
    /// # Errors
    /// None of them was done, or nobody knows: [`Error::outcome`].
    pub async fn transaction(&self, commands: Vec<Cmd>, resend: Resend) -> Result<Vec<Result<Value>>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let timer = self.0.metrics.start();
        let slot = commands.iter().find_map(slot_of);
        let mut commands = pipe(commands);
        commands.atomic();
        let result = self.repeated(Way::Slot(slot), Request::Atomic(&commands), resend).await;
        timer.end("transaction", result.as_ref().err());
        result
    }

    /// Asks each server the same, at the same time, also one that failed before; by address. In a cluster those are the primaries: where one does not
    /// answer, it is looked for another in its place (for at most a second).
    pub async fn everywhere(&self, commands: Vec<Cmd>) -> Everywhere {
        let (topology, commands) = (&self.0.topology, &pipe(commands));
        let ask = async |nodes: Vec<Arc<Node>>| {
            let asked =
                nodes.iter().map(async |node| (node.dialer.name(), node.ask(Request::Many(commands)).await));
            join_all(asked).await.into_iter().collect::<Everywhere>()
        };
        let seen = topology.looked();
        let mut answers = ask(topology.nodes()).await;
        if topology.single().is_none() && answers.values().any(Result::is_err) {
            // Where it cannot be looked, those that are known are those there are.
            _ = timeout(LOOK, topology.refresh(seen)).await;
            let mut now = topology.nodes();
            answers.retain(|name, _| now.iter().any(|node| node.dialer.name() == *name));
            now.retain(|node| !answers.contains_key(&node.dialer.name()));
            answers.extend(ask(now).await);
        }
        answers
    }

    /// Lets `script` be loaded by itself wherever a server does not know it. Calls of scripts that were not introduced fail as `NoScript`
    /// there, and so do calls within a transaction.
    pub fn introduce(&self, script: &super::Script) {
        self.0.scripts.introduce(script);
    }

    async fn repeated(
        &self,
        way: Way<'_>,
        request: Request<'_>,
        resend: Resend,
    ) -> Result<Vec<Result<Value>>> {
        let mut done = 0;
        loop {
            let result = match way {
                Way::Slot(slot) => self.one(request, slot).await,
                Way::Node(node) => node.run(request).await,
            };
            // The answer to a single command is its only one.
            let error = match &result {
                Err(error) => error,
                Ok(answers) => match answers.as_slice() {
                    [Err(error)] => error,
                    _ => return result,
                },
            };
            if done == self.0.settings.retries || !self.may_repeat(error, resend) {
                return result;
            }
            if error.kind() == ErrorKind::ReadOnly {
                // A primary of a cluster has become a replica. What is not found now is looked for again with the next try.
                drop(self.0.topology.refresh(self.0.topology.looked()).await);
            }
            done += 1;
            tokio::time::sleep(self.0.settings.pause(done)).await;
        }
    }

    fn may_repeat(&self, error: &Error, resend: Resend) -> bool {
        let known = error.outcome() == Outcome::NotDone || resend == Resend::Idempotent;
        let worth = match error.kind() {
            ErrorKind::Exhausted | ErrorKind::BreakerOpen => false,
            ErrorKind::ReadOnly => self.0.topology.single().is_none_or(|node| node.dialer.follows_failover()),
            kind => kind.is_transient(),
        };
        known && worth
    }

    /// One request for one slot, following redirections.
    async fn one(&self, request: Request<'_>, slot: Option<u16>) -> Result<Vec<Result<Value>>> {
        let seen = self.0.topology.looked();
        let mut node = match self.0.topology.owner(slot).await {
            Ok(node) => node,
            Err(error) => {
                // It may have been found by now; the failure of the request is told.
                drop(self.0.topology.refresh(seen).await);
                return Err(error);
            }
        };
        let mut asking = false;
        for _ in 0..HOPS {
            let result = if asking { ask_first(&node, request).await } else { node.run(request).await };
            let Some(redirection) = redirection(&result, &node) else {
                if self.0.topology.single().is_none()
                    && result.as_ref().is_err_and(|error| error.kind().is_absence())
                {
                    // Its slots may have gone to another node.
                    drop(self.0.topology.refresh(seen).await);
                }
                return result;
            };
            if !redirection.asking {
                drop(self.0.topology.refresh(seen).await);
            }
            node = self.0.topology.at(redirection.to)?;
            asking = redirection.asking;
        }
        Err(Error::new(ErrorKind::Cluster, &node.dialer.name(), "the nodes redirect to each other"))
    }

    /// The whole of what goes to one server.
    async fn on(&self, node: &Arc<Node>, commands: &Pipeline, resend: Resend) -> Vec<Result<Value>> {
        let result = self.repeated(Way::Node(node), Request::Many(commands), resend).await;
        result.unwrap_or_else(|error| commands.cmd_iter().map(|_| Err(error.clone())).collect())
    }

    /// Calls whose script the server did not know, again and in full.
    async fn load_missing(
        &self,
        node: &Arc<Node>,
        commands: &Pipeline,
        results: &mut [Result<Value>],
        resend: Resend,
    ) {
        let (places, full): (Vec<usize>, Vec<Cmd>) =
            self.0.scripts.missing(commands, results).into_iter().unzip();
        if !places.is_empty() {
            let again = self.on(node, &pipe(full), resend).await;
            for (place, result) in places.into_iter().zip(again) {
                results[place] = result;
            }
        }
    }

    /// What goes to one node, and its places in the whole.
    async fn part(
        &self,
        node: Arc<Node>,
        places: Vec<usize>,
        commands: Pipeline,
        resend: Resend,
    ) -> (Vec<usize>, Vec<Result<Value>>) {
        let mut results = self.on(&node, &commands, resend).await;
        self.load_missing(&node, &commands, &mut results, resend).await;
        (places, results)
    }

    /// A pipeline over the nodes of a cluster: each node's part at the same time, then what was redirected, one by one and in order.
    async fn spread(&self, commands: Vec<Cmd>, resend: Resend) -> Vec<Result<Value>> {
        let seen = self.0.topology.looked();
        let mut parts: HashMap<Option<u16>, Vec<usize>> = HashMap::new();
        let mut last = None;
        for (place, command) in commands.iter().enumerate() {
            last = slot_of(command).or(last);
            parts.entry(last).or_default().push(place);
        }
        let mut nodes: HashMap<Arc<str>, (Arc<Node>, Vec<usize>)> = HashMap::new();
        let mut results: Vec<Option<Result<Value>>> = commands.iter().map(|_| None).collect();
        for (slot, places) in parts {
            match self.0.topology.owner(slot).await {
                Ok(node) => {
                    nodes.entry(node.dialer.name()).or_insert_with(|| (node, Vec::new())).1.extend(places)
                }
                Err(error) => places.into_iter().for_each(|place| results[place] = Some(Err(error.clone()))),
            }
        }
        let mut parts = Vec::with_capacity(nodes.len());
        for (node, mut places) in nodes.into_values() {
            places.sort_unstable();
            let part = pipe(places.iter().map(|place| commands[*place].clone()).collect());
            parts.push(self.part(node, places, part, resend));
        }
        for (places, answers) in join_all(parts).await {
            for (place, answer) in places.into_iter().zip(answers) {
                results[place] = Some(answer);
            }
        }
        let results: Vec<Result<Value>> =
            results.into_iter().map(|result| result.unwrap_or(Ok(Value::Nil))).collect();
        let not_done = |error: &Error| error.outcome() == Outcome::NotDone;
        if results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .any(|error| not_done(error) && error.kind().is_absence())
        {
            // Its slots may have gone to another node; where they have not, the failure is told.
            drop(self.0.topology.refresh(seen).await);
        }
        let mut ended = Vec::with_capacity(results.len());
        for (command, result) in commands.iter().zip(results) {
            let elsewhere = match result.as_ref().err().filter(|error| not_done(error)) {
                Some(error) if error.kind().is_absence() => self
                    .0
                    .topology
                    .owner(slot_of(command))
                    .await
                    .is_ok_and(|node| &*node.dialer.name() != error.server()),
                Some(error) => matches!(error.kind(), ErrorKind::Cluster | ErrorKind::ReadOnly),
                None => false,
            };
            ended.push(if elsewhere { self.query(command, resend).await } else { result });
        }
        ended
    }
}

fn is_unknown_script(result: &Result<Vec<Result<Value>>>) -> bool {
    matches!(result.as_deref(), Ok([Err(error)]) if error.kind() == ErrorKind::NoScript)
}

pub(super) fn pipe(commands: Vec<Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// The request after `ASKING`, on the same connection.
async fn ask_first(node: &Arc<Node>, request: Request<'_>) -> Result<Vec<Result<Value>>> {
    let Request::One(command) = request else {
        // It becomes true once the slot has moved; tried again until then.
        return Err(Error::new(ErrorKind::Cluster, &node.dialer.name(), "its slot is moving"));
    };
    let both = pipe(vec![cmd("ASKING"), command.clone()]);
    let answers = node.run(Request::Many(&both)).await?;
    Ok(answers.into_iter().skip(1).collect())
}

/// Where a node of a cluster says that a slot is.
struct Redirection {
    to: Address,
    asking: bool,
}

fn redirection(result: &Result<Vec<Result<Value>>>, node: &Arc<Node>) -> Option<Redirection> {
    let error = match result {
        Err(error) => error,
        Ok(answers) => answers.first()?.as_ref().err()?,
    };
    let mut words = error.what().split(' ');
    let asking = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    let own = addresses(&node.dialer.name(), 0).ok()?.pop()?;
    Some(Redirection { to: beside(&own, host.trim_matches(['[', ']']), port.parse().ok()?), asking })
}
