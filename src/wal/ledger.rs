//! The groups as written: their state after the last frame of the stream, and which segments hold their entries.
//!
//! The writer's own view, behind what was submitted (`index.rs`) by the jobs that still wait. From it come the head
//! frame of each new segment and the answer to which segments are still needed. Recovery builds it frame by frame.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::frame::{Entries, Record, encode_head, head_group_bytes};
use super::group::GroupState;

/// Number of a segment that is not there any more: entries known only from a head frame.
pub const NO_SEGMENT: u32 = 0;

/// Entries `first..end` of a group stand in this segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index of the first entry.
    pub first: u64,
    /// Index after the last entry.
    pub end: u64,
    /// Number of the segment.
    pub segment: u32,
}

#[derive(Debug, Default)]
struct Written {
    state: GroupState,
    /// Ascending by index, without gaps over the state's span.
    runs: VecDeque<Run>,
}

impl Written {
    /// Fits the runs to the span after a purge or a truncation.
    fn trim(&mut self) {
        let span = self.state.span.unwrap_or_default();
        self.runs.retain_mut(|run| {
            run.first = run.first.max(span.first);
            run.end = run.end.min(span.next);
            run.first < run.end
        });
    }

    fn append(&mut self, first: u64, end: u64, segment: u32) {
        match self.runs.back_mut() {
            Some(run) if run.segment == segment && run.end == first => run.end = end,
            _ if first < end => self.runs.push_back(Run { first, end, segment }),
            _ => {}
        }
    }

    /// `first..end`, which are live, now stand in `segment`.
    fn relocate(&mut self, first: u64, end: u64, segment: u32) {
        let mut runs = VecDeque::with_capacity(self.runs.len() + 2);
        for run in self.runs.drain(..) {
            let before = Run {
                end: run.end.min(first),
                ..run
            };
            let after = Run {
                first: run.first.max(end),
                ..run
            };
            let placed = run.first <= first && first < run.end;
            runs.extend([before].into_iter().filter(|run| run.first < run.end));
            if placed {
                runs.push_back(Run { first, end, segment });
            }
            runs.extend([after].into_iter().filter(|run| run.first < run.end));
        }
        self.runs = runs;
    }
}

/// All groups as written.
#[derive(Debug, Default)]
pub struct Ledger {
    groups: BTreeMap<u16, Written>,
}

impl Ledger {
    /// New entries, written to `segment`.
    pub fn append(&mut self, group: u16, first: u64, count: u64, segment: u32) {
        let written = self.groups.entry(group).or_default();
        written.state.append(first, count);
        written.append(first, first.saturating_add(count), segment);
    }

    /// Live entries, written again to `segment`.
    pub fn relocate(&mut self, group: u16, first: u64, count: u64, segment: u32) {
        if let Some(written) = self.groups.get_mut(&group) {
            written.relocate(first, first.saturating_add(count), segment);
        }
    }

    /// A vote.
    pub fn vote(&mut self, group: u16, vote: Bytes) {
        self.groups.entry(group).or_default().state.vote = Some(vote);
    }

    /// A committed point.
    pub fn committed(&mut self, group: u16, committed: Bytes) {
        self.groups.entry(group).or_default().state.committed = Some(committed);
    }

    /// Entries from `from` on are gone.
    pub fn truncate(&mut self, group: u16, from: u64) {
        let written = self.groups.entry(group).or_default();
        written.state.truncate(from);
        written.trim();
    }

    /// Entries up to `upto` are gone.
    pub fn purge(&mut self, group: u16, upto: u64, mark: Bytes) {
        let written = self.groups.entry(group).or_default();
        written.state.purge(upto, mark);
        written.trim();
    }

    /// The group is gone.
    pub fn drop_group(&mut self, group: u16) {
        self.groups.remove(&group);
    }

    /// Repeats what a frame did. `Err` tells how the frame contradicts those before it.
    pub fn replay(&mut self, group: u16, record: &Record<'_>, moved: bool, segment: u32) -> Result<(), String> {
        match record {
            Record::Entries(entries) if moved => return self.replay_moved(group, entries, segment),
            Record::Entries(entries) => {
                let expected = self.groups.get(&group).and_then(|written| written.state.expected());
                if expected.is_some_and(|expected| expected != entries.first_index) {
                    return Err(format!(
                        "entries of group {group} start at {} where {} is next",
                        entries.first_index,
                        expected.unwrap_or_default()
                    ));
                }
                self.append(group, entries.first_index, u64::from(entries.count), segment);
            }
            Record::Vote(vote) => self.vote(group, Bytes::copy_from_slice(vote)),
            Record::Committed(committed) => self.committed(group, Bytes::copy_from_slice(committed)),
            Record::Truncate(from) => self.truncate(group, *from),
            Record::Purge(upto, mark) => self.purge(group, *upto, Bytes::copy_from_slice(mark)),
            Record::DropGroup => self.drop_group(group),
            Record::Head(groups) => {
                let same = self.groups.iter().map(|(group, written)| (*group, &written.state));
                if !same.eq(groups.iter().map(|(group, state)| (*group, state))) {
                    return Err("the head of the segment does not tell what the frames before it say".to_owned());
                }
            }
        }
        Ok(())
    }

    fn replay_moved(&mut self, group: u16, entries: &Entries<'_>, segment: u32) -> Result<(), String> {
        let (first, count) = (entries.first_index, u64::from(entries.count));
        let live = self
            .groups
            .get(&group)
            .and_then(|written| written.state.span)
            .unwrap_or_default();
        if first < live.first || first.saturating_add(count) > live.next {
            return Err(format!(
                "entries {first} and on of group {group} were moved, but are not in its log"
            ));
        }
        self.relocate(group, first, count, segment);
        Ok(())
    }

    /// Starts from the head frame of the oldest segment: its entries are in segments that are gone.
    pub fn start(&mut self, head: &[(u16, GroupState)]) {
        for (group, state) in head {
            let span = state.span.unwrap_or_default();
            let mut written = Written {
                state: state.clone(),
                runs: VecDeque::new(),
            };
            written.append(span.first, span.next, NO_SEGMENT);
            self.groups.insert(*group, written);
        }
    }

    /// The first live entry of any group that no segment holds: a loss.
    pub fn missing(&self) -> Option<(u16, u64)> {
        self.groups.iter().find_map(|(group, written)| {
            let run = written.runs.iter().find(|run| run.segment == NO_SEGMENT)?;
            Some((*group, run.first))
        })
    }

    /// Oldest segment that holds a live entry; `None` when none does.
    pub fn oldest_segment(&self) -> Option<u32> {
        self.groups
            .values()
            .flat_map(|written| &written.runs)
            .map(|run| run.segment)
            .min()
    }

    /// The live entries in one segment, with their groups.
    pub fn runs_in(&self, segment: u32) -> impl Iterator<Item = (u16, Run)> {
        self.groups.iter().flat_map(move |(group, written)| {
            written
                .runs
                .iter()
                .filter(move |run| run.segment == segment)
                .map(|run| (*group, *run))
        })
    }

    /// Appends the payload of a head frame.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        encode_head(out, self.groups.iter().map(|(group, written)| (*group, &written.state)));
    }

    /// Bytes the payload of a head frame takes now.
    pub fn head_bytes(&self) -> usize {
        4 + self
            .groups
            .values()
            .map(|written| head_group_bytes(&written.state))
            .sum::<usize>()
    }

    /// Each group's state.
    pub fn states(&self) -> impl Iterator<Item = (u16, &GroupState)> {
        self.groups.iter().map(|(group, written)| (*group, &written.state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::group::Span;

    #[test]
    fn runs_follow_appends_moves_and_purges() {
        let mut ledger = Ledger::default();
        ledger.append(7, 10, 10, 1);
        ledger.append(7, 20, 10, 2);
        ledger.append(7, 30, 5, 2);
        assert_eq!(
            ledger.runs_in(2).collect::<Vec<_>>(),
            [(
                7,
                Run {
                    first: 20,
                    end: 35,
                    segment: 2
                }
            )]
        );
        ledger.relocate(7, 12, 3, 3);
        let in_one: Vec<_> = ledger.runs_in(1).map(|(_, run)| (run.first, run.end)).collect();
        assert_eq!(in_one, [(10, 12), (15, 20)]);
        assert_eq!(
            ledger
                .runs_in(3)
                .map(|(_, run)| (run.first, run.end))
                .collect::<Vec<_>>(),
            [(12, 15)]
        );
        ledger.purge(7, 16, Bytes::new());
        assert_eq!(ledger.runs_in(3).count(), 0);
        assert_eq!(ledger.oldest_segment(), Some(1));
        ledger.purge(7, 19, Bytes::new());
        assert_eq!(ledger.oldest_segment(), Some(2));
        ledger.truncate(7, 0);
        assert_eq!(ledger.oldest_segment(), None);
        let spans: Vec<_> = ledger.states().map(|(_, state)| state.span).collect();
        assert_eq!(spans, [Some(Span { first: 20, next: 20 })]);
    }
}
