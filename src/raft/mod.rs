//! Consensus: the Raft groups that this node hosts. The only user of openraft.
//!
//! `log.rs` is openraft's log on the shared log stream, `machine.rs` its state machine on the store, `proposer.rs` collects
//! operations into entries, `group.rs` is one group on this node (`leading.rs` claims its leadership, `hand_over.rs` gives it
//! away, `deaf.rs` ends it), `groups.rs` all of them (`leave.rs` lets one go), `wire.rs`, `network.rs` and
//! `serve.rs` the messages between replicas (`install.rs` installs what another sent), `runtime.rs` what openraft runs on.
//! `recover.rs` is for a majority that is lost for good.
mod deaf;
pub mod group;
pub mod groups;
pub mod hand_over;
mod install;
mod leading;
mod leave;
pub mod log;
pub mod machine;
mod members;
pub mod network;
pub mod proposer;
pub mod recover;
mod runtime;
pub mod serve;
pub mod suspension;
mod types;
mod wire;
mod words;

#[cfg(test)]
mod suite;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use deaf::end_deaf_terms;
pub use group::{ChangeError, Group, Leadership, ReadError};
pub use groups::{Groups, SNAPSHOT_ENTRIES, StartError};
pub use hand_over::{MOMENT, Urgency};
pub use machine::AppliedHook;
pub use members::{MemberState, Members, Standing};
pub use proposer::{ProposeError, Proposer};
