//! xcron, a timer service.
//!
//! # Map
//! `api` takes requests, `router` finds the task's group, `raft` commits through `wal`, `core` decides, `store` keeps the
//! state, `fire` delivers. `node` puts them together, `cli` is the program.
//!
//! Layer rule: `core` imports only `id` and `limits`; everything else follows doc/architecture.md and `tests/tidy.rs`.
pub mod api;
pub mod blocking;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod core;
pub mod entropy;
pub mod failure;
pub mod fire;
pub mod id;
pub mod identity;
pub mod limits;
pub mod log_limit;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod node;
pub mod open_files;
pub mod peer;
pub mod placement;
pub mod raft;
pub mod readiness;
pub mod router;
pub mod secret;
pub mod space;
pub mod steady;
pub mod store;
pub mod wal;
