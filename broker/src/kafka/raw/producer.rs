//! A producer: batches of records in, and one call a batch with what became of each.
//!
//! A thread of its own waits for delivery reports, which come as events, so that no code of a caller ever runs inside of the library. Not here: slots
//! and how they are counted (`reports.rs`), settings (`../settings.rs`).

#![expect(unsafe_code, reason = "passes records to the C library, and reads its delivery reports")]

use super::{
    client::Client,
    code::{Code, Trouble},
    conf::Conf,
    headers::HeaderList,
    list::c_text,
    metadata::{self, Metadata},
    native::{self, Vu, VuBytes, VuValue},
    notes::Notes,
    queue::{Event, Queue, millis},
    reports::{self, Done, Finished, Kept, Report, Sending, Sent, Written},
};
use rdkafka_sys::rd_kafka_topic_t;
use std::{
    ffi::c_int,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// How long the thread waits at a time for reports. It is woken when it is to end.
const TICK: Duration = Duration::from_secs(10);
/// How long it waits for reports of what was purged when nobody uses the producer any more. They come at once.
const LAST: Duration = Duration::from_secs(10);

/// A record to be written. `headers` adds its headers, in order.
#[derive(Debug)]
pub(in crate::kafka) struct Record<'a, H> {
    /// Which of the values that the batch was given is the value of this record.
    pub(in crate::kafka) at: usize,
    pub(in crate::kafka) partition: i32,
    /// Null differs from empty.
    pub(in crate::kafka) key: Option<&'a [u8]>,
    /// In ms since 1970. Zero is "now" to the library.
    pub(in crate::kafka) timestamp: i64,
    pub(in crate::kafka) headers: H,
}

/// What has the value of a record, and stays until all records of the batch are reported.
pub(in crate::kafka) trait Valued: Send + Sync + 'static {
    /// Null is a tombstone.
    fn value(&self) -> Option<&[u8]>;
}

/// A producer; clones share it. When the last clone and the last topic of it are gone, what was not written by then is purged and reported, and the
/// client is destroyed, by a thread that nobody waits for: [`Producer::flush`] first.
#[derive(Clone)]
pub(in crate::kafka) struct Producer {
    handle: Arc<Handle>,
}

/// A topic to write to, as the library knows it. It keeps its producer.
pub(in crate::kafka) struct ProducerTopic {
    native: *mut rd_kafka_topic_t,
    handle: Arc<Handle>,
}

// SAFETY: the library's topics may be used by any number of threads at once.
unsafe impl Send for ProducerTopic {}
// SAFETY: as above.
unsafe impl Sync for ProducerTopic {}

/// What users have. The thread ends when it is gone.
struct Handle {
    core: Arc<Core>,
}

/// What users and the thread share. Fields are dropped in this order.
struct Core {
    queue: Queue,
    client: Client,
    ending: AtomicBool,
    /// Batches whose `done` has not returned.
    open: Arc<AtomicUsize>,
    /// Batches that were finished by who sent them, for the thread to tell.
    finished: Mutex<Vec<Finished>>,
}

impl Producer {
    /// Makes one, and its thread. It connects by itself, whenever it can: that there is no server is no failure.
    pub(in crate::kafka) fn open(conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        Self::of(Client::producer(conf, notes)?)
    }

    /// The same thread for a client that only asks, see [`Client::asking`].
    pub(super) fn asking(conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        Self::of(Client::asking(conf, notes)?)
    }

    fn of(client: Client) -> Result<Self, Trouble> {
        let (ending, open, finished) = (AtomicBool::new(false), Arc::default(), Mutex::default());
        let core = Arc::new(Core { queue: client.main_queue(), client, ending, open, finished });
        let polled = Arc::clone(&core);
        let thread = thread::Builder::new().name("kafka-reports".into()).spawn(move || Core::run(polled));
        match thread {
            Ok(_) => Ok(Self { handle: Arc::new(Handle { core }) }),
            Err(error) => {
                Err(Trouble::new(Code::FAIL, format!("there is no thread for a Kafka producer: {error}")))
            }
        }
    }

    /// A topic of this producer. That it exists is not asked.
    pub(in crate::kafka) fn topic(&self, name: &str) -> Result<ProducerTopic, Trouble> {
        let name = c_text(name)?;
        // SAFETY: the client is alive; the name ends in NUL and is copied; no settings: those of the client.
        let native = unsafe {
            native::rd_kafka_topic_new(self.core().client.native(), name.as_ptr(), ptr::null_mut())
        };
        if native.is_null() {
            return Err(Trouble::new(
                Code::INVALID_ARG,
                format!("{} cannot be the name of a topic", name.to_string_lossy()),
            ));
        }
        Ok(ProducerTopic { native, handle: Arc::clone(&self.handle) })
    }

    /// Passes a batch to the library, in its order. Keys and headers are copied; values are read where they lie, so `values` is kept until all records are
    /// reported. `done` is called once, with a report for each record in the same order: on the producer's thread, or before this returns if the library
    /// takes none over (as of `queue.buffering.max.messages` or a topic of another producer). Never blocks for a server. At most as many records are taken
    /// from `records` as it says it has.
    pub(in crate::kafka) fn send<'r, V, H>(
        &self,
        topic: &ProducerTopic,
        values: &Arc<Vec<V>>,
        records: impl ExactSizeIterator<Item = Record<'r, H>>,
        done: Done,
    ) -> Sent
    where
        V: Valued,
        H: FnOnce(&mut HeaderList),
    {
        let core = self.core();
        let mut sending = Sending::new(records.len(), Arc::clone(values) as Kept, done, &core.open);
        let is_own = Arc::ptr_eq(&topic.handle, &self.handle);
        let mut arguments = Arguments::new(topic.native);
        for record in records {
            let Some(slot) = sending.next() else { break };
            let partition = record.partition;
            let answer = match values.get(record.at).filter(|_| is_own) {
                // SAFETY: topic and slot belong to this client, which is alive. The value lies in what the block of the slot keeps, shared, until all are reported.
                Some(valued) => unsafe { arguments.produce(&core.client, record, valued.value(), slot) },
                None => Err(Code::INVALID_ARG),
            };
            match answer {
                Ok(()) => sending.accepted(),
                Err(code) => sending.refused(code, partition),
            }
        }
        let (sent, at_once) = (sending.sent(), sending.none_accepted());
        match sending.end() {
            Some(finished) if at_once => finished.tell(),
            Some(finished) => core.hand_over(finished),
            None => {}
        }
        sent
    }

    /// Waits until all that was sent before is reported and `done` of each batch has returned. `Err` (`TIMED_OUT`) where it was not after `wait`.
    /// Not to be called by a `done`.
    pub(in crate::kafka) fn flush(&self, wait: Duration) -> Result<(), Trouble> {
        let core = self.core();
        let until = Instant::now() + wait;
        // SAFETY: the client is alive. Delivery reports are events, so that this calls nothing of ours.
        Code(unsafe { native::rd_kafka_flush(core.client.native(), millis(wait)) }).check()?;
        while core.open.load(Ordering::Acquire) > 0 {
            if Instant::now() >= until {
                return Code::TIMED_OUT.check();
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Gives up what waits to be sent (certainly not written), and what was sent and not answered (perhaps written). Their reports come at once.
    pub(in crate::kafka) fn purge(&self, queue: bool, in_flight: bool) {
        self.core().purge(queue, in_flight);
    }

    /// How many records wait for something, and what the library has to tell of them and of its servers: 0 is "nothing is open".
    pub(in crate::kafka) fn queued(&self) -> usize {
        // SAFETY: the client is alive.
        let queued = unsafe { native::rd_kafka_outq_len(self.core().client.native()) };
        usize::try_from(queued).unwrap_or(0)
    }

    /// Why it has given up for good, if it has: it has to be made anew.
    pub(in crate::kafka) fn fatal(&self) -> Option<Trouble> {
        self.core().client.fatal()
    }

    /// Asks a server what there is, of all topics or of one. Blocks, for `wait` at most.
    pub(in crate::kafka) fn metadata(
        &self,
        topic: Option<&str>,
        wait: Duration,
    ) -> Result<Metadata, Trouble> {
        metadata::ask(&self.core().client, topic, wait)
    }

    /// Makes it give up for good, as a test of what follows.
    #[cfg(any(test, feature = "conformance"))]
    pub(in crate::kafka) fn break_it(&self) -> Result<(), Trouble> {
        let code = Code::OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client is alive, and the text ends in NUL.
        let code = unsafe {
            native::rd_kafka_test_fatal_error(
                self.core().client.native(),
                code.0,
                c"as a test asked for".as_ptr(),
            )
        };
        Code(code).check()
    }

    /// Whether both are one client.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    pub(super) fn client(&self) -> &Client {
        &self.core().client
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.ending.store(true, Ordering::Release);
        self.core.queue.yield_now();
    }
}

impl Drop for ProducerTopic {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, its client is alive, and nothing uses it from here on.
        unsafe { native::rd_kafka_topic_destroy(self.native) };
    }
}

impl Core {
    /// Tells batches as their reports come, until nobody uses the producer any more; then ends it.
    fn run(core: Arc<Self>) {
        let mut last: Option<Instant> = None;
        loop {
            core.turn(if last.is_some() { Duration::from_millis(10) } else { TICK });
            if !core.ending.load(Ordering::Acquire) {
                continue;
            }
            let now = Instant::now();
            let until = *last.get_or_insert_with(|| {
                core.purge(true, true);
                now + LAST
            });
            let open = core.open.load(Ordering::Acquire);
            if open == 0 {
                break;
            }
            if now >= until {
                tracing::error!(
                    batches = open,
                    "a Kafka producer ends without having been told what became of some batches"
                );
                break;
            }
        }
        // The last handle may just be letting go of it.
        match Arc::into_inner(core) {
            Some(Self { queue, client, .. }) => {
                drop(queue);
                client.destroy(0);
            }
            None => tracing::trace!("the last handle of a Kafka producer ends it"),
        }
    }

    /// Waits for an event, and does what it asks for.
    fn turn(&self, wait: Duration) {
        if let Some(mut event) = self.queue.poll(wait) {
            match event.kind() {
                rdkafka_sys::RD_KAFKA_EVENT_DR => self.reported(&mut event),
                rdkafka_sys::RD_KAFKA_EVENT_ERROR => self.client.note(event.code(), event.text()),
                _ => {}
            }
        }
        self.client.find_servers();
        let finished = mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        finished.into_iter().for_each(tell);
    }

    /// Counts the reports of an event. Batches are told before the event is gone, so that who flushes waits for them.
    fn reported(&self, event: &mut Event) {
        let mut heard = false;
        while let Some(message) = event.next_message() {
            // SAFETY: the message is a delivery report, and alive.
            let status = unsafe { native::rd_kafka_message_status(message) };
            let written = written(status, message.offset);
            heard |= written == Written::Yes;
            // The offset of what was not written is garbage.
            let offset = if written == Written::Yes { message.offset } else { -1 };
            let report = Report { written, code: Code(message.err), partition: message.partition, offset };
            // SAFETY: the record was sent with the address of its slot, and there is one report for each that was taken over.
            if let Some(finished) = unsafe { reports::report(message.private, report) } {
                tell(finished);
            }
        }
        if heard {
            self.client.told().heard();
        }
    }

    /// Lets the thread tell a batch.
    fn hand_over(&self, finished: Finished) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        self.queue.yield_now();
    }

    fn purge(&self, queue: bool, in_flight: bool) {
        let mut flags: c_int = rdkafka_sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        if queue {
            flags |= rdkafka_sys::RD_KAFKA_PURGE_F_QUEUE;
        }
        if in_flight {
            flags |= rdkafka_sys::RD_KAFKA_PURGE_F_INFLIGHT;
        }
        // SAFETY: the client is alive. It fails only for flags that it does not know, and where nothing can be written.
        unsafe { native::rd_kafka_purge(self.client.native(), flags) };
    }
}

/// Whether a record is in the log, by the status of its report and the offset there.
///
/// Without an offset the library only concludes that a record is there, since what it sent behind it was taken (or since a server said that the sequence is
/// an old one). But a server takes any first sequence of a producer that it does not know in that partition: where the first request was refused in
/// passing, such as by a leader that was just made, and the next one was taken, the first is not there.
const fn written(status: u32, offset: i64) -> Written {
    match status {
        native::PERSISTED if offset >= 0 => Written::Yes,
        native::NOT_PERSISTED => Written::No,
        _ => Written::Perhaps,
    }
}

/// Tells a batch. A panic of who waits for it must not end the thread: others wait, too.
fn tell(finished: Finished) {
    if catch_unwind(AssertUnwindSafe(|| finished.tell())).is_err() {
        tracing::error!("what waits for a batch panicked; other batches are not concerned");
    }
}

/// The arguments of `rd_kafka_produceva`, of which only some change from record to record.
struct Arguments([Vu; 8]);

impl Arguments {
    fn new(topic: *mut rd_kafka_topic_t) -> Self {
        let unset = VuValue { ptr: ptr::null_mut() };
        Self(
            [
                (native::VTYPE_RKT, VuValue { rkt: topic }),
                // The value is not copied, and not freed: it stays where it is until the record is reported. The key is copied whatever is said here.
                (native::VTYPE_MSGFLAGS, VuValue { int: 0 }),
                (native::VTYPE_PARTITION, unset),
                (native::VTYPE_KEY, unset),
                (native::VTYPE_VALUE, unset),
                (native::VTYPE_TIMESTAMP, unset),
                (native::VTYPE_OPAQUE, unset),
                (native::VTYPE_HEADERS, unset),
            ]
            .map(|(vtype, u)| Vu { vtype, u }),
        )
    }

    /// Passes a record on. `Err`: the library refused it, and will not report it.
    ///
    /// # Safety
    /// The topic is one of `client`, and `value` and `slot` live until the library has reported the record. Nobody changes `value` meanwhile.
    unsafe fn produce<H>(
        &mut self,
        client: &Client,
        record: Record<'_, H>,
        value: Option<&[u8]>,
        slot: *mut std::ffi::c_void,
    ) -> Result<(), Code>
    where
        H: FnOnce(&mut HeaderList),
    {
        let mut headers = HeaderList::new();
        (record.headers)(&mut headers);
        let bytes = |bytes: Option<&[u8]>| match bytes {
            // Not null, also of none.
            Some(bytes) => VuBytes { ptr: bytes.as_ptr().cast_mut().cast(), size: bytes.len() },
            None => VuBytes { ptr: ptr::null_mut(), size: 0 },
        };
        self.0[2].u = VuValue { i32: record.partition };
        self.0[3].u = VuValue { mem: bytes(record.key) };
        self.0[4].u = VuValue { mem: bytes(value) };
        self.0[5].u = VuValue { i64: record.timestamp };
        self.0[6].u = VuValue { ptr: slot };
        self.0[7].u = VuValue { headers: headers.native() };
        // SAFETY: the client is alive, the topic is its own, all arguments are set with the types that they say. The key is copied,
        // and the value is read until the record is reported, as the caller promises.
        let error = unsafe { native::rd_kafka_produceva(client.native(), self.0.as_ptr(), self.0.len()) };
        if error.is_null() {
            headers.given();
            return Ok(());
        }
        // The headers are still ours, and are freed with `headers`.
        // SAFETY: the error is alive, ours, and not used after it is destroyed.
        unsafe {
            let code = Code(native::rd_kafka_error_code(error));
            native::rd_kafka_error_destroy(error);
            Err(code)
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_with_a_place_in_the_log_is_known_to_be_there() {
        assert_eq!(written(native::PERSISTED, 0), Written::Yes);
        // Concluded from what came behind it, which a partition that is new to the producer takes without it.
        for offset in [-1, -1001] {
            assert_eq!(written(native::PERSISTED, offset), Written::Perhaps);
        }
        assert_eq!(written(native::NOT_PERSISTED, 7), Written::No);
        assert_eq!(written(1, 7), Written::Perhaps);
    }
}
