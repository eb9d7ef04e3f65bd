//! What a backend decides of a member, beside what all members have in common.
//!
//! Pure. Not here: what they have in common (`owner.rs`), who acts (`shell.rs`).

use super::{
    owner::{Owner, Stirred, Unacked},
    share::Log,
};
use crate::{Event, Owned, Result, Topic};
use std::{fmt::Debug, task::Waker, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// What a member knows and decides.
pub(crate) trait Core: Debug + Send + 'static {
    type Log: Log;

    /// What it owns.
    fn owner(&mut self) -> &mut Owner<Self::Log>;

    /// Whether messages may be handed out: not where all may be another's by now, and nobody noticed.
    fn is_sure(&self, now: Instant) -> bool;

    /// Does what is due by the clock alone.
    fn tick(&mut self, now: Instant) -> Option<Waker>;

    /// From now on these are consumed.
    ///
    /// # Errors
    /// `Closed`.
    fn set_topics(&mut self, topics: Vec<Topic>) -> Result<Stirred>;

    /// It begins to close, or is to close earlier.
    fn closes(&mut self) {}

    fn pause(&mut self, of: &Owned, paused: bool) -> Stirred {
        self.owner().pause(of, paused)
    }

    fn give_up(&mut self, of: &Owned, now: Instant) -> Stirred {
        self.owner().give_up(of, now)
    }

    /// What is returned next; `None`: the waker will be called.
    fn poll(&mut self, waker: &Waker, now: Instant) -> (Option<Result<Event>>, Stirred) {
        let sure = self.is_sure(now);
        self.owner().poll(waker, sure, now)
    }

    /// Closes; `answer` is sent when it is over.
    fn close(
        &mut self,
        deadline: Duration,
        answer: Option<oneshot::Sender<Unacked>>,
        now: Instant,
    ) -> Stirred {
        if !self.owner().close(deadline, answer, now) {
            return Stirred::default();
        }
        self.closes();
        let waker = self.tick(now).or_else(|| self.owner().waker.take());
        Stirred { waker, keeper: true, feed: true }
    }

    /// Nobody polls any more: all is given up now.
    fn abandon(&mut self, now: Instant) -> Stirred {
        self.owner().dropped = true;
        self.close(Duration::ZERO, None, now)
    }
}
