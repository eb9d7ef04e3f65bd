//! Tests of what follows from what a cluster says.

use super::{judge, judge::Facts, topics};
use crate::cmd::doctor::report::{Finding, Level};
use ropeway_broker::{KafkaSurvey, SurveyedBroker, SurveyedPartition, SurveyedTopic};
use std::{collections::BTreeMap, time::Duration};

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Set up as it should be.
const WELL: &[(&str, &str)] = &[
    ("auto.create.topics.enable", "false"),
    ("default.replication.factor", "3"),
    ("delete.topic.enable", "true"),
    ("group.max.session.timeout.ms", "1800000"),
    ("group.min.session.timeout.ms", "6000"),
    ("log.retention.bytes", "-1"),
    ("log.retention.hours", "168"),
    ("message.max.bytes", "1048588"),
    ("min.insync.replicas", "2"),
    ("offset.metadata.max.bytes", "4096"),
    ("offsets.retention.minutes", "10080"),
    ("unclean.leader.election.enable", "false"),
];

fn cluster(brokers: usize) -> Facts {
    let broker = |number| SurveyedBroker { address: format!("h{number}:9092"), settings: settings(WELL) };
    Facts {
        survey: KafkaSurvey {
            cluster: "c".into(),
            brokers: (1..=brokers).map(broker).collect(),
            topics: Vec::new(),
        },
        bootstrap: "h1:9092".into(),
        local: false,
        tls: true,
        known: true,
        session: Duration::from_secs(30),
        copies: None,
        in_sync: None,
    }
}

fn with(name: &str, value: &str) -> Facts {
    let mut facts = cluster(3);
    for broker in &mut facts.survey.brokers {
        broker.settings.insert(name.to_owned(), value.to_owned());
    }
    facts
}

fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap()
}

fn level(facts: &Facts, check: &str) -> Option<Level> {
    let all = judge::judge(facts);
    all.iter().find(|finding| finding.check == check).map(|finding| finding.level)
}

#[test]
fn a_cluster_that_is_set_up_well_is_well() {
    let facts = cluster(3);
    let findings = judge::judge(&facts);
    assert!(worst(&findings) <= Level::Note, "{findings:#?}");
    let retention = findings.iter().find(|finding| finding.check == "retention").unwrap();
    assert!(retention.says.contains("7 d"), "{retention:?}");
    assert!(judge::survives(&facts).contains("replicated"));
}

#[test]
fn each_setting_that_is_wrong_is_told_with_a_fix() {
    for (name, value, check, told) in [
        ("default.replication.factor", "1", "replication", Level::Warning),
        ("default.replication.factor", "5", "replication", Level::Error),
        ("min.insync.replicas", "1", "in_sync", Level::Warning),
        ("min.insync.replicas", "3", "in_sync", Level::Warning),
        ("unclean.leader.election.enable", "true", "unclean", Level::Error),
        ("message.max.bytes", "65536", "message_size", Level::Warning),
        ("offset.metadata.max.bytes", "1024", "metadata_size", Level::Error),
        ("offsets.retention.minutes", "60", "positions", Level::Warning),
        ("group.min.session.timeout.ms", "45000", "session", Level::Error),
        ("group.max.session.timeout.ms", "20000", "session", Level::Error),
        ("auto.create.topics.enable", "true", "auto_creation", Level::Warning),
        ("delete.topic.enable", "false", "deletion", Level::Warning),
    ] {
        let facts = with(name, value);
        let all = judge::judge(&facts);
        let found: Vec<&Finding> = all.iter().filter(|finding| finding.level >= Level::Warning).collect();
        let [finding] = found.as_slice() else { panic!("{name}={value}: {found:#?}") };
        assert_eq!((finding.check, finding.level), (check, told), "{name}={value}");
        assert!(!finding.fix.is_empty() && finding.server.is_none(), "{finding:?}");
    }
}

#[test]
fn a_broker_that_is_set_up_otherwise_is_named() {
    let mut facts = cluster(3);
    facts.survey.brokers[1].settings.insert("unclean.leader.election.enable".into(), "true".into());
    let all = judge::judge(&facts);
    let found: Vec<(Level, Option<&str>)> = all
        .iter()
        .filter(|finding| finding.check == "unclean")
        .map(|finding| (finding.level, finding.server.as_deref()))
        .collect();
    assert_eq!(found, [(Level::Fine, Some("h1:9092, h3:9092")), (Level::Error, Some("h2:9092"))]);
}

#[test]
fn few_brokers_no_user_and_no_tls_are_told_where_it_matters() {
    assert_eq!(level(&cluster(1), "brokers"), Some(Level::Warning));
    assert_eq!(level(&cluster(2), "brokers"), Some(Level::Warning));
    let open = |local| Facts { tls: false, known: false, local, ..cluster(3) };
    assert_eq!(
        (level(&open(true), "user"), level(&open(true), "tls")),
        (Some(Level::Note), Some(Level::Fine))
    );
    let far = open(false);
    assert_eq!((level(&far, "user"), level(&far, "tls")), (Some(Level::Warning), Some(Level::Warning)));
    let mut silent = cluster(3);
    silent.survey.brokers[2].settings.clear();
    let told = judge::judge(&silent).into_iter().find(|finding| finding.check == "settings").unwrap();
    assert!(told.level == Level::Warning && told.says.contains("h3:9092"), "{told:?}");
    assert!(told.fix[0].contains("--command-config"), "{told:?}");
}

#[test]
fn what_the_url_says_of_new_topics_counts() {
    let facts = Facts { copies: Some(3), in_sync: Some(2), ..with("default.replication.factor", "1") };
    assert_eq!(level(&facts, "replication"), None);
    assert!(judge::survives(&facts).contains("replicated"));
    let alone = Facts { copies: Some(1), ..cluster(3) };
    assert!(judge::survives(&alone).contains("process_crash"));
}

#[test]
fn topics_are_judged_by_their_copies() {
    let topic = |name: &str, led, replicas, in_sync, pairs: &[(&str, &str)]| SurveyedTopic {
        name: name.into(),
        partitions: vec![
            SurveyedPartition { led: true, replicas: 3, in_sync: 3 },
            SurveyedPartition { led, replicas, in_sync },
        ],
        settings: settings(pairs),
    };
    let found = |topics: Vec<SurveyedTopic>| -> Vec<(&str, Level)> {
        let mut facts = cluster(3);
        facts.survey.topics = topics;
        topics::judge(&facts).iter().map(|finding| (finding.check, finding.level)).collect()
    };
    let least = &[("min.insync.replicas", "2")][..];
    assert_eq!(found(vec![topic("a", true, 3, 3, least)]), [("topics", Level::Fine)]);
    assert_eq!(found(vec![topic("a", false, 3, 0, least)])[0], ("leaders", Level::Error));
    assert_eq!(found(vec![topic("a", true, 3, 1, least)]), [("in_sync_now", Level::Error)]);
    assert_eq!(found(vec![topic("a", true, 3, 2, least)]), [("in_sync_now", Level::Warning)]);
    assert_eq!(found(vec![topic("a", true, 1, 1, least)]), [("copies", Level::Warning)]);
    let stamped = &[("message.timestamp.type", "LogAppendTime")];
    assert_eq!(found(vec![topic("a", true, 3, 3, stamped)]), [("timestamps", Level::Warning)]);
    let unclean = &[("unclean.leader.election.enable", "true")];
    assert_eq!(found(vec![topic("a", true, 3, 3, unclean)]), [("unclean_now", Level::Error)]);
    let short = &[("retention.ms", "1000")];
    assert_eq!(
        found(vec![topic("a", true, 3, 3, short)]),
        [("topics", Level::Fine), ("retention_now", Level::Note)]
    );
    assert_eq!(found(vec![topic("__x", true, 3, 3, short)]), [("topics", Level::Fine)]);
}
