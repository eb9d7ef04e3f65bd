//! What a Redis server can, and what it guarantees: asked when a connection is made, and again with each later one.
//!
//! Not here: what follows from it (that is for those who store something), how it is asked (`dial.rs`).

use super::wire::Reply;
use std::{collections::HashSet, fmt, sync::Arc};

/// The oldest version that is accepted.
pub const OLDEST: Version = Version { major: 7, minor: 0, patch: 0 };

/// A version, as in 7.0.15.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse::<u32>().ok());
        let major = numbers.next()??;
        let mut next = || numbers.next().flatten().unwrap_or(0);
        Some(Self { major, minor: next(), patch: next() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What survives a power cut of the server, once it has answered.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Durable {
    /// Nothing that is promised: no append-only file, or nobody knows.
    Nothing,
    /// What the operating system has written by itself: an append-only file, `appendfsync no` or nobody knows.
    Sometime,
    /// All but about the last second: `appendfsync everysec`.
    EverySecond,
    /// All: `appendfsync always`.
    Always,
}

/// Which part a server plays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It copies a primary.
    Replica,
}

/// Which server a connection leads to: told apart from one that took its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub(super) address: Arc<str>,
    pub(super) run_id: Option<String>,
}

impl Identity {
    /// Whether the two are different servers: another start at another address. One that was started again at its address is the same, and so is
    /// one that is reached at another address.
    #[must_use]
    pub fn is_another(&self, than: &Self) -> bool {
        self.address != than.address && (self.run_id.is_none() || self.run_id != than.run_id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// What a server said of itself. What it did not say is `None`, and then the lowest is claimed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Server {
    /// The version. Valkey gives the version of Redis that it is compatible with.
    pub version: Version,
    /// The number of this start of the server: another one means that it was restarted, or is another server.
    pub run_id: Option<String>,
    /// Whether it takes writes.
    pub role: Option<Role>,
    /// Whether it is a node of a cluster.
    pub cluster: bool,
    /// Whether it still reads its data from disk.
    pub loading: bool,
    /// Whether what is written goes to an append-only file.
    pub append_only: Option<bool>,
    /// How that file is synced: `always`, `everysec` or `no`.
    pub append_fsync: Option<String>,
    /// Whether it is not synced while it is rewritten (`no-appendfsync-on-rewrite`).
    pub fsync_pauses: Option<bool>,
    /// Replicas that are connected.
    pub replicas: Option<u32>,
    /// How many of them must be well for it to take writes.
    pub min_replicas: Option<u32>,
    /// What happens at the memory limit: `noeviction`, or how it chooses what to forget.
    pub eviction: Option<String>,
    /// The memory limit in bytes; 0 is none.
    pub max_memory: Option<u64>,
    /// Whether `CONFIG GET` is allowed.
    pub config_readable: bool,
    commands: Option<HashSet<String>>,
}

impl Server {
    /// What survives a power cut of it.
    #[must_use]
    pub fn durable(&self) -> Durable {
        match (self.append_only, self.append_fsync.as_deref()) {
            (Some(true), Some("always")) if self.fsync_pauses == Some(false) => Durable::Always,
            (Some(true), Some("everysec")) => Durable::EverySecond,
            (Some(true), _) => Durable::Sometime,
            _ => Durable::Nothing,
        }
    }

    /// Whether it has written to its append-only file when it answers, so that what it answered survives its process. With `everysec` that is not
    /// so: while a sync takes long it answers first, and writes up to two seconds later. Where nobody knows it is `everysec`, the default.
    #[must_use]
    pub fn writes_first(&self) -> bool {
        self.append_only == Some(true) && matches!(self.append_fsync.as_deref(), Some("always" | "no"))
    }

    /// Whether it may forget keys by itself at its memory limit. True where nobody knows.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.eviction.as_deref() != Some("noeviction")
    }

    /// What holds of both: the least of each.
    pub(super) fn least(&self, other: &Self) -> Self {
        let low = if self.durable() <= other.durable() { self } else { other };
        // Synced seldom on one and answered early on the other: both at once is what is said of nobody.
        let first = !low.writes_first() || self.writes_first() && other.writes_first();
        let lax = if self.evicts() { self } else { other };
        let both = |one: Option<u32>, other: Option<u32>| one.zip(other).map(|(one, other)| one.min(other));
        let commands = self.commands.as_ref().zip(other.commands.as_ref());
        Self {
            version: self.version.min(other.version),
            run_id: None,
            role: self.role.filter(|role| other.role == Some(*role)),
            cluster: self.cluster && other.cluster,
            loading: self.loading || other.loading,
            append_only: low.append_only,
            append_fsync: low.append_fsync.clone().filter(|_| first),
            fsync_pauses: low.fsync_pauses,
            replicas: both(self.replicas, other.replicas),
            min_replicas: both(self.min_replicas, other.min_replicas),
            eviction: lax.eviction.clone(),
            max_memory: lax.max_memory,
            config_readable: self.config_readable && other.config_readable,
            commands: commands.map(|(one, other)| one.intersection(other).cloned().collect()),
        }
    }

    /// Whether it knows a command, by its name. `None` where it does not tell (ACL).
    #[must_use]
    pub fn knows(&self, command: &str) -> Option<bool> {
        self.commands.as_ref().map(|commands| commands.contains(&command.to_ascii_lowercase()))
    }

    /// From the answers to `HELLO`, `INFO`, `CONFIG GET` and `COMMAND LIST`, each of which may be an error.
    pub(super) fn of(hello: &Reply, info: &Reply, config: &Reply, commands: &Reply) -> Option<Self> {
        let text = info.text().unwrap_or_default();
        let told = |key: &str| {
            text.lines()
                .find_map(|line| line.trim_end().strip_prefix(key)?.strip_prefix(':').map(str::to_owned))
        };
        let set = |key: &str| pair(config.items(), key);
        let version = told("redis_version").or_else(|| pair(hello.items(), "version"))?;
        let role = told("role").or_else(|| pair(hello.items(), "role"));
        Some(Self {
            version: Version::parse(&version)?,
            run_id: told("run_id"),
            role: role.map(|role| if role == "master" { Role::Primary } else { Role::Replica }),
            cluster: told("cluster_enabled").map_or_else(
                || pair(hello.items(), "mode").as_deref() == Some("cluster"),
                |enabled| enabled == "1",
            ),
            loading: told("loading").as_deref() == Some("1"),
            append_only: told("aof_enabled")
                .map(|on| on == "1")
                .or_else(|| set("appendonly").map(|on| on == "yes")),
            append_fsync: set("appendfsync"),
            fsync_pauses: set("no-appendfsync-on-rewrite").map(|pauses| pauses == "yes"),
            replicas: told("connected_slaves").and_then(|count| count.parse().ok()),
            min_replicas: set("min-replicas-to-write").and_then(|count| count.parse().ok()),
            eviction: told("maxmemory_policy").or_else(|| set("maxmemory-policy")),
            max_memory: told("maxmemory").or_else(|| set("maxmemory")).and_then(|bytes| bytes.parse().ok()),
            config_readable: matches!(config, Reply::Array(_)),
            commands: names(commands),
        })
    }
}

/// The value of a key in a list of keys and values.
fn pair(items: &[Reply], key: &str) -> Option<String> {
    items
        .chunks_exact(2)
        .find(|pair| pair[0].text() == Some(key))
        .and_then(|pair| pair[1].text())
        .map(str::to_owned)
}

fn names(commands: &Reply) -> Option<HashSet<String>> {
    let Reply::Array(items) = commands else { return None };
    Some(items.iter().filter_map(|item| item.text().map(str::to_ascii_lowercase)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_is_another_start_at_another_address() {
        let of = |address: &str, run: Option<&str>| Identity {
            address: address.into(),
            run_id: run.map(str::to_owned),
        };
        let server = of("a:1", Some("x"));
        assert!(of("b:1", Some("y")).is_another(&server) && server.is_another(&of("b:1", None)));
        assert!(of("a:2", None).is_another(&of("a:1", None)), "nobody knows");
        for same in [of("a:1", Some("y")), of("b:1", Some("x")), of("a:1", None)] {
            assert!(!same.is_another(&server), "{same:?}");
        }
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.to_owned().into())
    }

    fn list(items: &[&str]) -> Reply {
        Reply::Array(items.iter().map(|item| bulk(item)).collect())
    }

    fn refused() -> Reply {
        Reply::Error("NOPERM this user has no permissions".into())
    }

    #[test]
    fn what_a_server_says_is_read() {
        let info = bulk(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\naof_enabled:1\r\nrole:master\r\nconnected_slaves:2\r\nmaxmemory:100\r\n\
             maxmemory_policy:noeviction\r\ncluster_enabled:0\r\nloading:0\r\n",
        );
        let always = ["appendfsync", "always", "no-appendfsync-on-rewrite", "no"];
        let config = list(&[&always[..], &["min-replicas-to-write", "1"]].concat());
        let server = Server::of(&refused(), &info, &config, &list(&["xadd", "GET"])).unwrap();
        assert_eq!(server.version, Version { major: 7, minor: 0, patch: 15 });
        assert_eq!(
            (server.durable(), server.evicts(), server.role),
            (Durable::Always, false, Some(Role::Primary))
        );
        assert_eq!((server.replicas, server.min_replicas, server.max_memory), (Some(2), Some(1), Some(100)));
        assert_eq!(
            [server.knows("XADD"), server.knows("get"), server.knows("xdelex")],
            [Some(true), Some(true), Some(false)]
        );
    }

    #[test]
    fn what_survives_a_power_cut_and_what_the_process_is_told_apart() {
        let info = bulk("redis_version:7.0.15\r\naof_enabled:1\r\n");
        for (config, durable, first) in [
            (&["appendfsync", "always", "no-appendfsync-on-rewrite", "no"][..], Durable::Always, true),
            (&["appendfsync", "always", "no-appendfsync-on-rewrite", "yes"], Durable::Sometime, true),
            (&["appendfsync", "always"], Durable::Sometime, true),
            (&["appendfsync", "everysec"], Durable::EverySecond, false),
            (&["appendfsync", "no"], Durable::Sometime, true),
            (&[], Durable::Sometime, false),
        ] {
            let server = Server::of(&refused(), &info, &list(config), &refused()).unwrap();
            assert_eq!((server.durable(), server.writes_first()), (durable, first), "{config:?}");
        }
    }

    #[test]
    fn where_nothing_is_told_the_lowest_is_claimed() {
        let hello = list(&["server", "redis", "version", "7.2.0", "mode", "standalone", "role", "master"]);
        let server = Server::of(&hello, &refused(), &refused(), &refused()).unwrap();
        assert_eq!(
            (server.durable(), server.evicts(), server.config_readable),
            (Durable::Nothing, true, false)
        );
        assert_eq!((server.knows("XADD"), server.replicas), (None, None));
        assert_eq!(Server::of(&refused(), &refused(), &refused(), &refused()), None);
    }

    #[test]
    fn an_append_only_file_of_which_nobody_knows_how_it_is_synced_is_synced_sometime() {
        let info = bulk("redis_version:7.0.15\r\naof_enabled:1\r\n");
        assert_eq!(
            Server::of(&refused(), &info, &refused(), &refused()).unwrap().durable(),
            Durable::Sometime
        );
        let off = bulk("redis_version:7.0.15\r\naof_enabled:0\r\n");
        let config = list(&["appendfsync", "always"]);
        assert_eq!(Server::of(&refused(), &off, &config, &refused()).unwrap().durable(), Durable::Nothing);
    }
}
