//! How many connections are kept to all targets together. The HTTP client bounds those to one target alone.
//!
//! Counts from outside: an attempt over a kept connection takes a slot of its target, and a slot is given up once none of the
//! target's connections can be left that made it necessary. Whoever gets no slot makes a connection of its own and closes it.
//! Used by `deliver.rs` alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::limits::KEPT_CONNECTION_IDLE_MS;

/// After so long without use no idle connection is left: the client looks for those whose time is over that often.
const GONE_AFTER: Duration = Duration::from_millis(2 * KEPT_CONNECTION_IDLE_MS + 500);
/// Shortest time between two looks for slots that are needed no more.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// The slots of all targets.
#[derive(Debug)]
pub(super) struct Slots {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By scheme, host and port.
    targets: HashMap<String, Target>,
    slots: usize,
    swept: Duration,
}

/// The slots of one target.
#[derive(Debug)]
struct Target {
    in_use: usize,
    slots: usize,
    /// Most in use at once since `since`.
    peak: usize,
    since: Duration,
    /// When one was used last.
    used: Duration,
}

/// An attempt's slot, until dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    target: String,
}

impl Slots {
    pub(super) fn new(clock: Arc<dyn Clock>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            clock,
            limit,
        })
    }

    /// A slot for an attempt at `target`, if there is one.
    pub(super) fn take(self: &Arc<Self>, target: String) -> Option<Slot> {
        let now = self.clock.monotonic();
        let mut inner = self.inner.lock();
        let has_idle = inner
            .targets
            .get(&target)
            .is_some_and(|target| target.in_use < target.slots);
        if !has_idle {
            if inner.slots >= self.limit {
                inner.sweep(now);
            }
            if inner.slots >= self.limit {
                return None;
            }
            inner.slots += 1;
        }
        let of = inner.targets.entry(target.clone()).or_insert(Target {
            in_use: 0,
            slots: 0,
            peak: 0,
            since: now,
            used: now,
        });
        of.slots += usize::from(!has_idle);
        of.in_use += 1;
        of.peak = of.peak.max(of.in_use);
        drop(inner);
        Some(Slot {
            slots: self.clone(),
            target,
        })
    }
}

impl Inner {
    /// Gives up the slots that were not needed for so long that their connections are gone.
    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        let slots = &mut self.slots;
        self.targets.retain(|_, target| {
            if target.in_use == 0 && now.saturating_sub(target.used) >= GONE_AFTER {
                *slots -= target.slots;
                return false;
            }
            if now.saturating_sub(target.since) >= GONE_AFTER {
                *slots -= target.slots - target.peak;
                target.slots = target.peak;
                target.peak = target.in_use;
                target.since = now;
            }
            true
        });
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = self.slots.clock.monotonic();
        let mut inner = self.slots.inner.lock();
        if let Some(target) = inner.targets.get_mut(&self.target) {
            target.in_use -= 1;
            target.used = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows what it is set to.
    #[derive(Debug, Default)]
    struct SetClock(Mutex<Duration>);

    impl Clock for SetClock {
        fn wall_ms(&self) -> u64 {
            0
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    fn take(kept: &Arc<Slots>, target: &str) -> Option<Slot> {
        kept.take(target.to_owned())
    }

    #[test]
    fn the_bound_is_one_for_all_targets() {
        let clock = Arc::new(SetClock::default());
        let kept = Slots::new(clock.clone(), 3);
        let held: Vec<Slot> = ["a", "a", "b"]
            .iter()
            .filter_map(|target| take(&kept, target))
            .collect();
        assert_eq!(held.len(), 3);
        assert!(take(&kept, "a").is_none() && take(&kept, "c").is_none());
        drop(held);
        let again: Vec<Slot> = ["a", "a", "b"]
            .iter()
            .filter_map(|target| take(&kept, target))
            .collect();
        assert_eq!(again.len(), 3, "their connections are used again");
        assert!(take(&kept, "a").is_none());
    }

    #[test]
    fn slots_whose_connections_are_gone_are_free() {
        let clock = Arc::new(SetClock::default());
        let kept = Slots::new(clock.clone(), 3);
        drop([take(&kept, "a"), take(&kept, "a"), take(&kept, "b")]);
        *clock.0.lock() = GONE_AFTER.saturating_sub(Duration::from_millis(1));
        assert!(take(&kept, "c").is_none(), "they may still be open");
        let in_use = take(&kept, "b");
        // What was used in the first span may have been idle since its very end.
        *clock.0.lock() = GONE_AFTER;
        assert!(take(&kept, "c").is_none());
        *clock.0.lock() = 2 * GONE_AFTER;
        let [c, d, e] = [take(&kept, "c"), take(&kept, "d"), take(&kept, "e")];
        assert!(c.is_some() && d.is_some() && e.is_none(), "b is still in use");
        drop(in_use);
        *clock.0.lock() = (3 * GONE_AFTER).saturating_sub(SWEEP_INTERVAL);
        assert!(take(&kept, "e").is_none(), "its connection may still be open");
        *clock.0.lock() = 3 * GONE_AFTER;
        assert!(take(&kept, "e").is_some());
    }

    #[test]
    fn a_target_that_needs_fewer_keeps_fewer() {
        let clock = Arc::new(SetClock::default());
        let kept = Slots::new(clock.clone(), 2);
        drop([take(&kept, "a"), take(&kept, "a")]);
        let mut spans = 1..;
        let is_free = spans.by_ref().take(4).any(|span| {
            *clock.0.lock() = span * (GONE_AFTER / 2);
            drop(take(&kept, "a"));
            take(&kept, "b").is_some()
        });
        assert!(is_free, "one connection is used again and again, the other is gone");
    }
}
