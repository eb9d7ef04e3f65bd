//! The conformance suite of the processor over the backends of this build, and the doubles that prove that its checks can fail.
//!
//! Not here: the checks (`processor/src/conformance`), the backends as the suites want them (`tests/support/backends.rs`).

mod doubles;

use libtest_mimic::{Arguments, Trial};
use ropeway_broker::conformance::Backend;
use ropeway_processor::conformance::{Outcome, checks, trials_that_tell};
use ropeway_tests::{
    backends,
    matrix::{Cell, Matrix, PROCESSING},
    redis::Redis,
};
use std::sync::Arc;

/// The trials of a backend, which note on the page what they come to.
fn noted(matrix: &Matrix, backend: &Arc<dyn Backend>) -> Vec<Trial> {
    let (matrix, name) = (matrix.clone(), backend.name().to_owned());
    trials_that_tell(Arc::clone(backend), move |check, outcome| {
        let cell = match outcome {
            Outcome::Kept => Cell::Kept,
            Outcome::Ignored(why) => Cell::Ignored(why.clone()),
            Outcome::Broken(_) => return,
        };
        matrix.note(&name, (check.group, check.name), cell);
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // Trials in real time wait most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let memory: Arc<dyn Backend> = Arc::new(backends::Memory);
    let all: Vec<Arc<dyn Backend>> = vec![
        memory.clone(),
        Arc::new(backends::Directory),
        Arc::new(Redis::Alone),
        Arc::new(Redis::Sentinel),
        Arc::new(Redis::Cluster),
        Arc::new(ropeway_tests::kafka::OnKafka::Classic),
    ];
    let matrix = Matrix::new(PROCESSING, &all, checks().map(|check| (check.group, check.name)).collect());
    let mut every: Vec<Trial> = all.iter().flat_map(|backend| noted(&matrix, backend)).collect();
    every.extend(doubles::trials(&memory));
    matrix.run(&arguments, every).exit();
}
