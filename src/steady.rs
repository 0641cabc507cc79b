//! Whether the wall clock can be trusted to say what is due: after a jump not before it was compared with the peers' again.
//!
//! Every look compares the wall clock with the monotonic one, so that no jump goes unseen between it and the use of the time.
//! While the clock is not trusted the firing (`fire/`) takes nothing that is due and begins no attempt; reading, writing and leading go
//! on. `cluster.rs` compares the clocks and reports here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::id::NodeId;
use crate::limits::CLOCK_OFFSET_MS_MAX;

/// The wall clock moving by more against the monotonic one, between two comparisons with the peers, is a jump. Far above what a
/// clock is slewed by in that time, and below what a node may be off.
const JUMP_MS: u64 = 200;

/// Why the clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It was never compared since the process began.
    Unknown,
    /// It has jumped: its own word does not count any more.
    Jumped,
    /// It is too far from the others.
    Off,
}

/// The wall clock, as far as it can be trusted. A cheap handle.
#[derive(Clone)]
pub struct Steady(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Peers whose clocks are too far from this one, which is right.
    wrong: Mutex<BTreeSet<NodeId>>,
    jumped: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Wall time minus monotonic time when it was last compared.
    base_ms: i64,
    /// Since when by the monotonic clock, and why.
    doubt: Option<(Duration, Doubt)>,
}

impl fmt::Debug for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steady").field(&*self.0.state.lock()).finish()
    }
}

impl Steady {
    /// A clock that is trusted from the start, or only when `has_peers` have been asked.
    pub fn new(clock: Arc<dyn Clock>, has_peers: bool) -> Self {
        let (base_ms, now, _) = moment(clock.as_ref());
        let doubt = has_peers.then_some((now, Doubt::Unknown));
        Self(Arc::new(Inner {
            clock,
            state: Mutex::new(State { base_ms, doubt }),
            wrong: Mutex::default(),
            jumped: Notify::new(),
        }))
    }

    /// Wall time, unless there is a doubt about it.
    pub fn wall_ms(&self) -> Option<u64> {
        let (wall_ms, doubt) = self.look();
        doubt.is_none().then_some(wall_ms)
    }

    /// The doubt there is about the clock now, and since when by the monotonic clock.
    pub fn doubt(&self) -> Option<(Duration, Doubt)> {
        self.look().1
    }

    /// Completes when a jump is seen.
    pub async fn jumped(&self) {
        self.0.jumped.notified().await;
    }

    /// The clock was compared, wholly after `since` where there was a doubt: this is how far it is off. A newer doubt stays.
    pub fn compared(&self, since: Option<Duration>, offset_ms: i64) {
        let (_, doubt) = self.look();
        let mut state = self.0.state.lock();
        if doubt.map(|(since, _)| since) != since {
            return;
        }
        let (base_ms, now, _) = moment(self.0.clock.as_ref());
        // Slewing since then is no jump.
        state.base_ms = base_ms;
        state.doubt = match doubt {
            _ if offset_ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX => None,
            Some(doubt) => Some(doubt),
            None => Some((now, Doubt::Off)),
        };
        if doubt.is_some() && state.doubt.is_none() {
            tracing::info!(offset_ms, "this node's clock is trusted again: its tasks fire");
        }
    }

    /// These peers' clocks are wrong, and no others: measured here, since the news of such a node is too old or too new for
    /// gossip.
    pub fn found_wrong(&self, peers: BTreeSet<NodeId>) {
        *self.0.wrong.lock() = peers;
    }

    /// Whether a peer's clock is wrong.
    pub fn is_wrong(&self, peer: NodeId) -> bool {
        self.0.wrong.lock().contains(&peer)
    }

    fn look(&self) -> (u64, Option<(Duration, Doubt)>) {
        let clock = self.0.clock.as_ref();
        let mut state = self.0.state.lock();
        let (mut base_ms, mut now, mut wall_ms) = moment(clock);
        if base_ms.abs_diff(state.base_ms) > JUMP_MS {
            // Unless this thread stood still between reading the two clocks.
            (base_ms, now, wall_ms) = moment(clock);
        }
        let moved_ms = base_ms - state.base_ms;
        if moved_ms.unsigned_abs() > JUMP_MS {
            *state = State {
                base_ms,
                doubt: Some((now, Doubt::Jumped)),
            };
            self.0.jumped.notify_one();
            tracing::warn!(
                moved_ms,
                "this node's wall clock has jumped: nothing fires until it was compared with its peers'"
            );
        }
        (wall_ms, state.doubt)
    }
}

/// Wall time minus monotonic time, and the two, in the order monotonic, wall.
fn moment(clock: &dyn Clock) -> (i64, Duration, u64) {
    let (now, wall_ms) = (clock.monotonic(), clock.wall_ms());
    // Any clock, also a mad one: half the range, so that differences stay in bounds.
    let bounded = |ms: Option<i64>| ms.unwrap_or(i64::MAX).min(i64::MAX / 4);
    let since_ms = bounded(i64::try_from(now.as_millis()).ok());
    (bounded(i64::try_from(wall_ms).ok()) - since_ms, now, wall_ms)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Hands {
        wall_ms: AtomicU64,
        monotonic_ms: AtomicU64,
    }

    impl Hands {
        fn pass(&self, wall_ms: u64, monotonic_ms: u64) {
            self.wall_ms.fetch_add(wall_ms, Ordering::SeqCst);
            self.monotonic_ms.fetch_add(monotonic_ms, Ordering::SeqCst);
        }
    }

    impl Clock for Hands {
        fn wall_ms(&self) -> u64 {
            self.wall_ms.load(Ordering::SeqCst)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
        }
    }

    fn since(steady: &Steady) -> Option<Duration> {
        steady.doubt().map(|(since, _)| since)
    }

    #[test]
    fn a_jump_is_doubted_until_it_was_compared() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone(), false);
        hands.pass(1_000_000, 1_000_000);
        assert_eq!(steady.wall_ms(), Some(1_000_000));
        hands.pass(3_600_000, 10);
        assert_eq!(steady.wall_ms(), None);
        let first = since(&steady);
        steady.compared(first, 3_600_000);
        assert_eq!(steady.doubt().map(|(_, doubt)| doubt), Some(Doubt::Jumped));
        steady.compared(None, 0);
        assert_eq!(steady.wall_ms(), None, "compared before the jump");
        steady.compared(first, -40);
        assert_eq!(steady.wall_ms(), Some(4_600_000));
    }

    #[test]
    fn a_comparison_across_another_jump_proves_nothing() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone(), true);
        assert_eq!(steady.doubt(), Some((Duration::ZERO, Doubt::Unknown)));
        let first = since(&steady);
        hands.pass(10_000, 20);
        steady.compared(first, 0);
        assert_eq!(steady.wall_ms(), None);
    }

    #[test]
    fn slewing_is_no_jump_and_drifting_too_far_is_doubted() {
        let hands = Arc::new(Hands::default());
        let steady = Steady::new(hands.clone(), false);
        for _ in 0..100 {
            hands.pass(1_100, 1_000);
            assert!(steady.wall_ms().is_some());
            steady.compared(None, 100);
        }
        steady.compared(None, 501);
        assert_eq!(steady.doubt().map(|(_, doubt)| doubt), Some(Doubt::Off));
        steady.compared(since(&steady), 500);
        assert!(steady.wall_ms().is_some());
    }
}
