//! Servers that cannot be used: each is told apart, named with host and port, with the way out and without any password.

use crate::server::{Certificates, Server, connect, fake, free_port, quick, replies};
use ropeway_store::redis::{Durable, Error, ErrorKind, Outcome, Redis, RedisSettings, Resend, Script, cmd};
use std::{io::Write, time::Duration};

crate::tests!(
    a_wrong_or_missing_password_is_told,
    nobody_there_is_told_at_once,
    tls_against_a_plain_port_is_told,
    plain_against_a_tls_port_is_told,
    a_certificate_that_is_not_trusted_is_told,
    a_missing_client_certificate_is_told,
    certificates_are_read_again_for_new_connections,
    what_is_no_redis_is_told,
    a_connection_that_is_cut_at_once_is_told_at_once,
    a_server_that_says_nothing_is_told_in_time,
    an_old_server_is_told,
    a_server_that_loads_is_told,
    secrets_are_never_printed,
    a_replica_takes_no_writes,
    a_full_server_takes_no_writes,
    strict_users_get_the_lowest_claims,
    a_socket_of_this_machine_works,
);

async fn refused(url: &str) -> Error {
    Redis::connect(quick(url)).await.unwrap_err()
}

/// The error is of this kind, names the server, and was certainly not done.
fn is(error: &Error, kind: ErrorKind, port: u16) {
    assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotDone), "{error}");
    assert!(error.server().ends_with(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.to_string().ends_with(kind.way_out()), "{error}");
}

async fn a_wrong_or_missing_password_is_told() {
    let server = Server::start(&["--requirepass", "right"]);
    let port = server.port;
    is(&refused(&format!("redis://:wrong@127.0.0.1:{port}")).await, ErrorKind::Auth, port);
    is(&refused(&format!("redis://nobody:right@127.0.0.1:{port}")).await, ErrorKind::Auth, port);
    is(&refused(&server.url()).await, ErrorKind::Auth, port);
    connect(&format!("redis://:right@127.0.0.1:{port}/3")).await;
    let open = Server::start(&[]);
    let error = refused(&format!("redis://:any@127.0.0.1:{}", open.port)).await;
    is(&error, ErrorKind::Auth, open.port);
    let error = refused(&format!("{}/99", open.url())).await;
    is(&error, ErrorKind::Refused, open.port);
    assert!(error.to_string().contains("DB index"), "{error}");
}

async fn nobody_there_is_told_at_once() {
    let port = free_port();
    let mut settings = quick(&format!("redis://127.0.0.1:{port}"));
    settings.connect_timeout = Duration::from_secs(30);
    let began = tokio::time::Instant::now();
    is(&Redis::connect(settings).await.unwrap_err(), ErrorKind::Unavailable, port);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let missing = refused("redis+unix:///nowhere/redis.sock").await;
    assert_eq!((missing.kind(), missing.server()), (ErrorKind::Unavailable, "/nowhere/redis.sock"));
}

fn secure(port: u16, certificates: &Certificates, client: bool) -> String {
    let files = |name: &str, path: &std::path::Path| format!("{name}={}", path.display());
    let mut url = format!("rediss://127.0.0.1:{port}?{}", files("ca", &certificates.ca));
    if client {
        url += &format!("&{}&{}", files("cert", &certificates.cert), files("key", &certificates.key));
    }
    url
}

async fn tls_against_a_plain_port_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&[]);
    let url = secure(server.port, &Certificates::new(dir.path(), "a"), false);
    let error = refused(&url).await;
    is(&error, ErrorKind::Tls, server.port);
    assert!(error.to_string().contains("may not speak"), "{error}");
}

async fn plain_against_a_tls_port_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_tls(&Certificates::new(dir.path(), "a"), &["--tls-auth-clients", "no"]);
    let error = refused(&server.url()).await;
    is(&error, ErrorKind::Tls, server.port);
    assert!(error.to_string().contains("speaks TLS"), "{error}");
}

async fn a_certificate_that_is_not_trusted_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (Certificates::new(dir.path(), "a"), Certificates::new(dir.path(), "b"));
    let server = Server::start_tls(&own, &["--tls-auth-clients", "no"]);
    let error = refused(&secure(server.port, &other, false)).await;
    is(&error, ErrorKind::Tls, server.port);
    assert!(error.to_string().contains("not accepted"), "{error}");
    is(&refused(&format!("rediss://127.0.0.1:{}", server.port)).await, ErrorKind::Tls, server.port);
    let wrong_name = secure(server.port, &own, false).replace("127.0.0.1", "localhost");
    assert_eq!(refused(&wrong_name).await.kind(), ErrorKind::Tls);
    let missing = secure(server.port, &own, false) + ".gone";
    let error = refused(&missing).await;
    is(&error, ErrorKind::Tls, server.port);
    assert!(error.to_string().contains(".gone"), "{error}");
    connect(&secure(server.port, &own, false)).await.query(&cmd("PING"), Resend::NotDone).await.unwrap();
}

async fn a_missing_client_certificate_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (Certificates::new(dir.path(), "a"), Certificates::new(dir.path(), "b"));
    let server = Server::start_tls(&own, &["--tls-auth-clients", "yes"]);
    is(&refused(&secure(server.port, &own, false)).await, ErrorKind::Tls, server.port);
    let mixed = Certificates { ca: own.ca.clone(), cert: other.cert, key: other.key };
    is(&refused(&secure(server.port, &mixed, true)).await, ErrorKind::Tls, server.port);
    connect(&secure(server.port, &own, true)).await;
}

async fn certificates_are_read_again_for_new_connections() {
    let dir = tempfile::tempdir().unwrap();
    let own = Certificates::new(dir.path(), "a");
    let mut server = Server::start_tls(&own, &["--tls-auth-clients", "yes"]);
    let redis = connect(&secure(server.port, &own, true)).await;
    // All three files are replaced in place, at both ends; the server was started anew.
    server.kill();
    Certificates::new(dir.path(), "a");
    server.up();
    let again = redis.query(&cmd("PING"), Resend::Idempotent).await;
    assert!(again.is_ok(), "{again:?}");
}

async fn what_is_no_redis_is_told() {
    let http = fake(|stream, _| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    is(&refused(&format!("redis://127.0.0.1:{http}")).await, ErrorKind::NotRedis, http);
    let talker = fake(|stream, read| replies(stream, read, |_| "+hello\r\n".to_owned()));
    is(&refused(&format!("redis://127.0.0.1:{talker}")).await, ErrorKind::NotRedis, talker);
    let closing = fake(|stream, _| drop(stream.shutdown(std::net::Shutdown::Both)));
    is(&refused(&format!("redis://127.0.0.1:{closing}")).await, ErrorKind::Cut, closing);
}

/// Whether it speaks TLS is asked of a server that ends a connection without a word: Redis takes that for a command that is not complete, and
/// waits.
async fn a_connection_that_is_cut_at_once_is_told_at_once() {
    let cuts = fake(|stream, read| {
        if read.starts_with(b"*") {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    });
    let mut settings = quick(&format!("redis://127.0.0.1:{cuts}"));
    settings.connect_timeout = Duration::from_secs(30);
    let begun = tokio::time::Instant::now();
    let error = Redis::connect(settings).await.unwrap_err();
    is(&error, ErrorKind::Cut, cuts);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

async fn a_server_that_says_nothing_is_told_in_time() {
    let silent = fake(|_, _| ());
    let mut settings = quick(&format!("redis://127.0.0.1:{silent}"));
    settings.connect_timeout = Duration::from_millis(200);
    let error = Redis::connect(settings).await.unwrap_err();
    is(&error, ErrorKind::Unavailable, silent);
    assert!(error.to_string().contains("first answer"), "{error}");
}

fn with_info(info: &'static str) -> u16 {
    fake(move |stream, read| {
        replies(stream, read, |command| match command.split(' ').next() {
            Some("INFO") => format!("${}\r\n{info}\r\n", info.len()),
            Some("CLIENT" | "PING") => "+OK\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        });
    })
}

async fn an_old_server_is_told() {
    let port = with_info("redis_version:6.2.14\r\n");
    let error = refused(&format!("redis://127.0.0.1:{port}")).await;
    is(&error, ErrorKind::Version, port);
    assert!(error.to_string().contains("6.2.14") && error.to_string().contains("7.0.0"), "{error}");
    let port = with_info("redis_version:7.0.0\r\n");
    connect(&format!("redis://127.0.0.1:{port}")).await;
}

async fn a_server_that_loads_is_told() {
    let port = with_info("redis_version:7.0.15\r\nloading:1\r\n");
    is(&refused(&format!("redis://127.0.0.1:{port}")).await, ErrorKind::Loading, port);
}

async fn secrets_are_never_printed() {
    let echoing =
        fake(|stream, read| replies(stream, read, |command| format!("-ERR unknown command '{command}'\r\n")));
    let url = format!("redis://someone:hush%2Fhush@127.0.0.1:{echoing}?sentinel_password=hush%2Fhush");
    let settings = RedisSettings::from_url(&url).unwrap();
    assert_eq!(settings.password.as_ref().unwrap().reveal(), "hush/hush");
    let error = refused(&url).await;
    let printed = format!("{settings:?} {settings:#?} {error} {error:?} {:?}", settings.password);
    assert!(printed.contains("***") && !printed.contains("hush"), "{printed}");
    let server = Server::start(&["--requirepass", "hush/hush"]);
    let redis = connect(&format!("redis://:hush%2Fhush@127.0.0.1:{}", server.port)).await;
    let lane = redis.lane(None).await.unwrap();
    let own = redis.dedicated(None).await.unwrap();
    let printed = format!("{redis:?} {lane:?} {own:?} {:?} {:?}", redis.settings(), *redis.status().borrow());
    assert!(!printed.contains("hush"), "{printed}");
}

async fn a_replica_takes_no_writes() {
    let primary = Server::start(&[]);
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    let redis = connect(&replica.url()).await;
    let error = redis.query(cmd("SET").arg("k").arg(1), Resend::NotDone).await.unwrap_err();
    is(&error, ErrorKind::ReadOnly, replica.port);
    let script = Script::new("return redis.call('SET', KEYS[1], 1)");
    redis.introduce(&script);
    let error = redis.query(&script.call(&["k"], &[0]), Resend::NotDone).await.unwrap_err();
    is(&error, ErrorKind::ReadOnly, replica.port);
    let atomic =
        redis.transaction(vec![cmd("SET").arg("k").arg(1).take()], Resend::NotDone).await.unwrap_err();
    is(&atomic, ErrorKind::ReadOnly, replica.port);
}

async fn a_full_server_takes_no_writes() {
    let server = Server::start(&["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]);
    let redis = connect(&server.url()).await;
    assert!(!redis.status().borrow().evicts());
    let set = cmd("SET").arg("k").arg("v").take();
    let error = redis.query(&set, Resend::NotDone).await.unwrap_err();
    is(&error, ErrorKind::OutOfMemory, server.port);
    let atomic = redis.transaction(vec![set.clone(), set.clone()], Resend::NotDone).await.unwrap_err();
    is(&atomic, ErrorKind::OutOfMemory, server.port);
    let several = redis.pipeline(vec![cmd("PING"), set], Resend::NotDone).await;
    assert!(several[0].is_ok());
    is(several[1].as_ref().unwrap_err(), ErrorKind::OutOfMemory, server.port);
}

async fn strict_users_get_the_lowest_claims() {
    let server = Server::start(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--maxmemory-policy",
        "noeviction",
    ]);
    let all = connect(&server.url()).await.status().borrow().clone();
    assert_eq!((all.durable(), all.evicts()), (Durable::Always, false));
    let seen = all.servers.values().next().unwrap().server.clone().unwrap();
    assert_eq!(
        (seen.knows("XADD"), seen.knows("XDELEX"), seen.config_readable),
        (Some(true), Some(false), true)
    );
    server.cli(&["ACL", "SETUSER", "half", "on", ">pw", "~*", "+@all", "-config"]);
    let half = connect(&format!("redis://half:pw@127.0.0.1:{}", server.port)).await.status().borrow().clone();
    assert_eq!((half.durable(), half.evicts()), (Durable::Sometime, false), "how it is synced is not known");
    server.cli(&["ACL", "SETUSER", "strict", "on", ">pw", "~*", "+@read", "+@write", "+ping"]);
    let redis = connect(&format!("redis://strict:pw@127.0.0.1:{}", server.port)).await;
    let strict = redis.status().borrow().clone();
    assert_eq!((strict.durable(), strict.evicts()), (Durable::Nothing, true));
    let seen = strict.servers.values().next().unwrap().server.clone().unwrap();
    assert_eq!((seen.knows("XADD"), seen.replicas, seen.config_readable), (None, None, false));
    assert_eq!((seen.version.major, seen.version.minor), (7, 0), "the greeting tells it to everybody");
    is(
        &redis.query(cmd("CLIENT").arg("LIST"), Resend::NotDone).await.unwrap_err(),
        ErrorKind::Denied,
        server.port,
    );
}

async fn a_socket_of_this_machine_works() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _server = Server::start(&["--unixsocket", path.to_str().unwrap()]);
    let redis = connect(&format!("redis+unix://{}?db=1", path.display())).await;
    redis.query(&cmd("PING"), Resend::NotDone).await.unwrap();
    assert_eq!(redis.status().borrow().servers.keys().next().map(|name| &**name), path.to_str());
}
