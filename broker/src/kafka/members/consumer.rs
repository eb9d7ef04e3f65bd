//! A member of a group, as its user sees it.
//!
//! Not here: what is told, and when (`core.rs`).

use super::{Member, control::GroupControl};
use crate::{Consumer, Control, Event, Result};
use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct GroupConsumer {
    member: Arc<Member>,
    control: Arc<GroupControl>,
}

impl GroupConsumer {
    pub(super) fn new(member: Arc<Member>) -> Self {
        member.shared.counted.consumers.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(GroupControl::new(Arc::clone(&member)));
        Self { member, control }
    }
}

impl Consumer for GroupConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        let (event, stirred) = {
            let mut core = self.member.core();
            let polled = core.poll(cx.waker(), Instant::now());
            self.member.count(&mut core);
            polled
        };
        self.member.stir(stirred);
        event.map_or(Poll::Pending, Poll::Ready)
    }

    fn control(&self) -> Arc<dyn Control> {
        self.control.clone()
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.member.shared.counted.consumers.fetch_sub(1, Ordering::Relaxed);
        let stirred = self.member.core().abandon(Instant::now());
        self.member.stir(stirred);
    }
}
