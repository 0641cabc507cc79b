//! The only clock. Everything that needs the time is given a [`Clock`]; nothing else in the product reads one.
//!
//! Wall time decides when a task is due. Monotonic time decides leases and measures durations: it goes on while the machine
//! sleeps (Linux's boottime clock), so that nothing that was granted before counts afterwards.
//! Sleeping is tokio's: it only decides when to look again, never whether something is due.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Source of wall and monotonic time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Milliseconds since the Unix epoch, rounded down: a due compared against it is never early.
    fn wall_ms(&self) -> u64;
    /// Time since an arbitrary fixed point; never goes back, and goes on while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// The same in milliseconds: for durations that a jump of the wall clock must not change.
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Duration,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: boottime() }
    }
}

/// Time since the machine started, its sleep included.
fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
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
        boottime().saturating_sub(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let clock = SystemClock::default();
        let before = clock.monotonic();
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.monotonic() >= before + Duration::from_millis(20));
    }
}
