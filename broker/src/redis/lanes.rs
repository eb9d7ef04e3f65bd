//! The ways to the nodes of a cluster, for what many ask at the same time: one for each node, so that nobody waits for what a node does that is not asked.
//!
//! A slot keeps the way over which it was asked first, though it may be at another node by now: so what is asked of a slot keeps its order, and each way leads on
//! to where the slot is. Not here: what is done over one way (`commands.rs`).

use super::request::Request;
use ropeway_store::redis::{Place, Redis, places};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What of a request goes over one way: which of its commands.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) way: Arc<str>,
    pub(super) request: Request,
    pub(super) at: Vec<usize>,
}

/// Which way each slot goes, by the name of the node that had it first; empty for what goes anywhere.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    of: HashMap<u16, Arc<str>>,
    anywhere: Arc<str>,
}

impl Lanes {
    /// Takes a request apart; `ways`: all there are, for what goes to all. What is no command goes anywhere, and is refused there.
    pub(super) fn parts<'a>(
        &mut self,
        redis: &Redis,
        request: Request,
        ways: impl Iterator<Item = &'a Arc<str>>,
    ) -> Vec<Part> {
        let places = places(request.as_bytes()).filter(|places| places.len() == request.commands());
        let Some(places) = places else {
            let at = (0..request.commands()).collect();
            return vec![Part { way: Arc::clone(&self.anywhere), request, at }];
        };
        let everywhere: Vec<_> = ways.cloned().collect();
        let mut parts: BTreeMap<Arc<str>, Part> = BTreeMap::new();
        for (at, (range, place)) in places.into_iter().enumerate() {
            let ways = match place {
                Place::Slot(slot) => vec![self.way(redis, slot)],
                Place::Anywhere => vec![Arc::clone(&self.anywhere)],
                Place::Everywhere => everywhere.clone(),
            };
            for way in ways {
                let new = || Part { way: Arc::clone(&way), request: Request::default(), at: Vec::new() };
                let part = parts.entry(Arc::clone(&way)).or_insert_with(new);
                part.request.packed(&request.as_bytes()[range.clone()]);
                part.at.push(at);
            }
        }
        parts.into_values().collect()
    }

    fn way(&mut self, redis: &Redis, slot: u16) -> Arc<str> {
        let Self { of, anywhere } = self;
        let first = || redis.node_of(slot).unwrap_or_else(|| Arc::clone(anywhere));
        Arc::clone(of.entry(slot).or_insert_with(first))
    }
}
