//! Which partitions a consumer reads: what it subscribes to, its answers to the group, what it pauses, who it is in the group.
//!
//! Not here: what the group tells (`rebalance.rs`).

#![expect(unsafe_code, reason = "assigns, pauses and asks for membership by the C library")]

use super::{
    code::{Code, Trouble, text},
    consumer::Consumer,
    list::{List, Place},
    native,
};
use std::{ptr, sync::Arc};

impl Consumer {
    /// Joins the group for these topics, in place of those before. What it is given comes as [`Told::Assigned`](super::Told::Assigned).
    pub(in crate::kafka) fn subscribe(&self, topics: &[&str]) -> Result<(), Trouble> {
        let places: Vec<Place> =
            topics.iter().map(|topic| Place::new(&Arc::from(*topic), -1, super::OFFSET_INVALID)).collect();
        let list = List::of(&places)?;
        // SAFETY: the client is alive; the list is copied.
        Code(unsafe { native::rd_kafka_subscribe(self.parts()?.client.native(), list.native()) }).check()
    }

    /// Reads exactly these partitions, each from its offset: of a consumer without a group, or as the answer to a group whose protocol is eager. None ends
    /// reading.
    pub(in crate::kafka) fn assign(&self, places: &[Place]) -> Result<(), Trouble> {
        let list = List::of(places)?;
        let open = self.parts()?;
        let given = if places.is_empty() { ptr::null_mut() } else { list.native() };
        // SAFETY: the client is alive; the list is copied, and null means none.
        Code(unsafe { native::rd_kafka_assign(open.client.native(), given) }).check()?;
        open.client.told().changes.answered();
        self.stopped();
        Ok(())
    }

    /// Reads these partitions as well, each from its offset. As the answer to [`Told::Assigned`](super::Told::Assigned): also where they are none.
    pub(in crate::kafka) fn incremental_assign(&self, places: &[Place]) -> Result<(), Trouble> {
        let list = List::of(places)?;
        let open = self.parts()?;
        // SAFETY: the client is alive; the list is copied; the error is ours.
        unsafe { Trouble::take(native::rd_kafka_incremental_assign(open.client.native(), list.native())) }?;
        open.client.told().changes.answered();
        Ok(())
    }

    /// Reads these partitions no longer. As the answer to [`Told::Revoked`](super::Told::Revoked).
    pub(in crate::kafka) fn incremental_unassign(&self, places: &[Place]) -> Result<(), Trouble> {
        let list = List::of(places)?;
        let open = self.parts()?;
        // SAFETY: the client is alive; the list is copied; the error is ours.
        unsafe { Trouble::take(native::rd_kafka_incremental_unassign(open.client.native(), list.native())) }?;
        open.client.told().changes.answered();
        self.stopped();
        Ok(())
    }

    /// Waits until what was taken away is not read any more. The library (2.12.1) ends the process where a partition is given again, and taken away once more,
    /// before it has stopped to read it. Stopping goes by its main thread twice, which does what it is handed in order, and answers who asks for the
    /// membership.
    fn stopped(&self) {
        for _ in 0..2 {
            self.membership();
        }
    }

    /// Reads nothing more of these partitions for now. What the library has of them already is dropped, and read again later.
    pub(in crate::kafka) fn pause(&self, places: &[Place]) -> Result<(), Trouble> {
        let list = List::of(places)?;
        // SAFETY: the client is alive; the list is ours, and codes are filled in.
        Code(unsafe { native::rd_kafka_pause_partitions(self.parts()?.client.native(), list.native()) })
            .check()?;
        list.check()
    }

    /// Reads them again.
    pub(in crate::kafka) fn resume(&self, places: &[Place]) -> Result<(), Trouble> {
        let list = List::of(places)?;
        // SAFETY: the client is alive; the list is ours, and codes are filled in.
        Code(unsafe { native::rd_kafka_resume_partitions(self.parts()?.client.native(), list.native()) })
            .check()?;
        list.check()
    }

    /// The generation (or epoch) of its membership, and its id in the group. None while it is no member.
    pub(in crate::kafka) fn membership(&self) -> Option<(i32, String)> {
        // SAFETY: the client is alive. What is answered is null or ours, is read before it is destroyed, and its text belongs to it.
        unsafe {
            let membership = native::rd_kafka_consumer_group_metadata(self.parts().ok()?.client.native());
            if membership.is_null() {
                return None;
            }
            let generation = native::rd_kafka_consumer_group_metadata_generation_id(membership);
            let member = text(native::rd_kafka_consumer_group_metadata_member_id(membership));
            native::rd_kafka_consumer_group_metadata_destroy(membership);
            (!member.is_empty()).then_some((generation, member))
        }
    }
}
