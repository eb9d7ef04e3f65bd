//! The client library of Kafka (librdkafka), made safe: the only unsafe code of this crate.
//!
//! # Where things are
//! `native.rs` and `native_admin.rs` are prototypes. `code.rs`, `conf.rs`, `list.rs`, `queue.rs`, `headers.rs`, `message.rs`, `metadata.rs` own or copy one kind of
//! thing each. `client.rs` makes and ends clients and is called back by them, `notes.rs` keeps what they say, `unread.rs` what one says that looks at a log. `producer.rs` and `reports.rs` write.
//! `consumer.rs` reads, with `rebalance.rs`, `assign.rs`, `commit.rs`. `admin.rs` asks, with `admin_offsets.rs` and `admin_groups.rs`. Not here: what any of it means for the contract (the folder above).
//!
//! # Why it is sound
//! | What could go wrong | Why it does not |
//! |---|---|
//! | a code that no enum of Rust has | `native.rs` declares codes, states and statuses as numbers; fields are compared with the bindings when this is built |
//! | a panic that leaves a callback | the three callbacks (`client.rs`) catch it. Delivery reports and answers are events: no code of a caller runs inside of the library |
//! | a callback after its end | what callbacks use is a share of an `Arc`, given back after `rd_kafka_destroy` has ended all threads |
//! | a slot that is gone when its report comes | a batch is freed by who counts its last slot; each record that was taken over has one report (`reports.rs`) |
//! | a value that is gone while the library reads it | a batch shares what its values lie in, so that nobody changes or frees it, until its last slot is counted (`reports.rs`) |
//! | two threads at one slot | one writes it, once, before `filled` (release); others read it after that (acquire) |
//! | a message, list, event, queue or topic that is used after its end, or never given back | each has an owner that gives it back, borrows end before that, and owners are dropped before the client (fields in that order) |
//! | headers that are read where they lie, in a struct that the library keeps to itself | only of the version of which it is known, and where they lie behind the value; else the library is asked (`headers.rs`) |
//! | a record that outlives its message | it borrows it, and the callback that is shown it cannot keep it |
//! | a queue that is woken when it is gone | the bell holds the queue behind a lock, and lets go of it before the client ends |
//! | a topic of another client | it is compared, and refused |
//! | a client that two threads use | the library allows that for clients, queues and topics (`Send`, `Sync`); a consumer is only `Send`, by its parts |
//! | a question that the library works on by two threads at once | ListOffsets is not asked, DeleteRecords only where leaders are known (`admin_offsets.rs`). All other questions of administration are handed to its main thread whole |
//! | a partition that is taken away twice before it is not read any more | what takes away waits until it is not (`assign.rs`) |
//! | a destruction that never ends | it has a thread of its own, and callers a deadline; without a thread the client stays |
//! | an event that is called back with a lock held | queues have no callback of ours; a rebalance wakes its own queue, whose lock is not held then |

mod admin;
mod admin_groups;
mod admin_offsets;
mod assign;
mod client;
mod code;
mod commit;
mod conf;
mod consumer;
mod headers;
mod list;
mod message;
mod metadata;
mod native;
mod native_admin;
mod notes;
mod producer;
mod queue;
mod rebalance;
mod reports;
mod unread;

pub(in crate::kafka) use admin::{Admin, PartitionDescription, TopicDescription};
pub(in crate::kafka) use admin_groups::{GroupDescription, MemberDescription};
pub(in crate::kafka) use admin_offsets::Spec;
pub(in crate::kafka) use client::living;
pub(in crate::kafka) use code::{Code, Trouble};
pub(in crate::kafka) use conf::Conf;
pub(in crate::kafka) use consumer::{Consumer, Told, Waker};
pub(in crate::kafka) use headers::HeaderList;
pub(in crate::kafka) use list::{
    Answered, MAX_METADATA, OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Place,
};
pub(in crate::kafka) use message::RecordRef;
pub(in crate::kafka) use metadata::Metadata;
pub(in crate::kafka) use notes::Notes;
pub(in crate::kafka) use producer::{Producer, ProducerTopic, Record, Valued};
pub(in crate::kafka) use reports::{Report, Sent, Written};
