//! Fair, bounded dispatch: whose turn it is among the targets that have something waiting.
//!
//! Pure and synchronous; `fire/dispatch.rs` drives it under a lock. Round robin over the targets that are below their own
//! bound, under one bound for all: a target that hangs holds its own share of the places and nobody else's.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Bounds of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Over all targets.
    pub in_flight_max: usize,
    /// To one target.
    pub in_flight_per_target_max: usize,
}

#[derive(Debug)]
struct TargetQueue<T> {
    waiting: VecDeque<T>,
    in_flight: usize,
    /// In the ring: has something waiting and is below its bound.
    is_ready: bool,
}

/// Waiting items of many targets.
#[derive(Debug)]
pub struct Queues<K, T> {
    limits: QueueLimits,
    targets: HashMap<K, TargetQueue<T>>,
    /// Targets whose turn comes next, each at most once.
    ring: VecDeque<K>,
    waiting: usize,
    in_flight: usize,
}

impl<K: Copy + Eq + Hash, T> Queues<K, T> {
    /// Nothing waiting, nothing in flight.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            targets: HashMap::new(),
            ring: VecDeque::new(),
            waiting: 0,
            in_flight: 0,
        }
    }

    /// Appends an item to its target's queue.
    pub fn push(&mut self, target: K, item: T) {
        let queue = self.targets.entry(target).or_insert_with(|| TargetQueue {
            waiting: VecDeque::new(),
            in_flight: 0,
            is_ready: false,
        });
        queue.waiting.push_back(item);
        self.waiting += 1;
        self.admit(target);
    }

    /// The next item that may start; it is in flight until [`Self::finish`] is called for its target.
    pub fn pop(&mut self) -> Option<(K, T)> {
        if self.in_flight >= self.limits.in_flight_max {
            return None;
        }
        let target = self.ring.pop_front()?;
        let queue = self.targets.get_mut(&target).expect("a target in the ring has a queue");
        queue.is_ready = false;
        let item = queue
            .waiting
            .pop_front()
            .expect("a target in the ring has something waiting");
        queue.in_flight += 1;
        self.in_flight += 1;
        self.waiting -= 1;
        self.admit(target);
        Some((target, item))
    }

    /// An item of this target is no longer in flight.
    pub fn finish(&mut self, target: K) {
        let Some(queue) = self.targets.get_mut(&target).filter(|queue| queue.in_flight > 0) else {
            return;
        };
        queue.in_flight -= 1;
        self.in_flight -= 1;
        if queue.in_flight == 0 && queue.waiting.is_empty() {
            self.targets.remove(&target);
        } else {
            self.admit(target);
        }
    }

    /// Items waiting for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Items in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts the target into the ring if it has something waiting and room.
    fn admit(&mut self, target: K) {
        let Some(queue) = self.targets.get_mut(&target) else {
            return;
        };
        let has_room = queue.in_flight < self.limits.in_flight_per_target_max;
        if !queue.is_ready && has_room && !queue.waiting.is_empty() {
            queue.is_ready = true;
            self.ring.push_back(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        in_flight_max: 4,
        in_flight_per_target_max: 2,
    };

    #[test]
    fn a_target_that_hangs_leaves_room_for_the_others() {
        let mut queues = Queues::new(LIMITS);
        (0..100).for_each(|n| queues.push("hangs", n));
        queues.push("fine", 0);
        let started: Vec<_> = std::iter::from_fn(|| queues.pop()).collect();
        assert_eq!(started, [("hangs", 0), ("fine", 0), ("hangs", 1)]);
        queues.push("fine", 1);
        assert_eq!(queues.pop(), Some(("fine", 1)));
        assert_eq!(queues.pop(), None, "the bound of all");
    }

    #[test]
    fn an_idle_target_leaves_nothing_behind() {
        let mut queues = Queues::new(LIMITS);
        for target in 0..1_000 {
            queues.push(target, ());
            assert_eq!(queues.pop(), Some((target, ())));
            queues.finish(target);
        }
        assert!(queues.targets.is_empty() && queues.ring.is_empty());
        assert_eq!((queues.waiting(), queues.in_flight()), (0, 0));
    }

    proptest! {
        /// Bounds hold, nothing is lost or doubled, each target is first in first out, and whoever may start does.
        #[test]
        fn laws_hold(steps in proptest::collection::vec((0..3_u8, 0..5_u8), 1..300)) {
            let mut queues = Queues::new(LIMITS);
            let mut waiting: BTreeMap<u8, VecDeque<usize>> = BTreeMap::new();
            let mut flying: BTreeMap<u8, usize> = BTreeMap::new();
            for (n, (kind, target)) in steps.into_iter().enumerate() {
                match kind {
                    0 => {
                        queues.push(target, n);
                        waiting.entry(target).or_default().push_back(n);
                    }
                    1 => {
                        if let Some((target, item)) = queues.pop() {
                            prop_assert_eq!(waiting.get_mut(&target).and_then(VecDeque::pop_front), Some(item));
                            *flying.entry(target).or_default() += 1;
                        } else {
                            let total: usize = flying.values().sum();
                            let blocked = |target| flying.get(target).is_some_and(|n| *n >= 2);
                            let is_blocked = waiting.iter().all(|(target, items)| items.is_empty() || blocked(target));
                            prop_assert!(total >= 4 || is_blocked, "something could have started");
                        }
                    }
                    _ => {
                        queues.finish(target);
                        if let Some(n) = flying.get_mut(&target) {
                            *n = n.saturating_sub(1);
                        }
                    }
                }
                prop_assert!(queues.in_flight() <= 4 && flying.values().all(|n| *n <= 2));
                prop_assert_eq!(queues.in_flight(), flying.values().sum::<usize>());
                prop_assert_eq!(queues.waiting(), waiting.values().map(VecDeque::len).sum::<usize>());
            }
        }

        /// A target with something waiting is served within one round of the others.
        #[test]
        fn nobody_starves(others in 1..50_usize) {
            let limits = QueueLimits { in_flight_max: 1, in_flight_per_target_max: 1 };
            let mut queues = Queues::new(limits);
            for target in 0..others {
                (0..10).for_each(|_| queues.push(target, ()));
            }
            queues.push(usize::MAX, ());
            let mut served = Vec::new();
            for _ in 0..=others {
                let (target, ()) = queues.pop().expect("one place is free");
                queues.finish(target);
                served.push(target);
            }
            prop_assert!(served.contains(&usize::MAX), "not served within a round");
        }
    }
}
