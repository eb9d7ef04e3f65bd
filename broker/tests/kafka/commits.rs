//! Commits: who answers them, what each partition is told, what is stored beside an offset.
//!
//! Not here: commits while a group is rebalanced (`groups.rs`).

use super::{
    raw::{Admin, Code, MAX_METADATA, Place},
    server::{LONG, Member, Seen, conf, topic, unique},
    tests,
};
use std::{sync::Arc, time::Duration};

tests![
    each_partition_has_its_own_answer,
    metadata_comes_back_and_is_replaced_by_each_commit,
    metadata_that_is_no_text_is_changed_and_of_more_than_a_page_refused,
    a_commit_is_answered_soon_while_nothing_is_read,
    many_commits_are_answered_once_each,
];

fn place(topic: &Arc<str>, partition: i32, offset: i64, metadata: &[u8]) -> Place {
    Place { metadata: Some(metadata.to_vec()), ..Place::new(topic, partition, offset) }
}

/// What is committed, of a group.
fn stored(group: &str, partition: i32) -> Option<(i64, Option<Vec<u8>>)> {
    let places = Admin::open(conf(&[]), Arc::default()).unwrap().group_offsets(group, LONG).unwrap();
    let place = places.into_iter().find(|place| place.partition == partition)?;
    Some((place.offset, place.metadata))
}

fn each_partition_has_its_own_answer() {
    let (topic, group) = (topic(2, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    let large = vec![b'x'; MAX_METADATA + 1];
    let (result, partitions) = member.commit(&[place(&topic, 0, 5, &large), place(&topic, 1, 6, b"small")]);
    assert_eq!(result.unwrap_err().code, Code::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(partitions.len(), 2);
    assert_eq!(partitions[0].1.as_ref().unwrap_err().code, Code::OFFSET_METADATA_TOO_LARGE);
    // The library gives the code of one to those that have none. So a code says only that it may not be written: this one is.
    assert_eq!(partitions[1].0.partition, 1);
    assert_eq!(stored(&group, 0), None);
    assert_eq!(stored(&group, 1), Some((6, Some(b"small".to_vec()))));
    // Of a topic that there is not, and of one that there is.
    let missing = Arc::from(unique("missing"));
    let (result, partitions) = member.commit(&[place(&topic, 0, 7, b""), place(&missing, 0, 1, b"")]);
    assert_eq!(result.unwrap_err().code, Code::UNKNOWN_TOPIC_OR_PART);
    let failed = partitions.iter().find(|(place, _)| place.topic == missing).unwrap();
    assert_eq!(failed.1.as_ref().unwrap_err().code, Code::UNKNOWN_TOPIC_OR_PART);
    assert_eq!(stored(&group, 0).unwrap().0, 7);
    assert_eq!(member.consumer.commit(&[], 1).unwrap_err().code, Code::NO_OFFSET);
}

fn metadata_comes_back_and_is_replaced_by_each_commit() {
    let (topic, group) = (topic(1, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    for size in [1, 7, 1_000, MAX_METADATA - 1, MAX_METADATA] {
        let metadata = vec![b'm'; size];
        let (result, _) = member.commit(&[place(&topic, 0, size as i64, &metadata)]);
        assert_eq!(result, Ok(()), "{size}");
        assert_eq!(stored(&group, 0), Some((size as i64, Some(metadata))));
    }
    let (result, _) = member.commit(&[Place::new(&topic, 0, 9)]);
    assert_eq!(result, Ok(()));
    assert_eq!(stored(&group, 0), Some((9, None)));
}

fn metadata_that_is_no_text_is_changed_and_of_more_than_a_page_refused() {
    let (topic, group) = (topic(1, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    let (result, _) = member.commit(&[place(&topic, 0, 1, &[0x61, 0x00, 0x62, 0xff, 0xfe, 0x63])]);
    assert_eq!(result, Ok(()));
    let (_, changed) = stored(&group, 0).unwrap();
    assert_eq!(changed.unwrap(), [0x61, 0x00, 0x62, 0xef, 0xbf, 0xbd, 0xef, 0xbf, 0xbd, 0x63]);
    let (result, _) = member.commit(&[place(&topic, 0, 2, &[b'x'; MAX_METADATA + 1])]);
    assert_eq!(result.unwrap_err().code, Code::OFFSET_METADATA_TOO_LARGE);
    assert_eq!(stored(&group, 0).unwrap().0, 1);
}

fn a_commit_is_answered_soon_while_nothing_is_read() {
    let (topic, group) = (topic(1, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    let (result, _) = member.commit(&[Place::new(&topic, 0, 1)]);
    assert_eq!(result, Ok(()));
    for offset in 2..10 {
        member.consumer.commit(&[Place::new(&topic, 0, offset)], offset as u64).unwrap();
        let began = tokio::time::Instant::now();
        // One call is enough: it does not sleep through the answer.
        assert_eq!(member.poll(LONG), 1);
        assert!(began.elapsed() < Duration::from_secs(10));
        let told = member.seen.pop().unwrap();
        assert!(matches!(told, Seen::Committed { result: Ok(()), token, .. } if token == offset as u64));
    }
}

fn many_commits_are_answered_once_each() {
    let (topic, group) = (topic(4, &[]), unique("group"));
    let mut member = Member::of(&group, &[]);
    for round in 0..300 {
        let places: Vec<Place> = (0..4).map(|partition| place(&topic, partition, round, b"each")).collect();
        member.consumer.commit(&places, u64::MAX - round as u64).unwrap();
    }
    let mut tokens = Vec::new();
    while tokens.len() < 300 {
        tokens.push(member.until("answer", |seen| match seen {
            Seen::Committed { result: Ok(()), partitions, token } if partitions.len() == 4 => Some(*token),
            _ => None,
        }));
    }
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq((0..300).rev().map(|round| u64::MAX - round)));
    member.poll_for(Duration::from_millis(300));
    assert!(member.seen.is_empty(), "{:?}", member.seen);
    assert_eq!(stored(&group, 3), Some((299, Some(b"each".to_vec()))));
}
