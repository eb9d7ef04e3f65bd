//! Servers that go away, hang or cut connections: what is told of each request, and how it comes back.

use crate::server::{Cut, Server, connect, fake, quick, relay, replies};
use ropeway_store::redis::{Durable, ErrorKind, Health, Outcome, Redis, RedisMetrics, Resend, Status, cmd};
use std::{io::Write, time::Duration};
use tokio::{sync::watch, time::Instant};

crate::tests!(
    a_server_that_was_killed_is_found_again_and_asked_again,
    a_server_that_hangs_is_left_alone_and_found_again,
    a_cut_before_the_answer_is_unknown_and_was_done_once,
    a_cut_within_the_answer_is_unknown,
    an_idempotent_request_is_sent_again,
    what_was_never_written_was_not_done,
    a_lane_and_a_reader_say_that_they_have_ended,
    a_pool_has_its_bounds,
    a_pool_lets_go_of_what_is_idle_or_old,
    a_call_that_is_given_up_leaves_no_answer_behind,
    metrics_count,
);

/// Waits until the status is as wanted.
async fn until(status: &mut watch::Receiver<Status>, wanted: impl Fn(&Status) -> bool) -> Status {
    let seen = tokio::time::timeout(Duration::from_secs(30), status.wait_for(|status| wanted(status))).await;
    seen.unwrap().unwrap().clone()
}

/// Waits until something holds.
async fn soon(holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < end, "it does not come to hold");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_server_that_was_killed_is_found_again_and_asked_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let redis = connect(&server.url()).await;
    let mut status = redis.status();
    assert_eq!((status.borrow().health(), status.borrow().durable()), (Health::Up, Durable::EverySecond));
    redis.query(cmd("SET").arg("k").arg("v"), Resend::NotDone).await.unwrap();
    server.kill();
    let down = until(&mut status, |status| status.health() == Health::Down).await;
    assert_eq!(down.servers.values().next().unwrap().trouble.as_ref().unwrap().outcome(), Outcome::NotDone);
    let error = redis.query(cmd("SET").arg("k").arg("w"), Resend::NotDone).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone, "{error}");
    server.set(&["--appendfsync", "always"]);
    server.up();
    let up = until(&mut status, |status| status.health() == Health::Up).await;
    assert_eq!(up.durable(), Durable::Always, "it was asked again");
    assert_eq!(up.servers.values().next().unwrap().changes, 1);
    redis.query(cmd("GET").arg("k"), Resend::NotDone).await.unwrap();
}

async fn a_server_that_hangs_is_left_alone_and_found_again() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    settings.breaker_failures = 2;
    settings.retries = 0;
    settings.probe_every = Duration::from_secs(60);
    settings.breaker_pause = Duration::from_secs(5);
    let redis = Redis::connect(settings).await.unwrap();
    let mut status = redis.status();
    server.signal("STOP");
    let incr = cmd("INCR").arg("n").take();
    let began = Instant::now();
    let late = redis.query(&incr, Resend::NotDone).await.unwrap_err();
    assert_eq!((late.kind(), late.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{late}");
    let second = redis.query(&incr, Resend::NotDone).await.unwrap_err();
    assert!(matches!(second.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{second}");
    let open = redis.query(&incr, Resend::NotDone).await.unwrap_err();
    assert_eq!((open.kind(), open.outcome()), (ErrorKind::BreakerOpen, Outcome::NotDone), "{open}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(status.borrow_and_update().health(), Health::Down);
    server.signal("CONT");
    until(&mut status, |status| status.health() == Health::Up).await;
    redis.query(&incr, Resend::NotDone).await.unwrap();
}

async fn a_cut_before_the_answer_is_unknown_and_was_done_once() {
    let server = Server::start(&[]);
    let through = relay(server.port, "INCR", Cut::BeforeAnswer);
    let redis = connect(&format!("redis://127.0.0.1:{through}")).await;
    let error = redis.query(cmd("INCR").arg("n"), Resend::NotDone).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Cut, Outcome::Unknown), "{error}");
    assert!(error.to_string().contains("not known whether"), "{error}");
    assert_eq!(server.cli(&["GET", "n"]), "1", "it was done, and not again");
    let several = redis.pipeline(vec![cmd("PING"), cmd("INCR").arg("n").take()], Resend::NotDone).await;
    assert!(
        several.iter().all(|result| result.as_ref().unwrap_err().outcome() == Outcome::Unknown),
        "{several:?}"
    );
    let atomic = redis.transaction(vec![cmd("INCR").arg("n").take()], Resend::NotDone).await.unwrap_err();
    assert_eq!(atomic.outcome(), Outcome::Unknown);
    assert_eq!(server.cli(&["GET", "n"]), "3");
    let lane = redis.lane(None).await.unwrap();
    let results = lane.pipeline(vec![cmd("INCR").arg("n").take()]).await;
    assert_eq!(results[0].as_ref().unwrap_err().outcome(), Outcome::Unknown);
    redis.query(&cmd("PING"), Resend::NotDone).await.unwrap();
}

async fn a_cut_within_the_answer_is_unknown() {
    let server = Server::start(&[]);
    server.cli(&["SET", "long", &"x".repeat(1000)]);
    let through = relay(server.port, "GETDEL", Cut::InAnswer);
    let redis = connect(&format!("redis://127.0.0.1:{through}")).await;
    let error = redis.query(cmd("GETDEL").arg("long"), Resend::NotDone).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Cut, Outcome::Unknown), "{error}");
    assert_eq!(server.cli(&["EXISTS", "long"]), "0");
    server.cli(&["SET", "long", &"x".repeat(1000)]);
    let mut own = redis.dedicated(None).await.unwrap();
    let error = own.query(cmd("GETDEL").arg("long"), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Cut, Outcome::Unknown), "{error}");
}

async fn an_idempotent_request_is_sent_again() {
    let server = Server::start(&[]);
    let through = relay(server.port, "INCR", Cut::BeforeAnswer);
    let mut settings = quick(&format!("redis://127.0.0.1:{through}"));
    settings.retries = 2;
    let redis = Redis::connect(settings).await.unwrap();
    redis.query(cmd("INCR").arg("n"), Resend::Idempotent).await.unwrap_err();
    assert_eq!(server.cli(&["GET", "n"]), "3", "once, and two retries");
}

async fn what_was_never_written_was_not_done() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    settings.probe_every = Duration::from_secs(60);
    settings.retries = 0;
    settings.pool_size = 1;
    let redis = Redis::connect(settings).await.unwrap();
    let lane = redis.lane(None).await.unwrap();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    soon(async || lane.has_ended() && redis.query(&cmd("PING"), Resend::NotDone).await.is_ok()).await;
    // The pool notices and opens another; a lane does not.
    redis.query(cmd("INCR").arg("n"), Resend::NotDone).await.unwrap();
    let ended = lane.pipeline(vec![cmd("INCR").arg("n").take()]).await;
    assert_eq!(ended[0].as_ref().unwrap_err().outcome(), Outcome::NotDone);
    assert_eq!(server.cli(&["GET", "n"]), "1");
}

async fn a_lane_and_a_reader_say_that_they_have_ended() {
    let mut server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let (lane, mut own) = (redis.lane(None).await.unwrap(), redis.dedicated(None).await.unwrap());
    let waiting =
        async { own.query(cmd("BLPOP").arg("none").arg(0), Duration::from_secs(5)).await.unwrap_err() };
    let killed = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill();
    };
    let (error, ()) = tokio::join!(waiting, killed);
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Cut, Outcome::Unknown), "{error}");
    let again = own.query(&cmd("PING"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((again.kind(), again.outcome()), (ErrorKind::Cut, Outcome::NotDone), "{again}");
    soon(async || lane.has_ended()).await;
}

fn clients(server: &Server) -> usize {
    server.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("name=ropeway")).count()
}

async fn a_pool_has_its_bounds() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    settings.pool_size = 3;
    settings.min_idle = 2;
    settings.request_timeout = Duration::from_secs(40);
    let redis = Redis::connect(settings).await.unwrap();
    assert_eq!(clients(&server), 2, "the least that is kept is opened at once");
    let wait = cmd("BLPOP").arg("list").arg(30).take();
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (redis, wait) = (redis.clone(), wait.clone());
            tokio::spawn(async move { redis.query(&wait, Resend::NotDone).await })
        })
        .collect();
    soon(async || clients(&server) == 3).await;
    let full = redis.query(&cmd("PING"), Resend::NotDone).await.unwrap_err();
    assert_eq!((full.kind(), full.outcome()), (ErrorKind::Exhausted, Outcome::NotDone), "{full}");
    let waiting = tokio::spawn({
        let redis = redis.clone();
        async move { redis.query(&cmd("PING"), Resend::NotDone).await }
    });
    server.cli(&["RPUSH", "list", "a"]);
    waiting.await.unwrap().unwrap();
    server.cli(&["RPUSH", "list", "b", "c"]);
    for task in busy {
        task.await.unwrap().unwrap();
    }
    assert_eq!(clients(&server), 3);
}

async fn a_pool_lets_go_of_what_is_idle_or_old() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    (settings.pool_size, settings.min_idle) = (4, 1);
    settings.idle_timeout = Duration::from_millis(300);
    settings.max_lifetime = Duration::from_millis(1500);
    let redis = Redis::connect(settings).await.unwrap();
    let ids = async || {
        let wait = cmd("CLIENT").arg("ID").take();
        let all = futures::future::join_all((0..4).map(|_| redis.query(&wait, Resend::NotDone))).await;
        all.into_iter().map(|id| format!("{:?}", id.unwrap())).collect::<std::collections::BTreeSet<_>>()
    };
    // One may be through with all before another is open.
    let mut first = ids().await;
    let end = Instant::now() + Duration::from_secs(20);
    while first.len() == 1 && Instant::now() < end {
        first = ids().await;
    }
    assert!(first.len() > 1, "{first:?}");
    // Those beyond the least are idle too long.
    soon(async || clients(&server) == 1).await;
    // The last of them becomes too old.
    soon(async || ids().await.is_disjoint(&first)).await;
    soon(async || clients(&server) == 1).await;
}

async fn a_call_that_is_given_up_leaves_no_answer_behind() {
    let server = Server::start(&[]);
    let mut settings = quick(&server.url());
    (settings.pool_size, settings.min_idle) = (1, 1);
    let redis = Redis::connect(settings).await.unwrap();
    let slow = cmd("BLPOP").arg("list").arg(0).take();
    tokio::time::timeout(Duration::from_millis(50), redis.query(&slow, Resend::NotDone)).await.unwrap_err();
    redis.query(cmd("ECHO").arg(1), Resend::NotDone).await.unwrap();
    // Its connection is closed.
    soon(async || clients(&server) == 1).await;
    assert_eq!(server.cli(&["RPUSH", "list", "a"]), "1");
    assert_eq!(server.cli(&["LLEN", "list"]), "1", "nobody waits there any more");
}

async fn metrics_count() {
    let server = Server::start(&[]);
    let registry = prometheus::Registry::new();
    let metrics = RedisMetrics::register(&registry).unwrap();
    assert!(RedisMetrics::register(&registry).is_err());
    let mut settings = quick(&server.url());
    settings.min_idle = 3;
    let redis = Redis::connect_with(settings, metrics).await.unwrap();
    redis.query(&cmd("PING"), Resend::NotDone).await.unwrap();
    redis.query(&cmd("NONSENSE"), Resend::NotDone).await.unwrap_err();
    let busy = tokio::spawn({
        let redis = redis.clone();
        async move { drop(redis.query(cmd("BLPOP").arg("list").arg(0), Resend::NotDone).await) }
    });
    let text = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let server = format!("server=\"127.0.0.1:{}\"", server.port);
    let opened = [
        format!("redis_connections_active{{{server}}} 1"),
        format!("redis_connections_idle{{{server}}} 2"),
        format!("redis_up{{{server}}} 1"),
    ];
    soon(async || opened.iter().all(|line| text().contains(line))).await;
    let text = text();
    for line in [
        "redis_operations_duration_seconds_count{operation=\"query\",outcome=\"ok\"} 1".to_owned(),
        "redis_operations_duration_seconds_count{operation=\"query\",outcome=\"refused\"} 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    busy.abort();
    let fails_later = fake(|stream, read| {
        replies(stream, read, |command| match command.split(' ').next() {
            Some("INFO") => "$21\r\nredis_version:7.0.15\n\r\n".to_owned(),
            Some("GET") => "!\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        });
        drop(stream.flush());
    });
    let redis = connect(&format!("redis://127.0.0.1:{fails_later}")).await;
    let error = redis.query(cmd("GET").arg("k"), Resend::NotDone).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::NotRedis, Outcome::Unknown), "{error}");
}
