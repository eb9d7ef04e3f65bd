//! The servers that there are: their names and what each is.
//!
//! Data only. Not here: how each is started (`redis/mod.rs`, `kafka/mod.rs`, `pulsar/mod.rs`).

/// A server, or a set of processes that is one to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Redis, append-only with a sync at each write.
    Redis(Shape),
    /// Apache Kafka.
    Kafka(Brokers),
    /// One Apache Pulsar.
    Pulsar,
}

/// How Redis is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One node.
    Alone,
    /// One behind TLS with a password; a second one also demands a certificate of its clients.
    Tls,
    /// A primary, its replica and a sentinel.
    Replica,
    /// A cluster of three nodes without replicas.
    Cluster,
}

/// How Kafka is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brokers {
    /// One node, broker and controller.
    One,
    /// Three such nodes; what is acked by all is on two of them.
    Three,
    /// One node behind TLS: one port asks for a password (SASL), another for a certificate.
    Tls,
}

/// One Kafka.
pub(crate) const KAFKA: Kind = Kind::Kafka(Brokers::One);

/// One Redis.
pub(crate) const REDIS: Kind = Kind::Redis(Shape::Alone);

impl Kind {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: &[Self] = &[
        REDIS,
        Self::Redis(Shape::Tls),
        Self::Redis(Shape::Replica),
        Self::Redis(Shape::Cluster),
        KAFKA,
        Self::Kafka(Brokers::Three),
        Self::Kafka(Brokers::Tls),
        Self::Pulsar,
    ];

    /// As it is typed, and as its folder is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis(Shape::Alone) => "redis",
            Self::Redis(Shape::Tls) => "redis-tls",
            Self::Redis(Shape::Replica) => "redis-replica",
            Self::Redis(Shape::Cluster) => "redis-cluster",
            Self::Kafka(Brokers::One) => "kafka",
            Self::Kafka(Brokers::Three) => "kafka-3",
            Self::Kafka(Brokers::Tls) => "kafka-tls",
            Self::Pulsar => "pulsar",
        }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Its container image.
    pub(crate) const fn image(self) -> Image {
        let (name, version, digest) = match self {
            // As the maintainers of the official images list it (docker-library/repo-info, repos/redis/remote/7.0.15.md).
            Self::Redis(_) => (
                "redis",
                "7.0.15",
                Some("sha256:ba8af28227224b9a73b59aa7df25b09781b8d6b23b72adcc4c58fb9019d81fa2"),
            ),
            // Of this version no list of digests was at hand: whoever can ask the registry adds what `docker buildx imagetools inspect` says.
            Self::Kafka(_) => ("apache/kafka", "4.4.0", None),
            // As several who run it have noted it, one of them with the version that the server gave.
            Self::Pulsar => (
                "apachepulsar/pulsar",
                "4.2.4",
                Some("sha256:cd5d4a64a32c0770d5d2dbb526169a70081605bbec4b59b73471b68d0a451fb4"),
            ),
        };
        Image { name, version, digest }
    }

    /// The variable that holds its URL for the tests.
    pub(crate) fn variable(self) -> String {
        format!("ROPEWAY_TEST_{}_URL", self.name().to_uppercase().replace('-', "_"))
    }
}

/// A container image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    /// What its server says of itself.
    pub(crate) version: &'static str,
    /// Which build it is, for all platforms.
    digest: Option<&'static str>,
}

impl Image {
    /// What stands behind the name: the version, and which build of it.
    pub(crate) fn tag(self) -> String {
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}{digest}", self.version)
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
        assert_eq!(Kind::Redis(Shape::Tls).variable(), "ROPEWAY_TEST_REDIS_TLS_URL");
        assert_eq!(Kind::Kafka(Brokers::Three).variable(), "ROPEWAY_TEST_KAFKA_3_URL");
    }
}
