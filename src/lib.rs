//! xcron, a timer service.
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod entropy;
pub mod failure;
pub mod id;
pub mod identity;
pub mod limits;
pub mod readiness;
pub mod router;
pub mod store;
