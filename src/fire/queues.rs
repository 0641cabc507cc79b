//! Fair, bounded dispatch: whose turn it is among the targets that have something waiting.
//!
//! Pure and synchronous; `fire/dispatch.rs` drives it under a lock. A place is a request in flight. Three rules keep one
//! target's trouble from the others (doc/decisions/018-targets.md): a target may take another place only while more places
//! are free than it has, and before its first answer, while eight times as many are; one that does not answer is let down to a few;
//! and some places are kept from targets of which nothing is known, and most from those that are known not to answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// Places that a target which does not answer may still have: probes.
pub const PROBES: usize = 4;
/// Attempts in a row without an answer after which a target is in trouble.
const SILENCES: u32 = 3;
/// A target of which nothing is known takes another place while so many times as many are free as it has. Before its first answer it
/// may be one that hangs, and others may come one after the other.
const STRANGER_LEAVES: usize = 8;
/// Most targets without anything waiting or in flight whose standing is remembered.
const REMEMBERED_MAX: usize = 4_096;

/// Bounds of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Over all targets.
    pub in_flight_max: usize,
    /// To one target.
    pub in_flight_per_target_max: usize,
}

impl QueueLimits {
    /// Places for a standing and those below it; the rest is kept for better ones.
    fn places(&self, standing: Standing) -> usize {
        let all = self.in_flight_max;
        match standing {
            Standing::Answers => all,
            Standing::Unknown => all - all / 8,
            Standing::Silent => (all / 4).max(1).min(all),
        }
    }
}

/// What the end of an attempt says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has answered, whatever.
    Answer,
    /// It has not: no connection, or no answer in time.
    Silence,
}

/// What is known of a target, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Answers = 0,
    Unknown = 1,
    /// In trouble.
    Silent = 2,
}

impl Standing {
    const ALL: [Self; 3] = [Self::Answers, Self::Unknown, Self::Silent];

    /// How many places must be free for each that such a target has, before it takes another.
    fn leaves(self) -> usize {
        match self {
            Self::Answers | Self::Silent => 1,
            Self::Unknown => STRANGER_LEAVES,
        }
    }
}

#[derive(Debug)]
struct TargetQueue<T> {
    waiting: VecDeque<T>,
    in_flight: usize,
    /// Most places that it may have by what was heard of it.
    allowed: usize,
    /// Attempts in a row without an answer.
    silences: u32,
    has_answered: bool,
    /// When it was served last: among equals the one with the lowest turn is next.
    turn: u64,
    /// Its place among the idle.
    idle: Option<u64>,
}

impl<T> TargetQueue<T> {
    fn standing(&self) -> Standing {
        if self.silences >= SILENCES {
            Standing::Silent
        } else if self.has_answered {
            Standing::Answers
        } else {
            Standing::Unknown
        }
    }

    fn is_ready(&self) -> bool {
        !self.waiting.is_empty() && self.in_flight < self.allowed
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// Nothing was ever heard of it.
    fn is_blank(&self) -> bool {
        !self.has_answered && self.silences == 0
    }

    /// Additive increase, multiplicative decrease.
    fn hear(&mut self, heard: Heard, limits: &QueueLimits) {
        let most = limits.in_flight_per_target_max;
        match heard {
            Heard::Answer => {
                self.has_answered = true;
                self.silences = 0;
                self.allowed = (self.allowed + 1).min(most);
            }
            Heard::Silence => {
                self.silences = self.silences.saturating_add(1);
                self.allowed = (self.allowed / 2).max(PROBES.min(most));
            }
        }
    }
}

/// Waiting items of many targets.
#[derive(Debug)]
pub struct Queues<K, T> {
    limits: QueueLimits,
    targets: HashMap<K, TargetQueue<T>>,
    /// Targets that have something waiting and are below their own bound, by standing: fewest in flight first, then by turn.
    ready: [BTreeSet<(usize, u64, K)>; 3],
    /// In flight by the standing of the targets.
    flying: [usize; 3],
    /// Targets that are remembered only, by when they became so.
    idle: BTreeMap<u64, K>,
    turns: u64,
    waiting: usize,
}

impl<K: Copy + Ord + Hash, T> Queues<K, T> {
    /// Nothing waiting, nothing in flight.
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            targets: HashMap::new(),
            ready: Default::default(),
            flying: [0; 3],
            idle: BTreeMap::new(),
            turns: 0,
            waiting: 0,
        }
    }

    /// Appends an item to its target's queue.
    pub fn push(&mut self, target: K, item: T) {
        self.turns += 1;
        self.targets.entry(target).or_insert_with(|| TargetQueue {
            waiting: VecDeque::new(),
            in_flight: 0,
            allowed: self.limits.in_flight_per_target_max,
            silences: 0,
            has_answered: false,
            turn: self.turns,
            idle: None,
        });
        self.waiting += 1;
        self.change(target, |queue| queue.waiting.push_back(item));
    }

    /// The next item that may start; it is in flight until [`Self::finish`] is called for its target.
    pub fn pop(&mut self) -> Option<(K, T)> {
        let heads = Standing::ALL.into_iter().filter_map(|standing| {
            let head = self.ready[standing as usize].first()?;
            // Whoever has more places than are free leaves them to those that have fewer.
            (head.0 * standing.leaves() < self.free(standing)).then_some(*head)
        });
        let (.., target) = heads.min()?;
        self.turns += 1;
        self.waiting -= 1;
        let turn = self.turns;
        let item = self.change(target, |queue| {
            queue.in_flight += 1;
            queue.turn = turn;
            queue.waiting.pop_front()
        });
        item.flatten().map(|item| (target, item))
    }

    /// An item of this target is no longer in flight.
    pub fn finish(&mut self, target: K) {
        self.change(target, |queue| queue.in_flight = queue.in_flight.saturating_sub(1));
    }

    /// What an attempt that is in flight has shown of its target.
    pub fn hear(&mut self, target: K, heard: Heard) {
        let limits = self.limits;
        self.change(target, |queue| queue.hear(heard, &limits));
    }

    /// Drops what waits and is not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let targets: Vec<_> = self.targets.keys().copied().collect();
        for target in targets {
            let dropped = self.change(target, |queue| {
                let before = queue.waiting.len();
                queue.waiting.retain(&mut keep);
                before - queue.waiting.len()
            });
            self.waiting -= dropped.unwrap_or(0);
        }
    }

    /// Whether the target is known not to answer.
    pub fn is_in_trouble(&self, target: K) -> bool {
        let queue = self.targets.get(&target);
        queue.is_some_and(|queue| queue.standing() == Standing::Silent)
    }

    /// Items waiting for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Items in flight.
    pub fn in_flight(&self) -> usize {
        self.flying.iter().sum()
    }

    /// Places that are free for a target of this standing.
    fn free(&self, standing: Standing) -> usize {
        // Places of a standing are shared with those below it.
        let used_from = |from: usize| self.flying[from..].iter().sum::<usize>();
        let of = |standing: Standing| {
            self.limits
                .places(standing)
                .saturating_sub(used_from(standing as usize))
        };
        let above = Standing::ALL.into_iter().take(standing as usize + 1);
        above.map(of).min().unwrap_or(0)
    }

    /// Changes one target's queue, and everything that is ordered or counted by it.
    fn change<R>(&mut self, target: K, change: impl FnOnce(&mut TargetQueue<T>) -> R) -> Option<R> {
        let queue = self.targets.get_mut(&target)?;
        let before = queue.standing() as usize;
        self.ready[before].remove(&(queue.in_flight, queue.turn, target));
        self.flying[before] -= queue.in_flight;
        if let Some(since) = queue.idle.take() {
            self.idle.remove(&since);
        }
        let result = change(queue);
        let after = queue.standing() as usize;
        self.flying[after] += queue.in_flight;
        if queue.is_ready() {
            self.ready[after].insert((queue.in_flight, queue.turn, target));
        } else if queue.is_idle() {
            self.rest(target);
        }
        Some(result)
    }

    /// Remembers a target that has nothing to do, if there is something to remember, in the place of the one that is so longest.
    fn rest(&mut self, target: K) {
        self.turns += 1;
        match self.targets.get_mut(&target) {
            Some(queue) if !queue.is_blank() => {
                queue.idle = Some(self.turns);
                self.idle.insert(self.turns, target);
            }
            _ => {
                self.targets.remove(&target);
            }
        }
        if self.idle.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.idle.pop_first()
        {
            self.targets.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
