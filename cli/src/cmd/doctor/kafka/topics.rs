//! The topics of a cluster of Kafka, judged: pure.
//!
//! Not here: the cluster and its brokers (`judge.rs`).

use super::{
    super::report::{Finding, Level},
    judge::Facts,
};
use ropeway_broker::SurveyedTopic;

/// So many are named in one finding.
const NAMED: usize = 5;
/// Where Kafka keeps what groups have finished.
const OFFSETS: &str = "__consumer_offsets";

/// All findings about topics.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let all = &facts.survey.topics;
    let mut findings = Vec::new();
    let mut add = |finding: Option<Finding>| findings.extend(finding);
    add(of(all, without_leader, |names| {
        let says = format!("{names}: partitions without a leader can be neither read nor written");
        Finding::new("leaders", Level::Error, says)
            .fix(facts.tool("kafka-topics.sh", "--describe --unavailable-partitions"))
            .fix("bring back the brokers that have them")
    }));
    add(of(all, refuses, |names| {
        let says =
            format!("{names}: fewer copies keep up than min.insync.replicas asks for: publishing is refused");
        Finding::new("in_sync_now", Level::Error, says)
            .fix(facts.tool("kafka-topics.sh", "--describe --under-min-isr-partitions"))
            .fix("bring back the brokers that have the others")
    }));
    add(of(
        all,
        |topic| is_behind(topic) && !refuses(topic),
        |names| {
            let says = format!("{names}: not all copies keep up");
            Finding::new("in_sync_now", Level::Warning, says)
                .fix(facts.tool("kafka-topics.sh", "--describe --under-replicated-partitions"))
        },
    ));
    if facts.survey.brokers.len() > 1 {
        add(of(
            all,
            |topic| topic.name != OFFSETS && copies(topic) == 1,
            |names| {
                let says = format!("{names}: one copy, which is lost with its broker");
                Finding::new("copies", Level::Warning, says)
                    .fix("kafka-reassign-partitions.sh gives a topic more copies")
            },
        ));
        add(of(
            all,
            |topic| topic.name == OFFSETS && copies(topic) == 1,
            |names| {
                let says = format!(
                    "{names} has one copy: what groups have finished is lost with its broker, and while it is down no group works"
                );
                Finding::new("copies", Level::Warning, says)
                .fix("kafka-reassign-partitions.sh gives it more copies; offsets.topic.replication.factor=3 before it is made")
            },
        ));
    }
    add(of(
        all,
        |topic| facts.is_clean() && set(topic, "unclean.leader.election.enable") == Some("true"),
        |names| {
            let says = format!(
                "{names}: a broker that lacks what was acked may become leader, and then that is gone"
            );
            Finding::new("unclean_now", Level::Error, says)
            .fix(facts.tool("kafka-configs.sh", "--alter --entity-type topics --entity-name NAME --delete-config unclean.leader.election.enable"))
        },
    ));
    add(of(
        all,
        |topic| set(topic, "message.timestamp.type") == Some("LogAppendTime"),
        |names| {
            let says =
                format!("{names}: the broker puts its own time in place of each message's (LogAppendTime)");
            Finding::new("timestamps", Level::Warning, says)
            .fix(facts.tool("kafka-configs.sh", "--alter --entity-type topics --entity-name NAME --add-config message.timestamp.type=CreateTime"))
        },
    ));
    add(of(
        all,
        |topic| !is_internal(topic) && expires(topic),
        |names| {
            let says = format!(
                "{names}: messages go by age or size, whether groups have finished them or not; what goes unseen is told as a gap"
            );
            Finding::new("retention_now", Level::Note, says).fix(
                "ropeway topic describe NAME tells what it keeps; made with --retention, or by somebody else",
            )
        },
    ));
    if findings.iter().all(|finding| finding.level < Level::Warning) {
        let ours = all.iter().filter(|topic| !is_internal(topic)).count();
        findings.insert(0, Finding::new("topics", Level::Fine, format!("{ours} here")));
    }
    findings
}

/// One finding for all topics that are so.
fn of(
    all: &[SurveyedTopic],
    so: impl Fn(&SurveyedTopic) -> bool,
    finding: impl Fn(String) -> Finding,
) -> Option<Finding> {
    let names: Vec<&str> = all.iter().filter(|topic| so(topic)).map(|topic| topic.name.as_str()).collect();
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    (!names.is_empty()).then(|| finding(text))
}

fn set<'a>(topic: &'a SurveyedTopic, name: &str) -> Option<&'a str> {
    topic.settings.get(name).map(String::as_str)
}

fn number(topic: &SurveyedTopic, name: &str) -> Option<i64> {
    set(topic, name)?.parse().ok()
}

fn copies(topic: &SurveyedTopic) -> usize {
    topic.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0)
}

fn without_leader(topic: &SurveyedTopic) -> bool {
    topic.partitions.iter().any(|partition| !partition.led)
}

fn is_behind(topic: &SurveyedTopic) -> bool {
    topic.partitions.iter().any(|partition| partition.in_sync < partition.replicas)
}

/// Publishing to some partition is refused now. Kafka 4 asks for no more copies than there are to be.
fn refuses(topic: &SurveyedTopic) -> bool {
    let least =
        number(topic, "min.insync.replicas").and_then(|least| usize::try_from(least).ok()).unwrap_or(1);
    topic
        .partitions
        .iter()
        .any(|partition| partition.led && partition.in_sync < least.min(partition.replicas))
}

fn expires(topic: &SurveyedTopic) -> bool {
    let compacts = set(topic, "cleanup.policy") == Some("compact");
    let bounded = |name: &str| number(topic, name).is_some_and(|bound| bound >= 0);
    !compacts && (bounded("retention.ms") || bounded("retention.bytes"))
}

/// Of Kafka itself, or of Ropeway.
fn is_internal(topic: &SurveyedTopic) -> bool {
    topic.name.starts_with("__")
}
