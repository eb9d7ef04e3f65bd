//! Which records of a batch were written: one block of memory a batch, in which each record has a slot, and one call at the end.
//!
//! A record carries the address of its slot through the library. Its report (or the call that refused it) fills the slot in and counts it; who counts
//! the last one owns the block. Not here: the calls (`producer.rs`).

#![expect(unsafe_code, reason = "passes the addresses of slots through the C library")]

use super::code::Code;
use std::{
    any::Any,
    cell::UnsafeCell,
    ffi::c_void,
    mem, ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    /// By the status and the offset that the library gives, and by nothing else: codes are ambiguous.
    pub(in crate::kafka) written: Written,
    /// Why it is not.
    pub(in crate::kafka) code: Code,
    pub(in crate::kafka) partition: i32,
    /// Where, if it is written. Else -1.
    pub(in crate::kafka) offset: i64,
}

/// Of a record of which nothing was said.
const UNKNOWN: Report = Report { written: Written::Perhaps, code: Code::UNKNOWN, partition: -1, offset: -1 };

/// What is called with the reports of a batch, in its order.
pub(in crate::kafka) type Done = Box<dyn FnOnce(Vec<Report>) + Send>;

/// What the library reads until all records of a batch are reported.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// Where the report of one record goes.
struct Slot {
    block: *const Block,
    /// Whether `report` is written, which is done once.
    filled: AtomicBool,
    report: UnsafeCell<Report>,
}

/// A batch whose records are being written.
struct Block {
    /// How many slots are not counted, and one while the batch is being sent.
    left: AtomicUsize,
    /// How many records there were; while it is being sent: how many slots there are.
    given: AtomicUsize,
    slots: Box<[Slot]>,
    /// Whom to tell, and what is kept until then.
    done: Mutex<Option<(Done, Kept)>>,
    open: Arc<AtomicUsize>,
}

// SAFETY: its pointers lead to itself and do not change. A report is written by one thread, before `filled`, and read by others after it.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// The reports that are there, one for each record.
    fn reports(&self) -> impl Iterator<Item = Option<Report>> {
        self.slots.iter().take(self.given.load(Ordering::Acquire)).map(|slot| {
            // SAFETY: it was written before `filled` (release, acquire), and nobody writes it again.
            slot.filled.load(Ordering::Acquire).then(|| unsafe { *slot.report.get() })
        })
    }
}

/// A batch that was sent, for who does not want to wait any longer. Dropping it changes nothing.
pub(in crate::kafka) struct Sent(Arc<Block>);

impl Sent {
    /// What has become of the records, in order, as far as that is known by now. A report that is there stays as it is.
    pub(in crate::kafka) fn so_far(&self) -> Vec<Option<Report>> {
        self.0.reports().collect()
    }
}

/// A batch that is being sent. Dropped, it counts what nobody else will, so that a panic of who gives the records loses no report.
pub(super) struct Sending {
    block: Arc<Block>,
    /// How many it has to count: slots that the library did not take over, and one for itself.
    owed: usize,
    given: usize,
}

impl Sending {
    /// A block of so many slots, which keeps `kept` until all are filled. `open` counts the batches whose `done` has not been called, from here on this
    /// one, too.
    pub(super) fn new(slots: usize, kept: Kept, done: Done, open: &Arc<AtomicUsize>) -> Self {
        let owed = slots + 1;
        open.fetch_add(1, Ordering::Relaxed);
        let block = Arc::new_cyclic(|block| {
            let block = block.as_ptr();
            let slot = |_| Slot { block, filled: AtomicBool::new(false), report: UnsafeCell::new(UNKNOWN) };
            Block {
                left: AtomicUsize::new(owed),
                given: AtomicUsize::new(slots),
                slots: (0..slots).map(slot).collect(),
                done: Mutex::new(Some((done, kept))),
                open: Arc::clone(open),
            }
        });
        // The share of what is not counted: who counts the last one takes it back.
        _ = Arc::into_raw(Arc::clone(&block));
        Self { block, owed, given: 0 }
    }

    /// For who waits.
    pub(super) fn sent(&self) -> Sent {
        Sent(Arc::clone(&self.block))
    }

    /// The address of the slot of the next record. None where there are no more.
    pub(super) fn next(&mut self) -> Option<*mut c_void> {
        let slot = self.block.slots.get(self.given)?;
        self.given += 1;
        Some(ptr::from_ref(slot).cast_mut().cast())
    }

    /// The library took the record of the latest slot over, and will report it.
    pub(super) fn accepted(&mut self) {
        self.owed -= 1;
    }

    /// The library refused the record of the latest slot.
    pub(super) fn refused(&mut self, code: Code, partition: i32) {
        let latest = self.given.checked_sub(1).and_then(|latest| self.block.slots.get(latest));
        if let Some(slot) = latest.filter(|slot| !slot.filled.load(Ordering::Relaxed)) {
            // SAFETY: the library did not take the slot over, so nobody else writes it, and nobody reads it before it is filled.
            unsafe { fill(slot, Report { written: Written::No, code, partition, offset: -1 }) };
        }
    }

    /// Whether the library has taken none over.
    pub(super) fn none_accepted(&self) -> bool {
        self.owed == self.block.slots.len() + 1
    }

    /// Nothing more comes. The batch, if nothing is left to be reported.
    pub(super) fn end(mut self) -> Option<Finished> {
        self.count()
    }

    /// Counts what is owed, once.
    fn count(&mut self) -> Option<Finished> {
        let owed = mem::take(&mut self.owed);
        if owed == 0 {
            return None;
        }
        self.block.given.store(self.given, Ordering::Release);
        // SAFETY: the block lives while this has it, and these were not counted before.
        unsafe { count(Arc::as_ptr(&self.block), owed) }
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
    // SAFETY: the block lives until all its slots are counted, and this one is not. Nobody else writes it.
    let block = unsafe {
        let slot = &*slot.cast::<Slot>();
        fill(slot, report);
        slot.block
    };
    // SAFETY: as above; from here on nothing of the block is touched.
    unsafe { count(block, 1) }
}

/// # Safety
/// Nobody else writes this slot, and it was not filled before.
unsafe fn fill(slot: &Slot, report: Report) {
    // SAFETY: as the caller promises; nobody reads it before it is filled.
    unsafe { *slot.report.get() = report };
    slot.filled.store(true, Ordering::Release);
}

/// Counts slots. Who counts the last one takes the share over that they had.
///
/// # Safety
/// `block` lives, and the caller has not counted these before.
unsafe fn count(block: *const Block, slots: usize) -> Option<Finished> {
    // SAFETY: it lives, at least until this has counted: the share of what is not counted is there until then.
    let before = unsafe { (*block).left.fetch_sub(slots, Ordering::AcqRel) };
    // SAFETY: this was the last, so nobody else takes the share back; it came from `into_raw`.
    (before == slots).then(|| Finished(unsafe { Arc::from_raw(block) }))
}

/// A batch of which everything is known.
pub(super) struct Finished(Arc<Block>);

impl Finished {
    /// Calls who waits for it, with what became of the records.
    pub(super) fn tell(self) {
        let done = self.0.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((done, kept)) = done else { return };
        // Counted when the call has returned, also by a panic.
        let _counted = Counted(&self.0.open);
        // All records are reported. Before who waits is told, so that it is alone with what it has.
        drop(kept);
        let mut reports = Vec::with_capacity(self.0.slots.len());
        reports.extend(self.0.reports().map(|report| report.unwrap_or(UNKNOWN)));
        done(reports);
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}
