//! Partitions with an offset each: ours ([`Place`]), and lists of them as the library takes and answers them.
//!
//! A list that is not destroyed can keep its client from ever being destroyed, so [`List`] owns one. Not here: who asks (`assign.rs`, `commit.rs`).

#![expect(unsafe_code, reason = "owns lists of the C library, and reads what they hold")]

use super::{
    code::{Code, Trouble, text},
    native::{self, Partition, PartitionList},
};
use std::{collections::BTreeSet, ffi::CString, ptr, slice, sync::Arc};

/// An offset that says from where, instead of a number.
pub(in crate::kafka) const OFFSET_BEGINNING: i64 = -2;
/// See [`OFFSET_BEGINNING`].
pub(in crate::kafka) const OFFSET_END: i64 = -1;
/// No offset: nothing was committed.
pub(in crate::kafka) const OFFSET_INVALID: i64 = -1001;

/// The longest metadata of a commit that any server takes by default, in bytes.
pub(in crate::kafka) const MAX_METADATA: usize = 4096;

/// A partition, and an offset in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct Place {
    pub(in crate::kafka) topic: Arc<str>,
    pub(in crate::kafka) partition: i32,
    /// The next one to read, or one of the constants above; of `offsets_for_times` a time in ms.
    pub(in crate::kafka) offset: i64,
    /// What is stored beside a committed offset. It must be valid UTF-8: a server replaces what is not.
    pub(in crate::kafka) metadata: Option<Vec<u8>>,
}

impl Place {
    /// Without metadata.
    pub(in crate::kafka) fn new(topic: &Arc<str>, partition: i32, offset: i64) -> Self {
        Self { topic: Arc::clone(topic), partition, offset, metadata: None }
    }
}

/// A place, and what a call says of it.
pub(in crate::kafka) type Answered = (Place, Result<(), Trouble>);

/// Names of topics, each kept once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// A list of ours.
pub(super) struct List {
    native: *mut PartitionList,
}

// SAFETY: it is plain memory that nobody else knows of.
unsafe impl Send for List {}

impl List {
    /// Copies `places`. `Err` where a name has a NUL byte.
    pub(super) fn of(places: &[Place]) -> Result<Self, Trouble> {
        let size = i32::try_from(places.len()).unwrap_or(i32::MAX);
        // SAFETY: takes a number; what it answers is ours.
        let list = Self { native: unsafe { native::rd_kafka_topic_partition_list_new(size) } };
        places.iter().try_for_each(|place| list.add(place))?;
        Ok(list)
    }

    fn add(&self, place: &Place) -> Result<(), Trouble> {
        let topic = c_text(&place.topic)?;
        // SAFETY: the list is ours, and the name is copied. What is answered is in the list, and valid until the next call for it.
        let added = unsafe {
            &mut *native::rd_kafka_topic_partition_list_add(self.native, topic.as_ptr(), place.partition)
        };
        added.offset = place.offset;
        if let Some(metadata) = place.metadata.as_deref().filter(|metadata| !metadata.is_empty()) {
            // SAFETY: the library frees it by `free`. It is filled to its length at once; without memory there is none.
            unsafe {
                let copy = libc::malloc(metadata.len());
                if copy.is_null() {
                    return Err(Trouble::new(Code::FAIL, "there is no memory for the metadata of a commit"));
                }
                ptr::copy_nonoverlapping(metadata.as_ptr(), copy.cast(), metadata.len());
                added.metadata = copy;
                added.metadata_size = metadata.len();
            }
        }
        Ok(())
    }

    /// For calls that read it or fill it in. None keeps it: they copy.
    pub(super) fn native(&self) -> *mut PartitionList {
        self.native
    }

    /// What it holds, and what the call that filled it in says of each.
    pub(super) fn answers(&self, names: &mut Names) -> Vec<Answered> {
        // SAFETY: it is ours and alive.
        unsafe { answers(self.native, names) }
    }

    /// `Err` of the first that has a code, with its name.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        // SAFETY: it is ours and alive.
        let failed = unsafe { elements(self.native) }.iter().find(|element| element.err != 0);
        failed.map_or(Ok(()), |element| {
            let code = Code(element.err);
            // SAFETY: the name belongs to the element, and ends in NUL.
            let topic = unsafe { text(element.topic) };
            Err(Trouble::new(code, format!("{topic}/{}: {}", element.partition, code.text())))
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing uses it from here on.
        unsafe { native::rd_kafka_topic_partition_list_destroy(self.native) };
    }
}

/// A text for C. `Err` where it has a NUL byte.
pub(super) fn c_text(given: &str) -> Result<CString, Trouble> {
    CString::new(given).map_err(|_| {
        Trouble::new(Code::INVALID_ARG, format!("`{}` has a NUL byte in it", given.escape_debug()))
    })
}

/// What a list holds.
///
/// # Safety
/// `list` is null, or alive and not changed while `'a` lasts.
unsafe fn elements<'a>(list: *const PartitionList) -> &'a [Partition] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: it is alive; `elems` holds `cnt` elements, or is null where there are none.
    unsafe {
        let list = &*list;
        match usize::try_from(list.cnt) {
            Ok(count) if count > 0 && !list.elems.is_null() => slice::from_raw_parts(list.elems, count),
            _ => &[],
        }
    }
}

/// Copies what a list holds.
///
/// # Safety
/// `list` is null, or alive and not changed during the call.
pub(super) unsafe fn places(list: *const PartitionList, names: &mut Names) -> Vec<Place> {
    // SAFETY: as the caller promises.
    let elements = unsafe { elements(list) };
    // SAFETY: each belongs to the list.
    elements.iter().map(|element| unsafe { place(element, names) }).collect()
}

/// The same, with the code of each.
///
/// # Safety
/// As of [`places`].
pub(super) unsafe fn answers(list: *const PartitionList, names: &mut Names) -> Vec<Answered> {
    // SAFETY: as the caller promises.
    let elements = unsafe { elements(list) };
    // SAFETY: each belongs to the list.
    elements.iter().map(|element| (unsafe { place(element, names) }, Code(element.err).check())).collect()
}

/// Copies an element.
///
/// # Safety
/// Its name ends in NUL, and its metadata has the size that it says.
pub(super) unsafe fn place(element: &Partition, names: &mut Names) -> Place {
    // SAFETY: as the caller promises.
    let topic = names.get(&unsafe { text(element.topic) });
    let metadata = (!element.metadata.is_null() && element.metadata_size > 0).then(|| {
        // SAFETY: as the caller promises.
        unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }.to_vec()
    });
    Place { topic, partition: element.partition, offset: element.offset, metadata }
}
