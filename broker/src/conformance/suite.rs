//! The list of checks, and what runs them.
//!
//! Not here: the checks (a file per group), what a backend supplies (`backend.rs`).

use super::{Backend, Provides, Setup, retention::PIECE, stage::Stage};
use crate::Capabilities;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Completion, Failed, Trial};
use std::{sync::Arc, time::Duration};

/// The longest one check may take, whatever hangs.
const LONGEST: Duration = Duration::from_secs(240);

/// One promise and how it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The part of the contract: `publish`, `settle`, `groups`.
    pub group: &'static str,
    /// The behaviour in words, with `_` between them.
    pub name: &'static str,
    /// Its id in the project's catalogue of checks, such as `S5`; empty where it has none.
    pub anchor: &'static str,
    /// What it cannot do without.
    pub needs: &'static [Need],
    pub(super) run: for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, ()>,
}

/// What a check needs beyond the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Provides::reopen`].
    Reopen,
    /// [`Provides::crash`].
    Crash,
    /// [`Provides::unreadable`].
    Unreadable,
    /// [`Provides::dedup`].
    Dedup,
    /// [`Provides::retention`].
    Retention,
    /// That members choose who owns what: no [`Provides::assigns`].
    Chooses,
    /// That a static name can be taken over: no [`Provides::holds_names`].
    TakesOver,
    /// That a member of a static name that closed is no member any more: no [`Provides::keeps_names`].
    Leaves,
    /// [`Capabilities::atomic_forward`].
    AtomicForward,
    /// [`Capabilities::replay`].
    Replay,
    /// That [`Capabilities::compaction`] is missing, and must be refused.
    NoCompaction,
}

impl Need {
    fn missing(self, provides: Provides, capabilities: &Capabilities) -> Option<&'static str> {
        let (there, what) = match self {
            Self::Reopen => (provides.reopen, "nothing of it outlives the broker"),
            Self::Crash => (provides.crash, "it cannot be crashed and opened again"),
            Self::Unreadable => (provides.unreadable, "an unreadable record cannot be planted"),
            Self::Dedup => (provides.dedup, "it does not recognise repeats of an id"),
            Self::Retention => (provides.retention, "what it removes cannot be made small enough to be seen"),
            Self::Chooses => (!provides.assigns, "its members do not choose who gets what they give up"),
            Self::TakesOver => {
                (!provides.holds_names, "a static name is refused to a second member while the first lives")
            }
            Self::Leaves => {
                (!provides.keeps_names, "a static name stays a member for a while after it closed")
            }
            Self::AtomicForward => (capabilities.atomic_forward, "it has no atomic forward"),
            Self::Replay => (capabilities.replay, "it keeps nothing that was acked"),
            Self::NoCompaction => (!capabilities.compaction, "it can compact, so nothing is refused"),
        };
        (!there).then_some(what)
    }
}

/// What came of a check that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise was kept.
    Kept,
    /// It could not be checked, and why.
    Ignored(String),
}

impl Check {
    /// Runs it on a store of its own.
    ///
    /// # Errors
    /// What stood in the way: no runtime, no store, no broker.
    ///
    /// # Panics
    /// Where the promise is broken, with what was promised and what was seen.
    pub fn run(&self, backend: &Arc<dyn Backend>) -> Result<Verdict, String> {
        if let Some(why) = backend.absent() {
            return Ok(Verdict::Ignored(why));
        }
        let runtime = backend.runtime().map_err(|error| format!("there is no runtime: {error}"))?;
        runtime.block_on(async {
            let dedup = self.needs.contains(&Need::Dedup).then_some(Duration::from_secs(60));
            let piece = self.needs.contains(&Need::Retention).then_some(PIECE);
            let stage = Stage::open(backend, Setup { dedup_window: dedup, piece }).await?;
            let capabilities = stage.broker().capabilities();
            let missing = self.needs.iter().find_map(|need| need.missing(backend.provides(), &capabilities));
            if let Some(why) = missing {
                return Ok(Verdict::Ignored(why.to_owned()));
            }
            let ended = tokio::time::timeout(LONGEST, (self.run)(&stage)).await;
            ended.map_err(|_| format!("the check did not end within {LONGEST:?}"))?;
            Ok(stage.ignored().map_or(Verdict::Kept, Verdict::Ignored))
        })
    }
}

/// All checks.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    super::GROUPS.iter().copied().flatten()
}

/// The checks as trials of one backend.
#[must_use]
pub fn trials(backend: Arc<dyn Backend>) -> Vec<Trial> {
    trials_that_tell(backend, |_, _| {})
}

/// The same, which tell what each came to that did not fail.
#[must_use]
pub fn trials_that_tell(
    backend: Arc<dyn Backend>,
    tell: impl Fn(&'static Check, &Verdict) + Clone + Send + 'static,
) -> Vec<Trial> {
    let trial = |check: &'static Check| {
        let name = format!("{}::{}::{}", backend.name(), check.group, check.name);
        let kind = if check.anchor.is_empty() { check.group } else { check.anchor };
        let (backend, tell) = (Arc::clone(&backend), tell.clone());
        let run = move || {
            let verdict = check.run(&backend).map_err(Failed::from)?;
            tell(check, &verdict);
            Ok(match verdict {
                Verdict::Kept => Completion::Completed,
                Verdict::Ignored(why) => Completion::ignored_with(why),
            })
        };
        // Without the flag that says so before it runs: with that, the reason would not be printed.
        Trial::ignorable_test(name, run).with_kind(kind)
    };
    checks().map(trial).collect()
}

/// Makes the list of a group: id, function, needs.
macro_rules! group {
    ($group:literal: $($anchor:literal $check:ident $([$($need:ident),*])?;)*) => {
        pub(super) const CHECKS: &[super::Check] = &[$(super::Check {
            group: $group,
            name: stringify!($check),
            anchor: $anchor,
            needs: &[$($(super::Need::$need),*)?],
            run: |stage| Box::pin($check(stage)),
        }),*];
    };
}
pub(super) use group;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind, Result, conformance::Store};
    use std::collections::BTreeSet;

    #[derive(Debug)]
    struct Absent;

    impl Backend for Absent {
        fn name(&self) -> &str {
            "absent"
        }

        fn absent(&self) -> Option<String> {
            Some("there is no server".into())
        }

        fn store(&self, _: Setup) -> Result<Box<dyn Store>> {
            Err(Error::new(ErrorKind::Unavailable, "there is no server"))
        }
    }

    #[test]
    fn without_a_server_every_trial_is_ignored_with_the_reason() {
        let backend: Arc<dyn Backend> = Arc::new(Absent);
        for check in checks() {
            assert_eq!(check.run(&backend), Ok(Verdict::Ignored("there is no server".into())));
        }
        assert!(!trials(backend).iter().any(Trial::has_ignored_flag), "the reason would not be printed");
    }

    #[test]
    fn what_is_missing_is_ignored_and_not_kept() {
        let without = Capabilities {
            backend: "x",
            atomic_forward: false,
            replay: false,
            compaction: true,
            shared_by_processes: false,
        };
        use Need::{
            AtomicForward, Chooses, Crash, Dedup, Leaves, NoCompaction, Reopen, Replay, Retention, TakesOver,
            Unreadable,
        };
        let provides =
            Provides { assigns: true, holds_names: true, keeps_names: true, ..Provides::default() };
        for need in [
            Reopen,
            Crash,
            Unreadable,
            Dedup,
            Retention,
            Chooses,
            TakesOver,
            Leaves,
            AtomicForward,
            Replay,
            NoCompaction,
        ] {
            assert!(need.missing(provides, &without).is_some(), "{need:?}");
        }
    }

    #[test]
    fn each_check_has_a_name_of_its_own_and_every_id_of_the_catalogue_has_a_check() {
        let names: BTreeSet<_> = checks().map(|check| (check.group, check.name)).collect();
        assert_eq!(names.len(), checks().count());
        let ids: BTreeSet<_> = checks().map(|check| check.anchor).collect();
        for id in "P1 P2 P3 P4 P5 P6 P7 F1 F2 F3 S1 S5 S6 S9 O1 O4 O5 G1 G2 G3 G4 B1 B2 B3 D4".split(' ') {
            assert!(ids.contains(id), "{id} has no check");
        }
    }
}
