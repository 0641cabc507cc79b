//! The whole xcron cluster on one thread, from one seed.
//!
//! # Map
//! `world` moves everything on, step by step. `host` is a node's machine and process; below it `disk`, `clock`, `net`, `targets`
//! and `dice` are the seams of the product, and `os` what libraries read behind its back. A scenario (`scenarios/`) acts on the
//! world through its `stage`; `history` is what happened, `oracle` and `invariants/` judge it. `command` is the command line.
//!
//! Nothing in the product knows of this crate.
pub mod clock;
pub mod command;
pub mod dice;
pub mod disk;
pub mod history;
pub mod host;
pub mod invariants;
pub mod nemesis;
pub mod net;
pub mod oracle;
pub mod os;
pub mod scenarios;
pub mod stage;
pub mod strands;
pub mod swarm;
pub mod targets;
pub mod workload;
pub mod world;
