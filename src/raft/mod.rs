//! Consensus: the Raft groups that this node hosts. The only user of openraft.
//!
//! `log.rs` is openraft's log on the shared log stream, `machine.rs` its state machine on the store, `proposer.rs` collects
//! operations into entries, `group.rs` is one group on this node, `groups.rs` all of them, `wire.rs`, `network.rs` and
//! `serve.rs` the messages between replicas, `runtime.rs` what openraft runs on.
pub mod group;
pub mod groups;
pub mod log;
pub mod machine;
pub mod network;
pub mod proposer;
mod runtime;
pub mod serve;
pub mod types;
mod wire;

#[cfg(test)]
mod suite;

pub use group::{ChangeError, Group, Leadership, MemberState, Members, ReadError};
pub use groups::{Groups, SNAPSHOT_ENTRIES, StartError};
pub use machine::AppliedHook;
pub use proposer::{ProposeError, Proposer};
