//! Where a server of Redis ends: memory and what it forgets, connections, rights.
//!
//! Not here: durability, replicas, protection (`judge.rs`).

use super::{
    super::report::{Finding, Level, size},
    judge::Facts,
};

/// What one process may have on its way to the server (`queue_bytes`), twice: with less it is full at once.
const LITTLE: u64 = 128 * 1024 * 1024;

pub(super) fn eviction(facts: &Facts) -> Option<Finding> {
    let policy = facts.told("maxmemory_policy")?;
    let limited = facts.number("maxmemory").is_none_or(|limit| limit > 0);
    let found = |level, says: String| Finding::new("eviction", level, says);
    let fixed = |finding| Some(facts.setting(finding, "maxmemory-policy", "noeviction"));
    match policy {
        "noeviction" => {
            Some(found(Level::Fine, "noeviction: at its limit it refuses writes, and forgets nothing".into()))
        }
        _ if policy.starts_with("volatile") => fixed(found(
            Level::Warning,
            format!(
                "{policy}: keys with an expiry are forgotten at the limit; Ropeway sets none, so its own stay as long as nobody else does"
            ),
        )),
        _ if limited => fixed(found(
            Level::Error,
            format!(
                "{policy}: at its memory limit the server forgets whole topics, groups and what was acked, without a word"
            ),
        )),
        _ => fixed(found(
            Level::Warning,
            format!(
                "{policy}: as soon as somebody sets a memory limit, topics and groups are forgotten without a word"
            ),
        )),
    }
}

pub(super) fn memory(facts: &Facts) -> Option<Finding> {
    let (used, limit) = (facts.number("used_memory")?, facts.number("maxmemory")?);
    let machine = facts.number("total_system_memory").filter(|bytes| *bytes > 0);
    let found = |level, says: String| Finding::new("memory", level, says);
    let most = if limit > 0 { limit } else { machine? };
    let shown = format!("{} used of {}", size(used), size(most));
    // Three quarters of the machine: the rest is for copies while a file is rewritten, and for the system.
    let fits = machine.map_or(most, |bytes| bytes / 4 * 3);
    let larger = || format!("{}mb", (fits >> 20).max(1));
    let room = "give topics a retention (--retention, --retention-bytes), purge or delete what is not needed, or give the machine more memory";
    let (nine_tenths, three_quarters) = (most / 10 * 9, most / 4 * 3);
    let finding = if used >= nine_tenths {
        let says = format!("{shown}: publishing is refused, or will be very soon");
        facts.setting(found(Level::Error, says), "maxmemory", &larger()).fix(room)
    } else if used >= three_quarters {
        facts
            .setting(found(Level::Warning, format!("{shown}: it will be full soon")), "maxmemory", &larger())
            .fix(room)
    } else if limit == 0 {
        let says = format!(
            "{shown} that the machine has, and no limit: when it is used up, the system ends the server instead of a publish being refused"
        );
        facts.setting(found(Level::Warning, says), "maxmemory", &larger())
    } else if machine.is_some_and(|bytes| limit > bytes) {
        let says = format!(
            "{shown}, and the machine has only {}: the system ends the server before the limit is reached",
            size(machine.unwrap_or(0))
        );
        facts.setting(found(Level::Warning, says), "maxmemory", &larger())
    } else if limit < LITTLE {
        let says = format!("{shown}: too little, since one process may have 64 MiB on its way (queue_bytes)");
        facts.setting(found(Level::Warning, says), "maxmemory", &larger())
    } else {
        found(Level::Fine, shown)
    };
    Some(finding)
}

pub(super) fn clients(facts: &Facts) -> Option<Finding> {
    let (count, most) = (facts.number("connected_clients")?, facts.number("maxclients")?);
    if count / 9 < most / 10 {
        return None;
    }
    let says = format!("{count} connections of {most} that it takes: more are refused");
    Some(facts.setting(
        Finding::new("connections", Level::Warning, says),
        "maxclients",
        &(most * 2).to_string(),
    ))
}

pub(super) fn rights(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !facts.missing.is_empty() {
        let says = format!(
            "the server has no {}: a provider took it away, or rename-command did",
            facts.missing.join(", ")
        );
        findings.push(
            Finding::new("commands", Level::Error, says)
                .fix("remove rename-command from redis.conf, or use a server that has them"),
        );
    }
    let user = facts.user.as_deref().unwrap_or("USER");
    findings.push(match &facts.denied {
        None => {
            let says = "what the user may do cannot be seen (ACL is refused); what is refused is told when it is needed";
            Finding::new("rights", Level::Note, says)
        }
        Some(denied) if denied.is_empty() => {
            Finding::new("rights", Level::Fine, format!("user {user} may do all that is needed"))
        }
        Some(denied) => {
            let says = format!("user {user} may not: {}", denied.join("; "));
            let finding = Finding::new("rights", Level::Error, says);
            let rule = format!("ACL SETUSER {user} ~{}:* +@read +@write +@scripting +@connection +wait +info +config|get", facts.prefix);
            facts.command(finding, &rule)
        }
    });
    findings
}
