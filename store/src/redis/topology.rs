//! The servers that are used, and which of them holds what: one, or the primaries of a cluster.
//!
//! Not here: one server and its connections (`node.rs`), which slot a command has (`slots.rs`), what is done with a redirection
//! (`request.rs`).

use super::{
    dialer::{Dialer, To},
    error::{Error, ErrorKind, Result},
    homes::{Homes, Owners},
    link::Request,
    node::Node,
    settings::{RedisSettings, Target},
    slots::SLOTS,
    status::Board,
    url::Address,
};
use ::redis::{Value, cmd};
use futures::future::select_ok;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// How long one node is waited for before the next is asked as well where the slots are.
const TURN: Duration = Duration::from_millis(200);

/// The servers, and the way to each.
pub(super) struct Topology {
    settings: Arc<RedisSettings>,
    pub(super) board: Arc<Board>,
    /// The server, where there is one only.
    single: Option<Arc<Node>>,
    cluster: Mutex<Cluster>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Cluster {
    /// Rises with each look at the slots.
    looked: u64,
    nodes: HashMap<Address, Arc<Node>>,
    /// Sorted.
    ranges: Vec<Range>,
    /// Who told them.
    told: Option<Address>,
    owners: Owners,
}

/// Slots that lie beside each other at one node.
#[derive(Debug)]
struct Range {
    first: u16,
    last: u16,
    address: Address,
    /// The name that the node has in its cluster: it keeps it when it is started again, also elsewhere.
    node: Arc<str>,
}

impl Topology {
    pub(super) fn new(settings: Arc<RedisSettings>, board: Arc<Board>) -> Result<Self> {
        let to = match &settings.target {
            Target::Single(address) => Some(To::Address(address.clone())),
            Target::Sentinel { sentinels, service } => {
                Some(To::Service { sentinels: sentinels.clone(), service: service.clone() })
            }
            Target::Cluster(_) => None,
        };
        let node = |to| Node::new(Arc::new(Dialer::new(Arc::clone(&settings), to, Arc::clone(&board))));
        let single = to.map(node).transpose()?.map(Arc::new);
        Ok(Self {
            settings,
            board,
            single,
            cluster: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        })
    }

    /// The only server, where there is one only.
    pub(super) fn single(&self) -> Option<&Arc<Node>> {
        self.single.as_ref()
    }

    /// All servers that are used now.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        match &self.single {
            Some(node) => vec![Arc::clone(node)],
            None => {
                let cluster = self.cluster();
                let mut used: Vec<&Address> = cluster.ranges.iter().map(|range| &range.address).collect();
                used.sort_by_key(|address| address.to_string());
                used.dedup();
                used.into_iter().filter_map(|address| cluster.nodes.get(address).cloned()).collect()
            }
        }
    }

    /// Who has `slot`; any server where there is none to look for. Looks at the cluster first where that was never done.
    pub(super) async fn owner(&self, slot: Option<u16>) -> Result<Arc<Node>> {
        if let Some(node) = &self.single {
            return Ok(Arc::clone(node));
        }
        if self.looked() == 0 {
            self.refresh(0).await?;
        }
        self.known(slot).ok_or_else(|| {
            let what = format!("no node of the cluster has slot {}", slot.unwrap_or_default());
            Error::new(ErrorKind::Cluster, &self.settings.target.to_string().into(), what)
        })
    }

    /// Who has `slot` in a cluster, as far as is known.
    pub(super) fn known(&self, slot: Option<u16>) -> Option<Arc<Node>> {
        let cluster = self.cluster();
        let range = match slot {
            Some(slot) => {
                let after = cluster.ranges.partition_point(|range| range.last < slot);
                cluster.ranges.get(after).filter(|range| range.first <= slot)
            }
            None => cluster.ranges.first(),
        };
        cluster.nodes.get(&range?.address).cloned()
    }

    /// The node at `address`, known or new.
    pub(super) fn at(&self, address: Address) -> Result<Arc<Node>> {
        let mut cluster = self.cluster();
        self.node_in(&mut cluster, address)
    }

    fn node_in(&self, cluster: &mut Cluster, address: Address) -> Result<Arc<Node>> {
        if let Some(node) = cluster.nodes.get(&address) {
            return Ok(Arc::clone(node));
        }
        let to = To::Address(address.clone());
        let node = Node::new(Arc::new(Dialer::new(Arc::clone(&self.settings), to, Arc::clone(&self.board))))?;
        let node = Arc::new(node);
        cluster.nodes.insert(address, Arc::clone(&node));
        Ok(node)
    }

    /// Since when each slot has its home; nobody asks where there is one server.
    pub(super) fn homes(&self) -> Homes {
        self.cluster().owners.homes()
    }

    /// How often the slots were looked at; to be given to [`Topology::refresh`].
    pub(super) fn looked(&self) -> u64 {
        self.cluster().looked
    }

    /// Looks at the slots, unless that was done since `seen`.
    pub(super) async fn refresh(&self, seen: u64) -> Result<()> {
        let Target::Cluster(seeds) = &self.settings.target else { return Ok(()) };
        let _one_at_a_time = self.refreshing.lock().await;
        if self.looked() > seen {
            return Ok(());
        }
        let asked: Vec<Address> = {
            let cluster = self.cluster();
            let ranges = cluster.ranges.iter().map(|range| &range.address);
            let mut all: Vec<_> = cluster.told.iter().chain(ranges).chain(seeds).cloned().collect();
            all.dedup();
            all
        };
        if asked.is_empty() {
            return Err(Error::settings("no node of the cluster is named"));
        }
        let looks = asked.iter().zip(0..).map(|(address, turn)| {
            Box::pin(async move {
                sleep(TURN * turn).await;
                Ok((self.look(address).await?, address))
            })
        });
        let ((ranges, address), _) = select_ok(looks).await?;
        self.adopt(ranges, address)
    }

    async fn look(&self, asked: &Address) -> Result<Vec<Range>> {
        let node = self.at(asked.clone())?;
        let answers = node.run(Request::One(cmd("CLUSTER").arg("SLOTS"))).await?;
        let value = answers.into_iter().next().unwrap_or(Ok(Value::Nil)).map_err(|error| {
            if !error.what().contains("cluster support disabled") {
                return error;
            }
            let what = "it is no node of a cluster; use redis:// (rediss:// with TLS) for one server";
            Error::new(ErrorKind::Settings, &node.dialer.name(), what)
        })?;
        let mut ranges = ranges(&value, asked);
        if ranges.is_empty() {
            let what = "it is no node of a cluster, or of one without slots";
            return Err(Error::new(ErrorKind::Cluster, &node.dialer.name(), what));
        }
        ranges.sort_by_key(|range| range.first);
        Ok(ranges)
    }

    fn adopt(&self, ranges: Vec<Range>, told: &Address) -> Result<()> {
        let mut cluster = self.cluster();
        cluster.told = Some(told.clone());
        for range in &ranges {
            self.node_in(&mut cluster, range.address.clone())?;
        }
        let primaries =
            ranges.iter().map(|range| range.address.clone()).collect::<std::collections::HashSet<_>>();
        if cluster.owners.look(ranges.iter().map(|range| (range.first, range.last, &range.node))) {
            let cluster = &self.settings.target;
            tracing::warn!(%cluster, "a node took the place of another one: what only the one before had is lost");
        }
        cluster.nodes.retain(|address, _| primaries.contains(address));
        cluster.ranges = ranges;
        cluster.looked += 1;
        drop(cluster);
        self.board.keep(|name| primaries.iter().any(|address| address.to_string() == name));
        Ok(())
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `CLUSTER SLOTS` says; a node without an address is the one that was asked.
fn ranges(value: &Value, asked: &Address) -> Vec<Range> {
    let items = |value: &Value| if let Value::Array(items) = value { items.clone() } else { Vec::new() };
    let slot = |value: &Value| match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    };
    let range = |entry: &Value| {
        let entry = items(entry);
        let [first, last, primary, ..] = entry.as_slice() else { return None };
        let primary = items(primary);
        let [host, Value::Int(port), name @ ..] = primary.as_slice() else { return None };
        let text = |value: &Value| match value {
            Value::BulkString(text) => String::from_utf8(text.clone()).ok(),
            _ => Some(String::new()),
        };
        let address = beside(asked, &text(host)?, u16::try_from(*port).ok()?);
        let node = name.first().and_then(text).filter(|name| !name.is_empty());
        let node = node.unwrap_or_else(|| address.to_string()).into();
        Some(Range { first: slot(first)?, last: slot(last)?, address, node })
    };
    items(value).iter().filter_map(range).collect()
}

/// The address of a node that another one named.
pub(super) fn beside(asked: &Address, host: &str, port: u16) -> Address {
    let host = match asked {
        Address::Tcp { host: own, .. } if host.is_empty() || host == "?" => own,
        _ => host,
    };
    Address::Tcp { host: host.to_owned(), port }
}
