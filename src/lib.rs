//! xcron, a timer service.
pub mod clock;
pub mod core;
pub mod entropy;
pub mod id;
pub mod limits;
pub mod wal;
