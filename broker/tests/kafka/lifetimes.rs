//! Everything is given back, in every order, while things are on their way: a client that cannot be destroyed shows in `raw::living`.
//!
//! Run with others at the same time, so each waits until the count of its own clients is down again. Not here: what the calls answer (other files).

use super::{
    raw::{Admin, Consumer, Notes, Place, Producer, Report, Spec, living},
    server::{
        LONG, Member, Seen, bootstrap, conf, conf_at, plain, producer, send, topic, unique, values, write,
    },
    tests,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use std::{
    fs,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::time::Instant;

tests![
    things_are_dropped_in_any_order_while_others_are_on_their_way,
    thousands_are_opened_and_closed,
    members_leave_at_any_moment_while_servers_come_and_go,
    what_is_taken_away_and_given_again_at_once_does_no_harm,
    memory_does_not_grow,
    a_consumer_of_a_frozen_server_closes_within_its_deadline,
    a_closed_consumer_answers_that_it_is,
];

const SECOND: Duration = Duration::from_secs(1);

/// Fails where clients are left over long after everything was dropped. Other tests run meanwhile, so only many are wrong.
fn all_gone(allowed: usize) {
    let until = Instant::now() + LONG * 2;
    while living() > allowed {
        assert!(Instant::now() < until, "{} clients are left", living());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Clients that tests beside this one may have at a time.
const OTHERS: usize = 20;

fn things_are_dropped_in_any_order_while_others_are_on_their_way() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 2, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let name: Arc<str> = "some".into();
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let notes = Arc::<Notes>::default();
        let producer = Producer::open(conf_at(&servers, &[("linger.ms", "2")]), Arc::clone(&notes)).unwrap();
        let group = unique("group");
        let consumer_conf = conf_at(&servers, &[("group.id", &group), ("session.timeout.ms", "6000")]);
        let mut consumer = Consumer::open(consumer_conf, notes).unwrap();
        consumer.assign(&[Place::new(&name, 0, 0), Place::new(&name, 1, 0)]).unwrap();
        let waker = consumer.waker().unwrap();
        let mut told = Vec::new();
        let topic = producer.topic("some").unwrap();
        for _ in 0..random.random_range(1..20) {
            let (done, reports) = mpsc::channel::<Vec<Report>>();
            let batch = Arc::new(values(0, random.random_range(1..200)));
            let records = (0..batch.len()).map(|at| plain(random.random_range(0..2), at));
            producer.send(&topic, &batch, records, Box::new(move |reports| _ = done.send(reports)));
            told.push((batch.len(), reports));
            if random.random_bool(0.3) {
                consumer.next(Duration::from_millis(random.random_range(0..10)), 50, &mut |_| {});
            }
            if random.random_bool(0.2) {
                consumer.commit(&[Place::new(&name, 0, 1)], 1).unwrap();
            }
        }
        let ringing = thread::spawn(move || (0..100).for_each(|_| waker.wake()));
        let mut parts: Vec<Box<dyn FnOnce() + Send>> = vec![
            Box::new(move || drop(producer)),
            Box::new(move || drop(topic)),
            Box::new(move || drop(consumer)),
        ];
        while !parts.is_empty() {
            let part = parts.swap_remove(random.random_range(0..parts.len()));
            if random.random_bool(0.5) { part() } else { thread::spawn(part).join().unwrap() }
        }
        ringing.join().unwrap();
        // No batch is forgotten, and each record is told.
        for (count, reports) in told {
            assert_eq!(reports.recv_timeout(LONG).unwrap().len(), count, "seed {seed}");
            assert!(reports.recv_timeout(SECOND).is_err(), "seed {seed}: told twice");
        }
    }
    all_gone(OTHERS);
}

fn thousands_are_opened_and_closed() {
    // Without a server: they are at it to connect when they go.
    for round in 0..1_000 {
        let conf = conf_at("127.0.0.1:1", &[("group.id", "any")]);
        let consumer = Consumer::open(conf, Arc::default()).unwrap();
        let producer = Producer::open(conf_at("127.0.0.1:1", &[]), Arc::default()).unwrap();
        if round % 3 == 0 {
            consumer.subscribe(&["any"]).unwrap();
        }
        if round % 2 == 0 {
            drop(producer.topic("any").unwrap());
        }
        // Not more at a time than threads can be had for.
        all_gone(OTHERS + 50);
    }
    all_gone(OTHERS);
}

/// A member may be told to leave while it joins, with what it was given not answered, and while the server that coordinates its group goes or another does it.
fn members_leave_at_any_moment_while_servers_come_and_go() {
    let joining = |servers: &str, group: &str| {
        let mut conf = conf_at(servers, &[("group.id", group), ("session.timeout.ms", "6000")]);
        conf.set("partition.assignment.strategy", "cooperative-sticky").unwrap();
        conf.set("heartbeat.interval.ms", "300").unwrap();
        let member = Member::open(conf);
        member.consumer.subscribe(&["some"]).unwrap();
        member
    };
    let play = move |seed: u64| {
        let mut random = StdRng::seed_from_u64(seed);
        let cluster = MockCluster::new(2).unwrap();
        cluster.create_topic("some", 4, 2).unwrap();
        let servers = cluster.bootstrap_servers();
        let until = Instant::now() + SECOND * 5;
        for round in 0.. {
            if Instant::now() >= until {
                break;
            }
            let group = format!("group-{}", round / 3);
            let server = random.random_range(1..3);
            cluster.coordinator(MockCoordinator::Group(group.clone()), server).unwrap();
            let mut members: Vec<Member> =
                (0..random.random_range(1..4)).map(|_| joining(&servers, &group)).collect();
            for member in &mut members {
                member.poll_for(Duration::from_millis(random.random_range(0..150)));
                let given = member.seen.iter().find_map(|seen| match seen {
                    Seen::Assigned(places) => Some(places.clone()),
                    _ => None,
                });
                if let Some(places) = given.filter(|_| random.random_bool(0.5)) {
                    member.consumer.incremental_assign(&places).unwrap();
                }
            }
            match random.random_range(0..3) {
                0 => cluster.broker_down(server).unwrap(),
                1 => cluster.coordinator(MockCoordinator::Group(group), 3 - server).unwrap(),
                _ => {}
            }
            for member in members {
                if random.random_bool(0.5) {
                    member.consumer.close(Duration::from_millis(random.random_range(0..100)));
                }
            }
            cluster.broker_up(server).unwrap();
            all_gone(OTHERS + 50);
        }
    };
    let threads: Vec<_> = (0..4).map(|seed| thread::spawn(move || play(seed))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    all_gone(OTHERS);
}

/// The library ends the process where a partition is taken away that was given again before it had stopped to read it.
fn what_is_taken_away_and_given_again_at_once_does_no_harm() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let servers = cluster.bootstrap_servers();
    let sent = Producer::open(conf_at(&servers, &[]), Arc::default()).unwrap();
    assert_eq!(send(&sent, "some", 0, &values(0, 1)).len(), 1);
    let place = [Place::new(&"some".into(), 0, 0)];
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut member = Member::open(conf_at(&servers, &[("group.id", &unique("none"))]));
                for _ in 0..5 {
                    for _ in 0..10 {
                        member.consumer.assign(&place).unwrap();
                    }
                    member.until("record", |seen| matches!(seen, Seen::Record { .. }).then_some(()));
                    for _ in 0..10 {
                        member.consumer.incremental_unassign(&place).unwrap();
                        member.consumer.incremental_assign(&place).unwrap();
                    }
                    member.seen.clear();
                }
            });
        }
    });
}

/// Pages of this process that are in memory, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own, because others use memory, too: the test runs itself again.
fn memory_does_not_grow() {
    if std::env::var_os("ROPEWAY_KAFKA_MEMORY").is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifetimes::memory_does_not_grow", "--test-threads=1"])
            .env("ROPEWAY_KAFKA_MEMORY", "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if printed.contains("1 ignored") {
            bootstrap();
        }
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let topic = topic(1, &[]);
    let mut after = Vec::new();
    for _ in 0..4 {
        for _ in 0..8 {
            turn(&topic);
        }
        all_gone(0);
        after.push(resident());
    }
    // The first rounds fill caches. A leak of one record each turn would be 8 MiB from one to the next.
    let grown = after[3].saturating_sub(after[1]);
    assert!(grown < 12_000, "{after:?} KiB");
}

/// Writes and reads 20 MiB in 20,000 records with headers, commits, and drops everything.
fn turn(topic: &Arc<str>) {
    let batch: Vec<Vec<u8>> = (0..1_000).map(|_| vec![7; 1_000]).collect();
    for _ in 0..5 {
        write(topic, 0, &batch);
    }
    let mut member = Member::reading(topic, 0, 0, &[]);
    let admin = Admin::open(conf(&[]), Arc::default()).unwrap();
    let ends = admin.list_offsets(&[(Arc::clone(topic), 0, Spec::Latest)], LONG).unwrap();
    let from = ends[0].0.offset - 5_000;
    member.consumer.assign(&[Place::new(topic, 0, from)]).unwrap();
    let mut read = 0;
    while read < 5_000 {
        read += member.consumer.next(LONG, 1_000, &mut |told| {
            if let super::raw::Told::Record(record) = told {
                assert_eq!(*record.headers().unwrap(), [0]);
            }
        });
    }
    for offset in 0..50 {
        member
            .commit(&[Place { metadata: Some(vec![b'm'; 1_000]), ..Place::new(topic, 0, offset) }])
            .0
            .unwrap();
    }
    assert!(producer(&[]).metadata(None, LONG).unwrap().topics.len() > 1);
    assert!(member.consumer.close(LONG));
}

fn a_consumer_of_a_frozen_server_closes_within_its_deadline() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let mut conf = conf_at(&cluster.bootstrap_servers(), &[("group.id", "frozen")]);
    conf.set("partition.assignment.strategy", "cooperative-sticky").unwrap();
    let mut member = Member::open(conf);
    member.join("some", 1);
    // It answers nothing for longer than anybody waits.
    cluster.broker_round_trip_time(1, Duration::from_secs(600)).unwrap();
    member.consumer.commit(&[Place::new(&"some".into(), 0, 1)], 1).unwrap();
    let began = Instant::now();
    let closed = member.consumer.close(SECOND * 2);
    assert!(began.elapsed() < SECOND * 20, "{:?} {closed}", began.elapsed());
}

fn a_closed_consumer_answers_that_it_is() {
    let consumer = Consumer::open(conf(&[("group.id", &unique("none"))]), Arc::default()).unwrap();
    let waker = consumer.waker().unwrap();
    assert!(consumer.close(LONG));
    waker.wake();
    drop(waker);
}
