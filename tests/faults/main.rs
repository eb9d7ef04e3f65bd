//! Faults against real processes and real disks: a worker on `embedded:` or a real Redis is killed, its disk loses power, is full or fails, and nothing
//! acked is lost.
//!
//! Here: which trials there are. The worker is this same program, told so by its environment (`worker.rs`, with `seam.rs` and
//! `traffic.rs`); `run.rs` starts it, `kill.rs` and `power_cut.rs` end it; what it did is in its histories (`history.rs`), judged by
//! `check.rs`, which `bad.rs` judges.

mod bad;
mod check;
mod disk;
mod disk_full;
mod drill;
mod history;
mod injected;
mod kill;
mod load;
mod native;
mod power_cut;
mod run;
mod seam;
mod soak;
mod traffic;
#[cfg(unix)]
mod twice;
mod worker;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = worker::run_if_asked() {
        return code;
    }
    // The long ones first.
    let mut trials = vec![
        Trial::ignorable_test("embedded::takes_no_more_of_the_machine_as_time_goes_on", soak::stays_flat),
        Trial::test("embedded::survives_kills_at_any_moment", kill::survives_kills),
        Trial::ignorable_test("embedded::survives_power_cuts_at_any_moment", power_cut::survives_power_cuts),
        Trial::ignorable_test("embedded::survives_calls_that_fail", injected::survives_failing_calls),
        Trial::test("embedded::survives_kills_when_acks_promise_no_more", kill::survives_kills_unsynced),
        Trial::test("embedded::survives_kills_while_retention_removes", kill::survives_kills_with_retention),
        Trial::ignorable_test(
            "embedded::answers_truly_on_a_full_disk",
            disk_full::answers_truly_on_a_full_disk,
        ),
        Trial::ignorable_test(
            "embedded::lives_on_while_room_is_short",
            disk_full::lives_on_while_room_is_short,
        ),
        Trial::test("soak::growth_is_found", soak::growth_is_found),
    ];
    #[cfg(unix)]
    trials.extend([
        Trial::test(
            "embedded::refuses_a_second_process_until_the_first_is_killed",
            twice::a_second_process_is_refused,
        ),
        Trial::test("embedded::refuses_a_second_broker_on_its_directory", twice::a_second_broker_is_refused),
        Trial::test("embedded::survives_its_directory_going_away", twice::a_directory_may_go_away),
        Trial::ignorable_test(
            "embedded::refuses_a_directory_without_rights",
            twice::a_directory_without_rights_is_refused,
        ),
    ]);
    trials.push(ropeway_tests::server::trial(
        "redis::survives_kills_at_any_moment",
        ropeway_tests::server::Server::Redis,
        kill::survives_kills_on_redis,
    ));
    trials.extend(drill::trials());
    trials.extend(bad::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
