//! Connections to stateful services: the embedded key-value store, and Redis.
//!
//! [`KeyValue`] is the seam: named keyspaces of ordered keys, and one atomic commit over several of them. [`MemoryStore`] keeps all
//! of it in this process, `FjallStore` (feature `fjall`) in a directory that one process owns.
//! The module `redis` (feature `redis`) connects to Redis.
//! Not here: what is stored, and how often it is committed: that is decided by who uses it.
//!
//! # Features
//! | Feature | Default | Brings |
//! |---|---|---|
//! | `fjall` | yes | `FjallStore`, the store on disk |
//! | `redis` | no | the module `redis` |

mod chunks;
mod error;
#[cfg(feature = "fjall")]
mod fjall;
mod key_value;
mod memory;
#[cfg(feature = "redis")]
pub mod redis;

pub use error::{Error, Result};
#[cfg(feature = "fjall")]
pub use fjall::{
    Damage, FjallSettings, FjallStore, KeyspaceReport, Look, Report, SalvagedStore, check, look, salvage,
};
pub use key_value::{
    Direction, Durability, KeyValue, Keyspace, Limit, Page, Purpose, Usage, WriteBatch, prefix_end,
};
pub use memory::MemoryStore;
