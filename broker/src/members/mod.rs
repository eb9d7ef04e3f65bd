//! What members of groups are on every backend whose servers keep the groups: pure cores that decide, and the thin shells that users hold.
//!
//! A backend keeps one [`Core`] behind a lock, and around it a [`Shell`] that acts. What a member owns, tells, takes acks of and gives up is the same
//! everywhere: that is the [`Owner`], which is a part of the core. What differs is told in two places: [`Log`], what a backend knows of each partition
//! beside that, and [`Core`], when it hands out and what is due.
//!
//! | File | Holds |
//! |---|---|
//! | `owner.rs`, `going.rs`, `storing.rs` | what a member owns, tells and takes; how partitions go; which acks are to be stored: pure |
//! | `share.rs` | one owned partition: pure |
//! | `core.rs` | what a backend decides beside: pure |
//! | `shell.rs`, `consumer.rs`, `control.rs` | what acts, and what the user holds |
//!
//! Not here: who owns what (leases on Redis, assignments on Kafka), reading, and what is stored: `../redis/members/`, `../kafka/members/`. Nor the members of
//! `../embedded/`, which share one core with their broker.

mod consumer;
mod control;
mod core;
mod going;
mod owner;
mod share;
mod shell;
mod storing;

pub(crate) use self::{
    consumer::GroupConsumer,
    control::broken_off,
    core::Core,
    owner::{Owner, Rules, Stirred, find, key_of, owned, queue},
    share::{Gap, Log, NONE, Read, Share, fenced},
    shell::{Open, Shell},
};
