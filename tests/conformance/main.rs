//! The conformance suite over the backends of this build, and over the wrappers: they are brokers too.
//!
//! Not here: the checks (`broker/src/conformance`), the backends as the suite wants them (`tests/support/backends.rs`), the proof that
//! each check can fail (`tests/conformance/doubles`).

use libtest_mimic::{Arguments, Trial};
use ropeway_broker::conformance::{Backend, Verdict, checks, trials, trials_that_tell};
use ropeway_tests::{
    backends,
    matrix::{BUS, Cell, Matrix},
};
use std::sync::Arc;

/// The trials of a backend, which note on the page what they come to.
fn noted(matrix: &Matrix, backend: &Arc<dyn Backend>) -> Vec<Trial> {
    let (matrix, name) = (matrix.clone(), backend.name().to_owned());
    trials_that_tell(Arc::clone(backend), move |check, verdict| {
        let cell = match verdict {
            Verdict::Kept => Cell::Kept,
            Verdict::Ignored(why) => Cell::Ignored(why.clone()),
        };
        matrix.note(&name, (check.group, check.name), cell);
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Trials in real time wait most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let all = backends::all();
    let matrix = Matrix::new(BUS, &all, checks().map(|check| (check.group, check.name)).collect());
    let mut every: Vec<Trial> = all.iter().flat_map(|backend| noted(&matrix, backend)).collect();
    every.extend(backends::wrapped().into_iter().flat_map(trials));
    matrix.run(&arguments, every).exit();
}
