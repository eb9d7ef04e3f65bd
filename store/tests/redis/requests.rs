//! Requests that are answered: one, several, as one step, by script, in order, and with replies that are not copied.

use crate::server::{Server, connect};
use ropeway_store::redis::{ErrorKind, Outcome, Reply, Resend, Script, Value, cmd, from_redis_value};
use std::time::Duration;

crate::tests!(
    answers_come_to_who_asked,
    a_pipeline_gives_each_command_its_own_result,
    a_transaction_is_all_or_none,
    a_script_is_loaded_where_the_server_does_not_know_it,
    a_lane_keeps_the_order_of_calls,
    a_dedicated_connection_waits_and_survives_being_given_up,
);

async fn answers_come_to_who_asked() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let mut tasks = Vec::new();
    for number in 0..100_u64 {
        let redis = redis.clone();
        tasks.push(tokio::spawn(async move {
            let value = redis.query(cmd("ECHO").arg(number), Resend::NotDone).await.unwrap();
            assert_eq!(from_redis_value::<u64>(value).unwrap(), number);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn a_pipeline_gives_each_command_its_own_result() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let commands = vec![
        cmd("SET").arg("k").arg("v").take(),
        cmd("LPUSH").arg("k").arg("v").take(),
        cmd("GET").arg("k").take(),
        cmd("NONSENSE"),
    ];
    let results = redis.pipeline(commands, Resend::NotDone).await;
    assert_eq!(results.len(), 4);
    assert_eq!(results[0].as_ref().unwrap(), &Value::Okay);
    let wrong = results[1].as_ref().unwrap_err();
    assert_eq!((wrong.kind(), wrong.outcome()), (ErrorKind::WrongType, Outcome::NotDone));
    assert!(wrong.to_string().contains(&format!("127.0.0.1:{}", server.port)), "{wrong}");
    assert_eq!(results[2].as_ref().unwrap(), &Value::BulkString(b"v".to_vec()));
    assert_eq!(results[3].as_ref().unwrap_err().kind(), ErrorKind::Refused);
    assert!(redis.pipeline(vec![], Resend::NotDone).await.is_empty());
}

async fn a_transaction_is_all_or_none() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let set = |key: &str| cmd("SET").arg(key).arg(1).take();
    let refused = redis.transaction(vec![set("a"), cmd("NONSENSE")], Resend::NotDone).await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::NotDone, "{refused}");
    assert!(refused.what().contains("unknown command"), "{refused}");
    assert_eq!(server.cli(&["EXISTS", "a"]), "0");
    let results =
        redis.transaction(vec![set("a"), cmd("LPUSH").arg("a").arg(1).take(), set("b")], Resend::NotDone);
    let results = results.await.unwrap();
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(server.cli(&["EXISTS", "a", "b"]), "2");
}

async fn a_script_is_loaded_where_the_server_does_not_know_it() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let script = Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
    let call = || script.call(&["n"], &[2]);
    let stranger = redis.query(&call(), Resend::NotDone).await.unwrap_err();
    assert_eq!((stranger.kind(), stranger.outcome()), (ErrorKind::NoScript, Outcome::NotDone));
    redis.introduce(&script);
    assert_eq!(redis.query(&call(), Resend::NotDone).await.unwrap(), Value::Int(2));
    server.cli(&["SCRIPT", "FLUSH"]);
    let results = redis.pipeline(vec![cmd("PING"), call(), call()], Resend::NotDone).await;
    assert_eq!(
        results[1..].iter().map(|result| result.clone().unwrap()).collect::<Vec<_>>(),
        [4, 6].map(Value::Int)
    );
    server.cli(&["SCRIPT", "FLUSH"]);
    let lane = redis.lane(None).await.unwrap();
    assert_eq!(lane.pipeline(vec![call()]).await[0].clone().unwrap(), Value::Int(8));
    let failing = Script::new("redis.call('SET', KEYS[1], 'x') return redis.call('LPUSH', KEYS[1], 'y')");
    redis.introduce(&failing);
    let error = redis.query(&failing.call(&["half"], &[0]), Resend::NotDone).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::WrongType, Outcome::Unknown),
        "it wrote before it failed: {error}"
    );
    assert_eq!(server.cli(&["GET", "half"]), "x");
}

async fn a_lane_keeps_the_order_of_calls() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let lane = redis.lane(Some(b"list")).await.unwrap();
    let push =
        |from: u32| (from..from + 50).map(|n| cmd("RPUSH").arg("list").arg(n).take()).collect::<Vec<_>>();
    let calls = (0..20).map(|batch| {
        let lane = lane.clone();
        async move { lane.pipeline(push(batch * 50)).await }
    });
    for results in futures::future::join_all(calls).await {
        assert!(results.iter().all(Result::is_ok));
    }
    let list = redis.query(cmd("LRANGE").arg("list").arg(0).arg(-1), Resend::NotDone).await.unwrap();
    assert_eq!(from_redis_value::<Vec<u32>>(list).unwrap(), (0..1000).collect::<Vec<_>>());
    assert!(lane.client_id() > 0 && !lane.has_ended());
}

async fn a_dedicated_connection_waits_and_survives_being_given_up() {
    let server = Server::start(&[]);
    let redis = connect(&server.url()).await;
    let mut own = redis.dedicated(Some(b"list")).await.unwrap();
    let wait = cmd("BLPOP").arg("list").arg(0).take();
    let limit = Duration::from_secs(5);
    let given_up = tokio::time::timeout(Duration::from_millis(50), own.query(&wait, limit)).await;
    assert!(given_up.is_err());
    assert_eq!(own.owed(), 1);
    let late = own.receive(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((late.kind(), late.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
    redis.query(cmd("RPUSH").arg("list").arg("a").arg("b"), Resend::NotDone).await.unwrap();
    assert_eq!(own.receive(limit).await.unwrap().items()[1].text(), Some("a"), "the reply was not lost");
    assert_eq!(own.query(&wait, limit).await.unwrap().items()[1], Reply::Bulk("b".into()));
    own.send(&[cmd("ECHO").arg(1).take(), cmd("ECHO").arg(2).take()]).await.unwrap();
    assert_eq!(
        own.query(cmd("ECHO").arg(3), limit).await.unwrap().int(),
        Some(3),
        "earlier replies are thrown away"
    );
    let refused = own.query(&cmd("NONSENSE"), limit).await.unwrap_err();
    assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::Refused, Outcome::NotDone));
    let id = own.client_id().to_string();
    let unblocked = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        redis.query(cmd("CLIENT").arg("UNBLOCK").arg(&id), Resend::NotDone).await.unwrap()
    };
    let (reply, value) = tokio::join!(own.query(&wait, limit), unblocked);
    assert_eq!((reply.unwrap(), value), (Reply::Nil, Value::Int(1)));
}
