//! Administration of groups on a real server, where the members are somebody else's, and of topics that are made again.
//!
//! Not here: groups of ours (`broker/src/conformance/group_admin.rs`).

use crate::{
    readers::{create, put, stage},
    server,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use ropeway_broker::{ErrorKind, Group, MessageBroker, Position, Start, Topic};
use std::{ops::Deref, sync::Arc, thread, time::Duration};
use tokio::time::sleep;

crate::async_tests!(
    a_group_of_somebody_else_is_described_and_kept_from_harm,
    a_member_that_owns_nothing_is_told_with_its_topics,
    a_group_that_was_sought_has_no_position_in_a_topic_that_is_made_again,
    what_was_purged_does_not_count_as_old,
);

/// A member of a group, by the crate's own client. It closes on a thread of its own: where it has a name and was told something that it has not read, the
/// library may wait for ever (<https://github.com/confluentinc/librdkafka/issues/4884>).
struct Other(Option<BaseConsumer>);

impl Deref for Other {
    type Target = BaseConsumer;

    fn deref(&self) -> &BaseConsumer {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let member = self.0.take();
        thread::spawn(move || drop(member));
    }
}

fn member(group: &Group, topic: &Topic, name: &str) -> Other {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server::host()).set("group.id", group.as_str());
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    config.set("session.timeout.ms", "6000").set("group.instance.id", name);
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[topic.as_str()]).unwrap();
    Other(Some(member))
}

/// Polls all of them until they own so many partitions together.
async fn own(members: &[&Other], partitions: usize) {
    let owned = |member: &&Other| member.assignment().unwrap().count();
    while members.iter().map(owned).sum::<usize>() < partitions {
        members.iter().for_each(|member| drop(member.poll(Duration::from_millis(10))));
        sleep(Duration::from_millis(10)).await;
    }
}

fn commit(member: &BaseConsumer, topic: &Topic, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic.as_str(), partition, Offset::Offset(offset)).unwrap();
    member.commit(&list, CommitMode::Sync).unwrap();
}

async fn refused(broker: &Arc<dyn MessageBroker>, group: &Group, topic: &Topic, name: &str) {
    let admin = broker.admin();
    for error in [
        admin.delete_group(group).await.unwrap_err(),
        admin.seek_group(group, topic, None, Start::Latest).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = admin.delete_topic(topic).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains(group.as_str()), "{error}");
}

async fn a_group_of_somebody_else_is_described_and_kept_from_harm() {
    let (broker, topic) = stage().await;
    let group = Group::new(format!("group-of-{topic}")).unwrap();
    create(&broker, &topic, 1).await;
    let positions = put(&broker, &topic, 0, 0..5).await;
    let anna = member(&group, &topic, "anna");
    own(&[&anna], 1).await;
    commit(&anna, &topic, 0, 2);
    sleep(Duration::from_millis(100)).await;
    let told = broker.admin().describe_group(&group).await.unwrap();
    assert_eq!((told.members[0].name.as_str(), &told.members[0].topics), ("anna", &vec![topic.clone()]));
    let [part] = &told.partitions[..] else { panic!("{told:?}") };
    assert_eq!((part.owner.as_deref(), part.epoch), (Some("anna"), None));
    assert_eq!((part.position, part.lag, part.unfinished), (Some(positions[2]), Some(3), Some(3)));
    // It was looked for: a commit of somebody else does not say it.
    let age = part.lag_time.unwrap();
    assert!(age >= Duration::from_millis(100) && age < Duration::from_secs(60), "{age:?}");
    refused(&broker, &group, &topic, "anna").await;
    drop(anna);
    // A static member does not leave: it is gone when its session is over.
    while !broker.admin().describe_group(&group).await.unwrap().members.is_empty() {
        sleep(Duration::from_millis(200)).await;
    }
    broker.admin().seek_group(&group, &topic, Some(0), Start::After(positions[3])).await.unwrap();
    let told = broker.admin().describe_group(&group).await.unwrap();
    assert_eq!((told.partitions[0].position, told.partitions[0].lag), (Some(positions[4]), Some(1)));
    assert_eq!(told.partitions[0].owner, None);
    broker.admin().delete_group(&group).await.unwrap();
    assert_eq!(broker.admin().describe_group(&group).await.unwrap_err().kind(), ErrorKind::NotFound);
    broker.admin().delete_topic(&topic).await.unwrap();
}

async fn a_member_that_owns_nothing_is_told_with_its_topics() {
    let (broker, topic) = stage().await;
    let group = Group::new(format!("group-of-{topic}")).unwrap();
    create(&broker, &topic, 1).await;
    let (anna, bert) = (member(&group, &topic, "anna"), member(&group, &topic, "bert"));
    own(&[&anna, &bert], 1).await;
    // Nobody says what members asked for while the group is rebalanced, which goes on only while both are polled.
    loop {
        [&anna, &bert].iter().for_each(|member| drop(member.poll(Duration::from_millis(10))));
        let told = broker.admin().describe_group(&group).await.unwrap();
        let names: Vec<_> = told.members.iter().map(|member| member.name.as_str()).collect();
        let all = told.members.iter().all(|member| member.topics == [topic.clone()]);
        let owners = told.partitions.iter().filter(|part| part.owner.is_some()).count();
        if names == ["anna", "bert"] && all && owners == 1 {
            break;
        }
    }
}

async fn a_group_that_was_sought_has_no_position_in_a_topic_that_is_made_again() {
    let (broker, topic) = stage().await;
    let group = Group::new(format!("group-of-{topic}")).unwrap();
    create(&broker, &topic, 1).await;
    let old = put(&broker, &topic, 0, 0..5).await;
    broker.admin().seek_group(&group, &topic, None, Start::At(old[3])).await.unwrap();
    broker.admin().delete_topic(&topic).await.unwrap();
    create(&broker, &topic, 1).await;
    put(&broker, &topic, 0, 5..20).await;
    // Kafka forgets the offset, or keeps it: in neither case it is a position here.
    match broker.admin().describe_group(&group).await {
        Ok(told) => assert!(told.partitions.iter().all(|part| part.position.is_none()), "{told:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
    for to in [Start::At(old[3]), Start::After(old[3])] {
        let error = broker.admin().seek_group(&group, &topic, Some(0), to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let error = broker.admin().purge_topic(&topic, Some(0), to).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

async fn what_was_purged_does_not_count_as_old() {
    let (broker, topic) = stage().await;
    let group = Group::new(format!("group-of-{topic}")).unwrap();
    create(&broker, &topic, 1).await;
    let positions = put(&broker, &topic, 0, 0..2).await;
    broker.admin().seek_group(&group, &topic, None, Start::Earliest).await.unwrap();
    sleep(Duration::from_millis(1500)).await;
    let since = tokio::time::Instant::now();
    put(&broker, &topic, 0, 2..3).await;
    let told = broker.admin().describe_group(&group).await.unwrap().partitions.remove(0);
    assert!(told.lag_time.unwrap() >= Duration::from_millis(1400), "{told:?}");
    broker.admin().purge_topic(&topic, None, Start::After(positions[1])).await.unwrap();
    let told = broker.admin().describe_group(&group).await.unwrap().partitions.remove(0);
    assert!(told.lag_time.unwrap() < since.elapsed() + Duration::from_millis(100), "{told:?}");
    assert_eq!(
        (told.position, told.lag),
        (Some(Position(positions[0].0, 0)), Some(3)),
        "as Kafka's own tools show it"
    );
}
