//! The handlers of an event, remembered by topic and type.
//!
//! Bounded by what is registered: types that come over the wire and are not registered exactly are looked up anew and never kept.
//! Not here: registering (`router/mod.rs`).

use super::{Route, Router};
use ropeway_broker::Topic;
use std::{collections::HashMap, sync::Arc};

/// The handlers of an event, in the order they run.
pub(crate) type Plan = Arc<[Arc<Route>]>;

/// What a router says about the topics of a subscription.
#[derive(Debug)]
pub(crate) struct Plans {
    router: Router,
    topics: HashMap<Topic, OfTopic>,
}

#[derive(Debug)]
struct OfTopic {
    /// For the types that are registered exactly.
    exact: HashMap<Box<str>, Plan>,
    /// Handlers of this topic whose types are a pattern.
    patterns: Plan,
}

impl Plans {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, topics: HashMap::new() }
    }

    pub(crate) const fn router(&self) -> &Router {
        &self.router
    }

    /// The handlers of an event; none where no handler takes it.
    pub(crate) fn of(&mut self, topic: &Topic, event_type: Option<&str>) -> Plan {
        if !self.topics.contains_key(topic) {
            let of_topic = OfTopic::new(&self.router, topic);
            self.topics.insert(topic.clone(), of_topic);
        }
        let Some(of_topic) = self.topics.get(topic) else { return Plan::from([]) };
        if let Some(plan) = event_type.and_then(|name| of_topic.exact.get(name)) {
            return plan.clone();
        }
        let takes = |route: &Arc<Route>| route.takes(topic.as_str(), event_type);
        if of_topic.patterns.iter().all(takes) {
            return of_topic.patterns.clone();
        }
        of_topic.patterns.iter().filter(|route| takes(route)).cloned().collect()
    }
}

impl OfTopic {
    fn new(router: &Router, topic: &Topic) -> Self {
        let here = |route: &&Arc<Route>| route.topics.matches(topic.as_str());
        let exact = router
            .routes()
            .iter()
            .filter(here)
            .filter_map(|route| route.types.exact())
            .map(|name| (name.into(), router.plan(topic.as_str(), Some(name))))
            .collect();
        let patterns = router
            .routes()
            .iter()
            .filter(here)
            .filter(|route| route.types.exact().is_none())
            .cloned()
            .collect();
        Self { exact, patterns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoxError, Verdict, raw};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_remembered_agrees_with_the_router(
            routes in proptest::collection::vec(("(t1|t2|t\\*|\\*)", "(a|a\\.b|a\\*|\\*|b)"), 0..6),
            events in proptest::collection::vec(("t[12]", proptest::option::of("(a|a\\.b|ab|b|c)")), 1..10),
        ) {
            let router = routes.iter().fold(Router::new(), |router, (topics, types)| {
                router.on_topic(topics, types, raw(|_, _| async { Ok::<_, BoxError>(Verdict::Done) }))
            });
            let mut plans = Plans::new(router.clone());
            for (topic, event_type) in &events {
                let remembered = plans.of(&Topic::new(topic).unwrap(), event_type.as_deref());
                let plain = router.plan(topic, event_type.as_deref());
                let indices = |plan: &Plan| plan.iter().map(|route| route.index).collect::<Vec<_>>();
                prop_assert_eq!(indices(&remembered), indices(&plain));
            }
        }
    }
}
