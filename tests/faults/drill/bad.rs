//! Histories of drills that the judge must flag, each a good one with one thing changed; and the good one, which it must pass.

use super::{
    again::RunsOut,
    judge::{Judge, Place},
    rules::Rules,
};
use libtest_mimic::{Failed, Trial};
use ropeway_broker::{Durability, partition_for_key};
use std::collections::BTreeMap;

const KEY: &str = "r1-0";

fn partition() -> u32 {
    partition_for_key(KEY.as_bytes(), crate::traffic::PARTITIONS)
}

/// What is left of a drill.
struct Left {
    history: Vec<String>,
    /// The stream: message, and the number of its entry.
    log: Vec<(&'static str, u64)>,
    dead: Vec<&'static str>,
    rules: Rules,
    /// How many partitions further than that of the key it lies.
    elsewhere: u32,
}

/// `1` is done and confirmed; `2` done by member 5 when it loses its lease, and done again by member 6; `3` is refused; `4` in doubt and
/// written; `5` is rejected; member 6 leaves.
fn good() -> Left {
    let lines = "1 1 invoke @1|1 2 invoke @2|1 3 acked @1 P 7-1 process_crash|1 3 acked @2 P 7-2 replicated|5 4 owns P 10 0|5 5 hand P 10 2|\
        5 6 start @1 10|5 7 end @1 failed|5 8 start @1 10|5 9 end @1 done|5 9 ack 0 @1|5 10 confirmed @1|0 11 fault Cut|5 12 start @2 10|\
        5 13 end @2 done|6 14 owns P 11 0|6 14 hand P 11 1|6 15 start @2 11|6 16 end @2 done|5 17 gone P 10 0 Lost|0 18 healed|\
        1 19 invoke @3|1 20 refused @3 Full|1 21 invoke @4|1 22 unknown @4 Unavailable|0 23 recovered|6 24 start @4 11|6 25 end @4 done|\
        1 26 invoke @5|1 27 acked @5 P 7-4 power_loss|6 28 start @5 11|6 29 end @5 rejected|6 29 forwarded @5|6 30 ack 0 @2 @4|\
        6 31 gone P 11 0 Closed|6 32 left";
    let written = |line: &str| {
        line.trim_start().replace('@', &format!("{KEY}:")).replace(" P ", &format!(" {} ", partition()))
    };
    Left {
        history: lines.split('|').map(written).collect(),
        log: vec![("1", 1), ("2", 2), ("4", 3), ("5", 4)],
        dead: vec!["5"],
        rules: Rules { stated: Durability::ProcessCrash, atomic: true, placed: true, again: None, undone: 0 },
        elsewhere: 0,
    }
}

impl Left {
    fn at(&self, what: &str) -> usize {
        let what = what.replace('@', &format!("{KEY}:")).replace(" P ", &format!(" {} ", partition()));
        let at = self.history.iter().position(|line| line.ends_with(&what));
        at.unwrap_or_else(|| panic!("{what:?} is in no line"))
    }

    /// Adds lines behind the one that ends so.
    fn add(&mut self, behind: &str, lines: &[&str]) {
        let at = self.at(behind) + 1;
        let lines = lines
            .iter()
            .map(|line| line.replace('@', &format!("{KEY}:")).replace(" P ", &format!(" {} ", partition())));
        self.history.splice(at..at, lines);
    }

    fn remove(&mut self, what: &str) {
        let at = self.at(what);
        self.history.remove(at);
    }

    /// Has an ack not say where the message lies.
    fn unplace(&mut self, ack: &str) {
        let at = self.at(ack);
        self.history[at] = self.history[at].replace(" 7-2 ", " - ");
    }

    fn judged(&self) -> Vec<String> {
        let mut judge = Judge::new(self.rules);
        self.history.iter().for_each(|line| judge.see(line));
        let mut last = BTreeMap::new();
        for (number, seq) in &self.log {
            let place: Place = (partition() + self.elsewhere, (7, *seq));
            judge.found(&format!("{KEY}:{number}"), place, &mut last);
        }
        self.dead.iter().for_each(|number| judge.found_dead(&format!("{KEY}:{number}")));
        judge.finish().1
    }
}

type Change = fn(&mut Left);

/// What is changed, and what the judge must say of it.
const BAD: &[(&str, Change, &str)] = &[
    ("an_acked_message_that_vanished", |left| _ = left.log.remove(0), "1 was acked at"),
    (
        "an_ack_that_should_say_where",
        |left| left.unplace("acked @2 P 7-2 replicated"),
        "2 was acked, and not where",
    ),
    (
        "an_acked_message_of_no_known_place_that_vanished",
        |left| {
            left.rules.placed = false;
            left.unplace("acked @2 P 7-2 replicated");
            _ = left.log.remove(1);
        },
        "2 was acked at",
    ),
    ("a_message_that_lies_elsewhere", |left| left.log[1].1 = 9, "2 was acked at"),
    ("a_message_that_is_there_twice", |left| left.log.push(("4", 9)), "4 is in the streams twice"),
    (
        "a_message_that_lies_twice_and_not_where_its_ack_says",
        |left| {
            left.rules.again = Some(RunsOut { after: 1, until: 5 });
            left.log[3].1 = 9;
            left.log.push(("5", 10));
        },
        "5 was acked at",
    ),
    (
        "a_message_twice_that_was_acked_before_another_ran_out_of_time",
        |left| {
            left.rules.again = Some(RunsOut { after: 1, until: 5 });
            left.log.push(("2", 9));
        },
        "2 is in the streams twice",
    ),
    (
        "a_message_twice_that_was_published_long_after_another_ran_out_of_time",
        |left| {
            left.rules.again = Some(RunsOut { after: 1, until: 3 });
            left.log.push(("5", 9));
        },
        "5 is in the streams twice",
    ),
    (
        "a_message_twice_where_another_was_in_doubt_before_its_time_was_over",
        |left| {
            left.rules.again = Some(RunsOut { after: 2, until: 5 });
            left.log.push(("5", 9));
        },
        "5 is in the streams twice",
    ),
    (
        "a_message_twice_where_one_of_another_publisher_ran_out_of_time",
        |left| {
            left.rules.again = Some(RunsOut { after: 2, until: 5 });
            left.add("invoke @5", &["2 26 invoke r2-0:1", "2 29 unknown r2-0:1 Unavailable"]);
            left.log.push(("5", 9));
        },
        "5 is in the streams twice",
    ),
    ("a_stream_out_of_order", |left| left.log.swap(0, 1), "1 is in its stream behind a larger number"),
    ("a_refused_message_in_a_stream", |left| left.log.push(("3", 9)), "3 is in a stream, though"),
    ("a_message_that_nobody_published", |left| left.log.push(("9", 9)), "9 is in a stream and was never"),
    (
        "a_handled_message_that_nobody_published",
        |left| left.add("end @4 done", &["6 25 start @8 11"]),
        "8 appeared and was never published",
    ),
    (
        "an_acked_message_that_nobody_handled",
        |left| {
            left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss"]);
            left.log.push(("6", 5));
        },
        "6 is in a stream and nobody completed it",
    ),
    (
        "a_repeat_after_a_durable_ack",
        |left| left.add("end @4 done", &["6 25 start @1 11", "6 25 end @1 done"]),
        "1 was handed to member 6 again, after its ack was durable",
    ),
    (
        "a_repeat_after_a_dead_letter",
        |left| left.add("forwarded @5", &["6 29 start @5 11", "6 29 end @5 rejected"]),
        "5 was handed to member 6 again, after its ack was durable",
    ),
    (
        "a_repeat_though_nothing_happened",
        |left| left.add("end @4 done", &["6 25 start @4 11", "6 25 end @4 done"]),
        "4 was handed to member 6 again, though nothing had happened",
    ),
    (
        "a_key_out_of_order",
        |left| {
            left.add(
                "5 8 start @1 10",
                &["5 8 end @1 failed", "5 8 start @2 10", "5 8 end @2 done", "5 8 start @1 10"],
            );
        },
        "1 completed first after number 2 of its key",
    ),
    (
        "two_handlers_of_one_member_at_once",
        |left| left.add("5 6 start @1 10", &["5 6 start @2 10"]),
        "2 was begun by member 5 while it handled number 1",
    ),
    (
        "two_handlers_though_nobody_lost_its_lease",
        |left| {
            left.remove("gone P 10 0 Lost");
            left.remove("5 13 end @2 done");
            left.add("6 16 end @2 done", &["5 17 end @2 done"]);
        },
        "2 was begun while number 2 of its key was being handled by member 5, which had lost nothing",
    ),
    (
        "work_begun_again_after_the_partition_was_gone",
        |left| {
            left.add("gone P 10 0 Lost", &["5 17 start @2 10", "5 17 end @2 failed", "5 17 start @2 10"]);
        },
        "2 was begun by member 5 after it was told that its partition is gone",
    ),
    (
        "work_begun_long_after_the_partition_was_gone",
        |left| left.add("left", &["5 600 start @2 10", "5 600 end @2 done"]),
        "2 was begun by member 5 after it was told that its partition is gone",
    ),
    (
        "a_member_that_was_stopped_and_hands_out_twice_what_is_no_longer_its_own",
        |left| left.add("6 14 hand P 11 1", &["0 15 goes 5", "5 15 hand P 10 1", "5 15 hand P 10 1"]),
        "handed out of partition",
    ),
    (
        "a_member_that_was_stopped_and_hands_out_late",
        |left| left.add("left", &["0 33 goes 5", "5 600 hand P 10 1"]),
        "handed out of partition",
    ),
    (
        "a_message_without_an_answer",
        |left| left.remove("unknown @4 Unavailable"),
        "4 was published, and nobody",
    ),
    (
        "a_message_that_is_answered_twice",
        |left| left.add("refused @3 Full", &["1 20 acked @3 P 7-3 power_loss"]),
        "3 was answered twice",
    ),
    (
        "a_refused_message_that_was_handled_and_purged",
        |left| {
            left.add("end @4 done", &["6 25 start @3 11", "6 25 end @3 done", "0 25 purged P 7-9"]);
            left.log.clear();
        },
        "3 was handled, though its publisher was told",
    ),
    ("a_message_in_a_partition_that_is_not_its_keys", |left| left.elsewhere = 1, "1 is in another partition"),
    (
        "a_deposed_member_that_hands_out",
        |left| left.add("6 14 hand P 11 1", &["5 15 hand P 10 1"]),
        "handed out of partition",
    ),
    (
        "an_epoch_that_comes_again",
        |left| left.add("6 14 hand P 11 1", &["5 15 owns P 11 0"]),
        "was assigned in epoch 11 after 11",
    ),
    (
        "an_ack_before_the_end",
        |left| left.add("5 8 start @1 10", &["5 8 ack 0 @1"]),
        "1 was acked as done before",
    ),
    (
        "an_end_without_a_beginning",
        |left| left.remove("6 24 start @4 11"),
        "4 was ended by member 6, which had not",
    ),
    ("a_rejected_message_without_a_dead_letter", |left| left.dead.clear(), "5 was rejected and is not among"),
    ("a_dead_letter_twice", |left| left.dead.push("5"), "5 is dead-lettered 2 times"),
    (
        "a_dead_letter_twice_of_what_was_rejected_once",
        |left| {
            left.rules.atomic = false;
            left.dead.push("5");
        },
        "5 is dead-lettered 2 times",
    ),
    (
        "a_dead_letter_of_a_good_message",
        |left| left.dead.push("1"),
        "1 is dead-lettered and was not rejected",
    ),
    (
        "a_gap_though_nothing_was_lost",
        |left| left.add("end @4 done", &["6 25 gap P 11 trimmed"]),
        "was told, and no server had lost its end",
    ),
    (
        "a_purge_of_what_nobody_had_handled_and_no_gap",
        |left| left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss", "0 35 purged P 7-6"]),
        "6 was removed before anybody handled it",
    ),
    (
        "a_purge_behind_the_gap_of_a_topic_that_was_made_again",
        |left| {
            left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss", "0 35 purged P 7-6"]);
            left.add("purged P 7-6", &["6 36 gap P 11 recreated 6-9 7-5"]);
        },
        "6 was removed before anybody handled it",
    ),
    (
        "a_purge_that_took_more_than_was_asked",
        |left| {
            left.add("fault Cut", &["0 11 purged P 7-1"]);
            left.log.clear();
        },
        "2 was acked at",
    ),
    ("a_line_that_is_none", |left| left.history.push("1 2 what".into()), "not a line of a history"),
];

fn flags(change: Change, expected: &str) -> Result<(), Failed> {
    let mut left = good();
    change(&mut left);
    let wrong = left.judged();
    if wrong.iter().any(|why| why.contains(expected)) {
        return Ok(());
    }
    Err(format!("expected {expected:?} among {wrong:?}").into())
}

type Good = fn(&mut Left);

/// What the judge must pass.
const GOOD: &[(&str, Good)] = &[
    ("a_good_history", |_| {}),
    ("a_loss_that_an_ack_did_not_exclude", |left| {
        left.rules.stated = Durability::Replicated;
        left.log.remove(0);
    }),
    ("a_message_that_was_sent_again_when_another_had_run_out_of_time", |left| {
        left.rules.again = Some(RunsOut { after: 1, until: 5 });
        left.log.push(("5", 9));
    }),
    ("a_message_that_was_sent_again_and_is_handled_where_it_lies", |left| {
        left.rules = Rules { again: Some(RunsOut { after: 1, until: 5 }), atomic: false, ..left.rules };
        left.add("forwarded @5", &["6 29 start @5 11", "6 29 end @5 rejected", "6 29 forwarded @5"]);
        left.log.push(("5", 9));
        left.dead.push("5");
    }),
    ("a_message_that_ran_out_of_time_and_was_sent_again", |left| {
        left.rules.again = Some(RunsOut { after: 1, until: 0 });
        left.log.push(("4", 9));
    }),
    ("an_ack_that_does_not_say_where", |left| {
        left.rules.placed = false;
        left.unplace("acked @2 P 7-2 replicated");
    }),
    ("a_handler_of_a_killed_member", |left| {
        left.remove("5 13 end @2 done");
        left.remove("gone P 10 0 Lost");
        left.add("5 12 start @2 10", &["0 13 killed 5"]);
    }),
    ("a_handler_of_a_member_that_lost_its_lease", |left| {
        left.remove("5 13 end @2 done");
        left.add("6 16 end @2 done", &["5 17 end @2 done"]);
    }),
    ("a_handler_that_had_begun_when_its_member_was_told", |left| {
        left.add("gone P 10 0 Lost", &["5 17 start @2 10", "5 17 end @2 done"]);
    }),
    ("a_batch_that_was_handed_out_before_its_member_was_stopped", |left| {
        left.add("6 14 hand P 11 1", &["0 15 goes 5", "5 15 hand P 10 1"]);
    }),
    ("an_ack_that_a_failover_undid", |left| {
        left.rules.undone = 1000;
        left.add("fault Cut", &["0 11 undone"]);
        left.add("end @4 done", &["6 25 start @1 11", "6 25 end @1 done"]);
    }),
    ("a_purge_that_was_told", |left| {
        left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss", "0 35 purged P 7-6"]);
        left.add("purged P 7-6", &["6 36 gap P 11 trimmed 7-5 7-6"]);
        left.log.clear();
    }),
    ("a_purge_of_a_topic_that_was_made_again", |left| {
        left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss", "0 35 purged P 7-6"]);
        left.add("purged P 7-6", &["6 36 gap P 11 recreated 6-9 7-6"]);
        left.log.clear();
    }),
    ("a_topic_that_was_made_again", |left| {
        left.add("left", &["1 33 invoke @6", "1 34 acked @6 P 7-5 power_loss", "0 35 remade 7"]);
        left.add("remade 7", &["6 36 gap P 12 recreated 7-6 8-0"]);
        left.log.clear();
    }),
    ("a_dead_letter_of_which_nobody_was_told", |left| {
        left.rules.atomic = false;
        left.remove("forwarded @5");
        left.add("end @5 rejected", &["6 29 doubted @5"]);
        left.dead.push("5");
    }),
    ("a_dead_letter_for_each_rejection", |left| {
        left.rules.atomic = false;
        left.remove("forwarded @5");
        left.add("end @5 rejected", &["0 29 killed 7", "6 29 start @5 11", "6 29 end @5 rejected"]);
        left.dead.push("5");
    }),
];

fn passes(change: Good) -> Result<(), Failed> {
    let mut left = good();
    change(&mut left);
    match left.judged() {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(format!("{wrong:?}").into()),
    }
}

/// The trials of the judge itself.
pub(crate) fn trials() -> Vec<Trial> {
    let good = GOOD
        .iter()
        .map(|(name, change)| Trial::test(format!("drill::judge::passes::{name}"), move || passes(*change)));
    let bad = BAD.iter().map(|(name, change, expected)| {
        Trial::test(format!("drill::judge::flags::{name}"), move || flags(*change, expected))
    });
    good.chain(bad).collect()
}
