//! Redis Streams behind the contract, on Redis 7.0 or newer: one server (`redis://HOST:PORT`, `unix:///PATH`), the primary that sentinels name
//! (`redis+sentinel://HOST,HOST/NAME`), or a cluster (`redis+cluster://HOST,HOST`).
//!
//! | Parameter | Default | Means |
//! |---|---|---|
//! | `prefix` | `ropeway` | what all keys begin with, so that several installations share a server |
//! | `max_message` | `1MiB` | the largest message |
//! | `publish_deadline` | `30s` | when a publish is answered at the latest |
//! | `queue_messages`, `queue_bytes` | `65536`, `64MiB` | what may wait to be acked by the server; more is answered *not written* (`Throttled`) |
//! | `replicas` | `1` | how many replicas must have a message that is to survive the machine (a publisher asks for `Replicated`) before it is acked |
//! | `wait` | `1s` | how long such an ack waits for them; then the outcome is *unknown*. Where fewer are connected it is refused |
//! | `lease` | `9s` | for how long a member that is not heard of keeps what it owns, by the server's clock |
//! | `group_expiry` | `7d` | for how long a group without members holds retention back |
//! | `segment` | `64MiB` | the most bytes that retention by bytes removes together: an eighth of what a partition may hold (or 1 MiB, where that is more), if that is less |
//!
//! Hosts, user, password, database and TLS are those of `ropeway_store::redis`, with its parameters `db`, `ca`, `cert`, `key`, `sentinel_user` and
//! `sentinel_password`.
//!
//! # What lies in Redis
//! A name in braces is a hash tag: such keys share a slot, and a script may touch them together. `ropeway` stands for the prefix.
//!
//! | Key | Kind | Holds | Written by |
//! |---|---|---|---|
//! | `ropeway:topics` | set | names of topics | admin |
//! | `ropeway:topic:{orders}` | hash | `version` 1, `state` (making, ready, deleting, deleted), `life`, `partitions`, `age`, `bytes`, `token` and `at` of who makes it, `last` id of the life before, `held` until when something that is held may be due | `topic_*.lua` |
//! | `ropeway:topic:{orders}:groups` | set | groups with a position in it or a member on it | members, seek |
//! | `ropeway:{orders/0}:log` | stream | the messages, as `layout.rs` says | publishers; anybody who keeps to the layout |
//! | `ropeway:{orders/0}:part` | hash | `life`; `removed`: the last id that was purged or trimmed; of a topic with a limit of bytes `counted` (up to which entry), `bytes` (counted ever), `pieces` (where each begins); `stock:<name>` since when a consumer group of others holds retention back, and where it stands | `partition_*.lua` |
//! | `ropeway:{orders/0}:delayed`, `:held` | sorted set, hash | ids of delayed messages by the time they are due (another one of the same id with `#1` behind it); by id the words of their entries, each behind its length in 4 bytes | `hold.lua`, `release_due.lua`, `cancel.lua` |
//! | `ropeway:{orders/0}:group:billing` | hash | `epoch`, `owner`, `life`, `position` (all before it is done), `read` (entries ever added before it, or empty), `map` of what is done beyond, `beyond` (how many those are), `at` (last commit), `before` (position in an earlier life, until something of this one is done), `forward` (epoch and number of the last round of forwards that took effect) | `take_over.lua`, `commit.lua`, `forward.lua`, `seek.lua` |
//! | `ropeway:groups` | set | names of groups | members, seek |
//! | `ropeway:{group/billing}:members` | sorted set | members by the end of their lease | `lease.lua`, `release.lua` |
//! | `ropeway:{group/billing}:asked` | hash | member: token of its membership, a space, its topics joined by commas | `lease.lua`, `release.lua` |
//! | `ropeway:{group/billing}:owners` | hash | `orders/0`: member | `claim.lua`, `release.lua`, `lease.lua` |
//! | `ropeway:{group/billing}:had` | hash | `orders/0`: the static name that had it when it left; `@orders/0`: since when it is owned under one; `@seen`: when a member was heard of last | `claim.lua`, `release.lua`, `lease.lua` |
//! | `ropeway:{group/billing}:starts` | hash | topic: where the group starts in each partition, stored by its first member | members |
//! | `ropeway:{group/billing}:news` | stream of one entry | grows when somebody joins, leaves, takes or gives back | `lease.lua`, `claim.lua`, `release.lua` |
//!
//! # How it works
//! * **Positions** are ids of entries. The ids of a topic begin at its *life*, the server's time when it was made, which is always later than the last id of
//!   the life before: so a position of another life is recognised. A description is seen as a topic while its state is `ready`.
//! * **Publishing** is plain `XADD NOMKSTREAM`, in order, over one connection, with more than one write on its way. Nothing keeps count beside it: Redis does (`entries-added`).
//! * **Delay**: a message that is not due is held beside the log, and moved to it by a script, by the server's clock. Every process does that for the topics
//!   that it follows, consumes or publishes for later to. A topic is marked before it holds something, and one that is not marked costs nothing.
//! * **Retention**: a script counts the bytes of topics that have such a limit, and another removes what is too old or too much, but nothing that a live
//!   group has not finished, of ours or of others. Every process does that for the topics that it publishes to, reads or consumes.
//! * **Reading** is plain `XREAD`, of readers and of members alike, and has no effect on the server: who lost a partition can do no harm by it. What
//!   was removed is known by `removed`, and by counting where somebody else trimmed (`follow.rs`).
//! * **Losses** are told: a topic that is gone though nobody deleted it (FLUSHALL, a restart without its file), a log that lost its end, and a log or the
//!   marks beside it that went alone (eviction). The latter two are made again, and what lay there counts as removed (`partition_mend.lua`). Readers and
//!   members look once a second whether their logs are there.
//! * **Groups**: members agree on who owns what by a table with leases. What fences is the epoch in the partition's slot: a take-over raises it to the larger
//!   of one more and the server's clock, and a commit of another epoch is refused. The position is mirrored by `XGROUP SETID .. ENTRIESREAD`, so that
//!   tools of Redis show the right lag.
//! * **Forwarding** is one script: it publishes, or holds what is for later, and stores what is acked by it, if the epoch holds. A member sends one round of
//!   forwards at a time, with a number; a round that is sent again is known by it. In a cluster, where no script can touch two slots, what is
//!   forwarded is published and then acked.
//! * **In a cluster** a topic spans slots, and so do its groups. A script touches keys of one slot. Commands go to the node that has their slot, and follow
//!   it when it moves; what a slot has is done in order. Redis refuses to read streams of several slots at once, so that each log that is waited for
//!   has a connection that waits (`bells.rs`), and what came is read by slot. An ack promises what the least of the nodes does. What was read or taken over from
//!   a node is not committed at one that took its place (`ropeway_store::redis::Homes` tells it from one to which the slot moved).
//! * **Streams of somebody else** are topics of one partition whose name is that of the key. They can be read and published to, and are not made, grown or deleted here.
//!
//! # Where things are
//! Pure: `keys.rs`, `layout.rs`, `description.rs`, `follow.rs` (where reading is, what is missing), `pace.rs` (how large the messages of a log are), `turns.rs` (which logs are read together, and how much of each), `start.rs`, `delay.rs` (when to look for what is due), `retention.rs` (what goes), `request.rs` (commands as bytes), `lasting.rs` (failures that end a reader or member), `bulk.rs` (when a connection carries much). In the
//! server: `scripts/`. Connections: `commands.rs` (administration), `publish.rs`, `placing.rs`, `write.rs`, `writer.rs`, `settling.rs` and `searching.rs` (publishing), `facts.rs` (what an ack is worth), `health.rs`, `feed.rs` and `bells.rs` (reading), `mover.rs` (delayed messages), `keeper.rs` (retention), `wake.rs`.
//! The contract on top: `broker.rs`, `admin.rs`, `group_admin.rs`, `reader.rs`; `topics.rs` is what they know of topics; `members/` are members of groups.
//! Not here: sockets, TLS, passwords (`ropeway_store::redis`), what all backends share.

mod admin;
mod bells;
mod broker;
mod bulk;
mod commands;
mod delay;
mod description;
mod facts;
mod failure;
mod feed;
mod follow;
mod following;
mod group_admin;
mod health;
mod keeper;
mod keys;
mod lanes;
mod lasting;
mod layout;
mod members;
mod mover;
mod pace;
mod placing;
mod publish;
mod reader;
mod request;
mod retention;
mod scripts;
mod searching;
mod settings;
mod settling;
mod start;
mod topics;
mod turns;
mod wake;
mod write;
mod writer;

pub use broker::RedisStreams;
pub use settings::RedisStreamsSettings;

use crate::{BrokerUrl, MessageBroker, Result};
use ropeway_store::redis::RedisSettings;
use std::sync::Arc;

/// Opens every URL of Redis.
pub(crate) async fn open(url: &BrokerUrl) -> Result<Arc<dyn MessageBroker>> {
    let (server, settings) = check(url)?;
    Ok(RedisStreams::connect(server, settings).await?)
}

/// The settings of a URL.
pub(crate) fn check(url: &BrokerUrl) -> Result<(RedisSettings, RedisStreamsSettings)> {
    let settings = RedisStreamsSettings::of_url(url)?;
    // What it does not know is ours, and was checked.
    let (server, _) = RedisSettings::from_url_and_rest(&url.raw).map_err(failure::failed)?;
    Ok((server, settings))
}
