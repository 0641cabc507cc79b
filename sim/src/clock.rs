//! A node's clocks: monotonic time is its runtime's, which the world lets run faster or slower; wall time is true time, as if
//! disciplined from outside, plus a skew that can jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use xcron::clock::Clock;

use crate::history::START_WALL_MS;

/// How far a node's wall clock is off, in milliseconds; it outlives the node's process.
pub type Skew = Arc<AtomicI64>;

/// The current step of the world, in true time and on the monotonic clock of one run of a node.
#[derive(Debug, Default)]
#[expect(clippy::struct_field_names, reason = "the unit is part of the name")]
pub struct Timeline {
    from_us: AtomicU64,
    until_us: AtomicU64,
    /// Since the beginning of the run of the node, on its own clock.
    own_us: AtomicU64,
}

impl Timeline {
    /// A step begins, when the run has lasted `own_us` on its own clock.
    pub fn step(&self, from_us: u64, until_us: u64, own_us: u64) {
        self.from_us.store(from_us, Ordering::SeqCst);
        self.until_us.store(until_us, Ordering::SeqCst);
        self.own_us.store(own_us, Ordering::SeqCst);
    }
}

/// The clocks of one run of a node.
#[derive(Debug)]
pub struct NodeClock {
    /// The beginning of the run of the simulation, on the monotonic clock.
    origin: Instant,
    /// The beginning of the run of the node.
    began: Instant,
    timeline: Arc<Timeline>,
    skew_ms: Skew,
}

impl NodeClock {
    /// Clocks of a run that began at `began`, in a simulation that began at `origin`.
    pub fn new(origin: Instant, began: Instant, timeline: Arc<Timeline>, skew_ms: Skew) -> Self {
        Self {
            origin,
            began,
            timeline,
            skew_ms,
        }
    }

    /// True time, in microseconds: the node itself cannot know it.
    #[expect(clippy::disallowed_methods, reason = "the runtime's own virtual time")]
    pub fn true_us(&self) -> u64 {
        let own = Instant::now().saturating_duration_since(self.began);
        let own_us = u64::try_from(own.as_micros()).expect("a run is short");
        let since_us = own_us.saturating_sub(self.timeline.own_us.load(Ordering::SeqCst));
        let now_us = self.timeline.from_us.load(Ordering::SeqCst) + since_us;
        now_us.min(self.timeline.until_us.load(Ordering::SeqCst))
    }
}

impl Clock for NodeClock {
    fn wall_ms(&self) -> u64 {
        let true_ms = START_WALL_MS + self.true_us() / 1_000;
        true_ms.saturating_add_signed(self.skew_ms.load(Ordering::SeqCst))
    }

    #[expect(clippy::disallowed_methods, reason = "the runtime's own virtual time")]
    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}
