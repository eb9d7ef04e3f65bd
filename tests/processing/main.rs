//! The conformance suite of the processor over the backends of this build, and the doubles that prove that its checks can fail.
//!
//! Not here: the checks (`processor/src/conformance`), the backends as the suites want them (`tests/support/backends.rs`).

mod doubles;

use libtest_mimic::Arguments;
use ropeway_broker::conformance::Backend;
use ropeway_processor::conformance::trials;
use ropeway_tests::backends;
use std::sync::Arc;

fn main() {
    let mut arguments = Arguments::from_args();
    // Trials in real time wait most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let memory: Arc<dyn Backend> = Arc::new(backends::Memory);
    let mut all = trials(memory.clone());
    all.extend(trials(Arc::new(backends::Directory)));
    all.extend(trials(Arc::new(ropeway_tests::redis::Redis)));
    all.extend(doubles::trials(&memory));
    libtest_mimic::run(&arguments, all).exit();
}
