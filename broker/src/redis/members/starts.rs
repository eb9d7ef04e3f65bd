//! Where a group starts in a topic of which it has no position: decided and stored by its first member, once for all partitions.
//!
//! Partitions that are added later, and topics that are made again, start at their beginning. Not here: what a start comes to in a partition
//! (`../start.rs`), taking a partition over (`run.rs`).

use crate::redis::{
    admin::one_place,
    broker::Shared,
    description::Description,
    group_admin::Starts,
    request::Request,
    scripts,
    topics::{Topics, chosen},
};
use crate::{Error, ErrorKind, Group, Position, Result, Start, Topic};
use futures::future::{join_all, try_join_all};
use std::sync::Arc;

/// A start, as it is stored.
fn text(life: Option<u64>, positions: &[Position]) -> String {
    let life = life.map(|life| life.to_string()).unwrap_or_default();
    positions.iter().fold(life, |text, position| format!("{text} {position}"))
}

/// Where a group starts in a partition: as it was stored for this life of the topic, else at its beginning.
pub(super) fn place(starts: &Starts, description: &Description, partition: u32) -> Position {
    let life = description.life.map(|life| life.to_string()).unwrap_or_default();
    let stored = usize::try_from(partition).ok().and_then(|at| starts.positions.get(at).copied());
    stored.filter(|_| starts.life == life).unwrap_or_else(|| description.base().next())
}

/// Makes sure that it is stored where the group starts in each of the topics, and that they know of the group.
///
/// # Errors
/// `NotFound` names the topic; `Invalid` for a start that cannot be meant; those of the connection.
pub(super) async fn ensure(shared: &Shared, group: &Group, names: &[Topic], start: Start) -> Result<()> {
    let topics = shared.topics();
    let commands = &topics.commands;
    // Before it is seen whether they are there: who deletes one looks in the other order.
    let know = async |topic| {
        commands.script(&scripts::KNOW, &[topics.keys.groups_of(topic)], &[group.as_str()]).await
    };
    try_join_all(names.iter().map(know)).await?;
    let mut described = Vec::with_capacity(names.len());
    for (topic, asked) in names.iter().zip(join_all(names.iter().map(|topic| topics.ask(topic))).await) {
        match asked {
            Ok(description) => described.push((topic, description)),
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    _ = commands.one(&["SREM", &topics.keys.groups_of(topic), group.as_str()]).await;
                }
                return Err(error);
            }
        }
    }
    names.iter().for_each(|topic| shared.tasks.watch(topic));
    let starts = topics.keys.group(group).starts();
    let known = |topic: &Topic| {
        let words = ["HEXISTS".to_owned(), starts.clone(), topic.to_string()];
        async move { commands.one(&words).await }
    };
    let known = try_join_all(described.iter().map(|(topic, _)| known(topic))).await?;
    let fresh = described.into_iter().zip(known).filter(|(_, known)| known.int() != Some(1));
    let fresh: Vec<_> = fresh.map(|(fresh, _)| fresh).collect();
    let partitions: u32 = fresh.iter().map(|(_, description)| description.spec.partitions).sum();
    if let Some((topic, _)) = fresh.first() {
        one_place(topic, usize::try_from(partitions).unwrap_or(usize::MAX), start)?;
    }
    let mut request = Request::default();
    let resolved = fresh.iter().map(|(topic, description)| resolve(topics, topic, description, start));
    let resolved = try_join_all(resolved).await?;
    for ((topic, description), positions) in fresh.iter().zip(resolved) {
        let text = text(description.life, &positions);
        request.command(&["HSETNX", &starts, topic.as_str(), &text]);
    }
    let answers = commands.ask(request).await?;
    let about = format!("HSETNX {starts}");
    answers.into_iter().try_for_each(|answer| commands.checked(&about, answer).map(|_| ()))?;
    commands.script(&scripts::KNOW, &[topics.keys.groups()], &[group.as_str()]).await?;
    Ok(())
}

/// Makes the group known again where all that was stored of it is lost: it begins at the beginning.
///
/// # Errors
/// Those of the connection.
pub(super) async fn again(
    topics: &Topics,
    group: &Group,
    topic: &Topic,
    description: &Description,
) -> Result<()> {
    for key in [topics.keys.groups_of(topic), topics.keys.groups()] {
        topics.commands.script(&scripts::KNOW, &[key], &[group.as_str()]).await?;
    }
    let starts = topics.keys.group(group).starts();
    topics.commands.one(&["HSETNX", &starts, topic.as_str(), &text(description.life, &[])]).await?;
    Ok(())
}

async fn resolve(
    topics: &Topics,
    topic: &Topic,
    description: &Arc<Description>,
    start: Start,
) -> Result<Vec<Position>> {
    let keys: Vec<_> = chosen(topic, description, None)?
        .into_iter()
        .map(|partition| topics.partition(topic, description, partition))
        .collect();
    let extents = topics.extents(topic, &keys).await?;
    extents.iter().map(|extent| extent.resolve(topic, start)).collect()
}

/// What is stored of several topics.
///
/// # Errors
/// Those of the connection.
pub(super) async fn stored(topics: &Topics, key: &str, names: &[&Topic]) -> Result<Vec<Starts>> {
    let mut words = vec!["HMGET", key];
    words.extend(names.iter().map(|topic| topic.as_str()));
    let answer = topics.commands.one(&words).await?;
    let starts: Vec<_> =
        answer.items().iter().map(|text| Starts::parse(text.text().unwrap_or_default())).collect();
    if starts.len() == names.len() {
        return Ok(starts);
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("HMGET {key} answered {} of {} values", starts.len(), names.len()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_for_the_life_and_the_partitions_it_was_stored_for() {
        let description = |life| Description { life, ..Description::foreign() };
        let starts = Starts::parse(&text(Some(7), &[Position(7, 3), Position(9, 0)]));
        assert_eq!(place(&starts, &description(Some(7)), 1), Position(9, 0));
        assert_eq!(place(&starts, &description(Some(7)), 2), Position(7, 1), "added later");
        assert_eq!(place(&starts, &description(Some(8)), 1), Position(8, 1), "made again");
        let foreign = Starts::parse(&text(None, &[Position(5, 1)]));
        assert_eq!(place(&foreign, &description(None), 0), Position(5, 1));
        assert_eq!(place(&Starts::parse(""), &description(Some(7)), 0), Position(7, 1));
    }
}
