//! The servers that there are: their names and what each is.
//!
//! Data only. Not here: how each is started (`redis/mod.rs`).

/// A server, or a set of processes that is one to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One Redis, append-only with a sync at each write.
    Redis,
    /// Redis behind TLS with a password; a second one also demands a certificate of its clients.
    RedisTls,
    /// A primary, its replica and a sentinel.
    RedisReplica,
    /// A cluster of three nodes without replicas.
    RedisCluster,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: &[Self] = &[Self::Redis, Self::RedisTls, Self::RedisReplica, Self::RedisCluster];

    /// As it is typed, and as its folder is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RedisTls => "redis-tls",
            Self::RedisReplica => "redis-replica",
            Self::RedisCluster => "redis-cluster",
        }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The variable that holds its URL for the tests.
    pub(crate) fn variable(self) -> String {
        format!("ROPEWAY_TEST_{}_URL", self.name().to_uppercase().replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(*kind));
        }
        assert_eq!(Kind::named("rediss"), None);
        assert_eq!(Kind::RedisTls.variable(), "ROPEWAY_TEST_REDIS_TLS_URL");
    }
}
