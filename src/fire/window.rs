//! One group's window onto its due index: the nearest dues in memory, bounded in number, and the tasks being fired now.
//!
//! Pure bookkeeping without I/O or clock; `fire/group.rs` drives it under a lock. The law: every entry of the due index
//! before the window's end is in the window or belongs to a busy task, and the window holds nothing beyond its end. So
//! what it gives up at its end is scanned again, and nothing else may be given up. An entry that is no longer in the index
//! is harmless: it is only a hint to look at the task.

use std::collections::{BTreeMap, HashMap, hash_map};

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
    /// The earliest instant it was taken for.
    at_ms: u64,
    /// Deleted while busy: nothing of it may start any more.
    cancelled: bool,
    /// Left alone until this instant, and then taken again: nobody has it meanwhile.
    rests_until_ms: Option<u64>,
    /// Came up again while busy; put back when the task is released.
    again: Vec<(u64, DueEntry)>,
}

/// The nearest dues of a group, under one leadership.
#[derive(Debug)]
pub struct Window {
    generation: u64,
    /// From when on this node could fire, without a break: what passed before was missed. `None` until it can.
    firing_since_ms: Option<u64>,
    /// Every entry before this is in `due`, or its task is busy.
    end: Position,
    /// The first instant that no finished scan has reached; the end is published before its scan. `None` before the first.
    read_to_ms: Option<u64>,
    due: BTreeMap<Position, DueEntry>,
    busy: HashMap<TaskKey, Busy>,
    /// Busy tasks that rest, by the end of their rest. Apart from `due`: they are at no position of the index.
    resting: BTreeMap<Position, DueEntry>,
    /// Entries held in the `again` of busy tasks.
    held: usize,
    entries_max: usize,
}

/// What becomes of a task that is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing that the window does not know.
    Nothing,
    /// It was taken too early: these are its entries in the index, at their own positions.
    PutBack(Vec<(u64, DueEntry)>),
    /// It could not be dealt with: it stays busy, and is taken again at this instant.
    Rest(u64, DueEntry),
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
    fn new(generation: u64, is_dispatched: bool, at_ms: u64) -> Self {
        Self {
            generation,
            is_dispatched,
            at_ms,
            cancelled: false,
            rests_until_ms: None,
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
            firing_since_ms: None,
            end,
            read_to_ms: None,
            due: BTreeMap::new(),
            busy: HashMap::new(),
            resting: BTreeMap::new(),
            held: 0,
            entries_max,
        }
    }

    /// Takes over what the dispatcher still has from former leaderships: until it is released, no other attempt of such a
    /// task starts on this node.
    pub fn inherit(&mut self, dispatched: Dispatched) {
        // Its dues are in the index, and are scanned like all others.
        let busy = |(key, generation)| (key, Busy::new(generation, true, u64::MAX));
        self.busy.extend(dispatched.into_iter().map(busy));
    }

    /// Ends the window: what the dispatcher still has.
    pub fn close(self) -> Dispatched {
        let dispatched = self.busy.into_iter();
        let dispatched = dispatched.filter(|(_, busy)| busy.is_dispatched && busy.rests_until_ms.is_none());
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
        self.fit();
    }

    /// Gives up the last entries until the rest is within the bound: the window ends before them, and they are scanned again
    /// in their turn.
    fn fit(&mut self) {
        while self.held_entries() > self.entries_max
            && let Some((last, _)) = self.due.pop_last()
        {
            self.end = last;
        }
    }

    /// Puts entries of the index where they are in it, if the window reaches so far; beyond, they will be scanned.
    fn put_back(&mut self, key: TaskKey, entries: impl IntoIterator<Item = (u64, DueEntry)>) {
        for (at_ms, entry) in entries {
            if (at_ms, key) < self.end {
                self.due.entry((at_ms, key)).or_insert(entry);
            }
        }
        self.fit();
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
        let Some(busy) = self.busy.get_mut(&key) else { return };
        busy.cancelled = true;
        if let Some(until_ms) = busy.rests_until_ms.take() {
            self.resting.remove(&(until_ms, key));
            self.forget(key);
        }
    }

    /// The task is not busy any more; what came up meanwhile is looked at now.
    fn forget(&mut self, key: TaskKey) {
        let Some(busy) = self.busy.remove(&key) else { return };
        self.held -= busy.again.len();
        self.put_back(key, busy.again);
    }

    /// Begins a refill up to `to_ms`, if there is room. The new end is published here, before the scan, so that an entry
    /// added meanwhile is not lost between the two.
    pub fn begin_refill(&mut self, to_ms: u64) -> Option<Refill> {
        let from = self.end;
        if to_ms <= from.0 || !self.has_room() {
            return None;
        }
        let limit = self.room();
        self.end = (to_ms, LOWEST_KEY);
        Some(Refill { from, to_ms, limit })
    }

    fn room(&self) -> usize {
        self.entries_max.saturating_sub(self.held_entries())
    }

    /// Whether a refill is worth its scan.
    fn has_room(&self) -> bool {
        self.room() >= (self.entries_max / 4).max(1)
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
            let next = TaskKey((u128::from_be_bytes(key.0).saturating_add(1)).to_be_bytes());
            self.end = self.end.min((at_ms, next));
        }
        // Also uncut: entries added during the scan may have moved the end to before some that were scanned.
        drop(self.due.split_off(&self.end));
        self.read_to_ms = Some(self.end.0);
        self.fit();
    }

    /// Takes up to `limit` entries that are due; their tasks are busy until [`Self::released`].
    pub fn take_due(&mut self, now_ms: u64, limit: usize) -> Vec<(u64, TaskKey, DueEntry)> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(first) = self.resting.first_entry()
            && first.key().0 <= now_ms
        {
            let ((until_ms, key), entry) = first.remove_entry();
            if let Some(busy) = self.busy.get_mut(&key) {
                busy.rests_until_ms = None;
                taken.push((until_ms, key, entry));
            }
        }
        while taken.len() < limit
            && let Some(first) = self.due.first_entry()
            && first.key().0 <= now_ms
        {
            let ((at_ms, key), entry) = first.remove_entry();
            match self.busy.entry(key) {
                hash_map::Entry::Occupied(busy) => {
                    busy.into_mut().again.push((at_ms, entry));
                    self.held += 1;
                }
                hash_map::Entry::Vacant(place) => {
                    place.insert(Busy::new(self.generation, entry.wake != Wake::Expire, at_ms));
                    taken.push((at_ms, key, entry));
                }
            }
        }
        taken
    }

    /// Whether an attempt of a busy task may start now, under the leadership it was taken under.
    pub fn may_start(&self, key: TaskKey, generation: u64) -> bool {
        let busy = self.busy.get(&key);
        generation == self.generation && busy.is_some_and(|busy| busy.generation == generation && !busy.cancelled)
    }

    /// Whoever took the task under `generation` is done with it.
    pub fn released(&mut self, key: TaskKey, generation: u64, next: Next) {
        let Some(busy) = self.busy.get_mut(&key) else { return };
        // A straggler of a former leadership must not release what this one has taken.
        if busy.generation != generation || busy.rests_until_ms.is_some() {
            return;
        }
        match next {
            // Nothing to wait for where it is deleted; and a new leadership looks for itself.
            Next::Rest(until_ms, entry) if !busy.cancelled && generation == self.generation => {
                busy.rests_until_ms = Some(until_ms);
                self.resting.insert((until_ms, key), entry);
            }
            Next::Rest(..) | Next::Nothing => self.forget(key),
            Next::PutBack(entries) => {
                self.forget(key);
                self.put_back(key, entries);
            }
        }
    }

    /// This node can fire from `now_ms` on, or again: it leads, and knows the time.
    pub fn begin_firing(&mut self, now_ms: u64) {
        self.firing_since_ms = Some(now_ms);
    }

    /// The same, unless it could before.
    pub fn note_firing(&mut self, now_ms: u64) {
        self.firing_since_ms.get_or_insert(now_ms);
    }

    /// From when on this node could fire, without a break.
    pub fn firing_since_ms(&self) -> Option<u64> {
        self.firing_since_ms
    }

    /// Ends every rest: the clock by which it was to end was wrong.
    pub fn rouse(&mut self, now_ms: u64) {
        for ((_, key), entry) in std::mem::take(&mut self.resting) {
            if let Some(busy) = self.busy.get_mut(&key) {
                busy.rests_until_ms = Some(now_ms);
                self.resting.insert((now_ms, key), entry);
            }
        }
    }

    /// The leadership it was opened for.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The earliest instant at which something is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        let first = |entries: &BTreeMap<Position, DueEntry>| entries.first_key_value().map(|((at_ms, _), _)| *at_ms);
        first(&self.due).into_iter().chain(first(&self.resting)).min()
    }

    /// The first instant that the window does not cover.
    pub fn end_ms(&self) -> u64 {
        self.end.0
    }

    /// Whether the loop has something to do at `now_ms`: to take what is due, or to read on where it has not read yet.
    pub fn has_work(&self, now_ms: u64) -> bool {
        self.next_due_ms().is_some_and(|at_ms| at_ms <= now_ms) || (self.end.0 <= now_ms && self.has_room())
    }

    /// Entries in memory whose time has come and that were not taken yet, housekeeping left out.
    pub fn overdue(&self, now_ms: u64) -> usize {
        let waiting = self.due.range(..(now_ms, LOWEST_KEY));
        waiting.filter(|(_, entry)| entry.wake != Wake::Expire).count()
    }

    /// Every due before this instant has its outcome, as far as is known without a look at the index: bounded by what waits,
    /// what is busy, and how far the index was read. `None` before it was.
    pub fn finished_before_ms(&self) -> Option<u64> {
        let read_to_ms = self.read_to_ms?.min(self.end.0);
        let mut fires = self.due.iter().filter(|(_, entry)| entry.wake != Wake::Expire);
        let first = fires.next().map(|((at_ms, _), _)| *at_ms);
        let dispatched = self.busy.values().filter(|busy| busy.is_dispatched);
        let busy = dispatched.flat_map(|busy| busy.again.iter().map(|(at_ms, _)| *at_ms).chain([busy.at_ms]));
        Some(first.into_iter().chain(busy).fold(read_to_ms, u64::min))
    }
}

#[cfg(test)]
mod tests;
