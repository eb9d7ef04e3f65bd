//! Questions to the servers that the crate does not know: ids of topics, which servers there are.
//!
//! A client of its own: a server answers the questions of one connection in their order, and a question would wait behind records. Not here: changing
//! topics (the crate's own client).

#![expect(unsafe_code, reason = "asks by the C library, and reads what it answers")]

use super::{
    client::Client,
    code::{Code, Trouble, text},
    conf::Conf,
    list::c_text,
    metadata::{self, Node},
    native_admin as native,
    notes::Notes,
    producer::Producer,
    queue::{Event, Queue, millis},
};
use rdkafka_sys::{rd_kafka_AdminOptions_t, rd_kafka_Node_t, rd_kafka_TopicDescription_t, rd_kafka_event_t};
use std::{
    ffi::c_char,
    slice,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Any question.
const ANY: u32 = 0;
/// A name that no topic has.
pub(super) const NO_TOPIC: &str = "__ropeway.none";
/// How long it is asked which server is the controller, after one did not answer, or who leads.
pub(super) const CONTROLLER: Duration = Duration::from_secs(1);
/// How much longer than it may take an answer is waited for: the library answers by itself, with its reason.
pub(super) const MARGIN: Duration = Duration::from_secs(1);
/// What the library is told that the answer to a question of a group may take: longer than any is waited for.
const NEVER: Duration = Duration::from_secs(3600);

/// A client that asks. Its calls block; they may be made from many threads.
#[derive(Debug)]
pub(in crate::kafka) struct Admin {
    /// It writes nothing; its thread hears what the client is told.
    asking: Producer,
    groups: Mutex<Groups>,
    notes: Arc<Notes>,
}

/// The client that asks what coordinators of groups answer, from the first such question on. It has a group, though it never joins it: where a server answers that it does not
/// coordinate a group any more, the library (2.12.1) looks for the coordinator of its own group, and reads through a null pointer where there is none.
#[derive(Debug)]
struct Groups {
    conf: Conf,
    client: Option<Producer>,
}

/// A topic as the servers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct TopicDescription {
    pub(in crate::kafka) name: String,
    /// Another one when it is made again.
    pub(in crate::kafka) id: [u8; 16],
    /// By number.
    pub(in crate::kafka) partitions: Vec<PartitionDescription>,
}

/// A partition as the servers describe it: ids of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct PartitionDescription {
    pub(in crate::kafka) id: i32,
    pub(in crate::kafka) leader: Option<i32>,
    pub(in crate::kafka) replicas: Vec<i32>,
    pub(in crate::kafka) isr: Vec<i32>,
}

/// The options of one question. Freed when it is dropped.
struct Options(*mut rd_kafka_AdminOptions_t);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: they are ours, and nothing uses them from here on.
        unsafe { native::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

impl Admin {
    /// Makes a client. It connects by itself, whenever it can.
    pub(in crate::kafka) fn open(conf: Conf, notes: Arc<Notes>) -> Result<Self, Trouble> {
        let groups = Mutex::new(Groups { conf: conf.copy(), client: None });
        Ok(Self { asking: Producer::open(conf, Arc::clone(&notes))?, groups, notes })
    }

    /// Who asks everything else.
    pub(super) fn asking(&self) -> &Client {
        self.asking.client()
    }

    /// The settings of another client.
    pub(super) fn conf(&self) -> Conf {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).conf.copy()
    }

    pub(super) fn notes(&self) -> Arc<Notes> {
        Arc::clone(&self.notes)
    }

    /// Who asks coordinators of groups; `group` is one that is asked for.
    fn asks_groups(&self, group: &str) -> Result<Producer, Trouble> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &groups.client {
            return Ok(client.clone());
        }
        let mut conf = groups.conf.copy();
        conf.fix(&[("group.id", group), ("enable.auto.commit", "false")])?;
        let client = Producer::asking(conf, Arc::clone(&self.notes))?;
        Ok(groups.client.insert(client).clone())
    }

    /// Which topics these are, one answer each, in their order. The only question of the library that tells their ids. It (2.12.1) ends the process where a server
    /// answers it by an error of the whole answer, which servers of 4.0 or newer can (version 13 of metadata): where something fails inside of them.
    pub(in crate::kafka) fn describe_topics(
        &self,
        names: &[&str],
        wait: Duration,
    ) -> Result<Vec<Result<TopicDescription, Trouble>>, Trouble> {
        let names = names.iter().map(|name| c_text(name)).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let event = self.asked(wait, |client, options, queue| {
            // SAFETY: client, options and queue are alive. The names end in NUL and are copied; the collection is ours, and destroyed after the call,
            // which copies it.
            unsafe {
                let topics =
                    native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                native::rd_kafka_DescribeTopics(client.native(), topics, options.0, queue.native());
                native::rd_kafka_TopicCollection_destroy(topics);
            }
        });
        if let (Err(Trouble { code: Code::TIMED_OUT, .. }), Some(first)) = (&event, names.first()) {
            // The library asks the server that was the controller when it was last told, and waits for that one where it stands still. Who it is now comes
            // with metadata, which any server gives.
            _ = metadata::ask(self.asking(), first.to_str().ok(), CONTROLLER);
        }
        let event = event?;
        // SAFETY: the event is alive while this reads it, and all that is answered belongs to it.
        unsafe {
            let result = native::rd_kafka_event_DescribeTopics_result(event.native());
            if result.is_null() {
                return Err(strange());
            }
            let mut count = 0;
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            Ok(array(topics, count).iter().map(|topic| described(*topic)).collect())
        }
    }

    /// The servers that there are, at least one. By a question about a topic that is none: the library (2.12.1) ends the process where a server answers its
    /// own question for them (DescribeCluster) and knows none yet, as one does that has just come back.
    pub(in crate::kafka) fn nodes(&self, wait: Duration) -> Result<Vec<Node>, Trouble> {
        let nodes = metadata::ask(self.asking(), Some(NO_TOPIC), wait)?.nodes;
        if nodes.is_empty() {
            return Err(Trouble::new(Code::PARTIAL, "the server that answers knows no servers yet"));
        }
        Ok(nodes)
    }

    /// The answer to a question, within the time that it may take and a moment.
    pub(super) fn asked(
        &self,
        wait: Duration,
        ask: impl FnOnce(&Client, &OptionsRef<'_>, &Queue),
    ) -> Result<Event, Trouble> {
        answer(self.asking(), wait, wait + MARGIN, ask)
    }

    /// The same for a question that the coordinator of a group answers. The library (2.12.1) ends the process where such a question was out of time for it,
    /// and the coordinator is reached afterwards. So for the library it never is; one that is not answered in time ends the client that asked it.
    pub(super) fn asked_of_group(
        &self,
        group: &str,
        wait: Duration,
        ask: impl FnOnce(&Client, &OptionsRef<'_>, &Queue),
    ) -> Result<GroupAnswer, Trouble> {
        let asks = self.asks_groups(group)?;
        let answered = answer(asks.client(), NEVER, wait, ask);
        if answered.as_ref().is_err_and(|trouble| trouble.code == Code::TIMED_OUT) {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.client.take_if(|client| client.is(&asks));
        }
        Ok(GroupAnswer { event: answered?, _asked: asks })
    }
}

/// What a coordinator answered. It keeps the client that asked, which another question may end meanwhile. Fields are dropped in this order.
pub(super) struct GroupAnswer {
    event: Event,
    _asked: Producer,
}

impl GroupAnswer {
    pub(super) fn native(&self) -> *mut rd_kafka_event_t {
        self.event.native()
    }
}

/// The library answers within `limit`, and is waited for until `wait` is over.
pub(super) fn answer(
    client: &Client,
    limit: Duration,
    wait: Duration,
    ask: impl FnOnce(&Client, &OptionsRef<'_>, &Queue),
) -> Result<Event, Trouble> {
    let mut said: [c_char; 512] = [0; 512];
    // SAFETY: the client is alive; the options are ours; `said` has as many bytes as are named.
    let options = unsafe {
        let options = Options(native::rd_kafka_AdminOptions_new(client.native(), ANY));
        let limit = millis(limit.max(Duration::from_millis(1)));
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, limit, said.as_mut_ptr(), said.len());
        options
    };
    let queue = client.new_queue();
    ask(client, &OptionsRef(options.0, std::marker::PhantomData), &queue);
    let event = queue.poll(wait).ok_or_else(|| Trouble::new(Code::TIMED_OUT, Code::TIMED_OUT.text()))?;
    match event.code() {
        Code::NONE => {
            client.told().heard();
            Ok(event)
        }
        code => Err(Trouble::new(code, event.text())),
    }
}

/// The options of a question that is being asked.
pub(super) struct OptionsRef<'a>(pub(super) *const rd_kafka_AdminOptions_t, std::marker::PhantomData<&'a ()>);

/// An answer without what it should hold.
pub(super) fn strange() -> Trouble {
    Trouble::new(Code::FAIL, "the client library gave an answer to another question")
}

/// # Safety
/// It belongs to an event that is alive.
unsafe fn described(topic: *const rd_kafka_TopicDescription_t) -> Result<TopicDescription, Trouble> {
    // SAFETY: as the caller promises; each count is that of the array beside it; texts end in NUL.
    unsafe {
        if let Some(trouble) = Trouble::of(native::rd_kafka_TopicDescription_error(topic)) {
            return Err(trouble);
        }
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        let (high, low) = match id.as_ref() {
            Some(id) => (
                native::rd_kafka_Uuid_most_significant_bits(id),
                native::rd_kafka_Uuid_least_significant_bits(id),
            ),
            None => (0, 0),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        let mut count = 0;
        let partitions = native::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let mut partitions: Vec<_> = array(partitions, count)
            .iter()
            .map(|partition| {
                let (mut replicas, mut isr) = (0, 0);
                let all = native::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut replicas);
                let in_sync = native::rd_kafka_TopicPartitionInfo_isr(*partition, &raw mut isr);
                PartitionDescription {
                    id: native::rd_kafka_TopicPartitionInfo_partition(*partition),
                    leader: ids(&[native::rd_kafka_TopicPartitionInfo_leader(*partition)])
                        .pop()
                        .filter(|id| *id >= 0),
                    replicas: ids(array(all, replicas)),
                    isr: ids(array(in_sync, isr)),
                }
            })
            .collect();
        partitions.sort_by_key(|partition| partition.id);
        Ok(TopicDescription {
            name: text(native::rd_kafka_TopicDescription_name(topic)),
            id: bytes,
            partitions,
        })
    }
}

/// # Safety
/// Each is null, or belongs to an event that is alive.
unsafe fn ids(nodes: &[*const rd_kafka_Node_t]) -> Vec<i32> {
    // SAFETY: as the caller promises.
    nodes
        .iter()
        .filter(|node| !node.is_null())
        .map(|node| unsafe { native::rd_kafka_Node_id(*node) })
        .collect()
}

/// # Safety
/// It is null, or an array of `count` that is alive while `'a` lasts.
pub(super) unsafe fn array<'a, T>(at: *mut T, count: usize) -> &'a [T] {
    if at.is_null() || count == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(at, count) }
}
