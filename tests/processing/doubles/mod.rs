//! The doubles: subjects that are correct but for one behaviour. Each must fail the check of that behaviour and no other, else the run
//! fails: a check that no double can fail checks nothing.
//!
//! A double is the real processor and the real pool with a twist around them ([`Twist`]): in the set-up, in the handlers, in what it hears
//! of the bus, in what it writes there. They run over `memory:` on a paused clock. Not here: the checks (`processor/src/conformance`).

mod burying;
mod bus;
mod ending;
mod handling;
mod jobs;
mod twist;

use burying::Rewritten;
use handling::{Answers, Lanes, Setup};
use jobs::PoolSetup;
use libtest_mimic::{Failed, Trial};
use ropeway_broker::conformance::Backend;
use ropeway_processor::conformance::{Outcome, checks};
use std::{cell::Cell, collections::BTreeSet, sync::Arc};
use twist::{Bent, Twist};

/// A double, and the checks it must fail: one, unless another follows from it.
struct Double {
    name: &'static str,
    make: fn() -> Arc<dyn Twist>,
    fails: &'static [&'static str],
}

macro_rules! doubles {
    ($($name:ident = $make:expr, fails $group:ident::$check:ident $(, and $g:ident::$c:ident because $why:literal)*;)*) => {
        const DOUBLES: &[Double] = &[$(Double {
            name: stringify!($name),
            make: || Arc::new($make),
            fails: &[
                concat!(stringify!($group), "::", stringify!($check)),
                $({ const _WHY: &str = $why; concat!(stringify!($g), "::", stringify!($c)) },)*
            ],
        }),*];
    };
}

doubles! {
    takes_two_handlers_at_most = Setup(handling::two_handlers_at_most),
        fails routing::handlers_of_one_event_run_in_the_order_of_registration;
    begins_with_the_first_handler_again = Setup(handling::from_the_first_again),
        fails routing::what_one_handler_finished_is_not_repeated_when_the_next_one_fails;
    takes_every_topic = Setup(handling::every_topic),
        fails routing::a_handler_gets_the_topics_and_types_it_named;
    delivers_some_messages_twice = handling::Repeats::default(),
        fails routing::without_faults_each_message_is_delivered_and_handled_exactly_once;

    dates_a_retry_anew = handling::Redated,
        fails fidelity::a_message_is_the_same_in_every_attempt;
    dates_dead_letters_anew = Rewritten(burying::dated_anew),
        fails fidelity::a_dead_letter_is_the_message_unchanged_but_for_its_record;
    loses_headers_without_value = Rewritten(burying::without_null_headers),
        fails fidelity::a_dead_letter_is_the_message_unchanged_but_for_its_record;
    forgets_the_causation = handling::NoCausation,
        fails fidelity::what_follows_from_an_event_carries_correlation_causation_and_trace;

    retries_at_its_own_pace = Answers(handling::at_its_own_pace),
        fails retry::retry_after_brings_that_message_back_in_time;
    waits_the_same_each_time = Setup(handling::no_growth),
        fails retry::waits_grow_by_the_factor_up_to_the_longest;
    waits_without_jitter = Setup(handling::no_jitter),
        fails retry::jitter_draws_waits_from_zero_to_the_bound;
    tries_once_more = Setup(handling::one_attempt_more),
        fails retry::attempts_are_counted_and_end_after_exactly_the_most;
    retries_for_nothing = handling::RetriesForNothing,
        fails retry::a_retry_that_a_handler_asks_for_is_an_attempt;
    ignores_the_policy_of_a_handler = Setup(handling::no_policy_of_its_own),
        fails retry::a_handler_keeps_to_its_own_policy;
    fetches_without_bound = Setup(handling::no_bound),
        fails retry::retries_without_end_stay_within_the_bound_of_what_is_in_flight,
        and order::a_key_that_fills_the_share_of_its_partition_stops_no_other_partition because "without a bound there is no share of it";

    takes_a_panic_for_done = handling::PanicIsDone,
        fails failure::a_panic_is_a_failure_and_its_worker_lives_on;
    gives_ten_times_the_time = Setup(handling::ten_times_the_time),
        fails failure::an_attempt_that_takes_too_long_is_dropped_and_tried_again;
    cancels_no_token_when_time_is_over = handling::NoToken::default(),
        fails failure::what_runs_out_of_time_sees_its_token_cancelled;

    writes_dead_letters_twice = burying::Twice,
        fails letters::what_is_rejected_never_returns_and_is_dead_lettered_once;
    keeps_the_source_of_a_dead_letter = burying::KeepsTheSource,
        fails letters::what_is_rejected_never_returns_and_is_dead_lettered_once;
    leaves_the_handler_out_of_the_record = Rewritten(burying::without_the_handler),
        fails letters::the_record_of_a_failure_is_complete;
    drops_unknown_types = Setup(handling::unknown_is_dropped),
        fails letters::an_event_of_unknown_type_is_dead_lettered;
    never_drops_unknown_types = Setup(handling::unknown_is_never_dropped),
        fails letters::unknown_types_are_dropped_only_where_that_is_spelled_out;
    tries_again_what_does_not_decode = Answers(handling::undecodable_is_an_error),
        fails letters::what_does_not_decode_is_dead_lettered_without_a_retry;
    skips_what_is_unreadable = burying::SkipsUnreadable,
        fails letters::an_unreadable_record_is_dead_lettered;
    drops_what_it_cannot_bury = burying::DropsWhatIsRefused,
        fails letters::a_dead_letter_that_cannot_be_written_holds_its_source_until_it_can;
    makes_ids_of_dead_letters_by_lot = Rewritten(burying::with_an_id_by_lot),
        fails letters::a_repeated_dead_letter_has_the_same_id;
    believes_that_what_is_unknown_is_written = burying::BelievesTheUnknown,
        fails letters::a_dead_letter_of_unknown_fate_is_written_again;
    cuts_without_a_mark = Rewritten(burying::without_marks),
        fails letters::a_dead_letter_that_is_too_large_is_cut_and_marked;
    ignores_the_topic_that_is_named = Setup(handling::letters_have_one_place),
        fails letters::dead_letters_go_to_the_topic_that_is_named;
    counts_no_rounds = Rewritten(burying::always_the_first_round),
        fails letters::a_redriven_message_that_fails_again_counts_its_round;

    has_no_lanes = Lanes::by(handling::no_lane),
        fails order::order_of_a_key_holds_while_handlers_fail,
        and order::a_key_goes_on_only_when_its_dead_letter_is_written because "a key that never waits does not wait for a letter",
        and handover::order_of_a_key_holds_while_members_come_and_go because "each member alone is out of order";
    goes_on_before_its_dead_letter_is_written = burying::WritesLater,
        fails order::a_key_goes_on_only_when_its_dead_letter_is_written,
        and letters::a_dead_letter_that_cannot_be_written_holds_its_source_until_it_can because "what went on is not held";
    has_lanes_by_hash = Lanes::by(handling::hash_lane),
        fails order::a_blocked_key_delays_no_other;
    has_no_shares = Setup(handling::no_shares),
        fails order::a_key_that_fills_the_share_of_its_partition_stops_no_other_partition;

    is_deaf_to_revoking = ending::DeafToRevoking,
        fails handover::a_revoked_partition_finishes_what_runs_and_starts_nothing_more,
        and handover::handlers_of_a_revoked_partition_are_cancelled_before_its_time_is_over because "it does not know that there is an end";
    gives_up_at_once_what_is_revoked = ending::GivesUpAtOnce,
        fails handover::a_revoked_partition_finishes_what_runs_and_starts_nothing_more,
        and handover::order_of_a_key_holds_while_members_come_and_go because "the next member begins while the last one runs",
        and handover::handlers_of_a_revoked_partition_are_cancelled_before_its_time_is_over because "what is given up is cancelled";
    hears_late_that_a_partition_is_lost = ending::HearsLate,
        fails handover::a_lost_partition_cancels_its_handlers_and_its_next_owner_has_their_work;
    burns_attempts_of_what_is_given_up = ending::BurnsAttempts::default(),
        fails handover::what_is_given_up_burns_no_attempt;

    forgets_what_it_gave_up = ending::ForgetsWhatItGaveUp,
        fails handover::every_event_is_accounted_for_whatever_is_lost;

    ends_late = ending::EndsLate,
        fails shutdown::shutdown_ends_at_its_deadline_whatever_hangs;
    ends_early = ending::EndsEarly,
        fails shutdown::shutdown_finishes_what_was_delivered_and_ends_early;
    cancels_early = Setup(handling::twice_the_grace),
        fails shutdown::handlers_are_cancelled_only_when_the_grace_begins,
        and handover::a_lost_partition_cancels_its_handlers_and_its_next_owner_has_their_work because "it is one grace for all",
        and handover::handlers_of_a_revoked_partition_are_cancelled_before_its_time_is_over because "it is one grace for all";
    buries_what_it_cancelled = ending::BuriesCancelled::default(),
        fails shutdown::a_cancelled_handler_is_never_dead_lettered;
    acks_at_the_end_what_is_not_done = ending::AcksAtTheEnd,
        fails shutdown::shutdown_under_load_loses_nothing;
    acks_at_an_abort_what_is_not_done = ending::AcksAtAnAbort,
        fails shutdown::an_abort_loses_nothing_and_repeats_only_what_was_in_flight;

    takes_in_more_than_its_buffer = PoolSetup(jobs::larger_buffer),
        fails pool::submit_waits_and_try_submit_says_full_while_the_buffer_is_full;
    has_more_workers = PoolSetup(jobs::more_workers),
        fails pool::no_more_jobs_run_than_there_are_workers;
    runs_jobs_of_a_key_side_by_side = jobs::NoLanes::default(),
        fails pool::jobs_of_a_key_run_in_order_also_when_they_fail;
    lets_jobs_wait_the_same_each_time = PoolSetup(jobs::waits_alike),
        fails pool::a_failed_job_is_tried_again_by_policy_and_each_failure_is_told;
    takes_a_panic_of_a_job_for_done = jobs::PanicEndsWell,
        fails pool::a_panic_of_a_job_is_a_failure_and_its_worker_lives_on;
    drains_briefly = jobs::DrainsBriefly,
        fails pool::drain_finishes_what_is_there_and_takes_nothing_more;
    drains_late = jobs::DrainsLate,
        fails pool::drain_ends_at_its_deadline;
    stops_nothing = jobs::StopsNothing,
        fails pool::stop_drops_all_jobs_at_once;
}

thread_local! {
    /// Whether this thread runs a double: the checks it fails panic, on purpose.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics of doubles go unheard: what they say is in the outcome of the check.
fn hear_no_doubles() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !QUIET.get() {
            hook(panic);
        }
    }));
}

impl Double {
    /// Runs every check on it.
    fn run(&self, backend: &dyn Backend) -> Result<(), Failed> {
        QUIET.set(true);
        let mut wrong = Vec::new();
        for check in checks() {
            let name = format!("{}::{}", check.group, check.name);
            let expected = self.fails.contains(&name.as_str());
            let outcome = check.run(backend, Arc::new(Bent((self.make)())));
            match (outcome, expected) {
                (Ok(Outcome::Kept), true) => wrong.push(format!("it survives {name}")),
                (Ok(Outcome::Broken(why)), false) => wrong.push(format!("it fails {name} too: {why}")),
                (Ok(Outcome::Ignored(why)), true) | (Err(why), _) => {
                    wrong.push(format!("{name} was not checked: {why}"));
                }
                _ => {}
            }
        }
        QUIET.set(false);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }
}

/// A trial for each double, and one that no check is without a double.
pub(crate) fn trials(backend: &Arc<dyn Backend>) -> Vec<Trial> {
    hear_no_doubles();
    let each = DOUBLES.iter().map(|double| {
        let backend = backend.clone();
        Trial::test(format!("double::{}", double.name), move || double.run(&*backend)).with_kind("double")
    });
    let all =
        Trial::test("double::every_check_has_a_double_that_fails_it", all_have_doubles).with_kind("double");
    each.chain([all]).collect()
}

fn all_have_doubles() -> Result<(), Failed> {
    let there: BTreeSet<String> = checks().map(|check| format!("{}::{}", check.group, check.name)).collect();
    let failed: BTreeSet<String> =
        DOUBLES.iter().flat_map(|double| double.fails).map(|&name| name.to_owned()).collect();
    let differing: Vec<&String> = there.symmetric_difference(&failed).collect();
    if differing.is_empty() {
        Ok(())
    } else {
        Err(format!("without a double, or without a check: {differing:?}").into())
    }
}
