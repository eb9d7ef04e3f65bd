//! Questions about topics and groups, changes of groups from outside, and what is rarely asked of clients: each does what it says.
//!
//! Not here: servers that do not answer them (`failing.rs`).

use super::{
    raw::{Admin, Code, Consumer, Place, Producer, Report, Spec, Told, Written},
    server::{LONG, Member, conf, conf_at, plain, topic, unique, values, write},
    tests,
};
use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::time::Instant;

tests![
    topics_and_servers_are_described,
    offsets_are_listed_by_place_and_by_time,
    a_group_is_made_by_its_offsets_and_deleted,
    a_group_that_has_members_is_described_and_kept,
    what_is_known_of_a_batch_so_far_is_told_and_stays,
    a_producer_that_is_flushed_in_vain_gives_up_what_is_purged,
    a_producer_that_was_broken_gives_up_for_good,
    a_probe_tells_the_first_record_or_the_end,
    a_member_that_is_abandoned_does_not_leave_its_group,
];

fn asks() -> Admin {
    Admin::open(conf(&[]), Arc::default()).unwrap()
}

fn topics_and_servers_are_described() {
    let (admin, topic) = (asks(), topic(3, &[]));
    let absent = unique("absent");
    let told = admin.describe_topics(&[&topic, &absent], LONG).unwrap();
    let found = told[0].as_ref().unwrap();
    assert_eq!((found.name.as_str(), found.partitions.len()), (&*topic, 3));
    assert_ne!(found.id, [0; 16]);
    for (number, partition) in found.partitions.iter().enumerate() {
        assert_eq!(usize::try_from(partition.id).unwrap(), number);
        assert_eq!(partition.leader.into_iter().collect::<Vec<_>>(), partition.replicas);
        assert_eq!(partition.isr, partition.replicas);
    }
    assert_eq!(told[1].as_ref().unwrap_err().code, Code::UNKNOWN_TOPIC_OR_PART);
    let nodes = admin.nodes(LONG).unwrap();
    assert!(nodes.len() == 1 && nodes[0].port > 0, "{nodes:?}");
    assert_eq!(nodes[0].id, found.partitions[0].replicas[0]);
}

fn offsets_are_listed_by_place_and_by_time() {
    let (admin, topic) = (asks(), topic(2, &[]));
    write(&topic, 0, &values(0, 5));
    let ask = |partition, spec| {
        let told = admin.list_offsets(&[(Arc::clone(&topic), partition, spec)], LONG).unwrap();
        assert_eq!((told.len(), told[0].0.partition), (1, partition));
        told[0].1.as_ref().map(|()| told[0].0.offset).map_err(|trouble| trouble.code)
    };
    assert_eq!((ask(0, Spec::Earliest), ask(0, Spec::Latest), ask(1, Spec::Latest)), (Ok(0), Ok(5), Ok(0)));
    assert_eq!(ask(0, Spec::Time(0)), Ok(0));
    assert_eq!(ask(0, Spec::Time(i64::MAX / 2)), Ok(-1), "nothing is that late");
    let latest = |topic: &Arc<str>, partition| (Arc::clone(topic), partition, Spec::Latest);
    let told = |asks: &[_]| {
        let told = admin.list_offsets(asks, LONG).unwrap();
        told.into_iter()
            .map(|(place, told)| {
                (place.partition, told.map(|()| place.offset).map_err(|trouble| trouble.code))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&[latest(&topic, 1), latest(&topic, 0)]), [(1, Ok(0)), (0, Ok(5))]);
    let absent: Arc<str> = unique("absent").into();
    assert_eq!(told(&[latest(&absent, 0)]), [(0, Err(Code::UNKNOWN_TOPIC_OR_PART))]);
    assert_eq!(
        told(&[latest(&topic, 0), latest(&topic, 2)]),
        [(0, Ok(5)), (2, Err(Code::UNKNOWN_PARTITION))]
    );
}

fn a_group_is_made_by_its_offsets_and_deleted() {
    let (admin, topic, group) = (asks(), topic(2, &[]), unique("group"));
    assert_eq!(admin.group_offsets(&group, LONG).unwrap(), []);
    assert_eq!(admin.delete_group(&group, LONG).unwrap_err().code, Code::GROUP_ID_NOT_FOUND);
    let place = |partition, offset, metadata: &str| {
        let metadata = Some(metadata.as_bytes().to_vec());
        Place { metadata, ..Place::new(&topic, partition, offset) }
    };
    let places = [place(0, 7, "what stands beside it"), place(1, 0, "")];
    let told = admin.alter_group_offsets(&group, &places, LONG).unwrap();
    assert!(told.len() == 2 && told.iter().all(|(_, told)| told.is_ok()), "{told:?}");
    let mut stored = admin.group_offsets(&group, LONG).unwrap();
    stored.sort_by_key(|place| place.partition);
    let of = |place: &Place| (place.partition, place.offset, place.metadata.clone().unwrap_or_default());
    assert_eq!(of(&stored[0]), (0, 7, b"what stands beside it".to_vec()));
    assert_eq!(of(&stored[1]), (1, 0, Vec::new()));
    let listed = admin.list_groups(LONG).unwrap();
    assert!(listed.iter().any(|listed| listed.name == group && !listed.state.is_dead()));
    let described = admin.describe_groups(std::slice::from_ref(&group), LONG).unwrap();
    assert_eq!(described[0].as_ref().unwrap().members, []);
    admin.delete_group(&group, LONG).unwrap();
    assert_eq!(admin.group_offsets(&group, LONG).unwrap(), []);
}

fn a_group_that_has_members_is_described_and_kept() {
    let (admin, topic, group) = (asks(), topic(2, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    assert_eq!(member.join(&topic, 2).len(), 2);
    let described = admin.describe_groups(std::slice::from_ref(&group), LONG).unwrap();
    let described = described[0].as_ref().unwrap();
    let id = member.consumer.membership().unwrap().1;
    assert_eq!((described.name.as_str(), described.members.len()), (group.as_str(), 1));
    assert_eq!((&described.members[0].id, &described.members[0].instance), (&id, &None));
    let mut owned: Vec<i32> = described.members[0].assignment.iter().map(|place| place.partition).collect();
    owned.sort_unstable();
    assert_eq!(owned, [0, 1]);
    assert_eq!(admin.delete_group(&group, LONG).unwrap_err().code, Code::NON_EMPTY_GROUP);
    let told = admin.alter_group_offsets(&group, &[Place::new(&topic, 0, 1)], LONG);
    assert!(told.map_or(true, |told| told[0].1.is_err()), "a member's offsets are its own");
    member.consumer.close(LONG);
}

type Reports = mpsc::Receiver<Vec<Report>>;

fn nowhere(timeout: &str) -> Producer {
    Producer::open(conf_at("127.0.0.1:1", &[("message.timeout.ms", timeout)]), Arc::default()).unwrap()
}

fn what_is_known_of_a_batch_so_far_is_told_and_stays() {
    let producer = nowhere("1500");
    let topic = producer.topic("any").unwrap();
    let (done, reports): (_, Reports) = mpsc::channel();
    let records = (0..3).map(|at| plain(0, at));
    let sent = producer.send(
        &topic,
        &Arc::new(values(0, 3)),
        records,
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    assert_eq!(sent.so_far(), [None; 3]);
    let reports = reports.recv_timeout(LONG).unwrap();
    let told: Vec<Option<Report>> = reports.into_iter().map(Some).collect();
    assert_eq!(sent.so_far(), told);
    drop(producer);
    drop(topic);
    assert_eq!(sent.so_far(), told, "it outlives the producer");
}

fn a_producer_that_is_flushed_in_vain_gives_up_what_is_purged() {
    let producer = nowhere("60000");
    let topic = producer.topic("any").unwrap();
    let (done, reports): (_, Reports) = mpsc::channel();
    let records = (0..3).map(|at| plain(0, at));
    producer.send(
        &topic,
        &Arc::new(values(0, 3)),
        records,
        Box::new(move |reports| done.send(reports).unwrap()),
    );
    let began = Instant::now();
    assert_eq!(producer.flush(Duration::from_millis(300)).unwrap_err().code, Code::TIMED_OUT);
    assert!(began.elapsed() < Duration::from_secs(10));
    producer.purge(true, true);
    let reports = reports.recv_timeout(LONG).unwrap();
    assert!(reports.iter().all(|report| report.written == Written::No), "{reports:?}");
    producer.flush(LONG).unwrap();
}

fn a_producer_that_was_broken_gives_up_for_good() {
    let producer = Producer::open(conf_at("127.0.0.1:1", &[("enable.idempotence", "true")]), Arc::default());
    let producer = producer.unwrap();
    assert!(producer.fatal().is_none());
    producer.break_it().unwrap();
    let why = producer.fatal().unwrap();
    assert_eq!(why.code, Code::OUT_OF_ORDER_SEQUENCE_NUMBER, "{why:?}");
}

fn a_probe_tells_the_first_record_or_the_end() {
    let topic = topic(1, &[]);
    write(&topic, 0, &values(0, 3));
    let first = |offset| {
        let conf = conf(&[("group.id", "any")]);
        let mut probe = Consumer::probe(conf, Arc::default()).unwrap();
        probe.assign(&[Place::new(&topic, 0, offset)]).unwrap();
        let (mut seen, until) = (Vec::new(), Instant::now() + LONG);
        while seen.is_empty() {
            assert!(Instant::now() < until);
            probe.next(Duration::from_secs(1), 10, &mut |told| match told {
                Told::Record(record) => seen.push((false, record.offset)),
                Told::Problem { code: Code::PARTITION_EOF, place: Some(place), .. } => {
                    seen.push((true, place.offset));
                }
                _ => {}
            });
        }
        seen
    };
    assert_eq!(first(0), [(false, 0)], "one at a time");
    assert_eq!(first(2), [(false, 2)]);
    assert_eq!(first(3), [(true, 3)]);
}

fn a_member_that_is_abandoned_does_not_leave_its_group() {
    let (admin, topic) = (asks(), topic(1, &[]));
    let members = |group: &String| {
        let described = admin.describe_groups(std::slice::from_ref(group), LONG).unwrap();
        described[0].as_ref().unwrap().members.len()
    };
    for (abandons, left) in [(true, 1), (false, 0)] {
        let group = unique("group");
        // Nobody is gone from it because its session is over.
        let mut member = Member::of(&group, &[("session.timeout.ms", "120000")]);
        member.join(&topic, 1);
        if abandons {
            member.consumer.abandon();
            thread::sleep(Duration::from_secs(1));
        } else {
            assert!(member.consumer.close(LONG));
        }
        // Who leaves says so before it closes; that is done a moment later.
        let until = Instant::now() + LONG;
        while members(&group) > left && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(members(&group), left, "abandoned: {abandons}");
    }
}
