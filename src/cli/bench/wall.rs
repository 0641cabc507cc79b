//! Wall time in microseconds, for stamping callbacks as they arrive.
//!
//! The product's `Clock` rounds down to milliseconds, which is right for firing and too coarse for measuring it.
//! Nothing but the bench reads this: a measurement is no part of what a simulator owns.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "the bench measures from outside, finer than Clock's milliseconds"
)]
pub fn wall_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}
