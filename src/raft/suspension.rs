//! Notices that the machine slept: what a majority has confirmed before that binds nobody any more.
//!
//! openraft measures leases on tokio's clock, which stands still while the machine sleeps (Linux's monotonic clock). The product's
//! own does not. Where the two have come apart, a leader needs a fresh confirmation before it acts. Asked by `group.rs`.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::InstantOf;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::raft::types::TypeConfig;

/// A difference up to this is the clocks' own.
const TOLERANCE: Duration = Duration::from_millis(20);

/// What is known of the machine's sleep. Shared by the groups of a node.
#[derive(Debug)]
pub(super) struct Suspension {
    clock: Arc<dyn Clock>,
    /// Both clocks at one moment.
    began: (Duration, InstantOf<TypeConfig>),
    slept: Mutex<Slept>,
}

#[derive(Debug)]
struct Slept {
    /// For how long, in all.
    whole: Duration,
    /// When its end was noticed the last time.
    noticed: Option<InstantOf<TypeConfig>>,
}

impl Suspension {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let began = (clock.monotonic(), TypeConfig::now());
        Self {
            clock,
            began,
            slept: Mutex::new(Slept {
                whole: Duration::ZERO,
                noticed: None,
            }),
        }
    }

    /// Whether what was sent at `acked` was sent since the machine slept last.
    pub(super) fn is_since(&self, acked: InstantOf<TypeConfig>) -> bool {
        // In this order a thread that stands still between the two makes the difference smaller, never larger.
        let whole = self.clock.monotonic().saturating_sub(self.began.0);
        let now = TypeConfig::now();
        let slept = whole.saturating_sub(now - self.began.1);
        let mut known = self.slept.lock();
        if slept > known.whole + TOLERANCE {
            known.whole = slept;
            known.noticed = Some(now);
            tracing::warn!(
                slept_ms = slept.as_millis(),
                "this machine has slept, that long in all: leaders here need a fresh confirmation before they act"
            );
        }
        known.noticed.is_none_or(|noticed| acked > noticed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Sleeper {
        began: Mutex<Option<InstantOf<TypeConfig>>>,
        slept_ms: AtomicU64,
    }

    impl Clock for Sleeper {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            let began = *self.began.lock().get_or_insert_with(TypeConfig::now);
            (TypeConfig::now() - began) + Duration::from_millis(self.slept_ms.load(Ordering::SeqCst))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_was_sent_since_the_machine_slept_counts() {
        let clock = Arc::new(Sleeper::default());
        let suspension = Suspension::new(clock.clone());
        let step = Duration::from_millis(100);
        tokio::time::sleep(step).await;
        let before = TypeConfig::now();
        assert!(suspension.is_since(before));
        clock.slept_ms.store(60_000, Ordering::SeqCst);
        assert!(!suspension.is_since(before), "within the lease, and worth nothing");
        tokio::time::sleep(step).await;
        let after = TypeConfig::now();
        assert!(suspension.is_since(after) && !suspension.is_since(before));
        clock.slept_ms.store(120_000, Ordering::SeqCst);
        assert!(!suspension.is_since(after), "each sleep counts");
    }
}
