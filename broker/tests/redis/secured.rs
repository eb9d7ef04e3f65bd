//! TLS and passwords with each kind of URL; wrong ones are told by their kind, and never shown.

use super::nodes::{Certificates, Node, PASSWORD};
use ropeway_broker::{
    Admin, ErrorKind, Message, MessageBroker, Published, RedisStreams, Topic, TopicSpec, connect,
};

/// Whether a topic can be made and published to.
async fn serves(url: &str) {
    let broker = RedisStreams::of_url(url).await.unwrap();
    let topic = Topic::new("t").unwrap();
    broker.create_topic(&topic, TopicSpec::partitions(6)).await.unwrap();
    let batch = (0..20).map(|n| Message::builder().key(n.to_string()).payload("x").build()).collect();
    let outcomes = broker.publish(&topic.into(), batch).await;
    assert!(outcomes.0.iter().all(|told| matches!(told, Published::Acked { .. })), "{outcomes:?}");
}

async fn refused(url: &str, kind: ErrorKind) {
    let error = connect(url).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("wrong-one") && !text.contains(&format!(":{PASSWORD}@")), "{text}");
}

async fn each_kind_of_url_takes_certificates_and_passwords_and_tells_wrong_ones() {
    let (own, strange) = (Certificates::new(), Certificates::new());
    let ca = own.dir().join("ca.pem").display().to_string();
    let other = strange.dir().join("ca.pem").display().to_string();
    let primary = Node::start(Some(&own), &[]);
    let replica = primary.replica(Some(&own));
    let sentinel = primary.sentinel(&replica, Some(&own));
    let cluster = Node::cluster(false, Some(&own));
    let hosts: Vec<String> = cluster.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    for (scheme, hosts, more) in [
        ("rediss", format!("127.0.0.1:{}", primary.port), String::new()),
        (
            "rediss+sentinel",
            format!("127.0.0.1:{}/main", sentinel.port),
            format!("&sentinel_password={PASSWORD}"),
        ),
        ("rediss+cluster", hosts.join(","), String::new()),
    ] {
        let prefix = scheme.replace('+', "-");
        serves(&format!("{scheme}://:{PASSWORD}@{hosts}?ca={ca}&prefix={prefix}{more}")).await;
        refused(&format!("{scheme}://:wrong-one@{hosts}?ca={ca}{more}"), ErrorKind::Unauthorized).await;
        refused(&format!("{scheme}://:{PASSWORD}@{hosts}?ca={other}{more}"), ErrorKind::Invalid).await;
        let plain = scheme.replace("rediss", "redis");
        refused(
            &format!("{plain}://:{PASSWORD}@{hosts}?{}", more.trim_start_matches('&')),
            ErrorKind::Invalid,
        )
        .await;
    }
    let sentinel = format!("rediss+sentinel://:{PASSWORD}@127.0.0.1:{}/main?ca={ca}", sentinel.port);
    refused(&format!("{sentinel}&sentinel_password=wrong-one"), ErrorKind::Unauthorized).await;
}

async fn a_socket_and_a_node_of_a_cluster_by_the_url_of_a_server_are_told_apart() {
    let cluster = Node::cluster(false, None);
    let error = connect(&format!("redis://127.0.0.1:{}", cluster[0].port)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.to_string().contains("redis+cluster://"),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("redis.sock").display().to_string();
    let _node = Node::start(None, &["--unixsocket", &socket]);
    serves(&format!("unix://{socket}?prefix=a")).await;
    serves(&format!("redis+unix://{socket}?prefix=b&db=2")).await;
    let error = connect("unix:///nowhere/redis.sock").await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unavailable && error.to_string().contains("/nowhere/redis.sock"),
        "{error}"
    );
}

super::async_tests! {
    each_kind_of_url_takes_certificates_and_passwords_and_tells_wrong_ones,
    a_socket_and_a_node_of_a_cluster_by_the_url_of_a_server_are_told_apart,
}
