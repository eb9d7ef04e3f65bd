//! The client library of Kafka with nothing around it: a loop over `rd_kafka_produceva`, and one over `rd_kafka_consume_batch_queue`.
//!
//! One thread produces and is told of deliveries, in turns, as the library's own examples do. Not here: settings (`ground.rs`), what is compared
//! (`publish.rs`, `consume.rs`).

#![expect(unsafe_code, reason = "calls the C library itself: what it costs alone is what is measured")]

use super::{
    ground::{CONSUMER, Ground, PRODUCER},
    paced::Waits,
};
use crate::{Result, work::Work};
use rdkafka::ClientConfig;
use rdkafka_sys as sys;
use ropeway_broker::Message;
use std::{
    cell::{Cell, RefCell},
    ffi::{CString, c_char, c_int, c_void},
    fmt::Write,
    mem,
    ops::Range,
    ptr, slice,
};

/// After how many messages it is asked for deliveries.
const ASK: u64 = 64;
/// Records that are taken at once.
const AT_ONCE: usize = 1024;
/// The name of our header.
const ID: &str = "ropeway-id";

/// A client of the library.
struct Client(*mut sys::rd_kafka_t);

impl Client {
    fn open(
        kind: sys::rd_kafka_type_t,
        config: &ClientConfig,
        set: impl FnOnce(*mut sys::rd_kafka_conf_t),
    ) -> Result<Self> {
        let native = config.create_native_config()?;
        set(native.ptr());
        let mut why = [0 as c_char; 512];
        // SAFETY: the settings are alive, and there is room for the text.
        let client = unsafe { sys::rd_kafka_new(kind, native.ptr(), why.as_mut_ptr(), why.len()) };
        if client.is_null() {
            return Err("the client library does not take the settings".into());
        }
        // They belong to the client now.
        mem::forget(native);
        Ok(Self(client))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: nothing of it is used from here on.
        unsafe { sys::rd_kafka_destroy(self.0) };
    }
}

fn config(ground: &Ground, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", ground.servers());
    settings.iter().for_each(|(name, value)| _ = config.set(*name, *value));
    config
}

/// Deliveries that were reported.
#[derive(Default)]
struct Tally {
    written: Cell<u64>,
    failed: Cell<u64>,
    /// How long messages wait, where that is asked for.
    waits: RefCell<Option<Waits>>,
}

/// # Safety
/// Called by the library with a report, and with the tally that it was given.
unsafe extern "C" fn reported(
    _: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    tally: *mut c_void,
) {
    // SAFETY: both are alive; the code is read as the number that it is, whether the bindings know it or not.
    let (code, tally, number) = unsafe {
        (
            (&raw const (*message).err).cast::<c_int>().read(),
            &*tally.cast::<Tally>(),
            (*message)._private as u64,
        )
    };
    let count = if code == 0 { &tally.written } else { &tally.failed };
    count.set(count.get() + 1);
    if let (0, Some(waits)) = (code, &mut *tally.waits.borrow_mut()) {
        waits.end(number);
    }
}

/// A loop that produces.
pub(super) struct Producer {
    topic: *mut sys::rd_kafka_topic_t,
    client: Client,
    tally: Box<Tally>,
    headers: Vec<(CString, Vec<u8>)>,
    id: String,
}

impl Producer {
    /// At most `most` messages wait in it. All messages have the headers of `like`, and their id.
    pub(super) fn open(ground: &Ground, most: usize, like: &Message) -> Result<Self> {
        let tally = Box::<Tally>::default();
        let mut config = config(ground, PRODUCER);
        config.set("queue.buffering.max.messages", most.to_string());
        let client = Client::open(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, &config, |conf| {
            // SAFETY: the settings are alive, and the tally is as long as the client.
            unsafe {
                sys::rd_kafka_conf_set_opaque(conf, ptr::from_ref(&*tally).cast_mut().cast());
                sys::rd_kafka_conf_set_dr_msg_cb(conf, Some(reported));
            }
        })?;
        let name = CString::new(ground.topic.as_str())?;
        // SAFETY: the client is alive, and the name is copied.
        let topic = unsafe { sys::rd_kafka_topic_new(client.0, name.as_ptr(), ptr::null_mut()) };
        let of = |(name, value): (&str, Option<&[u8]>)| {
            Ok((CString::new(name)?, value.unwrap_or_default().to_vec()))
        };
        let headers = like.headers.iter().map(of).collect::<Result<_>>()?;
        Ok(Self { topic, client, tally, headers, id: String::new() })
    }

    /// Produces messages, and returns when all are written.
    pub(super) fn send(&mut self, work: &Work, messages: Range<u64>) -> Result<()> {
        let expected = self.tally.written.get() + messages.end - messages.start;
        for i in messages {
            self.produce(&work.message(i), i)?;
            if i % ASK == 0 {
                self.poll(0);
            }
        }
        self.flush()?;
        if self.tally.written.get() == expected {
            return Ok(());
        }
        Err(format!(
            "{} messages of {expected} were written, {} failed",
            self.tally.written.get(),
            self.tally.failed.get()
        )
        .into())
    }

    /// Waits until all deliveries are reported.
    pub(super) fn flush(&self) -> Result<()> {
        // SAFETY: the client is alive.
        let code = unsafe { sys::rd_kafka_flush(self.client.0, 60_000) };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        Err(format!("messages are not written: {code:?}").into())
    }

    /// From here on it is noted how long messages wait.
    pub(super) fn note(&self, waits: Waits) {
        *self.tally.waits.borrow_mut() = Some(waits);
    }

    /// What was noted.
    pub(super) fn noted<T>(&self, look: impl FnOnce(&mut Waits) -> T) -> Option<T> {
        self.tally.waits.borrow_mut().as_mut().map(look)
    }

    /// Produces message `number`.
    pub(super) fn produce(&mut self, message: &Message, number: u64) -> Result<()> {
        use sys::rd_kafka_vtype_t as Kind;
        use sys::rd_kafka_vu_s__bindgen_ty_1 as Value;
        self.id.clear();
        write!(self.id, "{}", message.id)?;
        let argument = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let bytes = |bytes: &[u8]| Value {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.as_ptr().cast_mut().cast(),
                size: bytes.len(),
            },
        };
        let header = |name: *const c_char, value: &[u8]| Value {
            header: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                name,
                val: value.as_ptr().cast(),
                size: value.len() as isize,
            },
        };
        let id = CString::new(ID)?;
        let mut arguments = [argument(Kind::RD_KAFKA_VTYPE_RKT, Value { rkt: self.topic }); 12];
        arguments[1] = argument(Kind::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY });
        arguments[2] = argument(Kind::RD_KAFKA_VTYPE_KEY, bytes(message.key.as_deref().unwrap_or_default()));
        arguments[3] =
            argument(Kind::RD_KAFKA_VTYPE_VALUE, bytes(message.payload.as_deref().unwrap_or_default()));
        arguments[4] =
            argument(Kind::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: message.timestamp.as_millis() });
        arguments[5] = argument(Kind::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: number as usize as *mut c_void });
        let mut count = 6;
        let own = [(&id, self.id.as_bytes())];
        for (name, value) in self.headers.iter().map(|(name, value)| (name, &value[..])).chain(own) {
            arguments[count] = argument(Kind::RD_KAFKA_VTYPE_HEADER, header(name.as_ptr(), value));
            count += 1;
        }
        loop {
            // SAFETY: the client and its topic are alive, and so many arguments are set with the types that they say; all is copied.
            let code = unsafe {
                let error = sys::rd_kafka_produceva(self.client.0, arguments.as_ptr(), count);
                if error.is_null() {
                    return Ok(());
                }
                let code = sys::rd_kafka_error_code(error);
                sys::rd_kafka_error_destroy(error);
                code
            };
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL {
                return Err(format!("the library refused a message: {code:?}").into());
            }
            self.poll(100);
        }
    }

    /// Asks for deliveries.
    pub(super) fn poll(&self, millis: c_int) {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_poll(self.client.0, millis) };
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: it is ours, its client is alive, and nothing uses it from here on.
        unsafe { sys::rd_kafka_topic_destroy(self.topic) };
    }
}

/// What was read at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    pub(super) messages: u64,
    /// Of keys and payloads.
    pub(super) bytes: u64,
}

/// A loop that consumes as a member of a group, whose offsets the library stores and commits.
pub(super) struct Consumer {
    queue: *mut sys::rd_kafka_queue_t,
    client: Client,
    taken: Vec<*mut sys::rd_kafka_message_t>,
}

impl Consumer {
    pub(super) fn open(ground: &Ground, group: &str) -> Result<Self> {
        let mut config = config(ground, CONSUMER);
        config.set("group.id", group);
        let client = Client::open(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, &config, |_| {})?;
        let name = CString::new(ground.topic.as_str())?;
        // SAFETY: the client is alive; the list is destroyed here, and the queue before the client.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(client.0);
            let list = sys::rd_kafka_topic_partition_list_new(1);
            sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), -1);
            sys::rd_kafka_subscribe(client.0, list);
            sys::rd_kafka_topic_partition_list_destroy(list);
            sys::rd_kafka_queue_get_consumer(client.0)
        };
        Ok(Self { queue, client, taken: vec![ptr::null_mut(); AT_ONCE] })
    }

    /// Takes a batch of records and looks at their keys and payloads, with `headers` also at those.
    pub(super) fn take(&mut self, headers: bool) -> Result<Taken> {
        // SAFETY: the queue is alive, and there is room for so many pointers. As many are set as is answered, and they are ours.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, 20, self.taken.as_mut_ptr(), self.taken.len())
        };
        let mut all = Taken::default();
        for message in &self.taken[..usize::try_from(count)?] {
            // SAFETY: the message is alive until it is destroyed, once, and so is what it points at. The code is read as a number.
            let code = unsafe {
                let code = (&raw const (**message).err).cast::<c_int>().read();
                if code == 0 {
                    let record = &**message;
                    all.messages += 1;
                    all.bytes += look(record.key, record.key_len) + look(record.payload, record.len);
                    if headers {
                        all.bytes += look_at_headers(*message);
                    }
                }
                sys::rd_kafka_message_destroy(*message);
                code
            };
            if code != 0 {
                return Err(format!("the library told code {code}").into());
            }
        }
        Ok(all)
    }

    /// Commits what was taken.
    pub(super) fn commit(&self) {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_commit(self.client.0, ptr::null(), 0) };
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: the queue is ours, and nothing uses it or reads from here on.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_consumer_close(self.client.0);
        }
    }
}

/// Looks at bytes; answers how many there are.
///
/// # Safety
/// `at` is null, or there are so many.
unsafe fn look(at: *const c_void, size: usize) -> u64 {
    if at.is_null() {
        return 0;
    }
    // SAFETY: as the caller promises.
    std::hint::black_box(unsafe { slice::from_raw_parts(at.cast::<u8>(), size) }).len() as u64
}

/// Looks at each header.
///
/// # Safety
/// The message is alive.
unsafe fn look_at_headers(message: *const sys::rd_kafka_message_t) -> u64 {
    let (mut headers, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: the message is alive, and what is answered belongs to it.
    unsafe {
        if sys::rd_kafka_message_headers(message, &raw mut headers) as c_int != 0 {
            return 0;
        }
        for at in 0.. {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let code =
                sys::rd_kafka_header_get_all(headers, at, &raw mut name, &raw mut value, &raw mut size);
            if code as c_int != 0 {
                break;
            }
            bytes += look(value, size);
        }
    }
    bytes
}
