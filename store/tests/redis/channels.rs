//! Plain channels: published to who listens, bounded, and honest about what is missing.

use crate::server::{Server, connect, quick};
use ropeway_store::redis::{ErrorKind, Received, Redis, Subscription};
use std::time::Duration;

crate::tests!(
    what_is_published_is_received_on_each_channel,
    a_channel_that_was_left_is_not_heard,
    a_slow_subscriber_is_told_what_it_lost,
    a_subscription_is_mended_and_says_so,
    a_channel_that_is_not_allowed_is_told,
);

/// The next one within 20 seconds, as text.
async fn next(subscription: &mut Subscription) -> String {
    let received = tokio::time::timeout(Duration::from_secs(20), subscription.next()).await;
    match received.unwrap().unwrap() {
        Received::Payload { channel, payload } => {
            format!("{}={}", String::from_utf8_lossy(&channel), String::from_utf8_lossy(&payload))
        }
        Received::Gap { dropped, cut } => format!("gap {dropped} {:?}", cut.map(|error| error.kind())),
    }
}

async fn what_is_published_is_received_on_each_channel() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    assert_eq!(redis.publish(b"a", b"nobody hears").await.unwrap(), 0);
    let mut first = redis.subscribe(&[b"a", b"b"]).await.unwrap();
    let mut second = redis.subscribe(&[b"b"]).await.unwrap();
    assert_eq!(redis.publish(b"a", b"1").await.unwrap(), 1);
    assert_eq!(redis.publish(b"b", b"2").await.unwrap(), 2);
    assert_eq!([next(&mut first).await, next(&mut first).await], ["a=1", "b=2"]);
    assert_eq!(next(&mut second).await, "b=2");
    drop(second);
    // Dropping it leaves.
    for _ in 0..500 {
        if redis.publish(b"b", b"3").await.unwrap() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(redis.publish(b"b", b"3").await.unwrap(), 1);
    assert_eq!(first.dropped(), 0);
}

async fn a_channel_that_was_left_is_not_heard() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let mut subscription = redis.subscribe(&[b"a"]).await.unwrap();
    subscription.add(&[b"b", b"c"]).await.unwrap();
    redis.publish(b"c", b"1").await.unwrap();
    assert_eq!(next(&mut subscription).await, "c=1");
    subscription.remove(&[b"a", b"c"]).await.unwrap();
    assert_eq!(redis.publish(b"a", b"2").await.unwrap() + redis.publish(b"c", b"2").await.unwrap(), 0);
    redis.publish(b"b", b"3").await.unwrap();
    assert_eq!(next(&mut subscription).await, "b=3");
    subscription.remove(&[b"b"]).await.unwrap();
    subscription.add(&[b"a"]).await.unwrap();
    redis.publish(b"a", b"4").await.unwrap();
    assert_eq!(next(&mut subscription).await, "a=4");
}

async fn a_slow_subscriber_is_told_what_it_lost() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    settings.subscription_buffer = 4;
    settings.subscription_bytes = 1000;
    let redis = Redis::connect(settings).await.unwrap();
    let mut subscription = redis.subscribe(&[b"a"]).await.unwrap();
    for number in 0..10 {
        redis.publish(b"a", number.to_string().as_bytes()).await.unwrap();
    }
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while subscription.dropped() < 6 && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for number in 0..4 {
        assert_eq!(next(&mut subscription).await, format!("a={number}"));
    }
    assert_eq!(next(&mut subscription).await, "gap 6 None", "told without another payload");
    assert_eq!(subscription.dropped(), 6);
    redis.publish(b"a", &[b'x'; 2000]).await.unwrap();
    redis.publish(b"a", b"y").await.unwrap();
    assert_eq!(next(&mut subscription).await, "gap 1 None", "more bytes than the buffer may hold");
    assert_eq!(next(&mut subscription).await, "a=y");
}

async fn a_subscription_is_mended_and_says_so() {
    let mut server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let mut subscription = redis.subscribe(&[b"a", b"b"]).await.unwrap();
    server.kill();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.up();
    assert_eq!(next(&mut subscription).await, format!("gap 0 {:?}", Some(ErrorKind::Cut)));
    let mut heard = 0;
    for _ in 0..400 {
        // The pool may still be finding it again.
        heard = redis.publish(b"b", b"1").await.unwrap_or_default();
        if heard == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(heard, 1);
    assert_eq!(next(&mut subscription).await, "b=1");
    // A server that hangs is noticed by a probe.
    server.signal("STOP");
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.signal("CONT");
    assert!(next(&mut subscription).await.starts_with("gap 0 Some("));
}

async fn a_channel_that_is_not_allowed_is_told() {
    let server = Server::start(&[]);
    server.cli(&["ACL", "SETUSER", "some", "on", ">pw", "~*", "+@all", "resetchannels", "&a"]);
    let redis = connect(&format!("redis://some:pw@127.0.0.1:{}", server.port)).await;
    let error = redis.subscribe(&[b"b"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let mut subscription = redis.subscribe(&[b"a"]).await.unwrap();
    assert_eq!(subscription.add(&[b"b"]).await.unwrap_err().kind(), ErrorKind::Denied);
    redis.publish(b"a", b"1").await.unwrap();
    assert_eq!(next(&mut subscription).await, "a=1", "the others go on");
}
