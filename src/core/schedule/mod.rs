//! When a periodic task is due: a crontab line read in a time zone.
//!
//! Owns the dialect (Linux crontab by vixie cron's rules; doc/api.md) and what becomes of it when clocks change. It never
//! reads a clock, and what it answers depends on the line, the zone and the release alone. Called by the API (checks),
//! `core/machine.rs` (next due, missed dues) and `cli/cron.rs`.

mod error;
mod field;
mod line;
mod missed;
mod pattern;
#[cfg(test)]
mod tests;
mod words;
mod zone;

pub use error::{CronError, Field, Problem};
pub use missed::Missed;

use line::Fields;
use pattern::{DAY, Pattern};
use zone::{Change, LAST_SECOND, Stretch, Zone};

/// Wider than any two offsets can be apart: what local time passes in this span cannot come back after it.
const OFFSETS_APART_MAX: i64 = 3 * DAY;

/// A crontab line that has been read. Cheap to clone; holds no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    pattern: Pattern,
    zone: Zone,
    /// As written: whether a field begins with `*` decides more than its set.
    fields: Fields,
}

impl Cron {
    /// Reads a crontab line. `timezone` is an IANA name; a `TZ=` or `CRON_TZ=` in front of the line goes before it.
    ///
    /// A line that is right but never fires (`0 0 30 2 *`) is accepted here: [`Cron::next_after`] tells.
    pub fn parse(expression: &str, timezone: &str) -> Result<Self, CronError> {
        let line = line::parse(expression)?;
        Ok(Self {
            pattern: Pattern::new(&line.fields)?,
            zone: Zone::named(line.timezone.unwrap_or(timezone))?,
            fields: line.fields,
        })
    }

    /// The first due strictly after `after_ms`, in milliseconds since the Unix epoch; `None` when there is none up to the
    /// end of the year 9999.
    pub fn next_after(&self, after_ms: u64) -> Option<u64> {
        let after = i64::try_from(after_ms / 1_000).ok()?;
        let next = self.first_from(after + 1)?;
        debug_assert!(next > after, "a due must come after the instant it was asked for");
        u64::try_from(next).ok()?.checked_mul(1_000)
    }

    /// The IANA name of the zone that the line is read in.
    pub fn timezone(&self) -> &str {
        self.zone.name()
    }

    /// The instant on the clocks of the line's zone, as `2026-03-08 03:00:00 -04:00 Sun`.
    pub fn local_text(&self, at_ms: u64) -> String {
        self.zone.text(i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX))
    }

    /// The first due at or after the second `from`.
    fn first_from(&self, mut from: i64) -> Option<i64> {
        while from <= LAST_SECOND {
            let stretch = self.zone.stretch(from);
            if self.is_due_for_gap(&stretch, from) {
                return Some(from);
            }
            let start = self.start_of_first_pass(from);
            let found = self.pattern.first_from(start + stretch.offset)? - stretch.offset;
            if found < stretch.end {
                return Some(found);
            }
            // Far from a change of clocks nothing before the match can match in another offset either, so whole years of
            // changes are passed over at once; near one, stretch by stretch.
            let near = found - OFFSETS_APART_MAX;
            from = if stretch.end > from + OFFSETS_APART_MAX {
                near.max(stretch.end)
            } else {
                stretch.end
            };
        }
        None
    }

    /// Whether `from` is the end of a gap that left out a due of a fixed-time task: that due fires then.
    fn is_due_for_gap(&self, stretch: &Stretch, from: i64) -> bool {
        let Some(change) = self.change_that_matters(from) else {
            return false;
        };
        let gap_end = from + stretch.offset;
        change.at == from && self.pattern.count(gap_end - change.shift, gap_end).0 > 0
    }

    /// For a fixed-time task the first second from `from` on that is not a repetition; for others `from`.
    fn start_of_first_pass(&self, from: i64) -> i64 {
        self.change_that_matters(from)
            .map_or(from, |change| from.max(change.at - change.shift))
    }

    /// The last change of clocks up to `from`, for a task that does not simply follow the clock.
    fn change_that_matters(&self, from: i64) -> Option<Change> {
        if self.fields.is_fixed_time() {
            self.zone.change_before(from)
        } else {
            None
        }
    }
}
