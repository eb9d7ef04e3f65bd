//! Taking back what was given to workers and was not started.
//!
//! Not here: what becomes of it (`core.rs`).

use super::{Chain, Execute, Queued, Stance, State, Workers};
use crate::lanes::Ticket;

impl<X: Execute> Workers<X> {
    /// Takes back everything that was not started, what would have been started last first. What was begun elsewhere was started.
    pub(in crate::pool) fn recall(&mut self) -> Vec<Ticket> {
        let mut back = self.recall_followers();
        // The jobs are dropped outside of the lock.
        let mut queued = Vec::new();
        let mut next = Chain::new();
        {
            let mut state = self.shared.state();
            let State { queue, workers, done, .. } = &mut *state;
            *queue = keep_begun::<X, _>(std::mem::take(queue), &mut queued);
            for (me, worker) in workers.iter_mut().filter(|(_, worker)| worker.stance == Stance::Between) {
                let Some(first) = worker.chain.pop_front() else { continue };
                next.push_back(first);
                // What it gave back is the last of its chain now: where nobody has looked at that, it frees the worker once somebody does.
                let mut unread = done.iter_mut().rev().chain(self.fetched.iter_mut().rev());
                if let Some(before) = unread.find(|done| done.worker == me) {
                    before.last = true;
                    self.followers = self.followers.saturating_sub(1);
                } else {
                    self.out = self.out.saturating_sub(1);
                }
            }
        }
        self.given = keep_begun::<X, _>(std::mem::take(&mut self.given), &mut queued);
        self.out = self.out.saturating_sub(queued.len());
        back.extend(queued.into_iter().rev().map(|queued| queued.ticket));
        back.extend(next.into_iter().map(|(ticket, _)| ticket));
        back
    }

    /// Takes back what was not started and is behind the first of its chain, the last of each chain first. What a worker is just about to begin
    /// is a first.
    pub(in crate::pool) fn recall_followers(&mut self) -> Vec<Ticket> {
        let mut chains: Vec<Chain<X::Job>> = Vec::new();
        // Also what came back behind a failure that nobody has looked at yet.
        let mut back: Vec<Ticket> = self.fetched.iter_mut().flat_map(|done| done.back.drain(..)).collect();
        chains.extend(self.given.iter_mut().map(|queued| std::mem::take(&mut queued.behind)));
        {
            let mut state = self.shared.state();
            back.extend(state.done.iter_mut().flat_map(|done| done.back.drain(..)));
            chains.extend(state.queue.iter_mut().map(|queued| std::mem::take(&mut queued.behind)));
            chains.extend(state.workers.iter_mut().map(|(_, worker)| match worker.stance {
                Stance::Between if !worker.chain.is_empty() => worker.chain.split_off(1),
                _ => std::mem::take(&mut worker.chain),
            }));
        }
        // The jobs are dropped outside of the lock.
        back.extend(chains.into_iter().flat_map(|chain| chain.into_iter().rev()).map(|(ticket, _)| ticket));
        self.followers = self.followers.saturating_sub(back.len());
        back
    }
}

/// Moves what was not begun to `taken`, and answers with the rest.
fn keep_begun<X: Execute, Q>(all: Q, taken: &mut Vec<Queued<X::Job>>) -> Q
where
    Q: IntoIterator<Item = Queued<X::Job>> + FromIterator<Queued<X::Job>>,
{
    let (begun, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|queued| X::begun(&queued.job).is_some());
    taken.extend(rest);
    begun.into_iter().collect()
}
