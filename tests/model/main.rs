//! Random programs give the same history on every backend as on a small reference.
//!
//! Seeds are fixed, so that a run can be repeated. `ROPEWAY_MODEL_FACTOR=100` runs a hundred times as many programs, with other
//! seeds; a failure is shrunk to the shortest program that still fails. Here: how many programs run where. `program.rs`:
//! what they do; `run.rs`: how they are run; `reference.rs`: what must come of it. `crashes/`: programs whose broker is stopped at each
//! change it makes.

mod crashes;
mod program;
mod reference;
mod run;

use program::{Step, programs};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use ropeway_broker::conformance::Backend;
use ropeway_tests::backends::{Directory, Memory, Outlived};
use run::{Flaw, run};

/// What programs run: how many, of how many steps, with restarts or without, and with waits of how many milliseconds.
struct Load {
    programs: u32,
    steps: usize,
    restarts: bool,
    longest: u16,
}

fn factor() -> u32 {
    std::env::var("ROPEWAY_MODEL_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// For so many programs, times the factor.
fn config(programs: u32) -> Config {
    Config {
        cases: programs * factor(),
        failure_persistence: None,
        max_shrink_iters: 2000,
        // A program that hangs takes its time.
        max_shrink_time: 60_000,
        ..Config::default()
    }
}

fn rng() -> TestRng {
    let seed = [u8::try_from(factor() % 251).unwrap_or(0); 32];
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}

fn check(backend: &dyn Backend, load: &Load, flaw: Flaw) -> Result<(), TestError<Vec<Step>>> {
    let mut runner = TestRunner::new_with_rng(config(load.programs), rng());
    runner.run(&programs(load.steps, load.restarts, load.longest), |program| {
        run(backend, &program, flaw).map_err(TestCaseError::fail)
    })
}

#[test]
fn memory_gives_the_history_of_the_reference() {
    let load = Load { programs: 1200, steps: 60, restarts: false, longest: 2000 };
    check(&Memory, &load, Flaw::None).unwrap();
}

#[test]
fn a_store_that_outlives_its_broker_gives_the_history_of_the_reference_through_restarts() {
    let load = Load { programs: 1200, steps: 60, restarts: true, longest: 2000 };
    check(&Outlived, &load, Flaw::None).unwrap();
}

#[test]
fn embedded_gives_the_history_of_the_reference_through_restarts() {
    let load = Load { programs: 40, steps: 40, restarts: true, longest: 60 };
    check(&Directory, &load, Flaw::None).unwrap();
}

#[test]
fn a_broker_that_loses_acks_is_found_and_the_program_shrinks() {
    let load = Load { programs: 1200, steps: 60, restarts: false, longest: 2000 };
    let Err(TestError::Fail(why, program)) = check(&Memory, &load, Flaw::AcksAreLost) else {
        panic!("acks that are lost are not noticed");
    };
    assert!(program.len() <= 5, "{why} after {program:?}");
}
