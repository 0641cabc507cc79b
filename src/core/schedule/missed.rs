//! How many dues passed while nobody fired: counted, not stepped through.
//!
//! A node that was down for a day finds millions of tasks with up to 1440 dues behind each; so whole stretches of one
//! offset are counted by days, and the number of dues costs nothing.

use super::Cron;
use super::zone::LAST_SECOND;

/// What passed since a due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The latest due that is not after now.
    pub latest_ms: u64,
    /// How many dues there are from the given one up to, and without, the latest.
    pub skipped: u64,
}

impl Cron {
    /// Looks back from `now_ms` to `due_ms`, a due of this schedule that is not after now. All in milliseconds since the
    /// Unix epoch. Takes time by the days in between, not by the dues.
    pub fn missed(&self, due_ms: u64, now_ms: u64) -> Missed {
        let last = i64::try_from(now_ms / 1_000).map_or(LAST_SECOND, |now| now.min(LAST_SECOND));
        let mut from = i64::try_from(due_ms / 1_000).map_or(LAST_SECOND, |due| due.min(LAST_SECOND)) + 1;
        let mut missed = Missed {
            latest_ms: due_ms,
            skipped: 0,
        };
        while from <= last {
            let stretch = self.zone.stretch(from);
            let end = stretch.end.min(last + 1);
            let start = self.start_of_first_pass(from);
            let (mut count, mut latest) = self.pattern.count(start + stretch.offset, end + stretch.offset);
            latest = latest.map(|local| local - stretch.offset);
            if self.is_due_for_gap(&stretch, from) && !self.pattern.matches(from + stretch.offset) {
                count += 1;
                latest = latest.or(Some(from));
            }
            if let Some(latest) = latest.and_then(|latest| u64::try_from(latest).ok()) {
                missed = Missed {
                    latest_ms: latest * 1_000,
                    skipped: missed.skipped + count,
                };
            }
            from = stretch.end;
        }
        missed
    }
}
