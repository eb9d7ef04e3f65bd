//! The handlers of an event, remembered by topic and type.
//!
//! Bounded by what is registered: types that come over the wire and are not registered exactly are looked up anew and never kept.
//! Not here: registering (`router/mod.rs`).

use super::{Route, Router, pace::Pace};
use ropeway_broker::{Headers, Message, Topic, wire};
use std::{ops::Deref, sync::Arc};

/// The handlers of an event, in the order they run, and how quick they were.
#[derive(Clone, Debug)]
pub(crate) struct Plan(Arc<Planned>);

#[derive(Debug)]
struct Planned {
    routes: Box<[Arc<Route>]>,
    pace: Pace,
}

impl Plan {
    /// How quick they were.
    pub(crate) fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Whether they are clones of one another.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for Plan {
    type Target = [Arc<Route>];

    fn deref(&self) -> &Self::Target {
        &self.0.routes
    }
}

impl FromIterator<Arc<Route>> for Plan {
    fn from_iter<I: IntoIterator<Item = Arc<Route>>>(routes: I) -> Self {
        Self(Arc::new(Planned { routes: routes.into_iter().collect(), pace: Pace::new() }))
    }
}

/// What a router says about the topics of a subscription.
#[derive(Debug)]
pub(crate) struct Plans {
    router: Router,
    topics: Vec<(Topic, OfTopic)>,
    /// The one that was asked for last: messages come in batches of one topic.
    last: usize,
    /// The type that was found last in it, as the only header: many of one type come one after the other, and most say it first.
    again: Option<(Headers, Plan)>,
}

#[derive(Debug)]
struct OfTopic {
    /// For the types that are registered exactly, in order: to compare a few names costs less than to hash one.
    exact: Vec<(Box<str>, Plan)>,
    /// Handlers of this topic whose types are a pattern.
    patterns: Plan,
    /// They are all there are, and take every type: nothing has to be looked at.
    any: bool,
}

impl Plans {
    pub(crate) fn new(router: Router) -> Self {
        Self { router, topics: Vec::new(), last: 0, again: None }
    }

    pub(crate) const fn router(&self) -> &Router {
        &self.router
    }

    /// The handlers of a message of the topic that was asked for last, where its first header is the type that was found last, or where types make no
    /// difference.
    pub(crate) fn again(&self, topic: &Topic, message: &Message) -> Option<&Plan> {
        let (_, of_topic) = self.topics.get(self.last).filter(|(last, _)| same(last, topic))?;
        if of_topic.any {
            return Some(&of_topic.patterns);
        }
        let (said, plan) = self.again.as_ref()?;
        message.headers.packed().starts_with(said.packed()).then_some(plan)
    }

    /// The handlers of an event; none where no handler takes it.
    pub(crate) fn of(&mut self, topic: &Topic, event_type: Option<&str>) -> Plan {
        if self.topics.get(self.last).is_none_or(|(last, _)| !same(last, topic)) {
            let known = self.topics.iter().position(|(other, _)| other == topic);
            self.last = known.unwrap_or(self.topics.len());
            self.again = None;
            if known.is_none() {
                self.topics.push((topic.clone(), OfTopic::new(&self.router, topic)));
            }
        }
        let Some((_, of_topic)) = self.topics.get(self.last) else { return Plan::from_iter([]) };
        if let Some((name, plan)) = event_type.and_then(|name| Some((name, of_topic.exact(name)?))) {
            if self.again.as_ref().is_none_or(|(said, _)| said.get(wire::TYPE) != Some(Some(name.as_bytes())))
            {
                let said = Headers::builder().add(wire::TYPE, Some(name)).build();
                self.again = Some((said, plan.clone()));
            }
            return plan.clone();
        }
        let takes = |route: &Arc<Route>| route.takes(topic.as_str(), event_type);
        if of_topic.patterns.iter().all(takes) {
            return of_topic.patterns.clone();
        }
        of_topic.patterns.iter().filter(|route| takes(route)).cloned().collect()
    }
}

/// Whether they are the same topic: mostly it is the same piece of memory.
fn same(one: &Topic, other: &Topic) -> bool {
    std::ptr::eq(one.as_str(), other.as_str()) || one == other
}

impl OfTopic {
    fn new(router: &Router, topic: &Topic) -> Self {
        let here = |route: &&Arc<Route>| route.topics.matches(topic.as_str());
        let mut exact: Vec<(Box<str>, Plan)> = router
            .routes()
            .iter()
            .filter(here)
            .filter_map(|route| route.types.exact())
            .map(|name| (name.into(), router.plan(topic.as_str(), Some(name))))
            .collect();
        let patterns: Plan = router
            .routes()
            .iter()
            .filter(here)
            .filter(|route| route.types.exact().is_none())
            .cloned()
            .collect();
        let any = exact.is_empty() && patterns.iter().all(|route| route.types.is_any());
        // A type that is registered twice has the same plan twice.
        exact.sort_by(|(one, _), (other, _)| one.cmp(other));
        exact.dedup_by(|(one, _), (other, _)| one == other);
        Self { exact, patterns, any }
    }

    fn exact(&self, name: &str) -> Option<&Plan> {
        let at = self.exact.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        self.exact.get(at).map(|(_, plan)| plan)
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
                let (name, topic) = (topic, Topic::new(topic).unwrap());
                let message = Message::builder();
                let message = event_type.iter().fold(message, |message, name| message.event_type(name)).build();
                let again = plans.again(&topic, &message).cloned();
                let remembered = plans.of(&topic, event_type.as_deref());
                let plain = router.plan(name, event_type.as_deref());
                let indices = |plan: &Plan| plan.iter().map(|route| route.index).collect::<Vec<_>>();
                prop_assert_eq!(indices(&remembered), indices(&plain));
                prop_assert!(again.is_none_or(|again| indices(&again) == indices(&plain)));
            }
        }
    }
}
