//! Commands as bytes, each to where its keys are: over one connection, or in a cluster over one to each node, and following slots that move.
//!
//! Not here: the nodes of a cluster (`nodes.rs`), requests that may be sent again (`request.rs`).

use super::{
    Redis,
    absent::Absent,
    dedicated::Dedicated,
    error::{Error, Result},
    homes::Homes,
    node::Node,
    nodes::Nodes,
    server::{Identity, Server},
    status::Status,
    wire::Reply,
};
use futures::future::{BoxFuture, join_all};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// What is sent first on each connection.
#[derive(Debug)]
pub(super) struct Greeting {
    packed: Vec<u8>,
    replies: usize,
}

/// Connections of one's own that keep the order of what is asked of the same slot. Nothing whose fate is unknown is ever sent again.
///
/// With one server, or sentinels, it is one connection. In a cluster it is one to each node; what a node did not do because a slot is elsewhere is
/// done there, in order, before anything else is asked. Commands of one slot are done in their order; those of several slots at the same time. A
/// command without keys goes where the one behind it goes; `SCRIPT` goes to all nodes; `WAIT` goes, when all before it is done, to the nodes that did it,
/// and its answer is the lowest.
#[derive(Debug)]
pub struct Routed(To);

#[derive(Debug)]
enum To {
    One(Box<Dedicated>),
    Nodes(Relay),
}

/// What a cluster is to be asked.
#[derive(Debug, Default)]
pub(super) struct Question {
    pub(super) packed: Vec<u8>,
    pub(super) replies: usize,
    /// For each command with which number of [`Homes`] it was decided; `u64::MAX`, or nothing for all: it does not matter.
    pub(super) only: Vec<u64>,
}

/// The nodes, and what they answered.
type Answered = (Box<Nodes>, Vec<Result<Reply>>);

/// A cluster that is asked one thing after the other.
struct Relay {
    /// Nobody, while something is asked.
    nodes: Option<Box<Nodes>>,
    asked: Option<BoxFuture<'static, Answered>>,
    waiting: VecDeque<Question>,
    answers: VecDeque<Result<Reply>>,
    server: Arc<Server>,
    /// Where it is seen that a node was found other than before.
    status: watch::Receiver<Status>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

impl Redis {
    /// Opens connections on which `greeting` (`replies` commands as bytes) was sent first; what is answered to it is not looked at.
    ///
    /// In a cluster those nodes that cannot be reached now are connected to when they are asked something.
    ///
    /// # Errors
    /// As for [`Redis::connect`], in a cluster only where no node could be reached.
    pub async fn routed(&self, greeting: Vec<u8>, replies: usize) -> Result<Routed> {
        let greeting = Greeting { packed: greeting, replies };
        let topology = &self.0.topology;
        if let Some(node) = topology.single() {
            return Ok(Routed(To::One(Box::new(open(node, &greeting).await?))));
        }
        drop(topology.owner(None).await?);
        let nodes = topology.nodes();
        let (mut lines, mut absent) = (HashMap::new(), HashMap::new());
        let mut failed = None;
        for (node, opened) in nodes.iter().zip(join_all(nodes.iter().map(|node| open(node, &greeting))).await)
        {
            match opened {
                Ok(line) => _ = lines.insert(node.dialer.name(), line),
                Err(error) => {
                    absent.insert(node.dialer.name(), Absent::because(error.clone()));
                    failed = Some(error);
                }
            }
        }
        let first = lines.values().next().map(|line| Arc::clone(line.server()));
        let mut status = self.status();
        let lowest = status.borrow_and_update().lowest().map(Arc::new);
        let Some(server) = lowest.or(first) else {
            return Err(failed.unwrap_or_else(|| Error::settings("no node of the cluster is named")));
        };
        let nodes = Nodes::new(self.clone(), greeting, lines, absent);
        Ok(Routed(To::Nodes(Relay::of(nodes, server, status))))
    }

    /// The same in a cluster, where each node is connected to when it is asked something for the first time; `None` where it is no cluster, or nothing
    /// is known of its nodes yet.
    #[must_use]
    pub fn routed_by_need(&self, greeting: Vec<u8>, replies: usize) -> Option<Routed> {
        let mut status = self.status();
        let server = Arc::new(status.borrow_and_update().lowest().filter(|_| self.is_cluster())?);
        let greeting = Greeting { packed: greeting, replies };
        let nodes = Nodes::new(self.clone(), greeting, HashMap::new(), HashMap::new());
        Some(Routed(To::Nodes(Relay::of(nodes, server, status))))
    }

    /// The name of the node that has a slot, as far as is known; `None` where it is no cluster.
    #[must_use]
    pub fn node_of(&self, slot: u16) -> Option<Arc<str>> {
        Some(self.0.topology.known(Some(slot))?.dialer.name())
    }

    /// Since when each slot has its home; `None` where it is no cluster.
    #[must_use]
    pub fn homes(&self) -> Option<Homes> {
        self.is_cluster().then(|| self.0.topology.homes())
    }

    /// Whether it is a cluster: then commands about keys of several slots fail, and [`Dedicated`] connections lead to one node of several.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.0.topology.single().is_none()
    }
}

pub(super) async fn open(node: &Node, greeting: &Greeting) -> Result<Dedicated> {
    let mut line = Dedicated::of(node.dialer.open().await?);
    let limit = node.dialer.settings.connect_timeout;
    straight(&mut line, greeting.packed.clone(), greeting.replies, limit)
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(line)
}

/// Asks over one connection. What had no answer has the error that kept it away.
pub(super) async fn straight(
    line: &mut Dedicated,
    packed: Vec<u8>,
    replies: usize,
    limit: Duration,
) -> Vec<Result<Reply>> {
    let mut all = Vec::with_capacity(replies);
    let mut failed = line.send_packed(packed, replies).await.err();
    while failed.is_none() && all.len() < replies {
        match line.receive(limit).await {
            Ok(reply) => all.push(Ok(reply)),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        all.resize_with(replies, || Err(error.clone()));
    }
    all
}

impl Routed {
    /// Sends `replies` commands as bytes; each is answered by one reply, in order ([`Routed::receive`]). In a cluster they are sent when all
    /// before them is answered, by those who wait for the answers.
    ///
    /// Dropping the call loses nothing.
    ///
    /// # Errors
    /// As for [`Dedicated::send`].
    pub async fn send_packed(&mut self, packed: Vec<u8>, replies: usize) -> Result<()> {
        match &mut self.0 {
            To::One(line) => line.send_packed(packed, replies).await,
            To::Nodes(relay) => {
                relay.waiting.push_back(Question { packed, replies, only: Vec::new() });
                Ok(())
            }
        }
    }

    /// The next reply, within `limit`. An error that a server answers is a reply.
    ///
    /// Dropping the call loses nothing.
    ///
    /// # Errors
    /// As for [`Dedicated::receive`]. In a cluster it is about this command alone, whose reply will not come: the next call is about the next.
    pub async fn receive(&mut self, limit: Duration) -> Result<Reply> {
        match &mut self.0 {
            To::One(line) => line.receive(limit).await,
            To::Nodes(relay) => relay.receive(limit).await,
        }
    }

    /// The next reply, and those behind it that are there already, at the end of `into`; `limit` as for [`Routed::receive`].
    ///
    /// Dropping the call loses nothing.
    ///
    /// # Errors
    /// As for [`Routed::receive`]. What came before a failure is in `into`, and the failure is told by the next call.
    pub async fn receive_many(&mut self, limit: Duration, into: &mut Vec<Reply>) -> Result<()> {
        match &mut self.0 {
            To::One(line) => line.receive_many(limit, into).await,
            To::Nodes(relay) => {
                into.push(relay.receive(limit).await?);
                while relay.answers.front().is_some_and(Result::is_ok) {
                    into.extend(relay.answers.pop_front().into_iter().flatten());
                }
                Ok(())
            }
        }
    }

    /// Sends commands and waits for their replies: one result for each, in order.
    pub async fn ask(&mut self, packed: Vec<u8>, replies: usize, limit: Duration) -> Vec<Result<Reply>> {
        self.ask_only(packed, replies, Vec::new(), limit).await
    }

    /// The same; `only`: for each command with which number of [`Homes`] it was decided (nothing, or `u64::MAX`: it does not matter). In a cluster it is not done, and its result is an
    /// error, where a node took the place of the one that had its slot then. With one server it means nothing: see [`Routed::identity`].
    pub async fn ask_only(
        &mut self,
        packed: Vec<u8>,
        replies: usize,
        only: Vec<u64>,
        limit: Duration,
    ) -> Vec<Result<Reply>> {
        match &mut self.0 {
            To::One(line) => straight(line, packed, replies, limit).await,
            To::Nodes(relay) => {
                relay.waiting.push_back(Question { packed, replies, only });
                let mut all = Vec::with_capacity(replies);
                while all.len() < replies {
                    all.push(relay.receive(limit).await);
                }
                all
            }
        }
    }

    /// What the server said of itself when it was connected to; in a cluster the least that its nodes said.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        match &self.0 {
            To::One(line) => line.server(),
            To::Nodes(relay) => &relay.server,
        }
    }

    /// Which server this is; `None` in a cluster, which is several.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        match &self.0 {
            To::One(line) => Some(line.identity()),
            To::Nodes(_) => None,
        }
    }

    /// The number that the server gave the connection; `None` in a cluster, whose nodes end by themselves what is left of a connection that was cut.
    #[must_use]
    pub fn client_id(&self) -> Option<i64> {
        match &self.0 {
            To::One(line) => Some(line.client_id()),
            To::Nodes(_) => None,
        }
    }

    /// Gives up what was asked and is not answered: what was not sent yet is never sent, and no answer comes to what was. Whether the connection can be
    /// asked something else: only in a cluster, where it knows which connections to its nodes ended with something open, and ends them there first. A
    /// new one would not, and what they still bring would come late.
    pub fn abandon(&mut self) -> bool {
        match &mut self.0 {
            To::One(_) => false,
            To::Nodes(relay) => {
                relay.waiting.clear();
                relay.answers.clear();
                relay.asked.is_none()
            }
        }
    }

    /// Whether it is to be opened again before anything is asked. In a cluster it mends itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            To::One(line) => line.has_ended() || line.owed() > 0,
            To::Nodes(_) => false,
        }
    }
}

impl Relay {
    fn of(nodes: Nodes, server: Arc<Server>, status: watch::Receiver<Status>) -> Self {
        let (waiting, answers) = (VecDeque::new(), VecDeque::new());
        Self { nodes: Some(Box::new(nodes)), asked: None, waiting, answers, server, status }
    }

    async fn receive(&mut self, limit: Duration) -> Result<Reply> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            if self.asked.is_none() {
                let (Some(question), Some(mut nodes)) = (self.waiting.pop_front(), self.nodes.take()) else {
                    return Err(Error::settings("nothing was asked"));
                };
                self.asked = Some(Box::pin(async move {
                    let answers = nodes.ask(&question, limit).await;
                    (nodes, answers)
                }));
            }
            if let Some(asked) = &mut self.asked {
                let (nodes, answers) = asked.await;
                if self.status.has_changed().unwrap_or(false)
                    && let Some(lowest) = self.status.borrow_and_update().lowest()
                {
                    self.server = Arc::new(lowest);
                }
                (self.asked, self.nodes) = (None, Some(nodes));
                self.answers.extend(answers);
            }
        }
    }
}
