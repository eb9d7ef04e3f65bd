//! Checks of following without a group.
//!
//! Not here: where a reader starts (`starts.rs`), what it is told of what is missing (`gaps.rs`).

use super::{
    promise::{Ought, names, promised, refused, same},
    stage::{QUIET, Stage, keyed, within},
    suite::group,
    watch::{Got, Seen},
};
use crate::{Epoch, ErrorKind, Start};

group! { "readers":
    "" each_reader_sees_everything_as_it_comes;
    "" a_reader_leaves_nothing_behind;
    "" what_groups_acked_is_still_read [Replay];
    "" the_set_that_is_followed_may_change;
    "" following_again_moves_to_another_place;
    "" caught_up_is_told_once_for_each_start;
    "" what_does_not_exist_cannot_be_followed;
    "" a_reader_waits_where_nothing_is_followed;
    "" positions_of_a_partition_grow;
}

async fn each_reader_sees_everything_as_it_comes(stage: &Stage) {
    let topic = stage.topic(3).await;
    let batch = |from: usize| (from..from + 30).map(|i| keyed(&i.to_string(), i)).collect();
    stage.put(&topic, batch(0)).await;
    let mut readers = [stage.follow(&topic).await, stage.follow(&topic).await];
    for reader in &mut readers {
        reader.take(30).await;
    }
    stage.put(&topic, batch(30)).await;
    for reader in &mut readers {
        reader.until("a reader sees what is published while it reads", |r| r.got().count() >= 60).await;
        reader.idle(QUIET).await;
        let mut numbers = reader.numbers();
        numbers.sort_unstable();
        same("a reader sees every message once", numbers, (0..60).collect::<Vec<_>>());
        let epochs = reader.got().all(|got| got.of.epoch == Epoch(0));
        promised(epochs, "a reader's epoch is 0", || reader.told());
        let others = reader.log.iter().any(|(_, seen)| {
            matches!(seen, Seen::AssignedEvent | Seen::Assigned(_) | Seen::Revoking(..) | Seen::Gone(..))
        });
        promised(!others, "a reader is told nothing of owning", || reader.told());
    }
}

async fn a_reader_leaves_nothing_behind(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..3).await;
    let broker = stage.broker();
    let before = within("groups answers", broker.admin().groups()).await.ought("groups can be listed");
    let mut reader = stage.follow(&topic).await;
    reader.take(3).await;
    drop(reader);
    let mut new = within("groups answers", broker.admin().groups()).await.ought("groups can be listed");
    new.retain(|group| !before.contains(group));
    for group in new {
        // Of others who use the same server at the same time, or gone again.
        let described = within("describe answers", broker.admin().describe_group(&group)).await;
        let of_it = described.is_ok_and(|told| told.partitions.iter().any(|of| of.topic == topic));
        promised(!of_it, "a reader leaves no group behind", || format!("{group} has to do with its topic"));
    }
    let deleted = within("delete answers", broker.admin().delete_topic(&topic)).await;
    deleted.ought("a topic that was only read is used by nobody");
}

async fn what_groups_acked_is_still_read(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..5).await;
    let mut member = stage.join_new(&topic).await.acking();
    member.take(5).await;
    super::settle::flush(&member).await;
    let numbers: Vec<_> = stage.content(&topic).await.iter().map(Got::number).collect();
    same("what was acked stays readable", numbers, vec![0, 1, 2, 3, 4]);
}

async fn the_set_that_is_followed_may_change(stage: &Stage) {
    let (one, two) = (stage.topic(2).await, stage.topic(1).await);
    stage.number(&one, 0, 0..2).await;
    stage.number(&one, 1, 10..12).await;
    stage.number(&two, 0, 20..22).await;
    let mut reader = stage.reader().await;
    reader.follow(&one, Some(0), Start::Earliest).await.ought("a reader follows a partition that exists");
    reader.take(2).await;
    reader.idle(QUIET).await;
    same("only what is followed comes", reader.numbers(), vec![0, 1]);
    reader.follow(&two, None, Start::Earliest).await.ought("a reader follows one more topic");
    reader.until("what is followed later comes", |r| r.got().count() >= 4).await;
    same("only what is followed comes", reader.numbers()[2..].to_vec(), vec![20, 21]);
    // What lies ready when unfollow is called does not come.
    stage.number(&one, 0, 2..4).await;
    reader.unfollow(&one, Some(0));
    stage.number(&two, 0, 22..23).await;
    reader.until("what is still followed comes", |r| r.numbers().contains(&22)).await;
    reader.idle(QUIET).await;
    let promise = "nothing comes of what is not followed any more";
    same(promise, reader.numbers(), vec![0, 1, 20, 21, 22]);
    reader.unfollow(&one, Some(1));
    reader.unfollow(&stage.no_topic(), None);
    reader.unfollow(&two, None);
    stage.number(&two, 0, 23..24).await;
    reader.follow(&one, None, Start::Latest).await.ought("a reader follows again");
    stage.number(&one, 1, 12..13).await;
    reader.until("what is followed again comes", |r| r.numbers().contains(&12)).await;
    reader.idle(QUIET).await;
    same(promise, reader.numbers(), vec![0, 1, 20, 21, 22, 12]);
}

async fn following_again_moves_to_another_place(stage: &Stage) {
    let topic = stage.topic(1).await;
    let positions = stage.number(&topic, 0, 0..6).await;
    let mut reader = stage.follow(&topic).await;
    reader.take(6).await;
    for (from, expected) in [
        (Start::At(positions[4]), vec![4, 5]),
        (Start::Earliest, vec![0, 1, 2, 3, 4, 5]),
        (Start::After(positions[0]), vec![1, 2, 3, 4, 5]),
    ] {
        reader.forget();
        reader.follow(&topic, Some(0), from).await.ought("a reader moves");
        reader.until("a reader that moved goes on there", |r| r.got().count() >= expected.len()).await;
        reader.idle(QUIET).await;
        same("a reader that moved goes on there", reader.numbers(), expected);
    }
    // Moved before it was read to the end, what comes next is from there.
    reader.follow(&topic, Some(0), Start::Earliest).await.ought("a reader moves");
    reader.follow(&topic, Some(0), Start::Latest).await.ought("a reader moves");
    reader.forget();
    stage.number(&topic, 0, 6..7).await;
    reader.until("a reader that moved goes on there", |r| r.got().count() >= 1).await;
    reader.idle(QUIET).await;
    same("what comes next is from where it moved to", reader.numbers(), vec![6]);
}

async fn caught_up_is_told_once_for_each_start(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.number(&topic, 0, 0..5).await;
    let promise = "caught up is told once for each start, after what was there";
    let mut reader = stage.follow(&topic).await;
    let mut member = stage.join_new(&topic).await;
    for watched in [&mut reader, &mut member] {
        watched.until(promise, |w| w.caught_up().len() >= 2 && w.got().count() >= 5).await;
        let of_first = |seen: &Seen| matches!(seen, Seen::CaughtUp(of) if of.partition == 0);
        let told = watched.log.iter().position(|(_, seen)| of_first(seen)).ought(promise);
        let before = watched.log[..told].iter().filter(|(_, seen)| matches!(seen, Seen::Got(_))).count();
        same(promise, before, 5);
    }
    stage.number(&topic, 0, 5..8).await;
    stage.number(&topic, 1, 8..10).await;
    for watched in [&mut reader, &mut member] {
        watched.until("what comes later is delivered", |w| w.got().count() >= 10).await;
        watched.idle(QUIET).await;
        same(promise, watched.caught_up().len(), 2);
    }
    reader.follow(&topic, Some(0), Start::Earliest).await.ought("a reader moves");
    reader.until(promise, |r| r.caught_up().len() >= 3).await;
    reader.idle(QUIET).await;
    same(promise, reader.caught_up().len(), 3);
}

async fn what_does_not_exist_cannot_be_followed(stage: &Stage) {
    let topic = stage.topic(1).await;
    let missing = stage.no_topic();
    let mut reader = stage.reader().await;
    let promise = "what does not exist is refused by its name";
    let error = refused(promise, reader.follow(&missing, None, Start::Earliest).await, ErrorKind::NotFound);
    names(promise, &error, missing.as_str());
    refused(promise, reader.follow(&topic, Some(1), Start::Earliest).await, ErrorKind::NotFound);
    reader.follow(&topic, None, Start::Earliest).await.ought("a refused follow leaves the reader as it was");
    stage.number(&topic, 0, 0..1).await;
    reader.take(1).await;
}

async fn a_reader_waits_where_nothing_is_followed(stage: &Stage) {
    let topic = stage.topic(1).await;
    stage.number(&topic, 0, 0..2).await;
    let mut reader = stage.reader().await;
    reader.idle(QUIET).await;
    promised(reader.log.is_empty() && reader.end.is_none(), "a reader that follows nothing waits", || {
        reader.told()
    });
}

async fn positions_of_a_partition_grow(stage: &Stage) {
    let topic = stage.topic(2).await;
    stage.put(&topic, (0..300).map(|i| keyed(&i.to_string(), i)).collect()).await;
    let mut reader = stage.follow(&topic).await;
    let mut member = stage.join_new(&topic).await;
    for watched in [&mut reader, &mut member] {
        let got = watched.take(300).await;
        for partition in 0..2 {
            let positions = got.iter().filter(|g| g.of.partition == partition).map(|g| g.position);
            promised(positions.is_sorted_by(|a, b| a < b), "positions of one partition only grow", || {
                watched.told()
            });
        }
    }
}
