//! What a server of Redis said of itself, judged: pure, from text to findings with their fixes.
//!
//! Not here: asking (`mod.rs`), rights and memory (`bounds.rs`).

use super::{
    super::report::{Finding, Level},
    bounds,
};
use std::collections::BTreeMap;

/// What is known of one server. What it did not tell is `None`.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// `host:port`, or the path of a socket.
    pub(super) address: String,
    /// Only this machine reaches it by that address.
    pub(super) local: bool,
    /// It was reached over TLS.
    pub(super) tls: bool,
    /// The URL has a password.
    pub(super) password: bool,
    /// It answers also who has no password.
    pub(super) open: Option<bool>,
    pub(super) version: String,
    /// `INFO`.
    pub(super) info: Option<BTreeMap<String, String>>,
    /// `CONFIG GET`.
    pub(super) config: Option<BTreeMap<String, String>>,
    /// By how many milliseconds its clock is ahead of ours, and how many the question took.
    pub(super) clock: Option<(i64, i64)>,
    /// What keys begin with.
    pub(super) prefix: String,
    /// The user.
    pub(super) user: Option<String>,
    /// What the user may not do of what is needed.
    pub(super) denied: Option<Vec<String>>,
    /// What is needed and the server does not have.
    pub(super) missing: Vec<String>,
}

impl Facts {
    pub(super) fn told(&self, name: &str) -> Option<&str> {
        self.info.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.told(name)?.parse().ok()
    }

    fn set(&self, name: &str) -> Option<&str> {
        self.config.as_ref()?.get(name).map(String::as_str)
    }

    /// How redis-cli is called for this server.
    fn cli(&self, words: &str) -> String {
        let place = match self.address.rsplit_once(':') {
            _ if self.address.starts_with('/') => format!("-s {}", self.address),
            Some((host, port)) => format!("-h {} -p {port}", host.trim_matches(['[', ']'])),
            None => format!("-h {}", self.address),
        };
        let tls = if self.tls { " --tls" } else { "" };
        let password = if self.password { " --askpass" } else { "" };
        format!("redis-cli {place}{tls}{password} {words}")
    }

    /// Adds how a setting is changed: now, and for the next start.
    pub(super) fn setting(&self, finding: Finding, name: &str, value: &str) -> Finding {
        finding
            .fix(self.cli(&format!("CONFIG SET {name} {value}")))
            .fix(format!("{name} {value}    # in redis.conf, or by CONFIG REWRITE"))
    }

    /// Adds a command.
    pub(super) fn command(&self, finding: Finding, words: &str) -> Finding {
        finding.fix(self.cli(words))
    }
}

/// What a publish that was acked survives, in words; before it how little that is, from 0 for most.
pub(super) fn survives(facts: &Facts) -> (u8, &'static str) {
    let pauses = facts.set("no-appendfsync-on-rewrite") == Some("yes");
    match (facts.told("aof_enabled"), facts.set("appendfsync")) {
        (Some("1"), Some("always")) if !pauses => {
            (0, "what was acked survives a power cut of the server (power_loss)")
        }
        (Some("1"), Some("always")) => (
            1,
            "what was acked survives the end of the server's process; and a power cut, but for what is acked while the file is rewritten (process_crash)",
        ),
        (Some("1"), Some("no")) => (
            2,
            "what was acked survives the end of the server's process; a power cut takes what the system had not written by itself (process_crash)",
        ),
        (Some("1"), Some("everysec")) => (
            3,
            "what was acked survives as a rule, but for about the last second: the server answers before it is on the disk, and while a sync takes long before it is written (volatile)",
        ),
        (Some("1"), _) => {
            (4, "what was acked survives as a rule; how much a crash takes cannot be seen (volatile)")
        }
        _ => (
            5,
            "what was acked survives nothing that is certain: it may be gone when the server restarts (volatile)",
        ),
    }
}

/// All findings about a server, in the order in which one would look.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![Finding::new(
        "version",
        Level::Fine,
        format!("Redis {}; 7.0.0 is the oldest that works", facts.version),
    )];
    findings.push(told(facts));
    findings.extend(role(facts));
    findings.extend(append_only(facts));
    findings.extend(sync(facts));
    findings.extend(disk(facts));
    findings.extend(bounds::eviction(facts));
    findings.extend(bounds::memory(facts));
    findings.extend(bounds::clients(facts));
    findings.extend(replicas(facts));
    findings.extend(clock(facts));
    findings.push(password(facts));
    findings.push(tls(facts));
    findings.extend(bounds::rights(facts));
    findings.into_iter().map(|finding| finding.at(&facts.address)).collect()
}

/// Whether it tells of itself what has to be known.
fn told(facts: &Facts) -> Finding {
    let refused: Vec<&str> = [("INFO", facts.info.is_none()), ("CONFIG GET", facts.config.is_none())]
        .into_iter()
        .filter_map(|(command, refused)| refused.then_some(command))
        .collect();
    if refused.is_empty() {
        return Finding::new("settings", Level::Fine, "it tells its settings (INFO, CONFIG GET)");
    }
    let user = facts.user.as_deref().unwrap_or("USER");
    let says = format!(
        "{} refused: what cannot be seen is taken to be the least, so less is promised to publishers",
        refused.join(" and ")
    );
    let finding = Finding::new("settings", Level::Warning, says);
    facts.command(
        finding,
        &format!(
            "ACL SETUSER {user} +info +config|get    # where a provider forbids CONFIG, see its console"
        ),
    )
}

fn role(facts: &Facts) -> Option<Finding> {
    if facts.told("role")? == "master" {
        return Some(Finding::new("role", Level::Fine, "a primary: it takes writes"));
    }
    let primary = match (facts.told("master_host"), facts.told("master_port")) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "its primary".to_owned(),
    };
    let says = format!("a read-only replica of {primary}: nothing can be published or acked");
    Some(
        Finding::new("role", Level::Error, says)
            .fix(format!("connect to redis://{primary}, or to its sentinels")),
    )
}

fn append_only(facts: &Facts) -> Option<Finding> {
    match facts.told("aof_enabled").or_else(|| facts.set("appendonly"))? {
        "1" | "yes" => Some(Finding::new(
            "append_only",
            Level::Fine,
            "on: what was acked survives a restart of the server",
        )),
        _ => {
            let says = "off: what was acked since the last snapshot is gone when the server restarts";
            Some(facts.setting(Finding::new("append_only", Level::Error, says), "appendonly", "yes"))
        }
    }
}

fn sync(facts: &Facts) -> Vec<Finding> {
    if facts.told("aof_enabled") == Some("0") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let found = |level, says: &str| Finding::new("sync", level, says);
    findings.extend(facts.set("appendfsync").map(|how| match how {
        "always" => found(Level::Fine, "appendfsync always: what was acked is on the disk"),
        "everysec" => {
            let says = "appendfsync everysec: a power cut takes about the last second of what was acked, and while a sync takes long a killed process up to two";
            facts.setting(found(Level::Warning, says), "appendfsync", "always")
        }
        _ => {
            let says = "appendfsync no: a power cut takes what the system had not written by itself, often 30 seconds";
            facts.setting(found(Level::Error, says), "appendfsync", "everysec")
        }
    }));
    if facts.set("no-appendfsync-on-rewrite") == Some("yes") {
        let says = "no-appendfsync-on-rewrite yes: while the file is rewritten nothing is synced, whatever appendfsync says";
        findings.push(facts.setting(found(Level::Warning, says), "no-appendfsync-on-rewrite", "no"));
    }
    findings
}

/// What of its writing to the disk failed.
fn disk(facts: &Facts) -> Vec<Finding> {
    let failed = |name: &str| facts.told(name).is_some_and(|status| status != "ok");
    let mut findings = Vec::new();
    if failed("aof_last_write_status") {
        let says =
            "the last write to the append-only file failed: the server takes no writes until one succeeds";
        findings.push(
            Finding::new("disk", Level::Error, says).fix("make room on the server's disk, and see its log"),
        );
    }
    if failed("rdb_last_bgsave_status") && facts.set("stop-writes-on-bgsave-error") != Some("no") {
        let says = "the last snapshot failed: the server takes no writes until one succeeds (stop-writes-on-bgsave-error)";
        let finding =
            Finding::new("disk", Level::Error, says).fix("make room on the server's disk, and see its log");
        findings.push(facts.command(finding, "BGSAVE"));
    }
    if failed("aof_last_bgrewrite_status") {
        let says = "the last rewrite of the append-only file failed: the file grows until one succeeds";
        let finding =
            Finding::new("disk", Level::Warning, says).fix("make room on the server's disk, and see its log");
        findings.push(facts.command(finding, "BGREWRITEAOF"));
    }
    findings
}

fn replicas(facts: &Facts) -> Option<Finding> {
    if facts.told("role")? != "master" {
        return None;
    }
    let count = facts.number("connected_slaves")?;
    if count == 0 {
        let (host, port) = facts.address.rsplit_once(':').unwrap_or((&facts.address, "6379"));
        let says = "none: what was acked is lost with this machine or its disk";
        let found = Finding::new("replicas", Level::Warning, says);
        if facts.told("cluster_enabled") == Some("1") {
            let add = format!("redis-cli --cluster add-node NEWHOST:PORT {} --cluster-slave", facts.address);
            return Some(found.fix(add));
        }
        let promoted = "a sentinel promotes it by itself; connect with redis+sentinel://HOST/NAME then";
        return Some(
            found.fix(format!("replicaof {host} {port}    # in redis.conf of a second server")).fix(promoted),
        );
    }
    // slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0
    let behind: Vec<&str> = facts
        .info
        .iter()
        .flatten()
        .filter(|(name, value)| is_behind(name, value))
        .map(|(_, value)| value.as_str())
        .collect();
    if !behind.is_empty() {
        let says = format!("{count}, of which {} does not keep up: {}", behind.len(), behind.join("; "));
        return Some(
            Finding::new("replicas", Level::Warning, says)
                .fix("see the log of that replica, and the network between the two"),
        );
    }
    if facts.set("min-replicas-to-write") == Some("0") {
        let says = format!(
            "{count}; an answer does not wait for them, so a failover may take the last moments of what was acked. A publisher that asks for `replicated` waits"
        );
        return Some(facts.setting(
            Finding::new("replicas", Level::Note, says),
            "min-replicas-to-write",
            "1",
        ));
    }
    Some(Finding::new("replicas", Level::Fine, count.to_string()))
}

fn is_behind(name: &str, value: &str) -> bool {
    let number = name.strip_prefix("slave").is_some_and(|digits| digits.parse::<u32>().is_ok());
    let lag = value.split(',').find_map(|part| part.strip_prefix("lag=")?.parse::<i64>().ok());
    number && (!value.contains("state=online") || lag.is_none_or(|lag| lag > 10))
}

fn clock(facts: &Facts) -> Option<Finding> {
    /// From where on a difference matters to people: delayed messages are due, and ages are judged, by the server's clock.
    const MOST: i64 = 1000;
    let (ahead, took) = facts.clock?;
    if ahead.abs() - took / 2 <= MOST {
        return Some(Finding::new(
            "clock",
            Level::Fine,
            format!("agrees with this machine's, within {MOST} ms; an answer takes {took} ms"),
        ));
    }
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let says = format!(
        "the server's is {:.1} s {way} this machine's: delayed messages are due by the server's, and times of messages are of this one",
        ahead.abs() as f64 / 1000.0
    );
    Some(
        Finding::new("clock", Level::Warning, says)
            .fix("keep both by NTP: `chronyc tracking` tells on each by how much it is wrong"),
    )
}

fn password(facts: &Facts) -> Finding {
    let found = |level, says: &str| Finding::new("password", level, says);
    match (facts.password, facts.open, facts.local) {
        (true, Some(true), _) => {
            let says =
                "it lets in also who gives none: anybody who reaches it can read and delete everything";
            facts.command(found(Level::Warning, says), "ACL SETUSER default off")
        }
        (true, ..) => found(Level::Fine, "it asks for one"),
        (false, _, true) => {
            found(Level::Note, "none: all programs of this machine can read and delete everything")
        }
        (false, _, false) => {
            let says = "none: anybody who reaches the port can read and delete everything";
            found(Level::Warning, says)
                .fix("requirepass LONG-AND-BY-LOT    # in redis.conf; then redis://:PASSWORD@HOST")
                .fix("or a user of its own, by ACL SETUSER; then redis://USER:PASSWORD@HOST")
        }
    }
}

fn tls(facts: &Facts) -> Finding {
    match (facts.tls, facts.local) {
        (true, _) => {
            Finding::new("tls", Level::Fine, "on, and the server's certificate is one that is trusted")
        }
        (false, true) => Finding::new("tls", Level::Fine, "off, and nothing leaves this machine"),
        (false, false) => {
            let says = "off: messages and the password can be read and changed on their way";
            Finding::new("tls", Level::Warning, says)
                .fix(
                    "tls-port 6379, port 0, tls-cert-file, tls-key-file, tls-ca-cert-file    # in redis.conf",
                )
                .fix("then rediss://HOST?ca=FILE")
        }
    }
}
