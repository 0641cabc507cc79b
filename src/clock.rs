//! The only clock. Everything that needs the time is given a [`Clock`]; nothing else in the product reads one.
//!
//! Wall time decides when a task is due. Monotonic time decides leases and measures durations.
//! Sleeping is tokio's: it only decides when to look again, never whether something is due.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Source of wall and monotonic time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch, rounded down: a due compared against it is never early.
    fn wall_ms(&self) -> u64;
    /// Time since an arbitrary fixed point; never goes back.
    fn monotonic(&self) -> Duration;

    /// The same in milliseconds: for durations that a jump of the wall clock must not change.
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clocks"
    )]
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clocks"
    )]
    fn wall_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
