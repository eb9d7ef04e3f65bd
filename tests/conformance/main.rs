//! The conformance suite over the backends of this build, and over the wrappers: they are brokers too.
//!
//! Not here: the checks (`broker/src/conformance`), the backends as the suite wants them (`tests/support/backends.rs`), the proof that
//! each check can fail (`tests/conformance/doubles`).

use libtest_mimic::Arguments;
use ropeway_broker::conformance::trials;

fn main() {
    let mut arguments = Arguments::from_args();
    // Trials in real time wait most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let backends = [ropeway_tests::backends::all(), ropeway_tests::backends::wrapped()].concat();
    let trials = backends.into_iter().flat_map(trials).collect();
    libtest_mimic::run(&arguments, trials).exit();
}
