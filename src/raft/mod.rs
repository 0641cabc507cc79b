//! Consensus: the Raft groups that this node hosts. The only user of openraft.
//!
//! `log.rs` is openraft's log on the shared log stream, `machine.rs` its state machine on the store, `proposer.rs` collects
//! operations into entries, `groups.rs` starts the groups and follows their leadership.
pub mod groups;
pub mod log;
pub mod machine;
pub mod network;
pub mod proposer;
pub mod types;

#[cfg(test)]
mod suite;

pub use groups::{Group, Groups, Leadership, ReadError, StartError};
pub use machine::AppliedHook;
pub use proposer::{ProposeError, Proposer};
