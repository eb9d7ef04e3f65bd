//! What acts for a member, as the parts that its user holds see it; and the members that are open.
//!
//! Not here: the tasks and threads that act (the backend).

use super::{
    core::Core,
    owner::{Numbers, Stirred},
};
use crate::{Answer, Error, Message, Outcomes, Owned, Position, Result, Target, Topic, counted::Counted};
use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};

/// A member and what acts for it.
pub(crate) trait Shell: Debug + Send + Sync + 'static {
    type Core: Core;

    /// As errors name it.
    const BACKEND: &'static str;

    fn core(&self) -> MutexGuard<'_, Self::Core>;

    /// Calls who has something to do. Not under the lock.
    fn stir(&self, stirred: Stirred);

    fn counted(&self) -> &Counted;

    /// Settling comes from any thread.
    fn runtime(&self) -> &Handle;

    /// The error of an answer that did not come in time.
    fn late(&self) -> Error;

    /// Makes sure that the topics are there, and that it is stored where the group starts in them.
    fn ensure(&self, topics: &[Topic]) -> impl Future<Output = Result<()>> + Send;

    /// Publishes for the group.
    fn publish(&self, target: &Target, batch: Vec<Message>) -> Answer<Outcomes>;

    /// Publishes and acks in one step, in the order of the calls.
    ///
    /// # Errors
    /// `out` again, where the backend cannot.
    fn forward_at_once(
        &self,
        _of: &Owned,
        _done: &[Position],
        out: Vec<(Target, Message)>,
    ) -> Result<Answer<Outcomes>, Vec<(Target, Message)>> {
        Err(out)
    }

    /// Ends it as the end of the process would.
    #[cfg(any(test, feature = "conformance"))]
    fn kill(&self);

    /// Adds what its core counted.
    fn count(&self, core: &mut Self::Core) {
        let Numbers { delivered, unreadable, gaps, assigned, gone, left_out } =
            std::mem::take(&mut core.owner().numbers);
        let counted = self.counted();
        for (counter, number) in [
            (&counted.delivered, delivered),
            (&counted.unreadable, unreadable),
            (&counted.gaps, gaps),
            (&counted.assigned, assigned),
            (&counted.gone, gone),
            (&counted.left_out, left_out),
        ] {
            if number > 0 {
                counter.fetch_add(number, Ordering::Relaxed);
            }
        }
    }
}

/// The members that are open.
#[derive(Debug)]
pub(crate) struct Open<M>(Mutex<Vec<Weak<M>>>);

impl<M> Default for Open<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Shell> Open<M> {
    pub(crate) fn add(&self, member: &Arc<M>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|member| member.strong_count() > 0);
        all.push(Arc::downgrade(member));
    }

    fn all(&self) -> Vec<Arc<M>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends all of them: what they own is given up now, acks given before take effect. Answers when that is done, or `limit` is over.
    pub(crate) fn close(&self, limit: Duration) -> impl Future<Output = ()> + Send + use<M> {
        let close = |member: Arc<M>| {
            let (answer, answered) = oneshot::channel();
            let stirred = member.core().close(Duration::ZERO, Some(answer), Instant::now());
            member.stir(stirred);
            answered
        };
        let answers: Vec<_> = self.all().into_iter().map(close).collect();
        let all = async {
            for answered in answers {
                _ = answered.await;
            }
        };
        async move { _ = timeout(limit, all).await }
    }

    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn kill(&self) {
        self.all().iter().for_each(|member| member.kill());
    }
}
