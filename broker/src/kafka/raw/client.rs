//! One client of the library: how it is made, what it calls back, how it ends.
//!
//! A client is destroyed on a thread of its own, because that can take for ever (a server that does not answer, something that was not given back):
//! callers wait as long as they like. Not here: what producers (`producer.rs`) and consumers (`consumer.rs`) do with one.

#![expect(unsafe_code, reason = "owns a client of the C library, and is called back by it")]

use super::{
    code::{Code, Trouble, text},
    conf::{Conf, ERROR_BYTES},
    native::{self, PartitionList},
    notes::{self, Notes},
    queue::{Bell, Queue},
    rebalance::{self, Changes},
    unread::Unread,
};
use rdkafka_sys::rd_kafka_t;
use std::{
    ffi::{CString, c_char, c_int, c_void},
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// How many clients there are whose destruction has not ended.
static LIVING: AtomicUsize = AtomicUsize::new(0);

/// How many clients of this module there are in the process, with those that are just being destroyed.
pub(in crate::kafka) fn living() -> usize {
    LIVING.load(Relaxed)
}

/// What the callbacks of a client have: kept until the client is destroyed.
pub(super) struct Told {
    pub(super) notes: Arc<Notes>,
    /// Of this client alone.
    pub(super) own: Notes,
    /// Of one that looks at a log.
    pub(super) unread: Unread,
    pub(super) changes: Changes,
    pub(super) bell: Arc<Bell>,
}

impl Told {
    fn note(&self, trouble: Trouble) {
        self.own.note(trouble.clone());
        self.notes.note(trouble);
    }

    /// A server has answered.
    pub(super) fn heard(&self) {
        self.own.heard();
        self.notes.heard();
    }
}

/// A client. Destroyed when it is dropped, by a thread that nobody waits for; see [`Client::destroy`].
pub(super) struct Client {
    /// Null once somebody else destroys it.
    native: *mut rd_kafka_t,
    told: Arc<Told>,
    /// Those that it began with.
    servers: CString,
}

// SAFETY: the library's clients may be used by any number of threads at once, and keep nothing of the thread that made them. What the callbacks
// share is behind locks and atomics.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Makes one. It connects by itself, whenever it can: that there is no server is no failure.
    pub(super) fn producer(mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        let events = rdkafka_sys::RD_KAFKA_EVENT_DR | rdkafka_sys::RD_KAFKA_EVENT_ERROR;
        // SAFETY: the configuration is ours, and no client has it yet.
        unsafe { native::rd_kafka_conf_set_events(conf.native(), events) };
        Self::open(native::PRODUCER, conf, notes)
    }

    /// The same, of one that reads.
    pub(super) fn consumer(mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        // SAFETY: the configuration is ours, and no client has it yet. The functions keep to what the library asks of them: see them.
        unsafe {
            native::rd_kafka_conf_set_rebalance_cb(conf.native(), Some(on_rebalance));
            native::rd_kafka_conf_set_error_cb(conf.native(), Some(on_error));
        }
        Self::open(native::CONSUMER, conf, notes)
    }

    /// One with a group (`group.id` must be set) that it never joins, for questions. All that it is told comes by its main queue.
    pub(super) fn asking(mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        // SAFETY: the configuration is ours, and no client has it yet.
        unsafe { native::rd_kafka_conf_set_events(conf.native(), rdkafka_sys::RD_KAFKA_EVENT_ERROR) };
        let client = Self::open(native::CONSUMER, conf, notes)?;
        // SAFETY: the client is alive, and has a group.
        Code(unsafe { native::rd_kafka_poll_set_consumer(client.native()) }).check()?;
        Ok(client)
    }

    fn open(kind: u32, mut conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        // Before any client: as the library sets OpenSSL up, the end of the process frees what threads of clients that live still use.
        openssl_sys::init();
        let told = Arc::new(Told {
            notes,
            own: Notes::default(),
            unread: Unread::default(),
            changes: Changes::default(),
            bell: Arc::default(),
        });
        // The client's share of it, given back when the client is destroyed.
        let share = Arc::into_raw(Arc::clone(&told));
        let mut said: [c_char; ERROR_BYTES] = [0; ERROR_BYTES];
        let servers = conf.servers();
        // SAFETY: the configuration is ours; the function keeps to what the library asks of it; `share` lives as long as the client. `said` has as
        // many bytes as are named.
        let native = unsafe {
            native::rd_kafka_conf_set_log_cb(conf.native(), Some(on_log));
            native::rd_kafka_conf_set_opaque(conf.native(), share.cast_mut().cast());
            native::rd_kafka_new(kind, conf.native(), said.as_mut_ptr(), ERROR_BYTES)
        };
        if native.is_null() {
            // The configuration is still ours, and is freed with `conf`.
            // SAFETY: there is no client, so nobody has this share but us; it came from `into_raw`.
            drop(unsafe { Arc::from_raw(share) });
            // SAFETY: the library ends what it writes there in NUL, and it began as NULs.
            let said = unsafe { text(said.as_ptr()) };
            return Err(Trouble::new(Code::INVALID_ARG, said));
        }
        conf.given();
        LIVING.fetch_add(1, Relaxed);
        Ok(Self { native, told, servers })
    }

    /// For calls. Valid while this is borrowed.
    pub(super) fn native(&self) -> *mut rd_kafka_t {
        self.native
    }

    pub(super) fn told(&self) -> &Arc<Told> {
        &self.told
    }

    /// Why the client has given up for good, if it has.
    pub(super) fn fatal(&self) -> Option<Trouble> {
        // SAFETY: the client is alive.
        unsafe { fatal(self.native) }
    }

    /// Names the servers that it began with again, when it has been without any for a while; to be called now and then. A server that has just come back
    /// answers that there are no servers; then the library (2.10 to 2.13 at least, its issue 5301) forgets all that it knew, and may never find one again.
    pub(super) fn find_servers(&self) {
        if self.told.own.is_lost(Instant::now()) {
            // SAFETY: the client is alive; the text ends in NUL, and is copied. Servers that it knows are not added again.
            let known = unsafe { native::rd_kafka_brokers_add(self.native, self.servers.as_ptr()) };
            tracing::debug!(known, "a Kafka client was told again where to begin");
        }
    }

    /// Keeps the reason of an error that came as an event.
    pub(super) fn note(&self, code: Code, said: String) {
        // SAFETY: the client is alive.
        unsafe { note(&self.told, self.native, code, said) };
    }

    /// The queue of everything that is not a record of a consumer.
    pub(super) fn main_queue(&self) -> Queue {
        // SAFETY: the client is alive. What is answered is ours to destroy, as `Queue` does; its owner drops it before the client.
        unsafe { Queue::own(native::rd_kafka_queue_get_main(self.native)) }
    }

    /// A queue of its own, for answers.
    pub(super) fn new_queue(&self) -> Queue {
        // SAFETY: as of `main_queue`.
        unsafe { Queue::own(native::rd_kafka_queue_new(self.native)) }
    }

    /// Destroys it here, however long that takes. Everything that belongs to it must have been dropped: what was not makes this take for ever.
    pub(super) fn destroy(mut self, flags: c_int) {
        let native = std::mem::replace(&mut self.native, ptr::null_mut());
        // SAFETY: it is alive, and from here on nobody uses it: `self` is gone after this, and what belongs to it was dropped before.
        unsafe { destroy(native, &self.told, flags) };
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.native.is_null() {
            return;
        }
        let rest = Self {
            native: std::mem::replace(&mut self.native, ptr::null_mut()),
            told: Arc::clone(&self.told),
            servers: CString::default(),
        };
        aside(Duration::ZERO, move || rest.destroy(0));
    }
}

/// Ends a client.
///
/// # Safety
/// `native` is alive, is not used by anybody else, and `told` is what it was made with.
unsafe fn destroy(native: *mut rd_kafka_t, told: &Arc<Told>, flags: c_int) {
    // SAFETY: as the caller promises. It answers when all its threads have ended, so that no callback runs any more.
    unsafe { native::rd_kafka_destroy_flags(native, flags) };
    // SAFETY: the share of the client came from `into_raw` of this `Arc`, and nobody has it any more.
    unsafe { Arc::decrement_strong_count(Arc::as_ptr(told)) };
    LIVING.fetch_sub(1, Relaxed);
}

/// Does something that may take for ever on a thread of its own, and waits for it. `false` where it has not ended after `wait`: it goes on.
pub(super) fn aside(wait: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, ended) = mpsc::sync_channel::<()>(1);
    // Where there is no thread, what `work` owns is not dropped: that would come here again.
    let work = ManuallyDrop::new(work);
    let thread = thread::Builder::new().name("kafka-close".into()).spawn(move || {
        ManuallyDrop::into_inner(work)();
        _ = done.try_send(());
    });
    match thread {
        Ok(_) => !wait.is_zero() && ended.recv_timeout(wait).is_ok(),
        // What it would have ended stays open until the process ends.
        Err(error) => {
            tracing::error!(%error, "there is no thread to close a Kafka client on");
            false
        }
    }
}

/// Why a client has given up for good.
///
/// # Safety
/// `native` is alive.
unsafe fn fatal(native: *mut rd_kafka_t) -> Option<Trouble> {
    let mut said: [c_char; ERROR_BYTES] = [0; ERROR_BYTES];
    // SAFETY: it is alive; `said` has as many bytes as are named.
    let code = Code(unsafe { native::rd_kafka_fatal_error(native, said.as_mut_ptr(), ERROR_BYTES) });
    // SAFETY: the library ends what it writes there in NUL, and it began as NULs.
    (code != Code::NONE).then(|| Trouble::new(code, unsafe { text(said.as_ptr()) }))
}

/// Keeps the reason of an error that is not the answer to a call.
///
/// # Safety
/// `native` is alive.
unsafe fn note(told: &Told, native: *mut rd_kafka_t, code: Code, said: String) {
    let trouble = match code {
        // SAFETY: as the caller promises.
        Code::FATAL => unsafe { fatal(native) }.map_or_else(
            || Trouble::new(code, said),
            |why| Trouble::new(code, format!("{} ({})", why.text, why.code.name())),
        ),
        _ => Trouble::new(code, said),
    };
    told.note(trouble);
}

/// Called by the library where the consumer is polled.
unsafe extern "C" fn on_error(
    native: *mut rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // A panic must not leave: it would end the process.
    _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the client was made with this pointer, and keeps it alive while it calls.
        let told = unsafe { &*opaque.cast::<Told>() };
        // SAFETY: the client is alive while it calls, and passes a text that ends in NUL.
        unsafe { note(told, native, Code(code), text(reason)) };
    }));
}

/// Called by the library on any of its threads, from `rd_kafka_new` on until it is destroyed.
unsafe extern "C" fn on_log(
    native: *const rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    _ = catch_unwind(AssertUnwindSafe(|| {
        if native.is_null() {
            return;
        }
        // SAFETY: the client is alive while it calls, and was made with a pointer to what it keeps alive.
        let told = unsafe { native::rd_kafka_opaque(native).cast::<Told>().as_ref() };
        if let Some(told) = told {
            // SAFETY: the library passes texts that end in NUL.
            let (facility, line) = unsafe { (text(facility), text(line)) };
            told.own_log(level, &facility, &line);
        }
    }));
}

/// Called by the library where the consumer is polled, and on the thread that closes it.
unsafe extern "C" fn on_rebalance(
    native: *mut rd_kafka_t,
    code: i32,
    partitions: *mut PartitionList,
    opaque: *mut c_void,
) {
    let kept = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the client was made with this pointer, and keeps it alive while it calls.
        let told = unsafe { &*opaque.cast::<Told>() };
        // SAFETY: client and list are alive during the call.
        unsafe { told.changes.tell(native, Code(code), partitions) };
        // What waits for records is to look for this first.
        told.bell.ring();
    }));
    if kept.is_err() {
        // Somebody must answer, or the member hangs.
        // SAFETY: client and list are alive during the call.
        unsafe { rebalance::give_up(native, Code(code), partitions) };
    }
}

impl Told {
    fn own_log(&self, level: i32, facility: &str, line: &str) {
        if self.unread.line(level, facility, line) {
            return;
        }
        self.own.log(level, facility, line);
        notes::reason(facility, line).into_iter().for_each(|reason| self.note(reason));
    }
}
