//! The groups as submitted: state, where each live entry stands, and a bounded cache of recent entries.
//!
//! 12 bytes per live entry; payloads only in the cache. An entry is readable from the moment it is submitted: until the
//! writer has placed it, the cache holds it and does not give it up. Called under the log's lock; touches no file.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use bytes::Bytes;

use super::error::WalError;
use super::frame::{HEADER_BYTES, RECORD_BYTES, Record, head_group_bytes, len32};
use super::group::{GroupState, Span};
use super::ledger::NO_SEGMENT;
use super::position::{Piece, Placed, Position};
use super::segment::Segments;

/// Largest vote, committed point or purge mark, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 10;
/// Most entries of a group that may be known only from a head frame while a log is opened.
const HOLES_MAX: u64 = 1 << 27;
/// Room for this many positions is never given back.
const POSITIONS_KEPT: usize = 1 << 10;
/// What a cached entry costs besides its bytes.
const CACHED_OVERHEAD_BYTES: usize = size_of::<Bytes>();

/// Bounds of the index.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Cached entries of one group.
    pub cache_entries: usize,
    /// Cached bytes of all groups.
    pub cache_bytes: usize,
    /// Largest entry.
    pub entry_bytes: usize,
    /// Largest head frame.
    pub head_bytes: usize,
}

#[derive(Debug, Default)]
struct Group {
    state: GroupState,
    /// One per live entry.
    positions: VecDeque<Position>,
    /// The last entries, a suffix of the live ones.
    cache: VecDeque<Bytes>,
}

impl Group {
    fn span(&self) -> Span {
        self.state.span.unwrap_or_default()
    }

    fn slot(&mut self, index: u64) -> Option<&mut Position> {
        let at = index.checked_sub(self.span().first)?;
        self.positions.get_mut(usize::try_from(at).ok()?)
    }

    /// Drops the positions and cached entries that are in `old` and not in `new`; live and cached bytes that were freed.
    fn fit(&mut self, old: Span, new: Span) -> (u64, usize) {
        let kept = Span {
            first: new.first.max(old.first),
            next: new.next.min(old.next),
        };
        let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let front = size(kept.first - old.first).min(self.positions.len());
        let mut live = self.positions.drain(..front).map(Position::live_bytes).sum::<u64>();
        let count = size(kept.count()).min(self.positions.len());
        let cut = self.positions.len() - count;
        live += self.positions.drain(count..).map(Position::live_bytes).sum::<u64>();
        if self.positions.capacity() > POSITIONS_KEPT && self.positions.capacity() > 4 * count {
            self.positions.shrink_to(2 * count);
        }
        let last = self.cache.len().saturating_sub(cut);
        let mut cached: usize = self.cache.drain(last..).map(|entry| cached_bytes(&entry)).sum();
        let first = self.cache.len().saturating_sub(count);
        cached += self
            .cache
            .drain(..first)
            .map(|entry| cached_bytes(&entry))
            .sum::<usize>();
        (live, cached)
    }

    /// Drops the oldest cached entry if the disk has it; its bytes.
    fn evict(&mut self) -> Option<usize> {
        let position = self
            .positions
            .get(self.positions.len().checked_sub(self.cache.len())?)?;
        if !position.is_placed() {
            return None;
        }
        self.cache.pop_front().map(|entry| cached_bytes(&entry))
    }
}

/// All groups as submitted.
#[derive(Debug)]
pub struct Index {
    groups: BTreeMap<u16, Group>,
    limits: Limits,
    cached_bytes: usize,
    live_bytes: u64,
    head_bytes: usize,
    /// Group that last gave up a cached entry.
    hand: u16,
}

impl Index {
    /// No groups, and no limits yet: what is on the disk was let through once.
    pub fn new() -> Self {
        let none = usize::MAX;
        let limits = Limits {
            cache_entries: none,
            cache_bytes: none,
            entry_bytes: none,
            head_bytes: none,
        };
        Self {
            groups: BTreeMap::new(),
            limits,
            cached_bytes: 0,
            live_bytes: 0,
            head_bytes: 4,
            hand: 0,
        }
    }

    /// The same, with limits for all that comes.
    pub fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Entries submitted with this ticket; they are readable from now on.
    pub fn append(&mut self, group: u16, first_index: u64, entries: &[Bytes], ticket: u64) -> Result<(), WalError> {
        if let Some(entry) = entries.iter().find(|entry| entry.len() > self.limits.entry_bytes) {
            return Err(too_large(group, "an entry", entry.len(), self.limits.entry_bytes));
        }
        let count = entries.len() as u64;
        let expected = self
            .groups
            .get(&group)
            .and_then(|known| known.state.expected())
            .unwrap_or(first_index);
        if expected != first_index || first_index.checked_add(count).is_none() {
            return Err(WalError::Gap {
                group,
                first_index,
                expected,
            });
        }
        self.change(group, |state| state.append(first_index, count))?;
        let known = self.groups.entry(group).or_default();
        known
            .positions
            .extend(entries.iter().map(|_| Position::pending(ticket)));
        known.cache.extend(entries.iter().cloned());
        self.cached_bytes += entries.iter().map(cached_bytes).sum::<usize>();
        Ok(())
    }

    /// A vote.
    pub fn vote(&mut self, group: u16, vote: Bytes) -> Result<(), WalError> {
        check_value(group, "a vote", &vote)?;
        self.change(group, |state| state.vote = Some(vote))
    }

    /// A committed point.
    pub fn committed(&mut self, group: u16, committed: Bytes) -> Result<(), WalError> {
        check_value(group, "a committed point", &committed)?;
        self.change(group, |state| state.committed = Some(committed))
    }

    /// Entries from `from` on are gone.
    pub fn truncate(&mut self, group: u16, from: u64) -> Result<(), WalError> {
        self.change(group, |state| state.truncate(from))
    }

    /// Entries up to `upto` are gone.
    pub fn purge(&mut self, group: u16, upto: u64, mark: Bytes) -> Result<(), WalError> {
        check_value(group, "a purge mark", &mark)?;
        self.change(group, |state| state.purge(upto, mark))
    }

    /// The group is gone.
    pub fn drop_group(&mut self, group: u16) {
        if let Some(mut known) = self.groups.remove(&group) {
            self.head_bytes -= head_group_bytes(&known.state);
            let (live, cached) = known.fit(known.span(), Span::default());
            self.live_bytes -= live;
            self.cached_bytes -= cached;
        }
    }

    /// Changes a group's state, if the head frame has room for what comes of it, and fits positions and cache to it.
    fn change(&mut self, group: u16, f: impl FnOnce(&mut GroupState)) -> Result<(), WalError> {
        let known = self.groups.get(&group);
        let before = known.map_or(0, |known| head_group_bytes(&known.state));
        let mut state = known.map(|known| known.state.clone()).unwrap_or_default();
        f(&mut state);
        let head_bytes = self.head_bytes - before + head_group_bytes(&state);
        if head_bytes > self.limits.head_bytes && head_bytes > self.head_bytes {
            return Err(too_large(
                group,
                "the state of all groups",
                head_bytes,
                self.limits.head_bytes,
            ));
        }
        self.head_bytes = head_bytes;
        let known = self.groups.entry(group).or_default();
        let old = known.span();
        known.state = state;
        let (live, cached) = known.fit(old, known.span());
        self.live_bytes -= live;
        self.cached_bytes -= cached;
        Ok(())
    }

    /// The entries have been written: they can be read from there, and the cache may give them up.
    pub fn place(&mut self, placed: &Placed) {
        let Some(known) = self.groups.get_mut(&placed.group) else {
            return;
        };
        let mut offset = placed.offset;
        for (index, bytes) in (placed.first_index..).zip(&placed.lengths) {
            if let Some(slot) = known.slot(index)
                && placed.was.matches(*slot)
            {
                self.live_bytes -= slot.live_bytes();
                *slot = Position {
                    segment: placed.segment,
                    offset,
                    bytes: *bytes,
                };
                self.live_bytes += slot.live_bytes();
            }
            offset = offset.saturating_add(len32(RECORD_BYTES)).saturating_add(*bytes);
        }
        while known.cache.len() > self.limits.cache_entries {
            let Some(bytes) = known.evict() else { break };
            self.cached_bytes -= bytes;
        }
        while self.cached_bytes > self.limits.cache_bytes && self.evict_one() {}
    }

    /// Takes the oldest cached entry from the next group that has one to give.
    fn evict_one(&mut self) -> bool {
        let after = self.groups.range_mut((Excluded(self.hand), Unbounded));
        let found = after
            .map(|(group, known)| (*group, known.evict()))
            .find(|(_, bytes)| bytes.is_some());
        let found = found.or_else(|| {
            let upto = self.groups.range_mut(..=self.hand);
            upto.map(|(group, known)| (*group, known.evict()))
                .find(|(_, bytes)| bytes.is_some())
        });
        let Some((group, Some(bytes))) = found else {
            return false;
        };
        self.hand = group;
        self.cached_bytes -= bytes;
        true
    }

    /// Repeats what a frame at `offset` of a segment did, after the ledger has agreed to it. `Err` only for what no limit
    /// of this index would have let through.
    pub fn replay(
        &mut self,
        group: u16,
        record: &Record<'_>,
        moved: bool,
        (segment, offset): (u32, u32),
    ) -> Result<(), WalError> {
        let bytes = Bytes::copy_from_slice;
        match record {
            Record::Entries(entries) => {
                let (first, count) = (entries.first_index, u64::from(entries.count));
                if !moved {
                    self.change(group, |state| state.append(first, count))?;
                }
                let known = self.groups.entry(group).or_default();
                for (index, (at, entry)) in (first..).zip(entries.iter()) {
                    let offset = offset.saturating_add(len32(HEADER_BYTES + at));
                    let position = Position {
                        segment,
                        offset,
                        bytes: len32(entry.len()),
                    };
                    self.live_bytes += position.live_bytes();
                    if !moved {
                        known.positions.push_back(position);
                    } else if let Some(slot) = known.slot(index) {
                        self.live_bytes -= slot.live_bytes();
                        *slot = position;
                    }
                }
                Ok(())
            }
            Record::Vote(vote) => self.change(group, |state| state.vote = Some(bytes(vote))),
            Record::Committed(at) => self.change(group, |state| state.committed = Some(bytes(at))),
            Record::Truncate(from) => self.truncate(group, *from),
            Record::Purge(upto, mark) => self.change(group, |state| state.purge(*upto, bytes(mark))),
            Record::DropGroup => {
                self.drop_group(group);
                Ok(())
            }
            Record::Head(_) => Ok(()),
        }
    }

    /// Starts from the head frame of the oldest segment. `Err` if it names more entries than memory could hold.
    pub fn start(&mut self, head: &[(u16, GroupState)]) -> Result<(), String> {
        for (group, state) in head {
            let count = state.span.unwrap_or_default().count();
            if count > HOLES_MAX {
                return Err(format!(
                    "the head of the oldest segment names {count} entries of group {group}"
                ));
            }
            let hole = Position {
                segment: NO_SEGMENT,
                offset: 0,
                bytes: 0,
            };
            let positions = (0..count).map(|_| hole).collect();
            self.head_bytes += head_group_bytes(state);
            self.groups.insert(
                *group,
                Group {
                    state: state.clone(),
                    positions,
                    cache: VecDeque::new(),
                },
            );
        }
        Ok(())
    }

    /// The entries of `from..to` that are live, as many as fit in `bytes_max`, but one at least.
    pub fn plan(&self, group: u16, from: u64, to: u64, bytes_max: usize, segments: &Segments) -> Vec<Piece> {
        let Some(known) = self.groups.get(&group) else {
            return Vec::new();
        };
        let span = known.span();
        let (from, to) = (from.max(span.first), to.min(span.next));
        let cached_from = span.next - known.cache.len() as u64;
        let mut pieces = Vec::new();
        let mut bytes = 0_usize;
        for index in from..to {
            let at = |first: u64| usize::try_from(index - first).ok();
            let piece = if index >= cached_from {
                at(cached_from)
                    .and_then(|at| known.cache.get(at))
                    .cloned()
                    .map(Piece::Cached)
            } else {
                let position = at(span.first).and_then(|at| known.positions.get(at)).copied();
                position.and_then(|position| {
                    let file = segments.file(position.segment)?;
                    Some(Piece::Disk { index, position, file })
                })
            };
            // Every live entry is cached or placed in a segment that is still there.
            let Some(piece) = piece else { break };
            bytes = bytes.saturating_add(piece.bytes());
            if bytes > bytes_max && !pieces.is_empty() {
                break;
            }
            pieces.push(piece);
        }
        pieces
    }

    /// Where an entry stands, if it is live and written.
    pub fn position(&self, group: u16, index: u64) -> Option<Position> {
        let known = self.groups.get(&group)?;
        let at = usize::try_from(index.checked_sub(known.span().first)?).ok()?;
        known.positions.get(at).copied().filter(|position| position.is_placed())
    }

    /// A group's state as submitted.
    pub fn state(&self, group: u16) -> Option<&GroupState> {
        self.groups.get(&group).map(|known| &known.state)
    }

    /// Groups that have any state, ascending.
    pub fn groups(&self) -> Vec<u16> {
        self.groups.keys().copied().collect()
    }

    /// Bytes of all live entries that have been written.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes the cache holds now.
    #[cfg(test)]
    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }
}

fn cached_bytes(entry: &Bytes) -> usize {
    entry.len() + CACHED_OVERHEAD_BYTES
}

fn check_value(group: u16, what: &'static str, value: &Bytes) -> Result<(), WalError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(too_large(group, what, value.len(), VALUE_BYTES_MAX));
    }
    Ok(())
}

fn too_large(group: u16, what: &'static str, bytes: usize, bytes_max: usize) -> WalError {
    WalError::TooLarge {
        group,
        what,
        bytes,
        bytes_max,
    }
}
