//! One group's window onto its due index: the nearest dues in memory, bounded in number, and the tasks being fired now.
//!
//! Pure bookkeeping without I/O or clock; `fire/group.rs` drives it under a lock. The law: every entry of the due index
//! before the window's end is in the window or belongs to a busy task. What the window holds beyond that is harmless: an
//! entry is only a hint to look at the task.

use std::collections::{BTreeMap, HashMap};

use crate::core::machine::{DueEntry, Wake};
use crate::id::TaskKey;

/// A position in the due index.
pub type Position = (u64, TaskKey);

const LOWEST_KEY: TaskKey = TaskKey([0; 16]);

/// A task that is queued or in flight.
#[derive(Clone, Debug)]
struct Busy {
    /// The leadership under which it was taken: nobody else releases it.
    generation: u64,
    /// With the dispatcher, which reports back whatever becomes of the leadership; the group's own loop does not.
    is_dispatched: bool,
    /// Deleted while busy: nothing of it may start any more.
    cancelled: bool,
    /// Came up again while busy; put back when the task is released.
    again: Vec<(u64, DueEntry)>,
}

/// The nearest dues of a group, under one leadership.
#[derive(Debug)]
pub struct Window {
    generation: u64,
    /// Every entry before this is in `due`, or its task is busy.
    end: Position,
    due: BTreeMap<Position, DueEntry>,
    busy: HashMap<TaskKey, Busy>,
    /// Entries held in the `again` of busy tasks.
    held: usize,
    entries_max: usize,
}

/// Tasks that the dispatcher still has from a window that is gone, with the leadership under which each was taken.
pub type Dispatched = HashMap<TaskKey, u64>;

/// A part of the index to be scanned into the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// First position.
    pub from: Position,
    /// First instant beyond.
    pub to_ms: u64,
    /// Most entries to bring.
    pub limit: usize,
}

impl Busy {
    fn new(generation: u64, is_dispatched: bool) -> Self {
        Self {
            generation,
            is_dispatched,
            cancelled: false,
            again: Vec::new(),
        }
    }
}

impl Window {
    /// An empty window that begins at the group's low-water mark.
    pub fn new(generation: u64, low_water_ms: u64, entries_max: usize) -> Self {
        let end = (low_water_ms, LOWEST_KEY);
        Self {
            generation,
            end,
            due: BTreeMap::new(),
            busy: HashMap::new(),
            held: 0,
            entries_max,
        }
    }

    /// Takes over what the dispatcher still has from former leaderships: until it is released, no other attempt of such a
    /// task starts on this node.
    pub fn inherit(&mut self, dispatched: Dispatched) {
        self.busy.extend(
            dispatched
                .into_iter()
                .map(|(key, generation)| (key, Busy::new(generation, true))),
        );
    }

    /// Ends the window: what the dispatcher still has.
    pub fn close(self) -> Dispatched {
        let dispatched = self.busy.into_iter().filter(|(_, busy)| busy.is_dispatched);
        dispatched.map(|(key, busy)| (key, busy.generation)).collect()
    }

    /// Entries held in memory: nearest dues and busy tasks.
    fn held_entries(&self) -> usize {
        self.due.len() + self.busy.len() + self.held
    }

    /// An entry was put into the index.
    pub fn added(&mut self, at_ms: u64, key: TaskKey, entry: DueEntry) {
        if (at_ms, key) >= self.end {
            return;
        }
        self.due.insert((at_ms, key), entry);
        if self.held_entries() > self.entries_max
            && let Some((last, _)) = self.due.pop_last()
        {
            // The window ends earlier now; what it gave up will be scanned in its turn.
            self.end = last;
        }
    }

    /// An entry was taken out of the index.
    pub fn removed(&mut self, at_ms: u64, key: TaskKey) {
        self.due.remove(&(at_ms, key));
        if let Some(busy) = self.busy.get_mut(&key) {
            let before = busy.again.len();
            busy.again.retain(|(again_ms, _)| *again_ms != at_ms);
            self.held -= before - busy.again.len();
        }
    }

    /// The task was deleted: nothing of it starts after this returns.
    pub fn cancelled(&mut self, key: TaskKey) {
        if let Some(busy) = self.busy.get_mut(&key) {
            busy.cancelled = true;
        }
    }

    /// Begins a refill up to `to_ms`, if there is room. The new end is published here, before the scan, so that an entry
    /// added meanwhile is not lost between the two.
    pub fn begin_refill(&mut self, to_ms: u64) -> Option<Refill> {
        let limit = self.entries_max.saturating_sub(self.held_entries());
        let from = self.end;
        if to_ms <= from.0 || limit < self.entries_max / 4 {
            return None;
        }
        self.end = (to_ms, LOWEST_KEY);
        Some(Refill { from, to_ms, limit })
    }

    /// Takes the scanned entries in. A scan that hit its limit ends the window after its last entry.
    pub fn end_refill(&mut self, refill: Refill, entries: impl ExactSizeIterator<Item = (u64, TaskKey, DueEntry)>) {
        let is_cut = entries.len() >= refill.limit;
        let mut last = None;
        for (at_ms, key, entry) in entries {
            self.due.entry((at_ms, key)).or_insert(entry);
            last = Some((at_ms, key));
        }
        if let Some((at_ms, key)) = last.filter(|_| is_cut) {
            let end = (
                at_ms,
                TaskKey((u128::from_be_bytes(key.0).saturating_add(1)).to_be_bytes()),
            );
            self.end = self.end.min(end);
            self.due.split_off(&self.end);
        }
    }

    /// Takes up to `limit` entries that are due; their tasks are busy until [`Self::released`].
    pub fn take_due(&mut self, now_ms: u64, limit: usize) -> Vec<(u64, TaskKey, DueEntry)> {
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(first) = self.due.first_entry() else { break };
            if first.key().0 > now_ms {
                break;
            }
            let ((at_ms, key), entry) = first.remove_entry();
            if let Some(busy) = self.busy.get_mut(&key) {
                busy.again.push((at_ms, entry));
                self.held += 1;
            } else {
                let is_dispatched = entry.wake != Wake::Expire;
                self.busy.insert(key, Busy::new(self.generation, is_dispatched));
                taken.push((at_ms, key, entry));
            }
        }
        taken
    }

    /// Whether an attempt of a busy task may start now, under the leadership it was taken under.
    pub fn may_start(&self, key: TaskKey, generation: u64) -> bool {
        let busy = self.busy.get(&key);
        generation == self.generation && busy.is_some_and(|busy| busy.generation == generation && !busy.cancelled)
    }

    /// The task, taken under `generation`, is no longer busy. `again_ms` puts it back for another look at that instant.
    pub fn released(&mut self, key: TaskKey, generation: u64, again_ms: Option<(u64, DueEntry)>) {
        // A straggler of a former leadership must not release what this one has taken.
        if self.busy.get(&key).is_none_or(|busy| busy.generation != generation) {
            return;
        }
        let Some(busy) = self.busy.remove(&key) else { return };
        self.held -= busy.again.len();
        for (at_ms, entry) in busy.again.into_iter().chain(again_ms) {
            self.due.insert((at_ms, key), entry);
        }
    }

    /// The earliest instant at which something is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// The first instant that the window does not cover.
    pub fn end_ms(&self) -> u64 {
        self.end.0
    }

    /// Entries whose time has come and that were not taken yet, and tasks that are busy with more than housekeeping.
    pub fn overdue(&self, now_ms: u64) -> usize {
        let waiting = self.due.range(..(now_ms, LOWEST_KEY));
        waiting.filter(|(_, entry)| entry.wake != Wake::Expire).count()
    }
}

#[cfg(test)]
mod tests;
