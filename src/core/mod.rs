//! What xcron is about, without any I/O: tasks, schedules, and the replicated state machine.
//!
//! Nothing in here awaits, reads a clock, draws a random number, or touches a disk or a socket; `tests/tidy.rs` holds that.
pub mod command;
pub mod drift;
pub mod due;
pub mod export;
pub mod instant;
pub mod machine;
pub mod plan;
pub mod reason;
pub mod record;
pub mod retry;
pub mod schedule;
pub mod target;
pub mod task;
pub mod walk;
