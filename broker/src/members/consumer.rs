//! A member of a group, as its user sees it.
//!
//! Not here: what is told, and when (`owner.rs`).

use super::{control::GroupControl, core::Core, shell::Shell};
use crate::{Consumer, Control, Event, Result};
use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct GroupConsumer<M: Shell> {
    member: Arc<M>,
    control: Arc<GroupControl<M>>,
}

impl<M: Shell> GroupConsumer<M> {
    pub(crate) fn new(member: Arc<M>) -> Self {
        member.counted().consumers.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(GroupControl::new(Arc::clone(&member)));
        Self { member, control }
    }
}

impl<M: Shell> Consumer for GroupConsumer<M> {
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

impl<M: Shell> Drop for GroupConsumer<M> {
    fn drop(&mut self) {
        self.member.counted().consumers.fetch_sub(1, Ordering::Relaxed);
        let stirred = self.member.core().abandon(Instant::now());
        self.member.stir(stirred);
    }
}
