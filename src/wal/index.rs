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

    /// Drops the oldest cached entry if the disk has it; its bytes.
    fn evict(&mut self) -> Option<usize> {
        let position = self
            .positions
            .get(self.positions.len().checked_sub(self.cache.len())?)?;
        if !position.is_placed() {
            return None;
        }
        self.cache.pop_front().map(|entry| entry.len() + CACHED_OVERHEAD_BYTES)
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
    /// No groups.
    pub fn new(limits: Limits) -> Self {
        Self {
            groups: BTreeMap::new(),
            limits,
            cached_bytes: 0,
            live_bytes: 0,
            head_bytes: 4,
            hand: 0,
        }
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
        self.change(group, 0, |state| state.append(first_index, count))?;
        let known = self.groups.entry(group).or_default();
        known
            .positions
            .extend(entries.iter().map(|_| Position::pending(ticket)));
        known.cache.extend(entries.iter().cloned());
        self.cached_bytes += entries
            .iter()
            .map(|entry| entry.len() + CACHED_OVERHEAD_BYTES)
            .sum::<usize>();
        Ok(())
    }

    /// A vote.
    pub fn vote(&mut self, group: u16, vote: Bytes) -> Result<(), WalError> {
        check_value(group, "a vote", &vote)?;
        self.change(group, vote.len(), |state| state.vote = Some(vote))
    }

    /// A committed point.
    pub fn committed(&mut self, group: u16, committed: Bytes) -> Result<(), WalError> {
        check_value(group, "a committed point", &committed)?;
        self.change(group, committed.len(), |state| state.committed = Some(committed))
    }

    /// Entries from `from` on are gone.
    pub fn truncate(&mut self, group: u16, from: u64) -> Result<(), WalError> {
        self.change(group, 0, |state| state.truncate(from))
    }

    /// Entries up to `upto` are gone.
    pub fn purge(&mut self, group: u16, upto: u64, mark: Bytes) -> Result<(), WalError> {
        check_value(group, "a purge mark", &mark)?;
        self.change(group, mark.len(), |state| state.purge(upto, mark))
    }

    /// The group is gone.
    pub fn drop_group(&mut self, group: u16) {
        if let Some(mut known) = self.groups.remove(&group) {
            self.head_bytes -= head_group_bytes(&known.state);
            self.shrink(&mut known, Span::default());
        }
    }

    /// Changes a group's state, if the head frame has room for `more_bytes`, and fits positions and cache to it.
    fn change(&mut self, group: u16, more_bytes: usize, f: impl FnOnce(&mut GroupState)) -> Result<(), WalError> {
        let mut known = self.groups.remove(&group);
        let before = known.as_ref().map_or(0, |known| head_group_bytes(&known.state));
        let new = if known.is_some() {
            0
        } else {
            head_group_bytes(&GroupState::default())
        };
        if self.head_bytes + new + more_bytes > self.limits.head_bytes {
            if let Some(known) = known {
                self.groups.insert(group, known);
            }
            return Err(too_large(
                group,
                "the state of all groups",
                self.head_bytes + more_bytes,
                self.limits.head_bytes,
            ));
        }
        let mut known = known.take().unwrap_or_default();
        let old = known.span();
        f(&mut known.state);
        self.head_bytes = self.head_bytes - before + head_group_bytes(&known.state);
        if known.span().first > old.first || known.span().next < old.next {
            let kept = Span {
                first: known.span().first.max(old.first),
                next: known.span().next,
            };
            let front = usize::try_from(kept.first - old.first)
                .unwrap_or(usize::MAX)
                .min(known.positions.len());
            self.live_bytes -= known.positions.drain(..front).map(Position::live_bytes).sum::<u64>();
            self.shrink(&mut known, kept);
        }
        self.groups.insert(group, known);
        Ok(())
    }

    /// Drops the positions and cached entries beyond `kept`; the positions already start at its first index.
    fn shrink(&mut self, known: &mut Group, kept: Span) {
        let count = usize::try_from(kept.count())
            .unwrap_or(usize::MAX)
            .min(known.positions.len());
        let cut = known.positions.len() - count;
        self.live_bytes -= known.positions.drain(count..).map(Position::live_bytes).sum::<u64>();
        let cached = known.cache.len().saturating_sub(cut);
        let freed = known
            .cache
            .drain(cached..)
            .map(|entry| entry.len() + CACHED_OVERHEAD_BYTES);
        self.cached_bytes -= freed.sum::<usize>();
        while known.cache.len() > count {
            self.cached_bytes -= known
                .cache
                .pop_front()
                .map_or(0, |entry| entry.len() + CACHED_OVERHEAD_BYTES);
        }
        if known.positions.capacity() > 1024 && known.positions.capacity() > 4 * count {
            known.positions.shrink_to(2 * count);
        }
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

    /// Repeats what a frame at `offset` of a segment did, after the ledger has agreed to it.
    pub fn replay(&mut self, group: u16, record: &Record<'_>, moved: bool, segment: u32, offset: u32) {
        // Recovery runs before any limit on a job applies: what is on the disk was taken once.
        let limit = std::mem::replace(&mut self.limits.head_bytes, usize::MAX);
        let done = match record {
            Record::Entries(entries) => {
                let first = entries.first_index;
                let grown = if moved {
                    Ok(())
                } else {
                    self.change(group, 0, |state| state.append(first, u64::from(entries.count)))
                };
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
                grown
            }
            Record::Vote(vote) => self.change(group, 0, |state| state.vote = Some(Bytes::copy_from_slice(vote))),
            Record::Committed(at) => self.change(group, 0, |state| state.committed = Some(Bytes::copy_from_slice(at))),
            Record::Truncate(from) => self.truncate(group, *from),
            Record::Purge(upto, mark) => {
                self.change(group, 0, |state| state.purge(*upto, Bytes::copy_from_slice(mark)))
            }
            Record::DropGroup => {
                self.drop_group(group);
                Ok(())
            }
            Record::Head(_) => Ok(()),
        };
        debug_assert!(done.is_ok(), "no limit applies in recovery");
        self.limits.head_bytes = limit;
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
