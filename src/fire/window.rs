//! One group's window onto its due index: the nearest dues in memory, bounded in number, and the tasks being fired now.
//!
//! Pure bookkeeping without I/O or clock; `fire/group.rs` drives it under a lock. The law: every entry of the due index
//! before the window's end is in the window, belongs to a busy task, or lies at or beyond the mark of its target's lane; and
//! the window holds nothing beyond its end, and of a lane nothing beyond its mark. So what it gives up at its end or at a mark
//! is scanned again, and nothing else may be given up. An entry that is no longer in the index is harmless: it is only a hint
//! to look at the task. `window/lanes.rs` holds the entries, `window/scan.rs` brings them in.

use std::collections::{BTreeMap, HashMap, hash_map};

use crate::core::machine::{DueEntry, Wake};
use crate::core::target::Target;
use crate::id::TaskKey;

use lanes::{Lanes, lane_of};

mod lanes;
mod scan;

pub use scan::Refill;

/// A position in the due index.
pub type Position = (u64, TaskKey);

const LOWEST_KEY: TaskKey = TaskKey([0; 16]);
/// Expirations that are taken at a time.
const EXPIRING_MAX: usize = 64;

/// One taking of a task from the window: what it is released by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The task.
    pub key: TaskKey,
    /// The leadership under which it was taken: nobody else releases it.
    pub generation: u64,
    /// Its number within that leadership.
    pub number: u64,
    /// The target it was taken for.
    pub target: Target,
}

/// How far a busy task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// With the dispatcher, and nothing of it has begun.
    Queued,
    /// Its attempt, or what comes before and after, is being made.
    Begun,
    /// Left alone until this instant, and then taken again: nobody has it meanwhile.
    Rests(u64),
}

/// A task that is queued or in flight.
#[derive(Clone, Debug)]
struct Busy {
    ticket: Ticket,
    phase: Phase,
    /// With the dispatcher, which reports back whatever becomes of the leadership; the group's own loop does not.
    is_dispatched: bool,
    /// The earliest instant it was taken for.
    at_ms: u64,
    /// Deleted, or updated, after it had begun: nothing more of it may start.
    cancelled: bool,
    /// Came up again while busy; put back when the task is released.
    again: Vec<(u64, DueEntry)>,
}

/// The nearest dues of a group, under one leadership.
#[derive(Debug)]
pub struct Window {
    generation: u64,
    /// From when on this node could fire, without a break: what passed before was missed. `None` until it can.
    firing_since_ms: Option<u64>,
    /// Where the window ends.
    end: Position,
    /// The first instant that no finished scan has reached; the end is published before its scan. `None` before the first.
    read_to_ms: Option<u64>,
    lanes: Lanes,
    busy: HashMap<TaskKey, Busy>,
    /// Busy tasks that rest, by the end of their rest. Apart from the lanes: they are at no position of the index.
    resting: BTreeMap<Position, DueEntry>,
    /// Tickets of tasks that were cancelled before they began: the dispatcher has them still, and they count for their lane.
    stale: HashMap<u64, Target>,
    /// The number of the next ticket.
    next_number: u64,
    /// Entries held in the `again` of busy tasks.
    held: usize,
    scans: scan::Scans,
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

/// Fires that had begun when their window went, by task.
pub type Dispatched = HashMap<TaskKey, Ticket>;

/// An entry that was taken, with its instant.
pub type Taken = (u64, DueEntry, Ticket);

impl Busy {
    fn new(ticket: Ticket, phase: Phase, is_dispatched: bool, at_ms: u64) -> Self {
        Self {
            ticket,
            phase,
            is_dispatched,
            at_ms,
            cancelled: false,
            again: Vec::new(),
        }
    }
}

impl Window {
    /// An empty window that begins at the group's low-water mark.
    pub fn new(generation: u64, low_water_ms: u64, entries_max: usize) -> Self {
        Self {
            generation,
            firing_since_ms: None,
            end: (low_water_ms, LOWEST_KEY),
            read_to_ms: None,
            lanes: Lanes::default(),
            busy: HashMap::new(),
            resting: BTreeMap::new(),
            stale: HashMap::new(),
            next_number: 0,
            held: 0,
            scans: scan::Scans::default(),
            entries_max,
        }
    }

    /// Takes over what had begun under former leaderships: until it is released, no other attempt of such a task starts on
    /// this node.
    pub fn inherit(&mut self, dispatched: Dispatched) {
        // Its dues are in the index, and are scanned like all others.
        for (key, ticket) in dispatched {
            self.lanes.take_over(ticket.target);
            self.busy.insert(key, Busy::new(ticket, Phase::Begun, true, u64::MAX));
        }
    }

    /// Numbers its tickets on from those of another window, which may be of the same leadership: no two are alike.
    pub fn number_on(&mut self, former: &Self) {
        self.next_number = former.next_number;
    }

    /// Ends the window: what has begun. What is only queued never begins: its ticket is not valid any more.
    pub fn close(self) -> Dispatched {
        let begun = self.busy.into_iter();
        let begun = begun.filter(|(_, busy)| busy.is_dispatched && busy.phase == Phase::Begun);
        begun.map(|(key, busy)| (key, busy.ticket)).collect()
    }

    /// Entries held in memory: nearest dues, busy tasks, and marks.
    fn held_entries(&self) -> usize {
        self.lanes.held() + self.lanes.marks() + self.busy.len() + self.stale.len() + self.held
    }

    /// An entry was put into the index.
    pub fn added(&mut self, at_ms: u64, key: TaskKey, entry: DueEntry) {
        let (at, lane) = ((at_ms, key), lane_of(entry));
        if self.lanes.is_left(lane, at) {
            return self.scans.touched(lane, at);
        }
        self.hold(at, entry);
    }

    /// Holds an entry of the index, if the window reaches so far; beyond, it will be scanned.
    fn hold(&mut self, at: Position, entry: DueEntry) {
        if at < self.end && !self.lanes.is_left(lane_of(entry), at) {
            self.lanes.insert(at, entry);
            self.fit();
        }
    }

    /// An entry was taken out of the index.
    pub fn removed(&mut self, at_ms: u64, key: TaskKey, entry: DueEntry) {
        self.lanes.remove((at_ms, key), lane_of(entry));
        if let Some(busy) = self.busy.get_mut(&key) {
            let before = busy.again.len();
            busy.again.retain(|(again_ms, _)| *again_ms != at_ms);
            self.held -= before - busy.again.len();
        }
    }

    /// The task was deleted, or is another one now: nothing of it that was taken before starts after this returns.
    pub fn cancelled(&mut self, key: TaskKey) {
        let Some(busy) = self.busy.get_mut(&key) else { return };
        busy.cancelled = true;
        let (phase, ticket) = (busy.phase, busy.ticket);
        match phase {
            Phase::Begun => {}
            // Whatever it owes now does not wait for the old target's queue.
            Phase::Queued => {
                self.stale.insert(ticket.number, ticket.target);
                self.lanes.take_over(ticket.target);
                self.forget(key);
            }
            Phase::Rests(until_ms) => {
                self.resting.remove(&(until_ms, key));
                self.forget(key);
            }
        }
    }

    /// The task is not busy any more; what came up meanwhile is looked at now.
    fn forget(&mut self, key: TaskKey) {
        let Some(busy) = self.busy.remove(&key) else { return };
        self.lanes.give_back(busy.ticket.target);
        self.held -= busy.again.len();
        self.put_back(key, busy.again);
    }

    /// Puts entries of the index where they are in it.
    fn put_back(&mut self, key: TaskKey, entries: impl IntoIterator<Item = (u64, DueEntry)>) {
        for (at_ms, entry) in entries {
            self.hold((at_ms, key), entry);
        }
    }

    fn ticket(&mut self, key: TaskKey, target: Target) -> Ticket {
        self.next_number += 1;
        Ticket {
            key,
            generation: self.generation,
            number: self.next_number,
            target,
        }
    }

    /// Takes up to `limit` fires that are due; their tasks are busy until [`Self::released`]. `quota` says how many of a
    /// target's may be taken at a time.
    pub fn take_due(&mut self, now_ms: u64, limit: usize, quota: impl Fn(Target) -> usize) -> Vec<Taken> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(first) = self.resting.first_entry()
            && first.key().0 <= now_ms
        {
            let ((until_ms, key), entry) = first.remove_entry();
            let Some(target) = self.busy.get(&key).map(|busy| busy.ticket.target) else {
                continue;
            };
            let ticket = self.ticket(key, target);
            if let Some(busy) = self.busy.get_mut(&key) {
                (busy.phase, busy.ticket) = (Phase::Queued, ticket);
                taken.push((until_ms, entry, ticket));
            }
        }
        while taken.len() < limit {
            let most = self.taken_max();
            let Some((at, entry)) = self.lanes.take(now_ms, |target| quota(target).min(most)) else {
                break;
            };
            taken.extend(self.take(at, entry, Phase::Queued));
        }
        taken
    }

    /// Takes some of the records whose time is over.
    pub fn take_expired(&mut self, now_ms: u64) -> Vec<Taken> {
        let mut taken = Vec::new();
        while taken.len() < EXPIRING_MAX
            && let Some((at, entry)) = self.lanes.take_housekeeping(now_ms)
        {
            taken.extend(self.take(at, entry, Phase::Begun));
        }
        taken
    }

    fn take(&mut self, (at_ms, key): Position, entry: DueEntry, phase: Phase) -> Option<Taken> {
        let target = lane_of(entry);
        let ticket = self.ticket(key, target);
        match self.busy.entry(key) {
            hash_map::Entry::Occupied(busy) => {
                busy.into_mut().again.push((at_ms, entry));
                self.held += 1;
                self.lanes.give_back(target);
                None
            }
            hash_map::Entry::Vacant(place) => {
                place.insert(Busy::new(ticket, phase, entry.wake != Wake::Expire, at_ms));
                Some((at_ms, entry, ticket))
            }
        }
    }

    /// The dispatcher begins with a task that it has queued. `false` if it must not any more: then it is to be released.
    pub fn begin(&mut self, ticket: &Ticket) -> bool {
        let is_valid = self.may_start(ticket);
        if is_valid && let Some(busy) = self.busy.get_mut(&ticket.key) {
            busy.phase = Phase::Begun;
        }
        is_valid
    }

    /// Whether an attempt of a busy task may start now, under the leadership it was taken under.
    pub fn may_start(&self, ticket: &Ticket) -> bool {
        let busy = self.busy.get(&ticket.key);
        ticket.generation == self.generation && busy.is_some_and(|busy| busy.ticket == *ticket && !busy.cancelled)
    }

    /// Whoever took the task by this ticket is done with it.
    pub fn released(&mut self, ticket: &Ticket, next: Next) {
        if ticket.generation == self.generation
            && let Some(target) = self.stale.remove(&ticket.number)
        {
            return self.lanes.give_back(target);
        }
        let key = ticket.key;
        let Some(busy) = self.busy.get_mut(&key) else { return };
        // A straggler of a former leadership must not release what this one has taken.
        if busy.ticket != *ticket || matches!(busy.phase, Phase::Rests(_)) {
            return;
        }
        match next {
            // Nothing to wait for where it is deleted; and a new leadership looks for itself.
            Next::Rest(until_ms, entry) if !busy.cancelled && ticket.generation == self.generation => {
                busy.phase = Phase::Rests(until_ms);
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
                busy.phase = Phase::Rests(now_ms);
                self.resting.insert((now_ms, key), entry);
            }
        }
    }

    /// The leadership it was opened for.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The earliest instant at which something is to be taken.
    pub fn next_due_ms(&self) -> Option<u64> {
        let resting = self.resting.first_key_value().map(|((at_ms, _), _)| *at_ms);
        self.lanes.first().map(|at| at.0).into_iter().chain(resting).min()
    }

    /// The first instant that the window does not cover.
    pub fn end_ms(&self) -> u64 {
        self.end.0
    }

    /// Whether the loop has something to do at `now_ms`: to take what is due, or to read on where it has not read yet.
    pub fn has_work(&self, now_ms: u64) -> bool {
        let is_due = self.next_due_ms().is_some_and(|at_ms| at_ms <= now_ms);
        is_due || (self.end.0 <= now_ms && self.has_room()) || self.can_read_lanes()
    }

    /// Entries in memory whose time has come and that were not taken yet, housekeeping left out.
    pub fn overdue(&self, now_ms: u64) -> usize {
        self.lanes.count_before(now_ms)
    }

    /// Every due before this instant has its outcome, as far as is known without a look at the index: bounded by what waits,
    /// what is left to the index, what is busy, and how far the index was read. `None` before it was.
    pub fn finished_before_ms(&self) -> Option<u64> {
        let read_to_ms = self.read_to_ms?.min(self.end.0);
        let first = self.lanes.oldest().map(|at| at.0);
        let dispatched = self.busy.values().filter(|busy| busy.is_dispatched);
        let busy = dispatched.flat_map(|busy| busy.again.iter().map(|(at_ms, _)| *at_ms).chain([busy.at_ms]));
        Some(first.into_iter().chain(busy).fold(read_to_ms, u64::min))
    }
}

#[cfg(test)]
mod tests;
