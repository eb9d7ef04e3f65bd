//! Groups from outside: which there are, their members, their committed offsets.
//!
//! Not here: how a question is asked (`admin.rs`), members themselves (`consumer.rs`).

#![expect(unsafe_code, reason = "asks by the C library, and reads what it answers")]

use super::{
    admin::{Admin, array, strange},
    code::{Code, Trouble, text},
    list::{Answered, List, Names, Place, answers, c_text, places},
    native_admin as native,
};
use rdkafka_sys::{
    rd_kafka_ConsumerGroupDescription_t, rd_kafka_MemberDescription_t, rd_kafka_group_result_t,
};
use std::{ffi::c_char, ptr, thread, time::Duration};
use tokio::time::Instant;

/// The state of a group, as the library numbers it: any number is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct GroupState(u32);

impl GroupState {
    /// Nobody says who owns what just now.
    pub(in crate::kafka) const fn is_rebalancing(self) -> bool {
        // PREPARING_REBALANCE, COMPLETING_REBALANCE
        matches!(self.0, 1 | 2)
    }

    /// There is no such group any more.
    pub(in crate::kafka) const fn is_dead(self) -> bool {
        self.0 == 4
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct GroupListing {
    pub(in crate::kafka) name: String,
    pub(in crate::kafka) state: GroupState,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct GroupDescription {
    pub(in crate::kafka) name: String,
    pub(in crate::kafka) state: GroupState,
    pub(in crate::kafka) members: Vec<MemberDescription>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct MemberDescription {
    /// What the group knows it by.
    pub(in crate::kafka) id: String,
    /// Its static name.
    pub(in crate::kafka) instance: Option<String>,
    /// What it owns; offsets mean nothing here.
    pub(in crate::kafka) assignment: Vec<Place>,
}

impl Admin {
    /// The groups that all servers that answer know of.
    pub(in crate::kafka) fn list_groups(&self, wait: Duration) -> Result<Vec<GroupListing>, Trouble> {
        settled(wait, |rest| self.list_groups_now(rest), |_| false)
    }

    fn list_groups_now(&self, wait: Duration) -> Result<Vec<GroupListing>, Trouble> {
        let event = self.asked(wait, |client, options, queue| {
            // SAFETY: client, options and queue are alive.
            unsafe { native::rd_kafka_ListConsumerGroups(client.native(), options.0, queue.native()) };
        })?;
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_ListConsumerGroups_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let errors = native::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut count);
            if let Some(trouble) = array(errors, count).iter().find_map(|error| Trouble::of(*error)) {
                return Err(trouble);
            }
            let groups = native::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut count);
            let listing = |group: &*const _| GroupListing {
                name: text(native::rd_kafka_ConsumerGroupListing_group_id(*group)),
                state: GroupState(native::rd_kafka_ConsumerGroupListing_state(*group)),
            };
            Ok(array(groups, count).iter().map(listing).collect())
        }
    }

    /// What these groups are like, one answer each.
    pub(in crate::kafka) fn describe_groups(&self, names: &[String], wait: Duration) -> Described {
        let moves = |told: &Vec<Result<_, Trouble>>| told.iter().any(|told| is_passing(told.as_ref().err()));
        settled(wait, |rest| self.describe_groups_now(names, rest), moves)
    }

    fn describe_groups_now(&self, names: &[String], wait: Duration) -> Described {
        let c_names = names.iter().map(|name| c_text(name)).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = c_names.iter().map(|name| name.as_ptr()).collect();
        let Some(first) = names.first() else { return Ok(Vec::new()) };
        let event = self.asked_of_group(first, wait, |client, options, queue| {
            // SAFETY: client, options and queue are alive; the names end in NUL, are as many as is said, and are copied.
            unsafe {
                native::rd_kafka_DescribeConsumerGroups(
                    client.native(),
                    pointers.as_mut_ptr(),
                    pointers.len(),
                    options.0,
                    queue.native(),
                );
            }
        })?;
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_DescribeConsumerGroups_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            Ok(array(groups, count).iter().map(|group| described(*group)).collect())
        }
    }

    /// All offsets that a group committed, with what stands beside them. None of a group that does not exist.
    pub(in crate::kafka) fn group_offsets(&self, group: &str, wait: Duration) -> Result<Vec<Place>, Trouble> {
        settled(wait, |rest| self.group_offsets_now(group, rest), |_| false)
    }

    fn group_offsets_now(&self, group: &str, wait: Duration) -> Result<Vec<Place>, Trouble> {
        let name = c_text(group)?;
        let event = self.asked_of_group(group, wait, |client, options, queue| {
            // SAFETY: client, options and queue are alive. The name ends in NUL and is copied; no list means all partitions. The question is ours, is
            // copied, and is destroyed after the call.
            unsafe {
                let mut question = native::rd_kafka_ListConsumerGroupOffsets_new(name.as_ptr(), ptr::null());
                native::rd_kafka_ListConsumerGroupOffsets(
                    client.native(),
                    &raw mut question,
                    1,
                    options.0,
                    queue.native(),
                );
                native::rd_kafka_ListConsumerGroupOffsets_destroy(question);
            }
        })?;
        let mut names = Names::default();
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_ListConsumerGroupOffsets_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let groups = native::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            let group = one(array(groups, count))?;
            Ok(places(native::rd_kafka_group_result_partitions(group), &mut names))
        }
    }

    /// Sets offsets of a group that has no members, with what stands beside them; makes the group. What became of each.
    pub(in crate::kafka) fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &[Place],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let moves = |answers: &Vec<Answered>| answers.iter().any(|(_, told)| is_passing(told.as_ref().err()));
        settled(wait, |rest| self.alter_group_offsets_now(group, offsets, rest), moves)
    }

    fn alter_group_offsets_now(
        &self,
        group: &str,
        offsets: &[Place],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let (name, list) = (c_text(group)?, List::of(offsets)?);
        let event = self.asked_of_group(group, wait, |client, options, queue| {
            // SAFETY: client, list, options and queue are alive. The name ends in NUL; it and the list are copied. The question is ours, is copied, and is
            // destroyed after the call.
            unsafe {
                let mut question =
                    native::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), list.native());
                native::rd_kafka_AlterConsumerGroupOffsets(
                    client.native(),
                    &raw mut question,
                    1,
                    options.0,
                    queue.native(),
                );
                native::rd_kafka_AlterConsumerGroupOffsets_destroy(question);
            }
        })?;
        let mut names = Names::default();
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_AlterConsumerGroupOffsets_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let groups = native::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
            let group = one(array(groups, count))?;
            Ok(answers(native::rd_kafka_group_result_partitions(group), &mut names))
        }
    }

    /// Forgets a group that has no members.
    pub(in crate::kafka) fn delete_group(&self, group: &str, wait: Duration) -> Result<(), Trouble> {
        settled(wait, |rest| self.delete_group_now(group, rest), |()| false)
    }

    fn delete_group_now(&self, group: &str, wait: Duration) -> Result<(), Trouble> {
        let name = c_text(group)?;
        let event = self.asked_of_group(group, wait, |client, options, queue| {
            // SAFETY: client, options and queue are alive. The name ends in NUL and is copied. The question is ours, is copied, and is destroyed after the
            // call.
            unsafe {
                let mut question = native::rd_kafka_DeleteGroup_new(name.as_ptr());
                native::rd_kafka_DeleteGroups(
                    client.native(),
                    &raw mut question,
                    1,
                    options.0,
                    queue.native(),
                );
                native::rd_kafka_DeleteGroup_destroy(question);
            }
        })?;
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_DeleteGroups_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let groups = native::rd_kafka_DeleteGroups_result_groups(result, &raw mut count);
            one(array(groups, count)).map(drop)
        }
    }
}

/// What groups are like, one answer each.
type Described = Result<Vec<Result<GroupDescription, Trouble>>, Trouble>;

/// The pause before a question is asked again that no coordinator has answered.
const AGAIN: Duration = Duration::from_millis(100);

/// Asks, with the time that is left; while a group has no coordinator that answers (servers that were just started, or one that moves), again, for `wait` at
/// most. All that is asked here may be asked twice.
fn settled<T>(
    wait: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, Trouble>,
    moves: impl Fn(&T) -> bool,
) -> Result<T, Trouble> {
    let until = Instant::now() + wait;
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let answer = ask(rest);
        let again = answer.as_ref().map_or_else(|trouble| is_passing(Some(trouble)), &moves);
        if !again || until.saturating_duration_since(Instant::now()) <= AGAIN {
            return answer;
        }
        thread::sleep(AGAIN);
    }
}

/// Whether a group has no coordinator just now, but will have one.
fn is_passing(trouble: Option<&Trouble>) -> bool {
    const MOVES: [Code; 3] =
        [Code::COORDINATOR_LOAD_IN_PROGRESS, Code::COORDINATOR_NOT_AVAILABLE, Code::NOT_COORDINATOR];
    trouble.is_some_and(|trouble| MOVES.contains(&trouble.code))
}

/// The one group that was asked for.
///
/// # Safety
/// Each belongs to an event that is alive.
unsafe fn one(groups: &[*const rd_kafka_group_result_t]) -> Result<*const rd_kafka_group_result_t, Trouble> {
    let group = *groups.first().ok_or_else(strange)?;
    // SAFETY: as the caller promises.
    match unsafe { Trouble::of(native::rd_kafka_group_result_error(group)) } {
        Some(trouble) => Err(trouble),
        None => Ok(group),
    }
}

/// # Safety
/// It belongs to an event that is alive.
unsafe fn described(group: *const rd_kafka_ConsumerGroupDescription_t) -> Result<GroupDescription, Trouble> {
    // SAFETY: as the caller promises; there are as many members as is said; texts end in NUL.
    unsafe {
        if let Some(trouble) = Trouble::of(native::rd_kafka_ConsumerGroupDescription_error(group)) {
            return Err(trouble);
        }
        let count = native::rd_kafka_ConsumerGroupDescription_member_count(group);
        let members = (0..count).map(|index| native::rd_kafka_ConsumerGroupDescription_member(group, index));
        Ok(GroupDescription {
            name: text(native::rd_kafka_ConsumerGroupDescription_group_id(group)),
            state: GroupState(native::rd_kafka_ConsumerGroupDescription_state(group)),
            members: members
                .filter(|member| !member.is_null())
                .map(|member| described_member(member))
                .collect(),
        })
    }
}

/// # Safety
/// It belongs to an event that is alive.
unsafe fn described_member(member: *const rd_kafka_MemberDescription_t) -> MemberDescription {
    let mut names = Names::default();
    // SAFETY: as the caller promises; texts end in NUL, and are null where there are none.
    unsafe {
        let instance = native::rd_kafka_MemberDescription_group_instance_id(member);
        let assignment = native::rd_kafka_MemberDescription_assignment(member);
        let assigned = if assignment.is_null() {
            Vec::new()
        } else {
            places(native::rd_kafka_MemberAssignment_partitions(assignment), &mut names)
        };
        MemberDescription {
            id: text(native::rd_kafka_MemberDescription_consumer_id(member)),
            instance: (!instance.is_null()).then(|| text(instance)).filter(|name| !name.is_empty()),
            assignment: assigned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_again_while_a_coordinator_moves_and_no_longer_than_it_may() {
        for code in [14, 15, 16] {
            let mut asked = 0;
            let answer = settled(
                Duration::from_secs(10),
                |_| {
                    asked += 1;
                    if asked < 3 { Err(Trouble::new(Code(code), "")) } else { Ok(asked) }
                },
                |_| false,
            );
            assert_eq!(answer.unwrap(), 3, "{code}");
        }
        let began = Instant::now();
        let mut asked = 0;
        let answer = settled(
            Duration::from_millis(1500),
            |rest| {
                assert!(rest <= Duration::from_millis(1500));
                asked += 1;
                Ok(vec![Err::<(), _>(Trouble::new(Code(16), ""))])
            },
            |told: &Vec<Result<(), Trouble>>| told.iter().any(|told| is_passing(told.as_ref().err())),
        );
        assert!(answer.unwrap()[0].is_err() && (2..=16).contains(&asked), "{asked}");
        assert!(began.elapsed() < Duration::from_secs(15));
        let mut asked = 0;
        let refused: Result<(), _> = settled(
            Duration::from_secs(10),
            |_| {
                asked += 1;
                Err(Trouble::new(Code::NON_EMPTY_GROUP, ""))
            },
            |()| false,
        );
        assert_eq!((refused.unwrap_err().code, asked), (Code::NON_EMPTY_GROUP, 1));
    }
}
