//! Servers that are not there or not what they seem, and settings that are wrong: bounded, and with a reason.
//!
//! Not here: how that is told to users (`broker/src/kafka/failure.rs`).

use super::{
    fake::Fake,
    raw::{Admin, Code, Conf, Consumer, Notes, Place, Producer, Spec},
    server::{LONG, Member, bootstrap, conf, conf_at, topic, unique},
    tests,
};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use std::{
    hint, io,
    net::{TcpListener, TcpStream},
    slice,
    sync::{Arc, Barrier, atomic::Ordering},
    thread,
    time::Duration,
};
use tokio::time::Instant;

tests![
    a_client_of_a_dead_address_does_not_fail_and_says_why,
    what_is_asked_of_a_dead_address_is_bounded,
    tls_to_a_server_without_it_is_told,
    a_group_whose_coordinator_has_moved_is_asked_for_again_in_time,
    a_coordinator_that_comes_back_after_a_question_was_given_up_does_no_harm,
    a_server_that_knows_no_servers_yet_does_no_harm,
    offsets_that_are_asked_for_while_leaders_become_known_do_no_harm,
    servers_that_come_back_are_no_longer_down,
    a_member_leaves_its_group_though_no_server_was_there_when_it_last_heard,
    a_setting_that_is_wrong_is_named_and_no_secret_is_told,
    a_consumer_without_a_group_is_refused,
];

const SECOND: Duration = Duration::from_secs(1);

/// Waits for something that is told beside the answers.
fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(10));
    }
}

fn a_client_of_a_dead_address_does_not_fail_and_says_why() {
    let notes = Arc::<Notes>::default();
    let producer = Producer::open(conf_at("127.0.0.1:1", &[]), Arc::clone(&notes)).unwrap();
    assert!(producer.fatal().is_none());
    wait_for(|| notes.brokers_down().then_some(()));
    let reason = notes.latest().unwrap();
    assert!(matches!(reason.code, Code::TRANSPORT | Code::ALL_BROKERS_DOWN), "{reason:?}");
    assert!(notes.refused().is_none());
    let mut member = Member::open(conf_at("127.0.0.1:1", &[("group.id", "any")]));
    member.consumer.subscribe(&["any"]).unwrap();
    // A consumer is told as well, as a problem without a place.
    wait_for(|| {
        member.poll(Duration::from_millis(100));
        let is = |seen: &super::server::Seen| {
            matches!(seen, super::server::Seen::Problem { code: Code::ALL_BROKERS_DOWN, place: None })
        };
        (member.seen.iter().any(is) || member.notes.brokers_down()).then_some(())
    });
    assert!(member.consumer.close(SECOND * 5), "it waits for a server that is not there");
}

fn what_is_asked_of_a_dead_address_is_bounded() {
    let admin = Admin::open(conf_at("127.0.0.1:1", &[]), Arc::default()).unwrap();
    let producer = Producer::open(conf_at("127.0.0.1:1", &[]), Arc::default()).unwrap();
    let topic: Arc<str> = "any".into();
    let place = [Place::new(&topic, 0, 0)];
    let began = Instant::now();
    let codes = [
        producer.metadata(None, SECOND).unwrap_err().code,
        producer.metadata(Some("any"), SECOND).unwrap_err().code,
        admin.nodes(SECOND).unwrap_err().code,
        admin.describe_topics(&["any"], SECOND).unwrap_err().code,
        admin.list_offsets(&[(Arc::clone(&topic), 0, Spec::Latest)], SECOND).unwrap()[0]
            .1
            .clone()
            .unwrap_err()
            .code,
        admin.delete_records(&topic, &[(0, 1)], SECOND).unwrap_err().code,
        admin.list_groups(SECOND).unwrap_err().code,
        admin.describe_groups(&["any".to_owned()], SECOND).unwrap_err().code,
        admin.group_offsets("any", SECOND).unwrap_err().code,
        admin.alter_group_offsets("any", &place, SECOND).unwrap_err().code,
        admin.delete_group("any", SECOND).unwrap_err().code,
    ];
    assert!(began.elapsed() < SECOND * 30, "{:?}", began.elapsed());
    let known =
        [Code::TRANSPORT, Code::ALL_BROKERS_DOWN, Code::TIMED_OUT, Code::WAIT_COORD, Code::UNKNOWN_BROKER];
    assert!(codes.iter().all(|code| known.contains(code)), "{codes:?}");
}

fn tls_to_a_server_without_it_is_told() {
    let notes = Arc::<Notes>::default();
    let conf = conf_at(&bootstrap(), &[("security.protocol", "ssl")]);
    let producer = Producer::open(conf, Arc::clone(&notes)).unwrap();
    let reason = wait_for(|| notes.latest().filter(|reason| reason.code != Code::ALL_BROKERS_DOWN));
    assert!(matches!(reason.code, Code::SSL | Code::TRANSPORT), "{reason:?}");
    assert!(reason.text.contains("SSL"), "{reason:?}");
    assert!(producer.metadata(None, SECOND).is_err());
}

fn a_group_whose_coordinator_has_moved_is_asked_for_again_in_time() {
    let cluster = MockCluster::new(1).unwrap();
    let refused = |times| {
        let moved = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR;
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &vec![moved; times]);
    };
    let admin = Admin::open(conf_at(&cluster.bootstrap_servers(), &[]), Arc::default()).unwrap();
    // A library that looks for the coordinator of no group would have ended the process here.
    refused(3);
    assert_eq!(admin.group_offsets("some", LONG).unwrap(), []);
    refused(100);
    let answer = admin.group_offsets("some", SECOND).unwrap_err();
    assert_eq!(answer.code, Code::NOT_COORDINATOR, "{answer:?}");
    cluster.clear_request_errors(RDKafkaApiKey::OffsetFetch);
    assert_eq!(admin.group_offsets("other", LONG).unwrap(), []);
}

/// The library ends the process where it gives up such a question by itself.
fn a_coordinator_that_comes_back_after_a_question_was_given_up_does_no_harm() {
    let cluster = MockCluster::new(1).unwrap();
    let admin = Admin::open(conf_at(&cluster.bootstrap_servers(), &[]), Arc::default()).unwrap();
    assert_eq!(admin.group_offsets("any", LONG).unwrap(), []);
    for _ in 0..3 {
        cluster.broker_down(1).unwrap();
        let begun = Instant::now();
        let trouble = admin.group_offsets("any", SECOND).unwrap_err();
        assert!(matches!(trouble.code, Code::TIMED_OUT | Code::TRANSPORT), "{trouble:?}");
        let trouble = admin.alter_group_offsets("any", &[Place::new(&"t".into(), 0, 1)], SECOND).unwrap_err();
        assert!(matches!(trouble.code, Code::TIMED_OUT | Code::TRANSPORT), "{trouble:?}");
        assert!(begun.elapsed() < 20 * SECOND, "{:?}", begun.elapsed());
        cluster.broker_up(1).unwrap();
        assert_eq!(admin.group_offsets("any", LONG).unwrap(), []);
    }
}

/// As one that has just come back does, until its controller has heard of it. The library ends the process where it is asked by its own question for servers,
/// and by any other forgets all servers.
fn a_server_that_knows_no_servers_yet_does_no_harm() {
    let fake = Fake::start(1, 0, |_, _, _| None);
    let address = fake.addresses();
    let admin = Admin::open(conf_at(&address, &[]), Arc::default()).unwrap();
    let producer = Producer::open(conf_at(&address, &[]), Arc::default()).unwrap();
    for _ in 0..3 {
        wait_for(|| admin.nodes(SECOND).ok());
        wait_for(|| producer.metadata(Some("any"), SECOND).ok().filter(|told| !told.nodes.is_empty()));
        fake.begins.store(true, Ordering::SeqCst);
        assert!(admin.nodes(SECOND).is_err());
        let told = producer.metadata(Some("any"), SECOND);
        assert!(told.is_err() || told.is_ok_and(|told| told.nodes.is_empty()));
        fake.begins.store(false, Ordering::SeqCst);
    }
}

/// The library's own question for offsets (and the one that removes records) is worked on by who asks and by its main thread at once, where leaders are not
/// known yet: it ends the process where an answer that tells them comes just then.
fn offsets_that_are_asked_for_while_leaders_become_known_do_no_harm() {
    const AT_ONCE: u32 = 4;
    const ROUNDS: u32 = 1_500;
    let cluster = MockCluster::new(1).unwrap();
    let admin = Admin::open(conf_at(&cluster.bootstrap_servers(), &[]), Arc::default()).unwrap();
    admin.nodes(LONG).unwrap();
    let begin = Barrier::new(AT_ONCE as usize);
    let asks = |who: u32| {
        for round in 0..ROUNDS {
            let ask = [(Arc::from(format!("none-{round}")), 0, Spec::Latest)];
            begin.wait();
            // At other moments of the others' questions in each round.
            let until = Instant::now() + Duration::from_micros(u64::from(who * round * 7 % 1_000));
            while Instant::now() < until {
                hint::spin_loop();
            }
            assert_eq!(admin.list_offsets(&ask, LONG).unwrap().len(), 1);
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|who| _ = scope.spawn(move || asks(who))));
}

fn servers_that_come_back_are_no_longer_down() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("some", 1, 1).unwrap();
    let notes = Arc::<Notes>::default();
    let producer = Producer::open(conf_at(&cluster.bootstrap_servers(), &[]), Arc::clone(&notes)).unwrap();
    producer.metadata(None, LONG).unwrap();
    assert!(!notes.brokers_down());
    cluster.broker_down(1).unwrap();
    wait_for(|| notes.brokers_down().then_some(()));
    cluster.broker_up(1).unwrap();
    wait_for(|| producer.metadata(None, SECOND).ok());
    assert!(!notes.brokers_down());
    let reports = super::server::send(&producer, "some", 0, &[b"x".to_vec()]);
    assert_eq!(reports[0].code, Code::NONE);
}

/// That a server is there again, or at last, is told by nothing but its answers, and who has nothing to read gets none that show.
fn a_member_leaves_its_group_though_no_server_was_there_when_it_last_heard() {
    let (topic, group) = (topic(1, &[]), unique("group"));
    // Below the ports that connections are given: nobody has it when it is opened.
    let free = |port| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok();
    let door = std::iter::repeat_with(|| rand::random_range(10_000..32_000)).find_map(free).unwrap();
    let settings = [
        ("group.id", group.as_str()),
        // Longer than anything here waits.
        ("session.timeout.ms", "120000"),
        ("partition.assignment.strategy", "cooperative-sticky"),
    ];
    let mut member = Member::open(conf_at(&door.to_string(), &settings));
    member.consumer.subscribe(&[&topic]).unwrap();
    wait_for(|| {
        member.poll(SECOND / 100);
        member.notes.brokers_down().then_some(())
    });
    // Now there is one: by way of this door the client learns of it, and then goes to it.
    let listener = TcpListener::bind(door).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (client, server) = (stream.unwrap(), TcpStream::connect(bootstrap()).unwrap());
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
    assert_eq!(member.take().len(), 1);
    assert!(member.consumer.close(LONG));
    let admin = Admin::open(conf(&[]), Arc::default()).unwrap();
    // Others do not wait for its session.
    wait_for(|| {
        let told = admin.describe_groups(slice::from_ref(&group), LONG).unwrap();
        let gone = told[0].as_ref().is_ok_and(|group| group.members.is_empty());
        gone.then_some(())
    });
}

fn a_setting_that_is_wrong_is_named_and_no_secret_is_told() {
    let mut conf = Conf::new();
    let unknown = conf.set("no.such.setting", "1").unwrap_err();
    assert!(unknown.text.contains("no.such.setting"), "{unknown}");
    let wrong = conf.set("socket.timeout.ms", "soon").unwrap_err();
    assert!(wrong.text.contains("socket.timeout.ms"), "{wrong}");
    for name in ["sasl.password", "ssl.key.password", "ssl.key.pem"] {
        let trouble = conf.set(name, "hunter2\0").unwrap_err();
        assert!(!trouble.text.contains("hunter2") && trouble.text.contains(name), "{trouble}");
        conf.set(name, "hunter2").unwrap();
    }
    assert!(!format!("{conf:?}").contains("hunter2"));
    // What only shows when the client is made.
    conf.set("security.protocol", "ssl").unwrap();
    let trouble = Producer::open(conf, Arc::default()).unwrap_err();
    assert!(!trouble.text.is_empty() && !trouble.text.contains("hunter2"), "{trouble}");
}

fn a_consumer_without_a_group_is_refused() {
    assert!(Consumer::open(conf_at("127.0.0.1:1", &[]), Arc::default()).is_err());
    let member = Member::open(conf_at("127.0.0.1:1", &[("group.id", &unique("none"))]));
    assert!(member.consumer.fatal().is_none());
}
