//! The list of checks, and what runs them.
//!
//! Not here: the checks (a file per group), what is checked (`subject.rs`).

use super::{
    stage::Stage,
    subject::{Original, Subject},
};
use futures::{FutureExt, future::LocalBoxFuture};
use libtest_mimic::{Completion, Failed, Trial};
use ropeway_broker::conformance::promise::cut;
use ropeway_broker::conformance::{Backend, Provides};
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// The longest one check may take, whatever hangs.
const LONGEST: Duration = Duration::from_secs(240);

/// One promise and how it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The part of the promises: `retry`, `order`, `shutdown`.
    pub group: &'static str,
    /// The behaviour in words, with `_` between them.
    pub name: &'static str,
    /// Its id in the project's catalogue of checks, such as `S3`; empty where it has none.
    pub anchor: &'static str,
    /// What it cannot do without.
    pub needs: &'static [Need],
    pub(super) run: for<'a> fn(&'a Stage) -> LocalBoxFuture<'a, ()>,
}

/// What a check needs of a backend beyond the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Provides::unreadable`].
    Unreadable,
}

impl Need {
    const fn missing(self, provides: Provides) -> Option<&'static str> {
        match self {
            Self::Unreadable if !provides.unreadable => Some("an unreadable record cannot be planted"),
            Self::Unreadable => None,
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was kept.
    Kept,
    /// It was broken: what was promised, and what was seen.
    Broken(String),
    /// It could not be checked, and why.
    Ignored(String),
}

impl Check {
    /// Runs it on a store of its own.
    ///
    /// # Errors
    /// What stood in the way: no runtime, no store, no broker.
    pub fn run(&self, backend: &dyn Backend, subject: Arc<dyn Subject>) -> Result<Outcome, String> {
        if let Some(why) = backend.absent() {
            return Ok(Outcome::Ignored(why));
        }
        if let Some(why) = self.needs.iter().find_map(|need| need.missing(backend.provides())) {
            return Ok(Outcome::Ignored(why.to_owned()));
        }
        let runtime = backend.runtime().map_err(|error| format!("there is no runtime: {error}"))?;
        runtime.block_on(async {
            let stage = Stage::open(backend, subject).await?;
            let checked = AssertUnwindSafe(tokio::time::timeout(LONGEST, (self.run)(&stage))).catch_unwind();
            Ok(match checked.await {
                Ok(Ok(())) => Outcome::Kept,
                Ok(Err(_)) => Outcome::Broken(format!("the check did not end within {LONGEST:?}")),
                Err(panic) => Outcome::Broken(said(&*panic)),
            })
        })
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    cut(text.map(str::to_owned).or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
}

/// All checks.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    super::GROUPS.iter().copied().flatten()
}

/// The checks of the processor and the worker pool as trials over one backend.
#[must_use]
pub fn trials(backend: Arc<dyn Backend>) -> Vec<Trial> {
    trials_that_tell(backend, |_, _| {})
}

/// The same, which tell what each came to.
#[must_use]
pub fn trials_that_tell(
    backend: Arc<dyn Backend>,
    tell: impl Fn(&'static Check, &Outcome) + Clone + Send + 'static,
) -> Vec<Trial> {
    let trial = |check: &'static Check| {
        let name = format!("{}::{}::{}", backend.name(), check.group, check.name);
        let kind = if check.anchor.is_empty() { check.group } else { check.anchor };
        let (backend, tell) = (Arc::clone(&backend), tell.clone());
        let run = move || {
            let outcome = check.run(&*backend, Arc::new(Original)).map_err(Failed::from)?;
            tell(check, &outcome);
            match outcome {
                Outcome::Kept => Ok(Completion::Completed),
                Outcome::Ignored(why) => Ok(Completion::ignored_with(why)),
                Outcome::Broken(why) => Err(Failed::from(why)),
            }
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
