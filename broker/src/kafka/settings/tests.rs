//! What URLs of Kafka mean, and what is refused.

use super::*;
use crate::{ErrorKind, Group};

fn of(url: &str) -> Result<KafkaSettings> {
    KafkaSettings::of_url(&BrokerUrl::parse(url)?)
}

fn text(url: &str) -> String {
    let error = of(url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{url}: {error}");
    error.to_string()
}

#[test]
fn hosts_have_ports_and_stand_in_their_order() {
    let servers = |url| of(url).unwrap().servers;
    assert_eq!(servers("kafka://a"), ["a:9092"]);
    assert_eq!(
        servers("kafka://a:1,b.example-x_y:2,[::1]:3,[fe80::1%25eth0]"),
        ["a:1", "b.example-x_y:2", "[::1]:3", "[fe80::1%25eth0]:9092"]
    );
    assert_eq!(servers("kafka+ssl://a/"), ["a:9092"]);
    // A password that nobody encoded.
    assert_eq!(servers("kafka://user:a/b@c@h"), ["h:9092"]);
    for (bad, why) in [
        ("kafka:", "kafka://HOST"),
        ("kafka:a:9092", "kafka://HOST"),
        ("kafka://", "no host"),
        ("kafka://a,,b", "no host"),
        ("kafka://a:0", "\"a:0\""),
        ("kafka://a:70000", "\"a:70000\""),
        ("kafka://a b", "no host"),
        ("kafka://[::1", "IPv6"),
        ("kafka://[::1]x", "IPv6"),
        ("kafka://a/topic", "nothing stands behind the hosts"),
    ] {
        let text = text(bad);
        assert!(text.contains(why), "{bad}: {text}");
    }
}

#[test]
fn every_parameter_is_taken() {
    let url = "kafka+ssl://us%40er:p%2Fw@h:1?ca=/ca&cert=/cert&key=/key&key_password=kp&mechanism=scram-sha-512&client_id=me\
        &replication=3&min_insync_replicas=2&publish_deadline=5s&queue_messages=7&queue_bytes=1MiB&linger=5ms&compression=lz4\
        &session=45s&max_poll_interval=60s&release=1s&group_protocol=consumer&rdkafka.socket.timeout.ms=1234";
    let settings = of(url).unwrap();
    let expected = KafkaSettings {
        tls: Some(KafkaTls {
            ca: Some("/ca".into()),
            cert: Some("/cert".into()),
            key: Some("/key".into()),
            key_password: Some(KafkaPassword("kp".into())),
        }),
        login: Some(KafkaLogin {
            user: "us@er".into(),
            password: KafkaPassword("p/w".into()),
            mechanism: KafkaMechanism::ScramSha512,
        }),
        client_id: "me".into(),
        replication: Some(3),
        min_insync_replicas: Some(2),
        publish_deadline: Duration::from_secs(5),
        queue_messages: 7,
        queue_bytes: 1 << 20,
        linger: Duration::from_millis(5),
        compression: KafkaCompression::Lz4,
        session: Duration::from_secs(45),
        max_poll_interval: Duration::from_secs(60),
        release: Duration::from_secs(1),
        group_protocol: KafkaGroupProtocol::Consumer,
        client: vec![("socket.timeout.ms".into(), "1234".into())],
        ..KafkaSettings::new(["h:1".to_owned()])
    };
    assert_eq!(settings, expected);
    // None was forgotten above.
    for name in PARAMETERS {
        assert!(url.contains(&format!("{name}=")), "{name}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    for (query, why) in [
        ("linge=1ms", "did you mean `linger`"),
        ("linger=x", "`linger=x`"),
        ("linger=2s", "`linger`"),
        ("replication=0", "`replication=0`"),
        ("replication=2&min_insync_replicas=3", "`min_insync_replicas=3`"),
        ("publish_deadline=1s", "`publish_deadline`"),
        ("queue_messages=0", "`queue_messages=0`"),
        ("queue_bytes=many", "`queue_bytes=many`"),
        ("compression=brotli", "`zstd`"),
        ("session=10ms", "`session`"),
        ("session=10m", "`max_poll_interval`"),
        ("release=0s", "`release=0s`"),
        ("group_protocol=eager", "`classic`, `consumer`"),
        ("mechanism=plain", "USER:PASSWORD"),
        ("ca=/x", "kafka+ssl://"),
        ("rdkafka.acks=1", "`rdkafka.acks`"),
        ("rdkafka.plugin.library.paths=/x", "runs code"),
        ("rdkafka.=x", "`rdkafka.`"),
    ] {
        let text = text(&format!("kafka://h?{query}"));
        assert!(text.contains(why), "{query}: {text}");
    }
    assert!(text("kafka+ssl://h?cert=/x").contains("`cert` and `key`"));
    assert!(text("kafka://u:p@h?mechanism=gssapi").contains("`scram-sha-256`"));
}

#[test]
fn no_password_is_shown() {
    let url = "kafka+ssl://user:hush%21hush@h:1?key_password=hush-hush&rdkafka.client.rack=hush-rack";
    let settings = of(url).unwrap();
    for shown in [format!("{settings:?}"), format!("{settings:#?}"), format!("{:?}", settings.producer(1000))]
    {
        assert!(!shown.contains("hush"), "{shown}");
    }
    for bad in [
        "kafka://user:hush@h:x",
        "kafka://user:hush@hush@h:0",
        "kafka://:hush@h",
        "kafka://user:hush%00@h",
        "kafka://user:hush%ff@h",
        "kafka://user:hush@h/hush",
        "kafka://user@h",
        "kafka://user:hush@h?linger=x",
        "kafka+ssl://user:hush@h?key_password=hush&linge=x",
    ] {
        let error = of(bad).unwrap_err();
        assert!(!error.to_string().contains("hush") && !format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn clients_are_told_what_the_contract_needs() {
    let settings = of("kafka+ssl://u:p@a:1,b:2?mechanism=scram-sha-256&session=20s&rdkafka.fetch.min.bytes=9&rdkafka.socket.timeout.ms=777").unwrap();
    let group = Group::new("billing").unwrap();
    let (producer, admin) = (settings.producer(64_000), settings.admin());
    let joins = Joins { group: &group, name: Some("one"), answer: 3_000_000 };
    let (member, reader) = (settings.of_consumer(Some(joins)), settings.of_consumer(None));
    for values in [&producer, &admin, &member, &reader] {
        assert_eq!(values.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(values.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(values.get("sasl.mechanisms"), Some("SCRAM-SHA-256"));
        assert_eq!(values.get("allow.auto.create.topics"), Some("false"));
        assert_eq!(values.get("enable.metrics.push"), Some("false"));
        assert_eq!(
            values.get("topic.metadata.refresh.interval.ms"),
            Some("5000"),
            "a node that is gone is soon replaced"
        );
        assert_eq!(values.get("socket.timeout.ms"), Some("777"), "what the user adds comes last");
    }
    for (name, value) in [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("batch.size", "64000"),
        ("message.timeout.ms", "27000"),
        ("queue.buffering.max.messages", "0"),
        ("max.in.flight", "1"),
    ] {
        assert_eq!(producer.get(name), Some(value), "{name}");
    }
    assert_eq!(producer.get("fetch.min.bytes"), None);
    for values in [&member, &reader] {
        for (name, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "false"),
            ("fetch.min.bytes", "9"),
        ] {
            assert_eq!(values.get(name), Some(value), "{name}");
        }
    }
    for (values, kib, bytes, millis) in
        [(&member, "2048", "3000000", "1"), (&reader, "4096", "2097152", "10")]
    {
        assert_eq!(values.get("queued.max.messages.kbytes"), Some(kib));
        assert_eq!(values.get("fetch.queue.backoff.ms"), Some(millis));
        assert_eq!(values.get("fetch.max.bytes"), Some(bytes));
    }
    assert_eq!((member.get("group.id"), member.get("group.instance.id")), (Some("billing"), Some("one")));
    assert_eq!(member.get("session.timeout.ms"), Some("20000"));
    assert_eq!(member.get("partition.assignment.strategy"), Some("cooperative-sticky"));
    let settings = of("kafka://h?group_protocol=consumer").unwrap();
    let member = settings.of_consumer(Some(Joins { name: None, ..joins }));
    assert_eq!((member.get("group.protocol"), member.get("session.timeout.ms")), (Some("consumer"), None));
}

#[test]
fn only_who_publishes_is_told_how_many_requests_may_be_under_way() {
    let settings = of("kafka://h?rdkafka.max.in.flight=5").unwrap();
    assert_eq!(settings.producer(1000).get("max.in.flight"), Some("5"));
    for values in [settings.admin(), settings.of_consumer(None)] {
        assert_eq!(values.get("max.in.flight"), None);
    }
    for value in ["0", "6", "-1", "x", ""] {
        let text = text(&format!("kafka://h?rdkafka.max.in.flight={value}"));
        assert!(text.contains("max.in.flight") && text.contains("1 to 5"), "{text}");
    }
    let other = text("kafka://h?rdkafka.max.in.flight.requests.per.connection=5");
    assert!(other.contains("use `rdkafka.max.in.flight`"), "{other}");
}

#[test]
fn the_library_stops_trying_before_our_deadline() {
    for (deadline, library) in [("3s", 1700), ("10s", 8000), ("30s", 27_000), ("1h", 3_597_000)] {
        let settings = of(&format!("kafka://h?publish_deadline={deadline}")).unwrap();
        assert_eq!(settings.producer(1000).get("message.timeout.ms"), Some(&*library.to_string()));
    }
}

#[test]
fn a_parameter_is_checked_without_what_belongs_beside_it() {
    for (name, value) in [
        ("session", "10m"),
        ("max_poll_interval", "2s"),
        ("min_insync_replicas", "3"),
        ("cert", "/c"),
        ("mechanism", "scram-sha-256"),
        ("rdkafka.socket.timeout.ms", "777"),
    ] {
        KafkaSettings::check_parameter(name, value).unwrap();
    }
    for (name, value, why) in [
        ("sesion", "1s", "did you mean `session`"),
        ("session", "1ms", "from 1s to 3600s"),
        ("replication", "many", "a number from 1 to 1000"),
        ("plugin.library.paths", "/x", "it runs code"),
        ("socket.timeout.ms", "1", "`rdkafka.socket.timeout.ms`"),
        ("rdkafka.ssl.keystore.location", "/x", "use `cert` and `key`"),
        ("rdkafka.socket.timeout.ms", "soon", "`socket.timeout.ms`"),
    ] {
        let error = KafkaSettings::check_parameter(name, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{name}={value}: {error}");
    }
}

#[test]
fn what_stands_in_the_url_comes_before_a_default() {
    let url = BrokerUrl::parse("kafka://h?session=40s").unwrap();
    let url = url.with_default("session", "50s").with_default("linger", "5ms");
    let settings = KafkaSettings::of_url(&url).unwrap();
    assert_eq!((settings.session, settings.linger), (Duration::from_secs(40), Duration::from_millis(5)));
}
