//! How entries of the index come into the window: by the scan that moves its end on, and by the one that reads again for
//! lanes whose dues were left to the index and that have nothing left in memory. And what is given up when memory is full.

use std::collections::HashMap;

use super::lanes::lane_of;
use super::{LOWEST_KEY, Position, Window};
use crate::core::machine::DueEntry;
use crate::core::target::Target;
use crate::id::TaskKey;

/// Most rows that are read at a time: a millisecond or so.
const ROWS_MAX: usize = 1_024;

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

/// What the scans have to know of each other and of what happens meanwhile.
#[derive(Debug, Default)]
pub(super) struct Scans {
    /// While lanes are being read: the first position of each at which something came in, or was given up, meanwhile.
    touched: Option<HashMap<Target, Position>>,
    /// Where the reading of lanes goes on.
    lanes_at: Option<Position>,
    /// How much was held when trimming the lanes brought too little: not worth a try before some of it is gone.
    packed_at: Option<usize>,
}

impl Scans {
    pub(super) fn touched(&mut self, lane: Target, at: Position) {
        if let Some(touched) = &mut self.touched {
            let first = touched.entry(lane).or_insert(at);
            *first = at.min(*first);
        }
    }
}

/// The position after this one.
fn after((at_ms, key): Position) -> Position {
    (
        at_ms,
        TaskKey((u128::from_be_bytes(key.0).saturating_add(1)).to_be_bytes()),
    )
}

impl Window {
    fn room(&self) -> usize {
        self.entries_max.saturating_sub(self.held_entries())
    }

    /// This part of the whole, but never nothing.
    fn part(&self, of: usize) -> usize {
        (self.entries_max / of).max(1)
    }

    /// Whether a scan at the end is worth it.
    pub(super) fn has_room(&self) -> bool {
        self.room() >= self.part(4)
    }

    /// Whether there is a lane to be read, and room for it.
    pub(super) fn can_read_lanes(&self) -> bool {
        self.lanes.is_wanting() && self.room() >= self.part(16)
    }

    /// How many of a lane may be taken at a time at most: not so many that a few lanes take all there is.
    pub(super) fn taken_max(&self) -> usize {
        self.part(8 * self.lanes.count().max(1))
    }

    /// Gives up entries until the rest is within the bound: those of the fullest lanes, or the last ones.
    pub(super) fn fit(&mut self) {
        while self.held_entries() > self.entries_max && (self.trim() || self.give_up_end()) {}
    }

    fn trim(&mut self) -> bool {
        let (room, least) = (self.part(4), self.part(16));
        let Some(marks) = self.lanes.trim(room, least) else {
            self.scans.packed_at = Some(self.held_entries());
            return false;
        };
        for (lane, mark) in marks {
            // What is read meanwhile may be older than this.
            self.scans.touched(lane, mark);
        }
        true
    }

    /// Makes room by trimming, where that was not tried in vain just before.
    fn make_room(&mut self) {
        let is_worth_it = |at: usize| self.held_entries() + self.part(8) <= at;
        if self.scans.packed_at.is_none_or(is_worth_it) {
            self.trim();
        }
    }

    /// The window ends earlier. `false` if there is nothing to give up.
    fn give_up_end(&mut self) -> bool {
        let positions = self.lanes.positions();
        let kept = positions.len() - (positions.len() / 4).max(1).min(positions.len());
        let Some(end) = positions.get(kept) else { return false };
        self.end = self.end.min(*end);
        self.lanes.cut(self.end);
        true
    }

    /// Begins a scan up to `to_ms`, if there is room. The new end is published here, before the scan, so that an entry
    /// added meanwhile is not lost between the two.
    pub fn begin_refill(&mut self, to_ms: u64) -> Option<Refill> {
        let from = self.end;
        if to_ms <= from.0 {
            return None;
        }
        if !self.has_room() {
            self.make_room();
        }
        if !self.has_room() {
            return None;
        }
        self.end = (to_ms, LOWEST_KEY);
        let limit = ROWS_MAX;
        Some(Refill { from, to_ms, limit })
    }

    /// Takes the scanned entries in. A scan that hit its limit, or found no more room, ends the window after its last entry.
    pub fn end_refill(&mut self, refill: Refill, entries: impl ExactSizeIterator<Item = (u64, TaskKey, DueEntry)>) {
        let is_cut = entries.len() >= refill.limit;
        let mut cut = None;
        for (at_ms, key, entry) in entries {
            let at = (at_ms, key);
            if !self.bring(at, entry) {
                cut = Some(at);
                break;
            }
            cut = is_cut.then_some(after(at));
        }
        self.end = cut.map_or(self.end, |cut| cut.min(self.end));
        // Also uncut: entries added during the scan may have moved the end to before some that were scanned.
        self.lanes.cut(self.end);
        self.read_to_ms = Some(self.end.0);
    }

    /// Holds an entry that was scanned. `false` if there is no room for it.
    fn bring(&mut self, at: Position, entry: DueEntry) -> bool {
        let lane = lane_of(entry);
        if at >= self.end || self.lanes.is_left(lane, at) {
            return true;
        }
        if self.room() == 0 && !self.trim() {
            return false;
        }
        // The trimming may have left this very part to the index.
        if !self.lanes.is_left(lane, at) {
            self.lanes.insert(at, entry);
        }
        true
    }

    /// Begins to read for the lanes that have nothing left, if there is room: from where their dues were left to the index.
    pub fn begin_lanes(&mut self) -> Option<Refill> {
        if self.lanes.is_wanting() && !self.can_read_lanes() {
            self.make_room();
        }
        if !self.can_read_lanes() {
            return None;
        }
        let from = self
            .lanes
            .next_wanting(self.scans.lanes_at.unwrap_or((0, LOWEST_KEY)))?;
        self.scans.touched = Some(HashMap::new());
        Some(Refill {
            from,
            to_ms: self.end.0 + u64::from(self.end.1 != LOWEST_KEY),
            limit: ROWS_MAX,
        })
    }

    /// Takes what was read for the lanes: each gets its share, and its mark moves on.
    pub fn end_lanes(&mut self, refill: Refill, entries: &[(u64, TaskKey, DueEntry)]) {
        let touched = self.scans.touched.take().unwrap_or_default();
        let is_cut = entries.len() >= refill.limit;
        let last = entries.last().filter(|_| is_cut);
        let read_to = last.map_or((refill.to_ms, LOWEST_KEY), |(at_ms, key, _)| after((*at_ms, *key)));
        let read_to = read_to.min(self.end);
        // What came in meanwhile may not have been read: the mark stays before it.
        let up_to = |lane: Target| touched.get(&lane).map_or(read_to, |first| read_to.min(*first));
        let lanes = self.lanes.wanting(refill.from, read_to);
        let mut lanes: HashMap<Target, (Position, Position)> =
            lanes.map(|(lane, mark)| (lane, (mark, up_to(lane)))).collect();
        // Half of what is free among those that are read now, or of everything among all.
        let free = self.room() / (2 * lanes.len().max(1));
        let share = self.part(2 * self.lanes.count().max(1)).max(free);
        for (at_ms, key, entry) in entries {
            let (at, lane) = ((*at_ms, *key), lane_of(*entry));
            let Some((mark, up_to)) = lanes
                .get_mut(&lane)
                .filter(|(mark, up_to)| (*mark..*up_to).contains(&at))
            else {
                continue;
            };
            if self.lanes.held_of(lane) >= share || self.room() == 0 {
                *up_to = at;
                continue;
            }
            // Its mark moves on with it, so that the lane holds nothing beyond.
            *mark = after(at);
            self.lanes.was_read(lane, Some(*mark));
            self.lanes.insert(at, *entry);
        }
        for (lane, (mark, up_to)) in lanes {
            let mark = up_to.max(mark);
            self.lanes.was_read(lane, (mark < self.end).then_some(mark));
        }
        self.scans.lanes_at = Some(read_to);
    }
}
