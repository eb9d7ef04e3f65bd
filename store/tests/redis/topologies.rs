//! Sentinels that name a new primary, clusters whose slots move or whose nodes go away.

use crate::server::{Server, connect, quick};
use ropeway_store::redis::{
    Cmd, ErrorKind, Health, Outcome, Redis, Reply, Resend, Routed, Script, Value, cmd, from_redis_value,
    slot_of_key,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

crate::tests!(
    sentinels_name_the_primary_and_the_next_one,
    a_primary_that_was_demoted_is_left,
    a_service_that_no_sentinel_knows_is_told,
    a_cluster_answers_each_key_from_its_node,
    a_slot_that_moves_is_followed,
    a_cluster_without_one_node_is_degraded,
    a_server_that_is_no_cluster_is_told,
    connections_of_ones_own_notice_that_another_is_the_primary,
    what_keeps_its_order_follows_a_slot_that_moves,
    what_keeps_its_order_goes_on_where_nodes_are_left,
    a_node_that_is_silent_keeps_others_waiting_once,
);

async fn sentinels_name_the_primary_and_the_next_one() {
    let mut first = Server::start(&[]);
    let second = Server::start(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    let sentinel = Server::start_sentinel(first.port);
    ready(&sentinel, &second).await;
    let nobody = crate::server::free_port();
    let url = format!("redis+sentinel://127.0.0.1:{nobody},127.0.0.1:{}/main", sentinel.port);
    let redis = connect(&url).await;
    let used =
        |redis: &Redis| redis.status().borrow().servers.keys().next().map(ToString::to_string).unwrap();
    assert_eq!(used(&redis), format!("127.0.0.1:{}", first.port));
    redis.query(cmd("SET").arg("k").arg(1), Resend::NotDone).await.unwrap();
    let follows = async || redis.query(cmd("WAIT").arg(1).arg(1000), Resend::NotDone).await.unwrap();
    let end = Instant::now() + 20 * SECOND;
    while follows().await != Value::Int(1) {
        assert!(Instant::now() < end, "the replica does not follow");
    }
    first.kill();
    let mut done = Err(None);
    for _ in 0..400 {
        match redis.query(cmd("INCR").arg("k"), Resend::NotDone).await {
            Ok(value) => {
                done = Ok(value);
                break;
            }
            Err(error) => done = Err(Some(error)),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(done.unwrap(), Value::Int(2), "done once, on what the old primary had");
    assert_eq!(used(&redis), format!("127.0.0.1:{}", second.port));
    assert_eq!(second.cli(&["GET", "k"]), "2");
    redis.lane(None).await.unwrap().pipeline(vec![cmd("INCR").arg("k").take()]).await[0].clone().unwrap();
    assert_eq!(second.cli(&["GET", "k"]), "3");
}

async fn a_primary_that_was_demoted_is_left() {
    let first = Server::start(&[]);
    let second = Server::start(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    let sentinel = Server::start_sentinel(first.port);
    ready(&sentinel, &second).await;
    let redis = connect(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port)).await;
    redis.query(cmd("INCR").arg("k"), Resend::NotDone).await.unwrap();
    assert_eq!(sentinel.cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
    for _ in 0..500 {
        if first.cli(&["ROLE"]).starts_with("slave") && second.cli(&["ROLE"]).starts_with("master") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Its connections may be alive: the refusal of a write, also within a pipeline, shows that they lead to the wrong server.
    let mut last = None;
    for _ in 0..400 {
        let result =
            redis.pipeline(vec![cmd("PING"), cmd("SET").arg("k").arg(7).take()], Resend::NotDone).await;
        match result.into_iter().nth(1).unwrap() {
            Ok(_) => {
                assert_eq!(second.cli(&["GET", "k"]), "7", "{last:?}");
                return;
            }
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?}");
}

/// Waits until the sentinel knows the replica, and that has what the primary has.
async fn ready(sentinel: &Server, replica: &Server) {
    for _ in 0..1500 {
        let known = sentinel.cli(&["SENTINEL", "REPLICAS", "main"]).contains(&replica.port.to_string());
        if known && replica.cli(&["INFO", "replication"]).contains("master_link_status:up") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the replica is not ready after 30 s");
}

async fn a_service_that_no_sentinel_knows_is_told() {
    let primary = Server::start(&[]);
    let sentinel = Server::start_sentinel(primary.port);
    let url = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port);
    let error = Redis::connect(quick(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("\"other\"") && error.server().contains(&sentinel.port.to_string()),
        "{error}"
    );
    let none = format!("redis+sentinel://127.0.0.1:{}/main", primary.port);
    let one = format!("redis://127.0.0.1:{}", sentinel.port);
    for (url, port, said) in
        [(none, primary.port, "it is no sentinel"), (one, sentinel.port, "it is a sentinel")]
    {
        let error = Redis::connect(quick(&url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Settings, "{error}");
        assert!(error.what().contains(said) && error.server().contains(&port.to_string()), "{error}");
    }
}

fn url(nodes: &[Server]) -> String {
    format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", crate::server::free_port(), nodes[0].port)
}

async fn a_cluster_answers_each_key_from_its_node() {
    let nodes = Server::start_cluster();
    let redis = connect(&url(&nodes)).await;
    assert_eq!(redis.status().borrow().servers.len(), 3);
    let commands = (0..300).map(|n| cmd("SET").arg(format!("k{n}")).arg(n).take()).collect();
    assert!(redis.pipeline(commands, Resend::NotDone).await.iter().all(Result::is_ok));
    let sizes: Vec<u32> = nodes.iter().map(|node| node.cli(&["DBSIZE"]).parse().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<u32>(), 300);
    assert!(sizes.iter().all(|size| *size > 50), "{sizes:?}");
    let commands = (0..300).map(|n| cmd("GET").arg(format!("k{n}")).take()).collect();
    let values = redis.pipeline(commands, Resend::NotDone).await;
    let values: Vec<u32> =
        values.into_iter().map(|value| from_redis_value(value.unwrap()).unwrap()).collect();
    assert_eq!(values, (0..300).collect::<Vec<_>>(), "in the order in which they were asked");
    let incr = |key: &str| cmd("INCR").arg(key).take();
    redis.transaction(vec![incr("{a}1"), incr("{a}2")], Resend::NotDone).await.unwrap();
    let crossed =
        redis.transaction(vec![incr("a"), incr("b"), incr("c")], Resend::NotDone).await.unwrap_err();
    assert_eq!(crossed.outcome(), Outcome::NotDone, "{crossed}");
    let crossed = redis.query(cmd("MGET").arg("a").arg("b"), Resend::NotDone).await.unwrap_err();
    assert_eq!(crossed.kind(), ErrorKind::CrossSlot, "{crossed}");
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    redis.introduce(&script);
    let calls = ["a", "b", "c"].map(|key| script.call(&[key], &[0])).to_vec();
    let results = redis.pipeline(calls, Resend::NotDone).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let owner = &nodes[usize::from(slot_of_key(b"a") / 5462)];
    let lane = redis.lane(Some(b"a")).await.unwrap();
    assert_eq!(
        lane.pipeline(vec![cmd("GET").arg("a").take()]).await[0].clone().unwrap(),
        Value::BulkString(b"1".to_vec())
    );
    let mut own = redis.dedicated(Some(b"a")).await.unwrap();
    own.query(cmd("SET").arg("a").arg("x"), 5 * SECOND).await.unwrap();
    assert_eq!(owner.cli(&["GET", "a"]), "x");
}

async fn a_slot_that_moves_is_followed() {
    let nodes = Server::start_cluster();
    let redis = connect(&url(&nodes)).await;
    let ids: Vec<String> = nodes.iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
    let slot = slot_of_key(b"foo").to_string();
    let (from, to) = (usize::from(slot_of_key(b"foo") / 5462), 0);
    assert_ne!(from, to);
    assert_eq!(nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]), "OK");
    assert_eq!(nodes[from].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), "OK");
    // The key is not there any more: the node sends on to the next one, for this request only.
    redis.query(cmd("INCR").arg("foo"), Resend::NotDone).await.unwrap();
    let several =
        vec![cmd("INCR").arg("foo").take(), cmd("INCR").arg("bar").take(), cmd("INCR").arg("foo").take()];
    let several = redis.pipeline(several, Resend::NotDone).await;
    let counts: BTreeMap<usize, Value> = several.into_iter().map(Result::unwrap).enumerate().collect();
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 1, 3].map(Value::Int));
    for node in &nodes {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]), "OK");
    }
    let results = redis.pipeline(vec![cmd("INCR").arg("foo").take()], Resend::NotDone).await;
    assert_eq!(results[0].clone().unwrap(), Value::Int(4));
    let atomic = redis.transaction(vec![cmd("INCR").arg("foo").take()], Resend::NotDone).await.unwrap();
    assert_eq!(atomic[0].clone().unwrap(), Value::Int(5));
    let lane = redis.lane(Some(b"foo")).await.unwrap();
    assert_eq!(
        lane.pipeline(vec![cmd("INCR").arg("foo").take()]).await[0].clone().unwrap(),
        Value::Int(6),
        "the new owner is known"
    );
}

async fn a_cluster_without_one_node_is_degraded() {
    let mut nodes = Server::start_cluster();
    for node in &nodes {
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    let redis = connect(&url(&nodes)).await;
    let mut status = redis.status();
    assert_eq!(status.borrow_and_update().health(), Health::Up);
    let mut names = (0..).map(|n| format!("k{n}"));
    let lost = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 2).unwrap();
    let kept = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 1).unwrap();
    nodes[2].kill();
    let both = || vec![cmd("SET").arg(&kept).arg(1).take(), cmd("SET").arg(&lost).arg(1).take()];
    let end = Instant::now() + 30 * SECOND;
    loop {
        let results = redis.pipeline(both(), Resend::NotDone).await;
        assert!(results[0].is_ok(), "others go on: {results:?}");
        // Until it is seen, a request may be written that is never answered.
        match results[1].as_ref().unwrap_err().outcome() {
            Outcome::NotDone => break,
            other => assert!(Instant::now() < end, "{other:?}"),
        }
    }
    let degraded = status.wait_for(|status| status.health() == Health::Degraded);
    tokio::time::timeout(20 * SECOND, degraded).await.unwrap().unwrap();
    nodes[2].up();
    tokio::time::timeout(20 * SECOND, status.wait_for(|status| status.health() == Health::Up))
        .await
        .unwrap()
        .unwrap();
}

async fn a_server_that_is_no_cluster_is_told() {
    let server = Server::start(&[]);
    let error =
        Redis::connect(quick(&format!("redis+cluster://127.0.0.1:{}", server.port))).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone);
    assert!(error.to_string().contains("cluster"), "{error}");
}

/// Two servers that a sentinel watches.
async fn watched() -> (Server, Server, Server, String) {
    let first = Server::start(&[]);
    let second = Server::start(&["--replicaof", &format!("127.0.0.1 {}", first.port)]);
    let sentinel = Server::start_sentinel(first.port);
    ready(&sentinel, &second).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    (first, second, sentinel, url)
}

async fn connections_of_ones_own_notice_that_another_is_the_primary() {
    let (first, _second, sentinel, url) = watched().await;
    let redis = connect(&url).await;
    let (silent, lane) = (redis.dedicated(None).await.unwrap(), redis.lane(None).await.unwrap());
    let mut writes = redis.dedicated(None).await.unwrap();
    assert!(!silent.has_ended() && !lane.has_ended());
    assert_eq!(sentinel.cli(&["SENTINEL", "FAILOVER", "main"]), "OK");
    for _ in 0..1000 {
        if silent.has_ended() && lane.has_ended() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(silent.has_ended() && lane.has_ended(), "nobody asked anything over them");
    let refused = writes.query(cmd("SET").arg("k").arg(1), 5 * SECOND).await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::ReadOnly, Outcome::NotDone), "{refused}");
    let mut next = redis.dedicated(None).await.unwrap();
    next.query(cmd("SET").arg("k").arg(2), 5 * SECOND).await.unwrap();
    // One that is told so by the server itself, which sentinels had not said yet.
    let second = format!("{}", first.port);
    let now = redis.status().borrow().servers.keys().next().unwrap().to_string();
    let (host, port) = now.rsplit_once(':').unwrap();
    let demote = std::process::Command::new("redis-cli")
        .args(["-h", host, "-p", port, "REPLICAOF", "127.0.0.1", &second])
        .output();
    assert!(demote.unwrap().status.success());
    let other = redis.dedicated(None).await;
    assert!(next.query(cmd("SET").arg("k").arg(3), 5 * SECOND).await.is_err());
    assert!(next.has_ended());
    assert!(other.is_err() || other.unwrap().has_ended(), "all of that time");
}

fn packed(commands: &[Cmd]) -> Vec<u8> {
    commands.iter().flat_map(Cmd::get_packed_command).collect()
}

async fn ask(routed: &mut Routed, commands: &[Cmd]) -> Vec<Reply> {
    let answers = routed.ask(packed(commands), commands.len(), SECOND * 5).await;
    answers.into_iter().map(Result::unwrap).collect()
}

fn push(key: &str, value: u32) -> Cmd {
    cmd("RPUSH").arg(key).arg(value).take()
}

async fn what_keeps_its_order_follows_a_slot_that_moves() {
    let nodes = Server::start_cluster();
    let redis = connect(&url(&nodes)).await;
    assert!(redis.is_cluster());
    let mut routed =
        redis.routed(packed(&[cmd("SCRIPT").arg("LOAD").arg("return 7").take()]), 1).await.unwrap();
    assert!(routed.server().cluster && !routed.has_ended());
    let hash = Script::new("return 7").hash().to_owned();
    let call = |key: &str| cmd("EVALSHA").arg(&hash).arg(1).arg(key).take();
    let told =
        ask(&mut routed, &[call("a"), cmd("TIME"), call("b"), call("c"), cmd("WAIT").arg(1).arg(10).take()])
            .await;
    assert_eq!(
        [&told[0], &told[2], &told[3], &told[4]],
        [&Reply::Int(7), &Reply::Int(7), &Reply::Int(7), &Reply::Int(0)]
    );
    assert!(nodes.iter().all(|node| node.cli(&["SCRIPT", "FLUSH"]) == "OK"));
    ask(&mut routed, &[cmd("SCRIPT").arg("LOAD").arg("return 7").take()]).await;
    assert_eq!(
        ask(&mut routed, &[call("a"), call("b"), call("c")]).await,
        vec![Reply::Int(7); 3],
        "all nodes know it"
    );

    let ids: Vec<String> = nodes.iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
    let slot = slot_of_key(b"foo").to_string();
    let mut at = usize::from(slot_of_key(b"foo") / 5462);
    let mut value = 0;
    for _ in 0..3 {
        let to = (at + 1) % 3;
        assert_eq!(nodes[to].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[at]]), "OK");
        assert_eq!(nodes[at].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]), "OK");
        for step in 0..3 {
            if step == 1 {
                let port = nodes[to].port.to_string();
                // The first time there was none, and it was made at the new node.
                let told = nodes[at].cli(&["MIGRATE", "127.0.0.1", &port, "foo", "0", "1000"]);
                assert!(["OK", "NOKEY"].contains(&told.as_str()), "{told}");
                assert_eq!(nodes[at].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
            }
            if step == 2 {
                assert!(
                    nodes
                        .iter()
                        .all(|node| node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]) == "OK")
                );
            }
            let commands: Vec<Cmd> =
                (0..50).map(|n| push(if n % 5 == 4 { "bar" } else { "foo" }, value + n)).collect();
            let told = ask(&mut routed, &commands).await;
            assert!(told.iter().all(|told| matches!(told, Reply::Int(_))), "{told:?}");
            value += 50;
        }
        at = to;
    }
    let told = ask(&mut routed, &[cmd("LRANGE").arg("foo").arg(0).arg(-1).take()]).await;
    let kept: Vec<i64> = told[0].items().iter().filter_map(Reply::int).collect();
    let pushed: Vec<i64> = (0..i64::from(value)).filter(|n| n % 50 % 5 != 4).collect();
    assert_eq!(kept, pushed, "each once, in order");
}

async fn what_keeps_its_order_goes_on_where_nodes_are_left() {
    let mut nodes = Server::start_cluster();
    for node in &nodes {
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    let redis = connect(&url(&nodes)).await;
    let mut routed = redis.routed(Vec::new(), 0).await.unwrap();
    let mut names = (0..).map(|n| format!("k{n}"));
    let lost = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 2).unwrap();
    let kept = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 1).unwrap();
    let both = [push(&lost, 1), push(&kept, 1)];
    ask(&mut routed, &both).await;
    nodes[2].kill();
    for number in 2..5 {
        let told = routed.ask(packed(&both), 2, SECOND * 5).await;
        assert!(told[0].is_err(), "{told:?}");
        assert_eq!(told[1].clone().unwrap(), Reply::Int(number), "others go on");
    }
    nodes[2].up();
    let mut told = Vec::new();
    for _ in 0..200 {
        told = routed.ask(packed(&both), 2, SECOND * 5).await;
        if told.iter().all(|told| matches!(told, Ok(Reply::Int(_)))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not mended: {told:?}");
}

async fn a_node_that_is_silent_keeps_others_waiting_once() {
    let nodes = Server::start_cluster();
    for node in &nodes {
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    // It is the first that is asked where slots are, and connecting to it takes longer than it is waited for.
    let redis = connect(&url(&nodes)).await;
    let mut routed = redis.routed(Vec::new(), 0).await.unwrap();
    let mut names = (0..).map(|n| format!("k{n}"));
    let lost = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 0).unwrap();
    let kept = names.find(|name| slot_of_key(name.as_bytes()) / 5462 == 1).unwrap();
    let both = [push(&lost, 1), push(&kept, 1)];
    ask(&mut routed, &both).await;
    nodes[0].signal("STOP");
    let began = Instant::now();
    for number in 2..22 {
        let told = routed.ask(packed(&both), 2, 2 * SECOND).await;
        let why = told[0].as_ref().unwrap_err();
        assert!(number == 2 || why.outcome() == Outcome::NotDone, "{why}");
        assert_eq!(told[1].clone().unwrap(), Reply::Int(number), "others go on");
    }
    let took = began.elapsed();
    assert!(took < 30 * SECOND, "20 times, of which each may wait for 2 s, took {took:?}");
    nodes[0].signal("CONT");
    for _ in 0..200 {
        let told = routed.ask(packed(&both), 2, SECOND).await;
        if told.iter().all(|told| matches!(told, Ok(Reply::Int(_)))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not mended");
}
