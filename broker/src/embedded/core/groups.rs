//! Groups: who joins, who leaves, and who should own what.
//!
//! Not here: how a partition changes hands (`handover.rs`), acks (`cursors.rs`).

use super::{
    Core, MemberId, Step,
    member::{Member, Share, Told},
};
use crate::{
    Bound, Error, ErrorKind, Event, GoneReason, Group, Result, Start, Subscription, Topic,
    balance::{Candidate, TopicPartition, balance},
    embedded::state::{LAST_EPOCH, cursor_key, encode_number, group_key},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

impl Core {
    /// Adds a member; what it owns is told by its first event.
    pub(in crate::embedded) fn subscribe(
        &mut self,
        step: &mut Step,
        subscription: &Subscription,
    ) -> Result<MemberId> {
        self.writable()?;
        subscription.check()?;
        let mut fresh = 0;
        for topic in &subscription.topics {
            let life = self.life(topic)?;
            if !self.has_position(&subscription.group, topic) {
                fresh += self.topic(topic)?.count();
            }
            if let Start::At(position) | Start::After(position) = subscription.start
                && position.0 != life
                && !self.has_position(&subscription.group, topic)
            {
                return Err(super::search::other_life(topic, position));
            }
        }
        super::search::of_one(subscription.start, fresh)?;
        let group = subscription.group.clone();
        let id = self.new_id();
        let name = match &subscription.member {
            Some(name) => name.to_string(),
            None => self.made_name(&group, id),
        };
        let older = self.groups.entry(group.clone()).or_default().members.insert(name.clone(), id);
        if let Some(older) = older {
            self.depose(step, older, &name);
        }
        self.members.insert(
            id,
            Member {
                group: group.clone(),
                name,
                is_static: subscription.member.is_some(),
                topics: subscription.topics.iter().cloned().collect(),
                start: subscription.start,
                bound: subscription.in_flight,
                ack_interval: subscription.ack_interval,
                drain: subscription.drain,
                owned: HashMap::new(),
                in_flight: Bound { messages: 0, bytes: 0 },
                told: VecDeque::new(),
                ready: VecDeque::new(),
                waiting: Vec::new(),
                dirty: Vec::new(),
                waker: None,
                leaving: false,
                ended: None,
                over: false,
                unacked: Vec::new(),
                closers: Vec::new(),
            },
        );
        self.note_seen(step, &group);
        self.rebalance(step, &group, None);
        let told = step.told.iter().any(|(member, told)| *member == id && matches!(told, Told::Assigned(_)));
        if !told {
            step.tell(id, Told::Assigned(Vec::new()));
        }
        Ok(id)
    }

    fn made_name(&self, group: &Group, id: MemberId) -> String {
        let taken = |name: &String| self.groups.get(group).is_some_and(|g| g.members.contains_key(name));
        let mut name = format!("member-{id}");
        while taken(&name) {
            name.push('x');
        }
        name
    }

    /// A newcomer of the same static name takes over.
    fn depose(&mut self, step: &mut Step, older: MemberId, name: &str) {
        let Some(member) = self.members.get_mut(&older) else { return };
        member.leaving = true;
        member.ended = Some(Error::new(
            ErrorKind::Fenced,
            format!("another member of group {:?} has taken the name {name:?} over", member.group),
        ));
        for share in self.shares_of(older) {
            self.release(step, share, GoneReason::Lost);
            if let Some(share) = self.shares.get_mut(&share) {
                share.target = Some(name.to_owned());
            }
        }
        self.end_member(step, older);
    }

    /// Changes what a member consumes.
    pub(in crate::embedded) fn set_topics(
        &mut self,
        step: &mut Step,
        id: MemberId,
        topics: &[Topic],
    ) -> Result<()> {
        self.writable()?;
        for topic in topics {
            self.life(topic)?;
        }
        let Some(member) = self.members.get_mut(&id).filter(|member| !member.leaving) else {
            return Err(Error::new(ErrorKind::Closed, "the consumer is closed; subscribe again"));
        };
        member.topics = topics.iter().cloned().collect();
        let group = member.group.clone();
        self.rebalance(step, &group, None);
        Ok(())
    }

    /// Removes a member whose consumer was dropped: everything it owned is for the next owner.
    pub(in crate::embedded) fn leave(&mut self, step: &mut Step, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.leaving = true;
        for share in self.shares_of(id) {
            self.release(step, share, GoneReason::Closed);
        }
        self.finish_close(step, id);
        self.members.remove(&id);
    }

    /// Takes a member out of its group, so that others get what it had.
    pub(super) fn detach(&mut self, step: &mut Step, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.leaving = true;
        let group = member.group.clone();
        if let Some(state) = self.groups.get_mut(&group)
            && state.members.get(&member.name) == Some(&id)
        {
            let name = member.name.clone();
            state.members.remove(&name);
            self.note_seen(step, &group);
        }
        self.rebalance(step, &group, None);
    }

    /// Decides who should own what, and starts to bring it about. `avoid`: what somebody has just given up, and who.
    pub(super) fn rebalance(
        &mut self,
        step: &mut Step,
        group: &Group,
        avoid: Option<(TopicPartition, &str)>,
    ) {
        if self.writable().is_err() {
            return;
        }
        let wanted = self.wanted(group, avoid);
        self.add_shares(group, wanted.keys());
        let Some(state) = self.groups.get(group) else { return };
        // All partitions of a topic of which the group has nothing start where the member says.
        let topics: BTreeSet<&Topic> = wanted.keys().map(|(topic, _)| topic).collect();
        let fresh: BTreeSet<Topic> =
            topics.into_iter().filter(|topic| !self.has_position(group, topic)).cloned().collect();
        let mut assigned: BTreeMap<MemberId, Vec<_>> = BTreeMap::new();
        let mut revoked: BTreeMap<MemberId, Vec<_>> = BTreeMap::new();
        let shares: Vec<_> = state.shares.iter().map(|(key, id)| (key.clone(), *id)).collect();
        let members = state.members.clone();
        for (key, id) in shares {
            let target = wanted.get(&key);
            let Some(share) = self.shares.get_mut(&id) else { continue };
            share.target = target.cloned();
            let to = target.and_then(|name| members.get(name).copied());
            match (share.owner, to) {
                (Some(owner), to) if Some(owner) != to && !share.revoking => {
                    revoked.entry(owner).or_default().push(id);
                }
                (None, Some(to)) => {
                    if let Some(assignment) = self.assign(step, id, to, fresh.contains(&key.0)) {
                        assigned.entry(to).or_default().push((id, assignment));
                    }
                }
                _ => {}
            }
        }
        for (member, shares) in revoked {
            self.revoke(step, member, shares);
        }
        for (member, list) in assigned {
            step.tell(member, Told::Assigned(list));
        }
    }

    fn wanted(
        &self,
        group: &Group,
        avoid: Option<(TopicPartition, &str)>,
    ) -> BTreeMap<TopicPartition, String> {
        let Some(state) = self.groups.get(group) else { return BTreeMap::new() };
        let candidates: Vec<Candidate> = state
            .members
            .iter()
            .filter_map(|(name, id)| Some((name, self.members.get(id)?)))
            .filter(|(_, member)| !member.leaving)
            .map(|(name, member)| Candidate { name: name.clone(), topics: member.topics.clone() })
            .collect();
        let topics: BTreeSet<&Topic> = candidates.iter().flat_map(|member| &member.topics).collect();
        let partitions: BTreeSet<TopicPartition> = topics
            .into_iter()
            .filter_map(|topic| Some((topic, self.topic(topic).ok()?.count())))
            .flat_map(|(topic, count)| (0..count).map(move |partition| (topic.clone(), partition)))
            .collect();
        let mut current = BTreeMap::new();
        let mut preferred = BTreeMap::new();
        for (key, id) in &state.shares {
            let Some(share) = self.shares.get(id) else { continue };
            let owner = share.owner.and_then(|owner| self.members.get(&owner)).map(|member| &member.name);
            let holder = if share.owner.is_none() || share.revoking { share.target.as_ref() } else { owner };
            if let Some(name) = holder {
                current.insert(key.clone(), name.clone());
            }
            if !share.home.is_empty() {
                preferred.insert(key.clone(), share.home.clone());
            }
        }
        if let Some((key, _)) = &avoid {
            current.remove(key);
            preferred.remove(key);
        }
        let mut wanted = balance(&partitions, &candidates, &current, &preferred);
        if let Some((key, giver)) = avoid {
            let load = |name: &str| wanted.values().filter(|owner| *owner == name).count();
            let others = candidates.iter().filter(|c| c.name != giver && c.topics.contains(&key.0));
            if let Some(taker) = others.min_by_key(|c| load(&c.name)) {
                wanted.insert(key, taker.name.clone());
            }
        }
        wanted
    }

    fn add_shares<'a>(&mut self, group: &Group, keys: impl Iterator<Item = &'a TopicPartition>) {
        for key in keys {
            let Some(state) = self.groups.get_mut(group) else { return };
            if !state.shares.contains_key(key) {
                self.last_id += 1;
                state.shares.insert(key.clone(), self.last_id);
                self.shares.insert(self.last_id, Share::new(group.clone(), key.0.clone(), key.1));
            }
        }
    }

    /// Whether the group has a position in any partition of a topic, of this life or an earlier one.
    pub(super) fn has_position(&self, group: &Group, topic: &Topic) -> bool {
        let mut shares = self.groups.get(group).into_iter().flat_map(|state| state.shares_of(topic));
        shares.any(|id| self.shares.get(&id).is_some_and(|share| share.position().is_some()))
    }

    /// The names of a group's members, where it has any.
    fn conflict(&self, group: &Group) -> Result<()> {
        let Some(state) = self.groups.get(group).filter(|state| !state.members.is_empty()) else {
            return Ok(());
        };
        let names: Vec<&str> = state.members.keys().map(String::as_str).collect();
        Err(Error::new(
            ErrorKind::Conflict,
            format!("group {group:?} has members: {}; stop them first", names.join(", ")),
        ))
    }

    /// Sets the position of a group.
    pub(in crate::embedded) fn seek_group(
        &mut self,
        step: &mut Step,
        group: &Group,
        topic: &Topic,
        partition: Option<u32>,
        to: Start,
    ) -> Result<()> {
        self.writable()?;
        let chosen = self.chosen(topic, partition)?;
        super::search::of_one(to, chosen.end - chosen.start)?;
        self.conflict(group)?;
        let life = self.life(topic)?;
        let offsets = chosen
            .map(|partition| Ok((partition, self.resolve(life, partition, to)?)))
            .collect::<Result<Vec<_>>>()?;
        self.groups.entry(group.clone()).or_default();
        self.note_seen(step, group);
        let keys: Vec<TopicPartition> = offsets.iter().map(|(p, _)| (topic.clone(), *p)).collect();
        self.add_shares(group, keys.iter());
        for (key, (_, offset)) in keys.iter().zip(offsets) {
            let id = self.groups.get(group).and_then(|state| state.shares.get(key)).copied();
            let Some(share) = id.and_then(|id| self.shares.get_mut(&id)) else { continue };
            share.before = None;
            share.life = life;
            share.window = Some(crate::AckWindow::new(crate::Position(life, offset)));
            step.cursors.extend(id);
        }
        Ok(())
    }

    /// Forgets a group.
    pub(in crate::embedded) fn delete_group(&mut self, step: &mut Step, group: &Group) -> Result<()> {
        self.writable()?;
        if !self.groups.contains_key(group) {
            return Err(no_group(group));
        }
        self.conflict(group)?;
        let Some(state) = self.groups.remove(group) else { return Ok(()) };
        step.batch.delete(self.spaces.state, group_key(group));
        for ((topic, partition), id) in state.shares {
            step.cursors.remove(&id);
            step.batch.delete(self.spaces.state, cursor_key(group, &topic, partition));
            if let Some(epoch) = self.shares.remove(&id).and_then(|share| share.epoch) {
                self.last_epoch = self.last_epoch.max(epoch.0);
            }
        }
        step.batch.put(self.spaces.state, Bytes::from_static(LAST_EPOCH), encode_number(self.last_epoch));
        Ok(())
    }

    /// The partitions that a member owns.
    pub(super) fn shares_of(&self, id: MemberId) -> Vec<super::ShareId> {
        let mut shares: Vec<_> =
            self.members.get(&id).map(|m| m.owned.values().copied().collect()).unwrap_or_default();
        shares.sort_unstable();
        shares
    }

    /// Tells a member of something that happened to it.
    pub(super) fn tell_event(&self, step: &mut Step, id: MemberId, event: Event) {
        if self.members.contains_key(&id) {
            step.tell(id, Told::Event(event));
        }
    }
}

pub(super) fn no_group(group: &Group) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no group {group:?}"))
}
