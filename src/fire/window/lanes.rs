//! The dues that a window holds in memory, by target: a lane each. Housekeeping has a lane of its own.
//!
//! A lane may hold the first part of its dues alone; the rest lies in the index from the lane's mark on, and is read when
//! nothing of it is left here. So a backlog of any size at one target takes no room from the others (doc/decisions/018-targets.md).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Position;
use crate::core::machine::{DueEntry, Wake};
use crate::core::target::Target;
use crate::id::TaskKey;

/// The lane of housekeeping: no URL has this digest.
pub(super) const HOUSEKEEPING: Target = Target([0xff; 16]);

const LOWEST: Position = (0, TaskKey([0; 16]));
const HIGHEST: Position = (u64::MAX, TaskKey([0xff; 16]));

/// The lane of an entry.
pub(super) fn lane_of(entry: DueEntry) -> Target {
    match entry.wake {
        Wake::Expire => HOUSEKEEPING,
        Wake::Fire | Wake::Retry => entry.target,
    }
}

/// What is known of one lane.
#[derive(Debug)]
struct Lane {
    /// Entries in memory.
    held: usize,
    /// Entries that were taken and not given back.
    taken: usize,
    /// Its dues from here on are in the index only.
    mark: Option<Position>,
    /// How many may be taken at a time, when it was asked last; 0 before.
    quota: usize,
    /// It has as many taken as it may: none until half of them are back.
    is_full: bool,
    /// As it stands among the heads, and among those that want to be read.
    head: Option<Position>,
    wants: Option<Position>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.held == 0 && self.taken == 0 && self.mark.is_none()
    }
}

/// Entries by lane.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    due: BTreeMap<(Target, Position), DueEntry>,
    by_target: HashMap<Target, Lane>,
    /// The first entry of each lane from which one may be taken, housekeeping left out.
    heads: BTreeSet<(Position, Target)>,
    /// The marks of the lanes that have nothing left in memory.
    wanting: BTreeSet<(Position, Target)>,
    marks: usize,
}

impl Lanes {
    /// Entries in memory.
    pub(super) fn held(&self) -> usize {
        self.due.len()
    }

    /// Lanes whose dues are not all in memory.
    pub(super) fn marks(&self) -> usize {
        self.marks
    }

    /// Lanes in all.
    pub(super) fn count(&self) -> usize {
        self.by_target.len()
    }

    /// The first entry that may be taken, housekeeping left out.
    pub(super) fn first(&self) -> Option<Position> {
        self.heads.first().map(|(at, _)| *at)
    }

    /// Whether entries at this position of the lane are left to the index.
    pub(super) fn is_left(&self, lane: Target, at: Position) -> bool {
        let mark = self.by_target.get(&lane).and_then(|lane| lane.mark);
        mark.is_some_and(|mark| mark <= at)
    }

    /// Holds an entry.
    pub(super) fn insert(&mut self, at: Position, entry: DueEntry) {
        let target = lane_of(entry);
        let is_new = self.due.insert((target, at), entry).is_none();
        self.change(target, |lane| lane.held += usize::from(is_new));
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, at: Position, target: Target) {
        if self.due.remove(&(target, at)).is_some() {
            self.change(target, |lane| lane.held -= 1);
        }
    }

    /// Takes the first entry that is due, housekeeping left out. `quota` says how many of a lane may be taken at a time.
    pub(super) fn take(&mut self, now_ms: u64, quota: impl FnOnce(Target) -> usize) -> Option<(Position, DueEntry)> {
        let (at, target) = *self.heads.first().filter(|(at, _)| at.0 <= now_ms)?;
        let quota = quota(target).max(1);
        self.change(target, |lane| lane.quota = quota);
        Some((at, self.take_from(target, at)))
    }

    /// Takes the first entry of housekeeping, if its time has come.
    pub(super) fn take_housekeeping(&mut self, now_ms: u64) -> Option<(Position, DueEntry)> {
        let lane = self.by_target.get(&HOUSEKEEPING)?;
        let at = lane.head.filter(|at| at.0 <= now_ms)?;
        Some((at, self.take_from(HOUSEKEEPING, at)))
    }

    fn take_from(&mut self, target: Target, at: Position) -> DueEntry {
        let entry = self.due.remove(&(target, at)).expect("a head is held");
        self.change(target, |lane| {
            lane.held -= 1;
            lane.taken += 1;
        });
        entry
    }

    /// One more of this lane is taken, from elsewhere.
    pub(super) fn take_over(&mut self, target: Target) {
        self.change(target, |lane| lane.taken += 1);
    }

    /// One that was taken is back.
    pub(super) fn give_back(&mut self, target: Target) {
        self.change(target, |lane| lane.taken = lane.taken.saturating_sub(1));
    }

    /// Makes `room` in memory: the lanes that hold most leave their last entries to the index, and each lane keeps one. The
    /// marks that were set, or nothing if less than `least` can be had.
    pub(super) fn trim(&mut self, room: usize, least: usize) -> Option<Vec<(Target, Position)>> {
        let sizes: Vec<_> = self
            .by_target
            .values()
            .map(|lane| (lane.held, lane.mark.is_some()))
            .collect();
        let gain = |level: usize| -> usize {
            let over = sizes.iter().filter(|(held, _)| *held > level);
            // A new mark takes a place itself.
            over.map(|(held, is_marked)| held - level - usize::from(!is_marked))
                .sum()
        };
        let most = sizes.iter().map(|(held, _)| *held).max().unwrap_or(0);
        // The highest level that makes the room; at the lowest, whatever there is.
        let (mut low, mut high) = (1, most.max(1));
        while low + 1 < high {
            let level = low.midpoint(high);
            if gain(level) >= room { low = level } else { high = level }
        }
        if gain(low) < least {
            return None;
        }
        let over = self.by_target.iter().filter(|(_, lane)| lane.held > low);
        let over: Vec<_> = over.map(|(target, lane)| (*target, lane.held - low)).collect();
        let mut marks = Vec::with_capacity(over.len());
        for (target, count) in over {
            let of_lane = self.due.range((target, LOWEST)..=(target, HIGHEST));
            let last: Vec<_> = of_lane.rev().take(count).map(|(at, _)| *at).collect();
            for at in &last {
                self.due.remove(at);
            }
            if let Some((_, first)) = last.last() {
                self.leave(target, *first, count);
                marks.push((target, *first));
            }
        }
        Some(marks)
    }

    fn leave(&mut self, target: Target, mark: Position, dropped: usize) {
        self.change(target, |lane| {
            lane.held -= dropped;
            lane.mark = Some(mark);
        });
    }

    /// The positions held, in order.
    pub(super) fn positions(&self) -> Vec<Position> {
        let mut positions: Vec<_> = self.due.keys().map(|(_, at)| *at).collect();
        positions.sort_unstable();
        positions
    }

    /// Forgets everything from `end` on, marks as well.
    pub(super) fn cut(&mut self, end: Position) {
        let beyond: Vec<_> = self.due.keys().filter(|(_, at)| *at >= end).copied().collect();
        for (target, at) in beyond {
            self.remove(at, target);
        }
        let marked = self
            .by_target
            .iter()
            .filter(|(_, lane)| lane.mark.is_some_and(|mark| mark >= end));
        let marked: Vec<_> = marked.map(|(target, _)| *target).collect();
        for target in marked {
            self.change(target, |lane| lane.mark = None);
        }
    }

    /// Where the reading for lanes that have nothing left goes on: at the next of their marks, and after the last at the first.
    pub(super) fn next_wanting(&self, from: Position) -> Option<Position> {
        let next = self.wanting.range((from, Target::default())..).next();
        next.or_else(|| self.wanting.first()).map(|(at, _)| *at)
    }

    /// Whether some lane has nothing left in memory, and something in the index.
    pub(super) fn is_wanting(&self) -> bool {
        !self.wanting.is_empty()
    }

    /// The lanes that have nothing left and whose mark lies in this part of the index.
    pub(super) fn wanting(&self, from: Position, to: Position) -> impl Iterator<Item = (Target, Position)> {
        let range = self.wanting.range((from, Target::default())..(to, Target::default()));
        range.map(|(mark, target)| (*target, *mark))
    }

    /// How many entries of the lane are held.
    pub(super) fn held_of(&self, target: Target) -> usize {
        self.by_target.get(&target).map_or(0, |lane| lane.held)
    }

    /// The lane was read up to `mark`; `None` if that is all of it.
    pub(super) fn was_read(&mut self, target: Target, mark: Option<Position>) {
        self.change(target, |lane| lane.mark = mark);
    }

    /// The first position at which anything but housekeeping is held, or left to the index.
    pub(super) fn oldest(&self) -> Option<Position> {
        let lanes = self.by_target.iter().filter(|(target, _)| **target != HOUSEKEEPING);
        let first = |(target, lane): (&Target, &Lane)| self.first_of(*target).into_iter().chain(lane.mark).min();
        lanes.filter_map(first).min()
    }

    /// Entries before this instant, housekeeping left out.
    pub(super) fn count_before(&self, at_ms: u64) -> usize {
        let due = self.due.keys();
        due.filter(|(target, at)| *target != HOUSEKEEPING && at.0 < at_ms)
            .count()
    }

    fn first_of(&self, target: Target) -> Option<Position> {
        let mut of_lane = self.due.range((target, LOWEST)..=(target, HIGHEST));
        of_lane.next().map(|((_, at), _)| *at)
    }

    /// Changes what is known of a lane, and its place among the heads and those that want to be read.
    fn change(&mut self, target: Target, change: impl FnOnce(&mut Lane)) {
        let first = self.first_of(target);
        let lane = self.by_target.entry(target).or_insert(Lane {
            held: 0,
            taken: 0,
            mark: None,
            quota: 0,
            is_full: false,
            head: None,
            wants: None,
        });
        let was_marked = lane.mark.is_some();
        change(lane);
        if lane.quota > 0 && lane.taken >= lane.quota {
            lane.is_full = true;
        } else if lane.taken <= lane.quota / 2 {
            lane.is_full = false;
        }
        let head = first.filter(|_| !lane.is_full);
        if lane.head != head {
            if target != HOUSEKEEPING {
                lane.head.map(|at| self.heads.remove(&(at, target)));
                head.map(|at| self.heads.insert((at, target)));
            }
            lane.head = head;
        }
        let wants = lane.mark.filter(|_| lane.held == 0);
        if lane.wants != wants {
            lane.wants.map(|at| self.wanting.remove(&(at, target)));
            wants.map(|at| self.wanting.insert((at, target)));
            lane.wants = wants;
        }
        self.marks = self.marks + usize::from(lane.mark.is_some()) - usize::from(was_marked);
        if lane.is_empty() {
            self.by_target.remove(&target);
        }
    }
}
