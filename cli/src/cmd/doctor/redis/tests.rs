//! What a server says, and what `doctor` makes of it, one misconfiguration at a time.

use super::{
    super::report::{Finding, Level},
    Facts, is_local,
    judge::{judge, survives},
    pairs,
};
use std::collections::BTreeMap;

const WELL: &str = "role:master\nconnected_slaves:1\nslave0:ip=h,port=1,state=online,offset=1,lag=0\naof_enabled:1\naof_last_write_status:ok\n\
    rdb_last_bgsave_status:ok\naof_last_bgrewrite_status:ok\nmaxmemory:4000000000\nmaxmemory_policy:noeviction\nused_memory:1000000\n\
    total_system_memory:8000000000\nconnected_clients:3\nmaxclients:10000\n";

/// A server that is as it should be, but for what `changes` says of INFO and of CONFIG.
fn facts(changes: &[(&str, &str)]) -> Facts {
    let mut info = pairs(WELL);
    let set =
        ["appendonly yes", "appendfsync always", "no-appendfsync-on-rewrite no", "min-replicas-to-write 1"];
    let mut config: BTreeMap<String, String> = set
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    for (name, value) in changes {
        let of = if config.contains_key(*name) { &mut config } else { &mut info };
        of.insert((*name).into(), (*value).into());
    }
    Facts {
        address: "redis.example:6379".into(),
        tls: true,
        password: true,
        open: Some(false),
        version: "7.0.15".into(),
        info: Some(info),
        config: Some(config),
        clock: Some((5, 1)),
        prefix: "ropeway".into(),
        user: Some("default".into()),
        denied: Some(Vec::new()),
        ..Facts::default()
    }
}

/// What is worse than a note.
fn bad(facts: &Facts) -> Vec<Finding> {
    judge(facts).into_iter().filter(|finding| finding.level > Level::Note).collect()
}

#[test]
fn a_server_that_is_as_it_should_be_is_well() {
    assert_eq!(bad(&facts(&[])), []);
    assert!(survives(&facts(&[])).1.contains("power_loss"));
    // From most to least, since the least of several servers is what holds.
    let always = survives(&facts(&[]));
    let pauses = survives(&facts(&[("no-appendfsync-on-rewrite", "yes")]));
    let [no, everysec] = ["no", "everysec"].map(|how| survives(&facts(&[("appendfsync", how)])));
    assert!([always, pauses, no, everysec, survives(&facts(&[("aof_enabled", "0")]))].is_sorted());
}

#[test]
fn each_misconfiguration_is_one_finding_with_its_fix() {
    use Level::{Error, Warning};
    for (changes, check, level, says, fix) in [
        (
            &[("aof_enabled", "0"), ("appendonly", "no")][..],
            "append_only",
            Error,
            "restarts",
            "CONFIG SET appendonly yes",
        ),
        (&[("appendfsync", "everysec")], "sync", Warning, "last second", "CONFIG SET appendfsync always"),
        (&[("appendfsync", "no")], "sync", Error, "30 seconds", "CONFIG SET appendfsync everysec"),
        (
            &[("no-appendfsync-on-rewrite", "yes")],
            "sync",
            Warning,
            "rewritten",
            "no-appendfsync-on-rewrite no",
        ),
        (&[("aof_last_write_status", "err")], "disk", Error, "takes no writes", "room"),
        (&[("rdb_last_bgsave_status", "err")], "disk", Error, "takes no writes", "BGSAVE"),
        (&[("aof_last_bgrewrite_status", "err")], "disk", Warning, "grows", "BGREWRITEAOF"),
        (&[("maxmemory_policy", "allkeys-lru")], "eviction", Error, "forgets", "maxmemory-policy noeviction"),
        (
            &[("maxmemory_policy", "volatile-ttl")],
            "eviction",
            Warning,
            "expiry",
            "maxmemory-policy noeviction",
        ),
        (&[("used_memory", "3900000000")], "memory", Error, "refused", "retention"),
        (&[("used_memory", "3100000000")], "memory", Warning, "full soon", "retention"),
        (&[("maxmemory", "0")], "memory", Warning, "no limit", "CONFIG SET maxmemory 5722mb"),
        (&[("maxmemory", "9000000000")], "memory", Warning, "machine has only", "maxmemory"),
        (&[("maxmemory", "50000000")], "memory", Warning, "too little", "maxmemory"),
        (&[("connected_clients", "9500")], "connections", Warning, "9500", "maxclients 20000"),
        (
            &[("connected_slaves", "0"), ("cluster_enabled", "1")],
            "replicas",
            Warning,
            "none",
            "add-node NEWHOST:PORT redis.example:6379",
        ),
        (&[("connected_slaves", "0")], "replicas", Warning, "none", "replicaof redis.example 6379"),
        (&[("slave0", "ip=h,state=wait_bgsave,lag=0")], "replicas", Warning, "keep up", "log"),
        (&[("slave0", "ip=h,state=online,lag=60")], "replicas", Warning, "keep up", "log"),
        (
            &[("role", "slave"), ("master_host", "p"), ("master_port", "1")],
            "role",
            Error,
            "p:1",
            "redis://p:1",
        ),
    ] {
        let found = bad(&facts(changes));
        let [finding] = found.as_slice() else { panic!("{changes:?}: {found:#?}") };
        assert_eq!((finding.check, finding.level), (check, level), "{changes:?}");
        assert!(finding.says.contains(says), "{changes:?}: {}", finding.says);
        assert!(finding.fix.iter().any(|line| line.contains(fix)), "{changes:?}: {:?}", finding.fix);
    }
    // A policy that forgets is no danger yet where nothing is limited.
    let unlimited = bad(&facts(&[("maxmemory", "0"), ("maxmemory_policy", "allkeys-lfu")]));
    assert!(unlimited.iter().all(|finding| finding.level == Warning), "{unlimited:#?}");
}

#[test]
fn who_may_reach_it_and_what_it_refuses_to_tell_is_judged() {
    let one = |change: &dyn Fn(&mut Facts)| {
        let mut facts = facts(&[]);
        change(&mut facts);
        let found = bad(&facts);
        let [finding] = found.as_slice() else { panic!("{found:#?}") };
        (finding.check, finding.level, finding.says.clone() + &finding.fix.join("\n"))
    };
    use Level::{Error, Warning};
    for (change, check, level, part) in [
        (
            &(|facts: &mut Facts| facts.password = false) as &dyn Fn(&mut Facts),
            "password",
            Warning,
            "requirepass",
        ),
        (&|facts| facts.open = Some(true), "password", Warning, "ACL SETUSER default off"),
        (&|facts| facts.tls = false, "tls", Warning, "rediss://"),
        (&|facts| facts.clock = Some((-90_000, 3)), "clock", Warning, "90.0 s behind"),
        (&|facts| facts.config = None, "settings", Warning, "ACL SETUSER default +info +config|get"),
        (
            &|facts| facts.denied = Some(vec!["XADD ropeway:{doctor/0}:log".into()]),
            "rights",
            Error,
            "~ropeway:*",
        ),
        (&|facts| facts.missing = vec!["EVALSHA".into()], "commands", Error, "rename-command"),
    ] {
        let (found, at, text) = one(change);
        assert_eq!((found, at), (check, level));
        assert!(text.contains(part), "{text}");
    }
    // Without INFO nothing is known, and nothing is invented.
    let mut silent = facts(&[]);
    (silent.info, silent.config) = (None, None);
    assert!(survives(&silent).1.contains("volatile"));
    assert_eq!(bad(&silent).iter().map(|finding| finding.check).collect::<Vec<_>>(), ["settings"]);
}

#[test]
fn an_address_of_this_machine_is_known_as_such() {
    for (name, local) in [
        ("127.0.0.1:6379", true),
        ("[::1]:6379", true),
        ("localhost:1", true),
        ("/run/redis.sock", true),
        ("10.0.0.1:6379", false),
        ("redis:6379", false),
    ] {
        assert_eq!(is_local(name), local, "{name}");
    }
}
