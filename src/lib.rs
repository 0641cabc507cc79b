//! xcron, a timer service.
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod entropy;
pub mod id;
pub mod limits;
pub mod store;
