//! The state of this node's groups on disk, over one small key-value seam.
//!
//! Written without fsync in one atomic batch per applied entry; after a crash the log is replayed from the applied
//! position. `fjall_kv.rs` is the only user of fjall; a simulator puts its own [`Kv`] in its place.
pub mod departure;
pub mod fjall_kv;
pub mod group;
mod inbox;
pub mod install;
mod journal;
pub mod key;
pub mod kv;
mod receiving;
pub mod snapshot;
pub mod spool;

pub use group::{Due, GroupMeta, GroupStore, StoreError};
pub use inbox::Inbox;
pub use kv::{Kv, KvError};
pub use snapshot::{ChunkError, Snapshot};
pub use spool::{DirSpools, Pieces, Spools};
