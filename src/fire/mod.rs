//! Firing: from the due index to the callback and back into the log.
//!
//! `window.rs` holds the nearest dues of a group, `group.rs` is its loop, `queues.rs` the fair order over targets,
//! `dispatch.rs` makes the attempts, `deliver.rs` is HTTP and the only user of reqwest.
pub mod deliver;
pub mod dispatch;
pub mod firing;
pub mod group;
pub mod queues;
pub mod scrub;
pub mod window;
pub mod windows;
