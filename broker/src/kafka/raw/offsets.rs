//! Where partitions begin and end, and which offset a time has.
//!
//! Each asks a server and blocks; the first after a pause takes about half a second. Not here: what a group has committed (`commit.rs`), the same for many
//! partitions at once (`admin.rs`).

#![expect(unsafe_code, reason = "asks for offsets by the C library")]

use super::{
    code::{Code, Trouble},
    consumer::Consumer,
    list::{Answered, List, OFFSET_INVALID, Place, c_text},
    native,
    queue::millis,
};
use std::time::Duration;

impl Consumer {
    /// The first offset of a partition, and the one behind its last. Blocks, for `wait` at most.
    pub(in crate::kafka) fn watermarks(
        &self,
        topic: &str,
        partition: i32,
        wait: Duration,
    ) -> Result<(i64, i64), Trouble> {
        let name = c_text(topic)?;
        let (mut low, mut high) = (OFFSET_INVALID, OFFSET_INVALID);
        let client = &self.parts()?.client;
        // SAFETY: the client is alive; the name ends in NUL; both numbers are written.
        let code = unsafe {
            let (low, high) = (&raw mut low, &raw mut high);
            native::rd_kafka_query_watermark_offsets(
                client.native(),
                name.as_ptr(),
                partition,
                low,
                high,
                millis(wait),
            )
        };
        Code(code).check()?;
        client.told().heard();
        Ok((low, high))
    }

    /// The same as of the latest fetch, without asking. None where it is not read, or nothing was fetched yet.
    pub(in crate::kafka) fn cached_watermarks(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let name = c_text(topic).ok()?;
        let (mut low, mut high) = (OFFSET_INVALID, OFFSET_INVALID);
        // SAFETY: the client is alive; the name ends in NUL; both numbers are written.
        let code = unsafe {
            let (low, high) = (&raw mut low, &raw mut high);
            native::rd_kafka_get_watermark_offsets(
                self.parts().ok()?.client.native(),
                name.as_ptr(),
                partition,
                low,
                high,
            )
        };
        (code == 0 && high >= 0).then_some((low, high))
    }

    /// The offset of the first record that is not older than the time (in ms) that stands in place of each offset;
    /// [`OFFSET_END`](super::OFFSET_END) where there is none. Blocks, for `wait` at most.
    pub(in crate::kafka) fn offsets_for_times(
        &mut self,
        places: &[Place],
        wait: Duration,
    ) -> Result<Vec<Answered>, Trouble> {
        let list = List::of(places)?;
        let (open, names) = self.parts_mut()?;
        // SAFETY: the client is alive; the list is ours, and is filled in.
        Code(unsafe {
            native::rd_kafka_offsets_for_times(open.client.native(), list.native(), millis(wait))
        })
        .check()?;
        open.client.told().heard();
        Ok(list.answers(names))
    }
}
