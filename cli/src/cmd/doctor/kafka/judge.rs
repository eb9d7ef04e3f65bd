//! What a cluster of Kafka said of itself, judged: pure, from settings to findings with their fixes.
//!
//! Here: the cluster and its brokers. Not here: asking (`mod.rs`), topics (`topics.rs`).

use super::super::report::{Finding, Level, size};
use ropeway_broker::KafkaSurvey;
use std::time::Duration;

/// What is known of a cluster, and of the way to it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) survey: KafkaSurvey,
    /// The address in the URL.
    pub(super) bootstrap: String,
    /// Only this machine reaches it by that address.
    pub(super) local: bool,
    /// It was reached over TLS.
    pub(super) tls: bool,
    /// The URL has a user, or a certificate of the client.
    pub(super) known: bool,
    /// What our members ask for.
    pub(super) session: Duration,
    /// How many copies the topics get that are made here, where the URL says so.
    pub(super) copies: Option<i64>,
    /// How many of them are waited for, where the URL says so.
    pub(super) in_sync: Option<i64>,
}

const DAY: u64 = 24 * 60 * 60 * 1000;
/// What acks beyond a group's position may take, in bytes.
const METADATA: u64 = 4096;
/// What Kafka takes where nobody set it, in bytes: 1 MiB and what lies around a record.
const MESSAGE: u64 = 1_048_588;

impl Facts {
    /// How a program of Kafka is called for this cluster.
    pub(super) fn tool(&self, program: &str, words: &str) -> String {
        let as_client = if self.tls || self.known { " --command-config client.properties" } else { "" };
        format!("{program} --bootstrap-server {}{as_client} {words}", self.bootstrap)
    }

    /// Adds how a setting of all brokers is changed while they run.
    fn at_run_time(&self, finding: Finding, setting: &str) -> Finding {
        let words = format!("--alter --entity-type brokers --entity-default --add-config {setting}");
        finding.fix(self.tool("kafka-configs.sh", &words))
    }

    /// Judges a setting of the brokers: once where all say the same, else once for each value, with who says it.
    fn each(&self, name: &str, judge: impl Fn(&str) -> Option<Finding>) -> Vec<Finding> {
        let mut values: Vec<(&str, Vec<&str>)> = Vec::new();
        for broker in &self.survey.brokers {
            let Some(value) = broker.settings.get(name) else { continue };
            match values.iter_mut().find(|(known, _)| known == value) {
                Some((_, addresses)) => addresses.push(&broker.address),
                None => values.push((value, vec![&broker.address])),
            }
        }
        let all_say_so = values.len() == 1;
        let finding = |(value, addresses): &(&str, Vec<&str>)| {
            let finding = judge(value)?;
            Some(if all_say_so { finding } else { finding.at(addresses.join(", ")) })
        };
        values.iter().filter_map(finding).collect()
    }

    /// Whether no broker lets one become leader that lacks what was acked, unless a topic says otherwise.
    pub(super) fn is_clean(&self) -> bool {
        let unclean = |value: &String| value == "true";
        let mut brokers = self.survey.brokers.iter();
        !brokers.any(|broker| broker.settings.get("unclean.leader.election.enable").is_some_and(unclean))
    }

    /// A setting as a number, where all brokers say the same.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        let mut values = self.survey.brokers.iter().map(|broker| broker.settings.get(name));
        let first = values.next()??;
        values.all(|value| value == Some(first)).then(|| first.parse().ok())?
    }
}

/// All findings about a cluster and its brokers, in the order in which one would look.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![brokers(facts), told(facts)];
    findings.extend(copies(facts));
    findings.extend(in_sync(facts));
    findings.extend(unclean(facts));
    findings.extend(retention(facts));
    findings.extend(positions(facts));
    findings.extend(limits(facts));
    findings.extend(sessions(facts));
    findings.extend(auto_creation(facts));
    findings.extend(deletion(facts));
    findings.push(user(facts));
    findings.push(tls(facts));
    findings
}

fn brokers(facts: &Facts) -> Finding {
    let (count, cluster) = (facts.survey.brokers.len(), &facts.survey.cluster);
    let found = |level, says: String| Finding::new("brokers", level, says);
    match count {
        1 => found(
            Level::Warning,
            format!("one, of cluster {cluster}: what was acked is lost with this machine or its disk, and while it restarts nothing works"),
        )
        .fix("run three brokers or more, and give topics three replicas; one is enough for trying things"),
        2 => found(
            Level::Warning,
            format!("two, of cluster {cluster}: with one of them down, publishing that waits for two copies stops"),
        )
        .fix("run three brokers or more"),
        _ => found(Level::Fine, format!("{count}, of cluster {cluster}")),
    }
}

/// Whether it tells of itself what has to be known.
fn told(facts: &Facts) -> Finding {
    let refused: Vec<&str> = facts
        .survey
        .brokers
        .iter()
        .filter(|broker| broker.settings.is_empty())
        .map(|broker| broker.address.as_str())
        .collect();
    if refused.is_empty() {
        return Finding::new("settings", Level::Fine, "it tells its settings (DescribeConfigs)");
    }
    let says = format!(
        "the settings of {} cannot be seen (DescribeConfigs is refused): what follows from them is not judged",
        refused.join(", ")
    );
    let rule = "--add --allow-principal User:NAME --operation DescribeConfigs --cluster";
    Finding::new("settings", Level::Warning, says).fix(facts.tool("kafka-acls.sh", rule))
}

/// What a topic that is made here survives, in words.
pub(super) fn survives(facts: &Facts) -> &'static str {
    let copies = facts.copies.or_else(|| facts.number("default.replication.factor"));
    let in_sync = facts.in_sync.or_else(|| facts.number("min.insync.replicas"));
    match (copies, in_sync) {
        (Some(2..), Some(2..)) => {
            "in topics that are made here, what was acked survives the loss of a broker and its disk (replicated)"
        }
        _ => {
            "in topics that are made here, what was acked survives the end of a broker's process; Kafka leaves it to the system when the disk is written, so a power cut may take the last of it (process_crash)"
        }
    }
}

fn copies(facts: &Facts) -> Vec<Finding> {
    let brokers = facts.survey.brokers.len();
    facts.each("default.replication.factor", |value| {
        let copies: usize = value.parse().ok()?;
        let found = |level, says: String| Finding::new("replication", level, says);
        Some(match copies {
            _ if brokers < 2 || facts.copies.is_some_and(|copies| copies > 1) => return None,
            1 => found(
                Level::Warning,
                "default.replication.factor 1: a topic that is made without ?replication= has one copy, and is lost with its broker".into(),
            )
            .fix("default.replication.factor=3    # in server.properties of each broker, then restart it")
            .fix("or ?replication=3 behind the URL; topics that are there keep what they have (kafka-reassign-partitions.sh)"),
            _ if copies > brokers => found(
                Level::Error,
                format!("default.replication.factor {copies}, and there are {brokers} brokers: no topic can be made"),
            )
            .fix(format!("?replication={brokers} behind the URL, or more brokers")),
            _ => found(Level::Fine, format!("default.replication.factor {copies}")),
        })
    })
}

fn in_sync(facts: &Facts) -> Vec<Finding> {
    let copies = facts.copies.or_else(|| facts.number("default.replication.factor"));
    facts.each("min.insync.replicas", |value| {
        let least: i64 = value.parse().ok()?;
        let found = |level, says: String| Finding::new("in_sync", level, says);
        Some(match (least, copies) {
            (_, Some(1) | None) => return None,
            (1, _) => {
                let says = "min.insync.replicas 1: while followers are behind, what is acked lies on one broker alone, and is lost with it";
                facts.at_run_time(found(Level::Warning, says.into()), "min.insync.replicas=2")
            }
            (_, Some(copies)) if least >= copies => {
                let says = format!("min.insync.replicas {least} of {copies} copies: with any broker down publishing stops");
                let less = format!("min.insync.replicas={}", (copies - 1).max(1));
                facts.at_run_time(found(Level::Warning, says), &less)
            }
            _ => found(Level::Fine, format!("min.insync.replicas {least}: what is acked is on {least} brokers or more")),
        })
    })
}

fn unclean(facts: &Facts) -> Vec<Finding> {
    facts.each("unclean.leader.election.enable", |value| {
        let found = |level, says: &str| Finding::new("unclean", level, says);
        if value != "true" {
            return Some(found(Level::Fine, "off: only who has everything that was acked becomes leader"));
        }
        let says = "on: a broker that lacks what was acked may become leader, and then that is gone";
        Some(facts.at_run_time(found(Level::Error, says), "unclean.leader.election.enable=false"))
    })
}

/// What happens to messages in topics that others made.
fn retention(facts: &Facts) -> Vec<Finding> {
    // The finest of the three that is set counts.
    let of = |name: &str, unit: i64| facts.number(name).map(|count| count.saturating_mul(unit));
    let millis = of("log.retention.ms", 1)
        .or_else(|| of("log.retention.minutes", 60_000))
        .or_else(|| of("log.retention.hours", 3_600_000));
    let (Some(millis), bytes) = (millis, facts.number("log.retention.bytes")) else { return Vec::new() };
    let mut bounds = Vec::new();
    bounds.extend((millis >= 0).then(|| age(millis as u64)));
    bounds
        .extend(bytes.filter(|bytes| *bytes >= 0).map(|bytes| format!("{} a partition", size(bytes as u64))));
    if bounds.is_empty() {
        return vec![Finding::new(
            "retention",
            Level::Fine,
            "everything is kept where a topic says nothing else",
        )];
    }
    let says = format!(
        "topics that somebody else made keep {}, and do not wait for groups: what a group has not finished by then is gone, and told as a gap. Topics that Ropeway makes keep what they were made to keep",
        bounds.join(" or ")
    );
    vec![Finding::new("retention", Level::Note, says)]
}

/// For how long a group without members keeps its position.
fn positions(facts: &Facts) -> Vec<Finding> {
    facts.each("offsets.retention.minutes", |value| {
        let millis = value.parse::<u64>().ok()?.checked_mul(60_000)?;
        let says = format!(
            "a group that has no member for {} forgets its position, and begins anew by `start` of its subscription",
            age(millis)
        );
        let level = if millis < DAY { Level::Warning } else { Level::Note };
        let finding = Finding::new("positions", level, says);
        Some(if millis < DAY {
            finding.fix("offsets.retention.minutes=10080    # in server.properties of each broker, then restart it")
        } else {
            finding
        })
    })
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let mut findings = facts.each("message.max.bytes", |value| {
        let most: u64 = value.parse().ok()?;
        let found = |level, says: String| Finding::new("message_size", level, says);
        if most >= MESSAGE {
            return Some(found(Level::Fine, format!("messages may have {} (message.max.bytes)", size(most))));
        }
        let says = format!(
            "messages may have {} (message.max.bytes), less than everywhere else: larger ones are refused, and so are dead letters that grow beyond it with why they failed",
            size(most)
        );
        Some(facts.at_run_time(found(Level::Warning, says), &format!("message.max.bytes={MESSAGE}")))
    });
    findings.extend(facts.each("offset.metadata.max.bytes", |value| {
        let most: u64 = value.parse().ok()?;
        let found = |level, says: String| Finding::new("metadata_size", level, says);
        if most >= METADATA {
            return Some(found(Level::Fine, format!("{most} bytes beside a group's position (offset.metadata.max.bytes)")));
        }
        let says = format!(
            "{most} bytes beside a group's position (offset.metadata.max.bytes), and Ropeway needs up to {METADATA}: commits with more are refused, and what was acked comes again"
        );
        Some(found(Level::Error, says).fix(format!(
            "offset.metadata.max.bytes={METADATA}    # in server.properties of each broker, then restart it"
        )))
    }));
    findings
}

fn sessions(facts: &Facts) -> Vec<Finding> {
    let ours = i64::try_from(facts.session.as_millis()).unwrap_or(i64::MAX);
    let bounds = (facts.number("group.min.session.timeout.ms"), facts.number("group.max.session.timeout.ms"));
    let (Some(least), Some(most)) = bounds else { return Vec::new() };
    let shown = format!("?session={}s", facts.session.as_secs());
    let found = |level, says: String| vec![Finding::new("session", level, says)];
    if (least..=most).contains(&ours) {
        return found(
            Level::Fine,
            format!("{shown} lies between {least} ms and {most} ms, which brokers take"),
        );
    }
    let says = format!(
        "{shown}, and brokers take {least} ms to {most} ms (group.min.session.timeout.ms, group.max.session.timeout.ms): members are refused"
    );
    let fits = ours.clamp(least, most);
    vec![Finding::new("session", Level::Error, says).fix(format!("?session={fits}ms behind the URL"))]
}

fn auto_creation(facts: &Facts) -> Vec<Finding> {
    facts.each("auto.create.topics.enable", |value| {
        let found = |level, says: &str| Finding::new("auto_creation", level, says);
        if value != "true" {
            return Some(found(Level::Fine, "off: a topic is there when somebody made it"));
        }
        let says = "on: any client that mistypes a name makes a topic, with the brokers' partitions, copies and retention; Ropeway never does";
        Some(found(Level::Warning, says).fix(
            "auto.create.topics.enable=false    # in server.properties of each broker, then restart it",
        ))
    })
}

fn deletion(facts: &Facts) -> Vec<Finding> {
    facts.each("delete.topic.enable", |value| {
        (value == "false").then(|| {
            let says = "off: `topic delete` is refused";
            Finding::new("deletion", Level::Warning, says)
                .fix("delete.topic.enable=true    # in server.properties of each broker, then restart it")
        })
    })
}

fn user(facts: &Facts) -> Finding {
    let found = |level, says: &str| Finding::new("user", level, says);
    match (facts.known, facts.local) {
        (true, _) => found(Level::Fine, "it asks who we are"),
        (false, true) => {
            found(Level::Note, "none: all programs of this machine can read and delete everything")
        }
        (false, false) => {
            let says = "none: anybody who reaches the port can read and delete everything, unless rules for User:ANONYMOUS say otherwise";
            found(Level::Warning, says)
                .fix("sasl.enabled.mechanisms=SCRAM-SHA-512 and a SASL_SSL listener    # in server.properties of each broker")
                .fix("then kafka+ssl://USER:PASSWORD@HOST?mechanism=scram-sha-512")
        }
    }
}

fn tls(facts: &Facts) -> Finding {
    let found = |level, says: &str| Finding::new("tls", level, says);
    match (facts.tls, facts.local) {
        (true, _) => found(Level::Fine, "on, and the brokers' certificates are ones that are trusted"),
        (false, true) => found(Level::Fine, "off, and nothing leaves this machine"),
        (false, false) => found(Level::Warning, "off: messages can be read and changed on their way")
            .fix("an SSL or SASL_SSL listener, ssl.keystore.type=PEM, ssl.keystore.location    # in server.properties of each broker")
            .fix("then kafka+ssl://HOST?ca=FILE"),
    }
}

/// Milliseconds for people.
pub(super) fn age(millis: u64) -> String {
    match millis {
        DAY.. => format!("{} d", millis / DAY),
        3_600_000.. => format!("{} h", millis / 3_600_000),
        60_000.. => format!("{} min", millis / 60_000),
        _ => format!("{millis} ms"),
    }
}
