//! What a member knows of the log of a partition that it owns, and what is to be committed of it.
//!
//! Pure. Not here: what all backends do with an owned partition (`../../members/share.rs`), what it begins with (`taking.rs`), how much is read
//! (`gate.rs`), the commit itself (`poller.rs`).

use super::{
    super::metadata::{Metadata, map_of},
    gate::has_drained,
    going::LAST,
};
use crate::{
    AckWindow, Assignment, Bound, Error, GapReason, Message, Owned, Position, Result, Timestamp,
    members::{self, Gap, Log},
};
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range, time::Duration};
use tokio::time::Instant;

/// Of how many messages that are done it is kept at the least when they were written, before that is cleared away.
const SLACK: usize = 64;

/// What a partition begins with.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) of: Owned,
    pub(super) life: u64,
    pub(super) window: AckWindow,
    /// The group's position, where it had one.
    pub(super) resumed: Option<Position>,
    /// The first offset that is read.
    pub(super) from: u64,
    /// Behind the last message that was there when this began.
    pub(super) end: u64,
    /// What is missing, which is told first.
    pub(super) gap: Option<Gap>,
}

/// Whether positions mean other messages behind it.
const fn is_another_log(gap: &Gap) -> bool {
    matches!(gap.why, GapReason::Recreated | GapReason::Truncated)
}

/// A record that was read, copied out of the client.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) offset: u64,
    /// By the record, in milliseconds.
    pub(super) at: i64,
    /// Without bytes: a batch of records that begins here and is damaged.
    pub(super) what: Result<Message, (Option<Bytes>, Error)>,
}

/// A commit that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) of: Owned,
    /// Everything before it is done.
    pub(super) position: Position,
    pub(super) metadata: String,
    /// Which acks it covers.
    pub(super) changes: u64,
    /// How many had asked whether the epoch holds.
    pub(super) confirms: usize,
    /// Holes that had no place in the metadata.
    pub(super) left_out: usize,
}

/// The log of a partition that a member owns.
#[derive(Debug)]
pub(in crate::kafka) struct PartitionLog {
    pub(super) life: u64,
    resumed: Option<Position>,
    /// Where reading began, and where the group was before where that is another log.
    began: Position,
    before: Option<Position>,
    /// When what is handed out was written, as far as it may be what is oldest of what is not done. However long that stays out: of twice what is out, and
    /// [`SLACK`].
    pub(super) times: VecDeque<(Position, i64)>,
    /// The next offset that is read.
    pub(super) next: u64,
    /// The offsets that were passed over last.
    passed: Range<u64>,
    /// Behind the last message that was there at the start, until that was told.
    end: Option<u64>,
    /// The client reads it for this epoch.
    pub(super) placed: bool,
    /// The client was told to stop reading it for a while.
    pub(super) held: bool,
    /// When something of it was read last.
    pub(super) read_at: Instant,
    /// What lies ready may be of another topic of that name: it waits for the look behind that one.
    pub(super) parked: Option<u64>,
    /// The client cannot go on from there; it is to be looked why.
    pub(super) stuck: Option<u64>,
    /// When it was looked last whether it stands still, and up to where nothing was missing then.
    pub(super) stood: Option<Instant>,
    pub(super) fine: u64,
    /// It cannot go on there because a batch that begins there is damaged, which was told.
    pub(super) damaged: Option<u64>,
}

impl Log for PartitionLog {
    /// When it was written.
    type Mark = i64;

    const LAST: Option<Duration> = Some(LAST);

    fn flows(&self) -> bool {
        self.parked.is_none()
    }

    fn passed(&mut self, position: Position, at: i64, is_new: bool) {
        if is_new {
            self.times.push_back((position, at));
        }
    }

    fn acked(&mut self, _done: &[Position], window: &AckWindow) {
        let position = window.position();
        while self.times.front().is_some_and(|(at, _)| *at < position) {
            self.times.pop_front();
        }
        // Behind one that stays out, what is done would pile up.
        if self.times.len() > 2 * window.open() + SLACK {
            let mut open = window.open_positions().peekable();
            self.times.retain(|(at, _)| {
                while open.next_if(|first| first < at).is_some() {}
                open.peek() == Some(at)
            });
        }
    }

    fn wants_more(&mut self, ahead: Bound, owned: usize) -> bool {
        self.held && has_drained(ahead, owned)
    }
}

/// A partition that a member owns.
pub(super) type Share = members::Share<PartitionLog>;

impl Share {
    pub(super) fn begin(taken: Taken, now: Instant) -> Self {
        let log = PartitionLog {
            life: taken.life,
            resumed: taken.resumed,
            began: taken.window.position(),
            before: taken.gap.filter(is_another_log).and_then(|gap| gap.from),
            times: VecDeque::new(),
            next: taken.from,
            passed: 0..0,
            end: Some(taken.end),
            placed: false,
            held: false,
            read_at: now,
            parked: None,
            stuck: None,
            stood: None,
            fine: 0,
            damaged: None,
        };
        let mut share = Self::new(taken.of, taken.window, false, log);
        taken.gap.into_iter().for_each(|gap| share.put_gap(gap));
        share.catch_up();
        share
    }

    /// What its owner is told first.
    pub(super) fn assignment(&self) -> Assignment {
        let from = self.log.began.max(Position(self.log.life, self.log.next));
        Assignment { of: self.of.clone(), resumed: self.log.resumed, from }
    }

    /// Whether what is read is for it.
    pub(super) const fn takes(&self) -> bool {
        self.log.placed && self.log.stuck.is_none() && self.is_kept()
    }

    fn catch_up(&mut self) {
        if self.log.end.is_some_and(|end| end <= self.log.next) {
            self.log.end = None;
            self.put_caught_up();
        }
    }

    /// Takes what was read. A jump of offsets is no gap: compaction, and markers of transactions.
    pub(super) fn put_all(&mut self, reads: impl Iterator<Item = Read>) {
        for Read { mut offset, at, what } in reads {
            // What the client brings behind a damaged batch may be anything.
            if self.log.damaged.is_some() {
                return;
            }
            if matches!(what, Err((None, _))) {
                (self.log.damaged, self.log.stuck, self.log.placed) = (Some(offset), Some(offset), false);
                offset = offset.max(self.log.next);
            }
            if offset < self.log.next {
                self.goes_back(offset);
                continue;
            }
            if offset > self.log.next {
                self.log.passed = self.log.next..offset;
            }
            self.log.next = offset + 1;
            self.put(members::Read { position: Position(self.log.life, offset), mark: at, what });
            self.catch_up();
        }
    }

    /// Where something lies in what was passed over, the batch before it lies of where it is, by its own offset, which no checksum covers. That was handed out, and
    /// positions of a group do not go back: all that was passed over is missing, up to the end of that batch.
    fn goes_back(&mut self, offset: u64) {
        if self.log.passed.contains(&offset) {
            let from = std::mem::take(&mut self.log.passed).start;
            let at = |offset| Some(Position(self.log.life, offset));
            let gap = Gap { from: at(from), to: at(self.log.next), why: GapReason::Damaged };
            self.put_gap(gap);
        }
    }

    /// What is missing, from the next offset that is read up to there: reading goes on there.
    pub(super) fn lacks(&mut self, to: u64, why: GapReason) {
        self.log.damaged = None;
        if to > self.log.next {
            let at = |offset| Some(Position(self.log.life, offset));
            let gap = Gap { from: at(self.log.next), to: at(to), why };
            self.log.next = to;
            self.put_gap(gap);
        }
        self.catch_up();
    }

    /// What is to be committed: always with the metadata, which a commit without would erase, in at most so many bytes.
    pub(super) fn commit(&self, most: usize) -> Commit {
        let position = self.window.position();
        let (map, left_out) = self.window.encode(map_of(most));
        let oldest = self.log.times.front().filter(|(at, _)| *at == position);
        let metadata = Metadata {
            life: self.log.life,
            epoch: self.of.epoch,
            oldest: oldest.map(|(_, at)| Timestamp::from_millis(*at)),
            // Until something of this log is done: who comes next would not know what is missing.
            before: self.log.before.filter(|_| position == self.log.began && map.is_empty()),
            map,
        };
        let (of, metadata) = (self.of.clone(), metadata.encode());
        Commit { of, position, metadata, changes: self.changes, confirms: self.confirms.len(), left_out }
    }
}
