//! The five fields acting together on local time, evaluated by saffron. The only user of saffron.
//!
//! saffron counts weekdays from 1, wraps backward ranges wrongly, and joins the two day fields by its own rule; so it is
//! handed plain lists alone, and for days that must match both fields two expressions that are stepped in turn.
//! Local instants are seconds since 1970-01-01T00:00:00 on the local clock. Zones are `mod.rs`.

use std::ops::{Add, Sub};
use std::time::Duration;

use super::error::{CronError, Field};
use super::field::{Bits, Parsed, Sign};
use super::line::{DayRule, Fields};

/// Seconds in a minute.
pub(super) const MINUTE: i64 = 60;
/// Seconds in a day.
pub(super) const DAY: i64 = 86_400;
/// How far ahead a day that matches both day fields is looked for. Any combination of a date and a weekday that exists
/// comes back within 40 years (29 February around 2100).
const SEARCH: i64 = 41 * 366 * DAY;

/// What the fields say, without a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    minutes: Bits,
    hours: Bits,
    /// The days are those of the first that the second, where there is one, has as well.
    days: saffron::Cron,
    and_days: Option<saffron::Cron>,
}

impl Pattern {
    pub(super) fn new(fields: &Fields) -> Result<Self, CronError> {
        let clock = format!(
            "{} {}",
            list(fields.minute.bits, Field::Minute),
            list(fields.hour.bits, Field::Hour)
        );
        let month = list(fields.month.bits, Field::Month);
        let evaluator = |day_of_month: &str, day_of_week: &str| {
            let line = format!("{clock} {day_of_month} {month} {day_of_week}");
            line.parse().map_err(|_| CronError::Unsupported { line })
        };
        let day_of_month = day_text(fields.day_of_month, Field::DayOfMonth);
        let day_of_week = day_text(fields.day_of_week, Field::DayOfWeek);
        let restricted = day_of_month != "*" && day_of_week != "*";
        let (days, and_days) = match fields.day_rule() {
            DayRule::Both if restricted => (evaluator(&day_of_month, "*")?, Some(evaluator("*", &day_of_week)?)),
            DayRule::Either if !restricted => (evaluator("*", "*")?, None),
            DayRule::Both | DayRule::Either => (evaluator(&day_of_month, &day_of_week)?, None),
        };
        Ok(Self {
            minutes: fields.minute.bits,
            hours: fields.hour.bits,
            days,
            and_days,
        })
    }

    /// The first whole minute that matches, at or after the local second `from`.
    pub(super) fn first_from(&self, from: i64) -> Option<i64> {
        let mut after = from - 1;
        let Some(and_days) = &self.and_days else {
            return next_after(&self.days, after);
        };
        while after < from + SEARCH {
            let first = next_after(&self.days, after)?;
            let second = next_after(and_days, first - 1)?;
            if first == second {
                return Some(first);
            }
            // Both share the minutes and hours: no match lies before the second's day.
            after = second - 1;
        }
        None
    }

    /// How many matches the local seconds `from..end` hold, and the last of them. Like a range, it may be empty or backward.
    pub(super) fn count(&self, from: i64, end: i64) -> (u64, Option<i64>) {
        if from >= end {
            return (0, None);
        }
        let mut count = 0;
        let mut last_day = None;
        let per_day = u64::from(self.minutes.count_ones()) * u64::from(self.hours.count_ones());
        for day in from.div_euclid(DAY)..=(end - 1).div_euclid(DAY) {
            if !self.has_day(day) {
                continue;
            }
            let (start, next) = (day * DAY, (day + 1) * DAY);
            let mut here = per_day;
            if from > start {
                here -= self.count_below(from - start);
            }
            if end < next {
                here -= per_day - self.count_below(end - start);
            }
            if here > 0 {
                count += here;
                last_day = Some(day);
            }
        }
        (count, last_day.map(|day| day * DAY + self.last_below(end - day * DAY)))
    }

    /// Whether the local second matches.
    pub(super) fn matches(&self, at: i64) -> bool {
        self.count(at, at + 1).0 > 0
    }

    /// Matches of a day of the pattern before the second `second` of that day.
    fn count_below(&self, second: i64) -> u64 {
        // A match is a whole minute: the seconds of a begun one are behind it.
        let minutes = (second + MINUTE - 1) / MINUTE;
        let (hour, minute) = (minutes / 60, minutes % 60);
        let whole = u64::from(below(self.hours, hour).count_ones()) * u64::from(self.minutes.count_ones());
        let begun = if self.hours >> hour & 1 == 1 {
            below(self.minutes, minute).count_ones()
        } else {
            0
        };
        whole + u64::from(begun)
    }

    /// The last match of a day before its second `second`; the caller knows that there is one.
    fn last_below(&self, second: i64) -> i64 {
        let minutes = (second.min(DAY) + MINUTE - 1) / MINUTE;
        let (hour, minute) = (minutes / 60, minutes % 60);
        let begun = below(self.minutes, minute);
        if self.hours >> hour & 1 == 1 && begun != 0 {
            return (hour * 60 + highest(begun)) * MINUTE;
        }
        (highest(below(self.hours, hour)) * 60 + highest(self.minutes)) * MINUTE
    }

    /// Whether the local day, counted from 1970-01-01, is one of the pattern's.
    fn has_day(&self, day: i64) -> bool {
        let clock = i64::from(self.hours.trailing_zeros()) * 60 + i64::from(self.minutes.trailing_zeros());
        let at = day * DAY + clock * MINUTE;
        self.days.contains(date(at)) && self.and_days.as_ref().is_none_or(|days| days.contains(date(at)))
    }
}

/// The bits of the numbers below `end`.
fn below(bits: Bits, end: i64) -> Bits {
    bits & ((1 << end) - 1)
}

fn highest(bits: Bits) -> i64 {
    i64::from(bits.checked_ilog2().unwrap_or(0))
}

/// A set as saffron's list of numbers, `*` when it is full.
fn list(bits: Bits, field: Field) -> String {
    if bits == field.full() {
        return "*".to_owned();
    }
    let first = u32::from(field == Field::DayOfWeek);
    let numbers = (0..Bits::BITS).filter(|value| bits >> value & 1 == 1);
    numbers
        .map(|value| (value + first).to_string())
        .collect::<Vec<_>>()
        .join(",")
}

/// A day field as saffron writes it: weekdays from Sunday = 1.
fn day_text(parsed: Parsed, field: Field) -> String {
    match parsed.sign {
        None => list(parsed.bits, field),
        Some(Sign::LastDay { before: 0 }) => "L".to_owned(),
        Some(Sign::LastDay { before }) => format!("L-{before}"),
        Some(Sign::LastWorkday) => "LW".to_owned(),
        Some(Sign::NearestWorkday { day }) => format!("{day}W"),
        Some(Sign::Nth { weekday, nth }) => format!("{}#{nth}", weekday + 1),
        Some(Sign::LastWeekday { weekday }) => format!("{}L", weekday + 1),
    }
}

/// The first match of the expression strictly after the local second `after`, rounded down to its minute by saffron.
fn next_after(expression: &saffron::Cron, after: i64) -> Option<i64> {
    expression.next_after(date(after)).map(|found| found.timestamp())
}

/// Local time dressed as UTC. Generic because saffron does not name its date type to us; its default is the epoch.
fn date<Date>(at: i64) -> Date
where
    Date: Default + Add<Duration, Output = Date> + Sub<Duration, Output = Date>,
{
    let distance = Duration::from_secs(at.unsigned_abs());
    if at < 0 {
        Date::default() - distance
    } else {
        Date::default() + distance
    }
}
