//! Which records of a batch were written: one block of memory a batch, in which each record has a slot, and one call at the end.
//!
//! A record carries the address of its slot through the library. Its report (or the call that refused it) fills the slot in and counts it; who counts
//! the last one owns the block. Not here: the calls (`producer.rs`).

#![expect(unsafe_code, reason = "passes the addresses of slots through the C library")]

use super::code::Code;
use std::{
    cell::UnsafeCell,
    ffi::c_void,
    iter,
    mem::ManuallyDrop,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Whether a record is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Written {
    /// It is, as `acks` asks for.
    Yes,
    /// It is not, and will not be.
    No,
    /// It may be, or may yet come to be.
    Perhaps,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Report {
    /// By the status that the library gives, and by nothing else: codes are ambiguous.
    pub(in crate::kafka) written: Written,
    /// Why it is not.
    pub(in crate::kafka) code: Code,
    pub(in crate::kafka) partition: i32,
    /// Where, if that is known. Else -1, also of some that were written.
    pub(in crate::kafka) offset: i64,
}

/// What is called with the reports of a batch, in its order.
pub(in crate::kafka) type Done = Box<dyn FnOnce(Vec<Report>) + Send>;

/// Where the report of one record goes.
struct Slot {
    block: *const Block,
    report: UnsafeCell<Report>,
}

/// A batch whose records are being written.
struct Block {
    /// How many slots are not filled in, and one while the batch is being sent.
    left: AtomicUsize,
    /// How many records there were. Written by who sends before it counts its share, read by who owns the block.
    given: UnsafeCell<usize>,
    slots: Box<[Slot]>,
    done: Done,
    open: Arc<AtomicUsize>,
}

/// A batch that is being sent. Dropped, it counts what nobody else will, so that a panic of who gives the records loses no report.
pub(super) struct Sending {
    block: *mut Block,
    /// How many it has to count: slots that the library did not take over, and one for itself.
    owed: usize,
    given: usize,
}

impl Sending {
    /// A block of so many slots. `open` counts the batches whose `done` has not been called, from here on this one, too.
    pub(super) fn new(slots: usize, done: Done, open: &Arc<AtomicUsize>) -> Self {
        let unknown = Report { written: Written::Perhaps, code: Code::UNKNOWN, partition: -1, offset: -1 };
        let slots: Box<[Slot]> =
            iter::repeat_with(|| Slot { block: ptr::null(), report: UnsafeCell::new(unknown) })
                .take(slots)
                .collect();
        let owed = slots.len() + 1;
        open.fetch_add(1, Ordering::Relaxed);
        let (left, given, open) = (AtomicUsize::new(owed), UnsafeCell::new(0), Arc::clone(open));
        let block = Box::into_raw(Box::new(Block { left, given, slots, done, open }));
        // SAFETY: the block was just made, and nobody else knows of it.
        unsafe { (*block).slots.iter_mut().for_each(|slot| slot.block = block) };
        Self { block, owed, given: 0 }
    }

    /// The address of the slot of the next record. None where there are no more.
    pub(super) fn next(&mut self) -> Option<*mut c_void> {
        let slot = self.slots().get(self.given)?;
        let address = ptr::from_ref(slot).cast_mut().cast();
        self.given += 1;
        Some(address)
    }

    /// The library took the record of the latest slot over, and will report it.
    pub(super) fn accepted(&mut self) {
        self.owed -= 1;
    }

    /// The library refused the record of the latest slot.
    pub(super) fn refused(&mut self, code: Code, partition: i32) {
        if let Some(slot) = self.given.checked_sub(1).and_then(|latest| self.slots().get(latest)) {
            // SAFETY: the library did not take the slot over, so nobody else writes it, and nobody reads it before this has counted.
            unsafe { *slot.report.get() = Report { written: Written::No, code, partition, offset: -1 } };
        }
    }

    /// Whether the library has taken none over.
    pub(super) fn none_accepted(&self) -> bool {
        self.owed == self.slots().len() + 1
    }

    /// Nothing more comes. The batch, if nothing is left to be reported.
    pub(super) fn end(self) -> Option<Finished> {
        ManuallyDrop::new(self).count()
    }

    fn count(&mut self) -> Option<Finished> {
        // SAFETY: the block lives until `owed` is counted, which is done here, once. `given` is written by this alone, and read after that.
        unsafe {
            *(*self.block).given.get() = self.given;
            count(self.block, self.owed)
        }
    }

    fn slots(&self) -> &[Slot] {
        // SAFETY: the block lives until `owed` is counted, after which there is no `self`. Its slots do not move, and only change within their cells.
        unsafe { &(*self.block).slots }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(finished) = self.count() {
            finished.tell();
        }
    }
}

/// Fills in the slot of a record that the library took over.
///
/// # Safety
/// `slot` came from [`Sending::next`], its record was [`accepted`](Sending::accepted), and this is called for it once.
pub(super) unsafe fn report(slot: *mut c_void, report: Report) -> Option<Finished> {
    // SAFETY: the block lives until all its slots are counted, and this one has not been. Nobody else writes it, and nobody reads it before.
    let block = unsafe {
        let slot = slot.cast::<Slot>();
        *(*slot).report.get() = report;
        (*slot).block.cast_mut()
    };
    // SAFETY: as above; from here on nothing of the block is touched.
    unsafe { count(block, 1) }
}

/// Counts slots. Who counts the last one owns the block.
///
/// # Safety
/// `block` lives, and the caller has not counted these before.
unsafe fn count(block: *mut Block, slots: usize) -> Option<Finished> {
    // SAFETY: it lives, at least until this has counted. What was written to slots happens before (release) who counts the last one reads (acquire).
    let before = unsafe { (*block).left.fetch_sub(slots, Ordering::AcqRel) };
    // SAFETY: nobody else has anything left to count, so nobody touches it any more; it came from `into_raw`.
    (before == slots).then(|| Finished(unsafe { Box::from_raw(block) }))
}

/// A batch of which everything is known.
pub(super) struct Finished(Box<Block>);

// SAFETY: its pointers lead to itself, and what it calls is `Send`.
unsafe impl Send for Finished {}

impl Finished {
    /// Calls who waits for it, with what became of the records.
    pub(super) fn tell(self) {
        let Block { given, slots, done, open, .. } = *self.0;
        let reports =
            slots.into_iter().take(given.into_inner()).map(|slot| slot.report.into_inner()).collect();
        // Counted when the call has returned, also by a panic.
        let _counted = Counted(open);
        done(reports);
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
