//! Members and readers, and what a group has of a partition, as they are kept in memory.
//!
//! Not here: what is stored of them (`state.rs`), what changes them (`groups.rs`, `handover.rs`, `delivery.rs`).

use super::{MemberId, ShareId};
use crate::{
    AckWindow, Assignment, Bound, Epoch, Error, Event, Group, InFlight, Owned, Position, Room, Start, Topic,
    balance::TopicPartition,
    embedded::{state::CursorRecord, time::Steady},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    task::Waker,
    time::Duration,
};
use tokio::sync::oneshot;

/// What [`Control::close`](crate::Control::close) answers with.
pub(super) type Unacked = Vec<(Owned, Vec<Position>)>;

/// A group.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    pub(super) members: BTreeMap<String, MemberId>,
    pub(super) shares: BTreeMap<TopicPartition, ShareId>,
    /// When it last had a member, as far as that is stored.
    pub(super) last_seen: Steady,
}

impl GroupState {
    /// What it has of the partitions of a topic.
    pub(super) fn shares_of(&self, topic: &Topic) -> impl Iterator<Item = ShareId> {
        self.shares.range((topic.clone(), 0)..=(topic.clone(), u32::MAX)).map(|(_, id)| *id)
    }
}

/// A member of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) is_static: bool,
    pub(super) topics: BTreeSet<Topic>,
    pub(super) start: Start,
    pub(super) bound: Bound,
    pub(super) ack_interval: Duration,
    pub(super) drain: Duration,
    pub(super) owned: HashMap<TopicPartition, ShareId>,
    pub(super) in_flight: Bound,
    /// What it was not told yet.
    pub(super) told: VecDeque<Told>,
    /// Partitions that have something to return, each once.
    pub(super) ready: VecDeque<ShareId>,
    /// Partitions that have something, but no room, each once.
    pub(super) waiting: Vec<ShareId>,
    /// Partitions whose acks are not stored yet.
    pub(super) dirty: Vec<ShareId>,
    pub(super) waker: Option<Waker>,
    /// No batches any more; it is not counted as a member.
    pub(super) leaving: bool,
    /// What ends it, when everything was told.
    pub(super) ended: Option<Error>,
    /// The step that ended it is committed.
    pub(super) over: bool,
    pub(super) unacked: Unacked,
    pub(super) closers: Vec<oneshot::Sender<Unacked>>,
}

impl Member {
    pub(super) fn room(&self, share: &Share) -> Room {
        InFlight::new(self.bound, self.owned.len()).room(self.in_flight, share.flight.total)
    }

    pub(super) fn queue(&mut self, id: ShareId, share: &mut Share) {
        if !share.queued {
            share.queued = true;
            self.ready.push_back(id);
        }
    }
}

/// What waits to be told to a member.
#[derive(Debug)]
pub(in crate::embedded) enum Told {
    /// These were assigned; reading of them starts when this is taken over.
    Assigned(Vec<(ShareId, Assignment)>),
    /// These are to be given up.
    Revoking(Vec<(ShareId, Owned)>),
    /// Anything else.
    Event(Event),
    /// Nothing more will be told: it has ended.
    Over,
}

/// What a group has of a partition, and what its owner does with it.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) group: Group,
    pub(super) topic: Topic,
    pub(super) partition: u32,
    /// The life of the topic that is read.
    pub(super) life: u64,
    pub(super) epoch: Option<Epoch>,
    pub(super) window: Option<AckWindow>,
    /// The position in an earlier life, until the owner was told of the gap.
    pub(super) before: Option<Position>,
    /// The static name that is stored: of the owner, else of [`Self::home`].
    pub(super) last_owner: String,
    /// The last static member that left while it owned this; it gets it back when it returns.
    pub(super) home: String,
    pub(super) owner: Option<MemberId>,
    /// Since when it is owned.
    pub(super) since: Steady,
    /// Who will own it when the owner has given it up.
    pub(super) target: Option<String>,
    /// The offset that is read next.
    pub(super) next: u64,
    /// Where the partition ended when reading began; `None`: that was told.
    pub(super) caught: Option<u64>,
    pub(super) flight: Flight,
    /// The size of the next message, where it had no room.
    pub(super) next_size: usize,
    /// Whether its owner knows that it owns it.
    pub(super) live: bool,
    pub(super) revoking: bool,
    pub(super) paused: bool,
    pub(super) queued: bool,
    /// Whether it has something, but no room.
    pub(super) waiting: bool,
    pub(super) dirty: bool,
}

impl Share {
    pub(super) fn new(group: Group, topic: Topic, partition: u32) -> Self {
        Self {
            group,
            topic,
            partition,
            life: 0,
            epoch: None,
            window: None,
            before: None,
            last_owner: String::new(),
            home: String::new(),
            owner: None,
            since: Steady::default(),
            target: None,
            next: 0,
            caught: None,
            flight: Flight::default(),
            next_size: 0,
            live: false,
            revoking: false,
            paused: false,
            queued: false,
            waiting: false,
            dirty: false,
        }
    }

    pub(super) fn owned(&self) -> Owned {
        Owned { topic: self.topic.clone(), partition: self.partition, epoch: self.epoch.unwrap_or_default() }
    }

    /// The stored position: everything before it is done.
    pub(super) fn position(&self) -> Option<Position> {
        self.before.or_else(|| self.window.as_ref().map(AckWindow::position))
    }

    pub(super) fn record(&self, max_map: usize) -> CursorRecord {
        let map = match (&self.window, self.before) {
            (Some(window), None) => window.encode(max_map).0,
            _ => Vec::new(),
        };
        CursorRecord { epoch: self.epoch, position: self.position(), map, owner: self.last_owner.clone() }
    }

    /// Whether messages may be returned.
    pub(super) const fn flows(&self) -> bool {
        self.live && !self.revoking && !self.paused
    }
}

/// How much is in flight of a partition; which messages, its window knows.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) total: Bound,
}

impl Default for Flight {
    fn default() -> Self {
        Self { total: Bound { messages: 0, bytes: 0 } }
    }
}

impl Flight {
    /// Notes that messages were handed out.
    pub(super) const fn hand_out(&mut self, messages: usize, bytes: usize) {
        self.total.messages += messages;
        self.total.bytes += bytes;
    }

    /// Notes that messages that were in flight are done.
    pub(super) const fn hand_in(&mut self, messages: usize, bytes: usize) {
        self.total.messages = self.total.messages.saturating_sub(messages);
        self.total.bytes = self.total.bytes.saturating_sub(bytes);
    }
}

/// A reader.
#[derive(Debug, Default)]
pub(super) struct ReaderState {
    pub(super) follows: HashMap<TopicPartition, Follow>,
    /// Topics of which it follows all partitions, later ones too.
    pub(super) all: HashSet<Topic>,
    pub(super) ready: VecDeque<TopicPartition>,
    pub(super) waker: Option<Waker>,
    pub(super) ended: Option<Error>,
}

/// A partition that a reader follows.
#[derive(Debug)]
pub(super) struct Follow {
    /// Where reading goes on.
    pub(super) next: Position,
    /// The position in an earlier life, until the reader was told of the gap.
    pub(super) before: Option<Position>,
    /// Where the partition ended when reading began; `None`: that was told.
    pub(super) caught: Option<u64>,
    pub(super) queued: bool,
}
