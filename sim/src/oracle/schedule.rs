//! When a task is due, worked out minute by minute: slow, obvious, and without any code of the product.
//!
//! Knows vixie's five fields, the macros, and the zones whose clocks are written down in [`Zone`]. A line or zone that it does
//! not know is not judged.

use std::collections::BTreeSet;

use crate::history::When;

#[cfg(test)]
mod tests;

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;
/// What clocks showed this long before the time asked for still counts as shown.
const LEAD: i64 = 26 * 3_600;
const MONTHS: &str = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC";
const WEEKDAYS: &str = "SUN MON TUE WED THU FRI SAT";
const MACROS: [(&str, &str); 7] = [
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@WEEKLY", "0 0 * * 0"),
    ("@DAILY", "0 0 * * *"),
    ("@MIDNIGHT", "0 0 * * *"),
    ("@HOURLY", "0 * * * *"),
];

/// A schedule that can be judged.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// One instant.
    Once(u64),
    /// A crontab line.
    Cron(Cron),
}

/// A crontab line: for each field which of its numbers are in it.
#[derive(Clone, Debug)]
pub struct Cron {
    minutes: Vec<bool>,
    hours: Vec<bool>,
    dates: Vec<bool>,
    months: Vec<bool>,
    weekdays: Vec<bool>,
    /// Day of month and day of week must both match.
    needs_both: bool,
    /// Neither minute nor hour begins with `*`.
    is_fixed: bool,
    zone: Zone,
}

/// The clocks of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    /// Always so many seconds ahead of UTC.
    Fixed(i64),
    /// An hour more from the last Sunday of March to the last of October, 01:00 UTC.
    Europe(i64),
    /// An hour more from the second Sunday of March to the first of November, 02:00 on its own clocks.
    America(i64),
}

impl Schedule {
    /// `None` for a line or a zone that is not known here.
    pub fn of(when: &When) -> Option<Self> {
        match when {
            When::Once(second) => Some(Self::Once(second * 1_000)),
            When::Cron { line, zone } => Cron::parse(line, zone).map(Self::Cron),
        }
    }

    /// Every due after `after_ms` and up to `until_ms`, in order. A one-shot may be created within the second that it names, so
    /// its due counts however early it is.
    pub fn dues(&self, after_ms: u64, until_ms: u64) -> Vec<u64> {
        match self {
            Self::Once(due_ms) => vec![*due_ms].into_iter().filter(|due_ms| *due_ms <= until_ms).collect(),
            Self::Cron(cron) => {
                let second = |ms: u64| i64::try_from(ms / 1_000).expect("an instant that tasks may name");
                let dues = cron.dues(second(after_ms) + 1, second(until_ms));
                dues.into_iter()
                    .map(|due| u64::try_from(due).expect("after 1970") * 1_000)
                    .collect()
            }
        }
    }

    /// Whether this is one of its dues.
    pub fn is_due(&self, at_ms: u64) -> bool {
        self.dues(at_ms.saturating_sub(1), at_ms).last() == Some(&at_ms)
    }
}

impl Cron {
    fn parse(line: &str, zone: &str) -> Option<Self> {
        let mut line = line.trim();
        let mut zone = zone;
        for prefix in ["TZ=", "CRON_TZ="] {
            if let Some(rest) = line.strip_prefix(prefix) {
                (zone, line) = rest.split_once([' ', '\t'])?;
            }
        }
        let upper = line.trim().to_uppercase();
        let known = MACROS.iter().find(|(name, _)| *name == upper);
        let text = known.map_or(upper.as_str(), |(_, text)| text);
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, date, month, weekday] = fields[..] else {
            return None;
        };
        let mut weekdays = set(weekday, 0, 7, WEEKDAYS)?;
        weekdays[0] |= weekdays[7];
        Some(Self {
            minutes: set(minute, 0, 59, "")?,
            hours: set(hour, 0, 23, "")?,
            dates: set(date, 1, 31, "")?,
            months: set(month, 1, 12, MONTHS)?,
            weekdays,
            needs_both: date.starts_with('*') || weekday.starts_with('*'),
            is_fixed: !minute.starts_with('*') && !hour.starts_with('*'),
            zone: Zone::named(zone)?,
        })
    }

    /// Every due in `from..=until`, seconds of UTC, by looking at each minute.
    fn dues(&self, from: i64, until: i64) -> Vec<i64> {
        let mut at = (from + MINUTE - 1).div_euclid(MINUTE) * MINUTE;
        let from = at;
        if !matches!(self.zone, Zone::Fixed(_)) {
            at -= LEAD;
        }
        let mut shown = BTreeSet::new();
        let mut dues = Vec::new();
        let mut previous = at + self.zone.offset(at) - MINUTE;
        while at <= until {
            let local = at + self.zone.offset(at);
            if let Zone::Fixed(_) = self.zone
                && !self.matches_day(local.div_euclid(DAY))
            {
                // Nothing of this day, and the day has no change of clocks.
                at += DAY - local.rem_euclid(DAY);
                continue;
            }
            let is_new = matches!(self.zone, Zone::Fixed(_)) || shown.insert(local);
            let mut left_out = (previous + MINUTE..local).step_by(60);
            let is_left_out = self.is_fixed && left_out.any(|local| self.matches(local));
            if at >= from && (is_left_out || self.matches(local) && (is_new || !self.is_fixed)) {
                dues.push(at);
            }
            previous = if let Zone::Fixed(_) = self.zone {
                local + DAY
            } else {
                local
            };
            at += MINUTE;
        }
        dues
    }

    fn matches(&self, local: i64) -> bool {
        let minute = local.div_euclid(MINUTE);
        is_in(&self.minutes, minute.rem_euclid(60))
            && is_in(&self.hours, minute.div_euclid(60).rem_euclid(24))
            && self.matches_day(local.div_euclid(DAY))
    }

    fn matches_day(&self, day: i64) -> bool {
        let (_, month, date) = civil(day);
        let on_date = is_in(&self.dates, date);
        let on_weekday = is_in(&self.weekdays, weekday(day));
        let on_day = if self.needs_both {
            on_date && on_weekday
        } else {
            on_date || on_weekday
        };
        on_day && is_in(&self.months, month)
    }
}

impl Zone {
    fn named(name: &str) -> Option<Self> {
        let hours = |hours: i64| hours * 3_600;
        Some(match name {
            "UTC" | "Etc/UTC" | "Etc/GMT" | "GMT" => Self::Fixed(0),
            "Asia/Shanghai" => Self::Fixed(hours(8)),
            "Asia/Tokyo" => Self::Fixed(hours(9)),
            "Asia/Kolkata" => Self::Fixed(hours(5) + 1_800),
            "Asia/Kathmandu" => Self::Fixed(hours(5) + 2_700),
            "America/Phoenix" => Self::Fixed(hours(-7)),
            "Europe/Berlin" | "Europe/Paris" => Self::Europe(hours(1)),
            "Europe/London" => Self::Europe(0),
            "America/New_York" => Self::America(hours(-5)),
            "America/Los_Angeles" => Self::America(hours(-8)),
            _ => return None,
        })
    }

    /// Seconds ahead of UTC; right for 2007 and later.
    fn offset(self, at: i64) -> i64 {
        let (year, ..) = civil(at.div_euclid(DAY));
        let (standard, summer) = match self {
            Self::Fixed(offset) => return offset,
            Self::Europe(standard) => {
                let change = |month| (first_sunday_from(days(year, month, 25))) * DAY + 3_600;
                (standard, change(3)..change(10))
            }
            Self::America(standard) => {
                let change = |month, date| first_sunday_from(days(year, month, date)) * DAY;
                let from = change(3, 8) + 7_200 - standard;
                (standard, from..change(11, 1) + 3_600 - standard)
            }
        };
        standard + if summer.contains(&at) { 3_600 } else { 0 }
    }
}

fn is_in(set: &[bool], number: i64) -> bool {
    usize::try_from(number).is_ok_and(|number| set.get(number) == Some(&true))
}

/// The numbers of a field, by walking each of its items; `None` for what is not known here.
fn set(text: &str, low: usize, high: usize, names: &str) -> Option<Vec<bool>> {
    let value = |word: &str| {
        let named = names.split(' ').position(|name| !name.is_empty() && name == word);
        named.map_or_else(|| word.parse().ok(), |place| Some(place + low))
    };
    let mut set = vec![false; high + 1];
    for item in text.split(',') {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (mut number, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((first, last)) => (value(first)?, value(last)?),
            None => (value(range)?, value(range)?),
        };
        let step = step.parse::<usize>().ok().filter(|step| *step > 0)?;
        while number <= last {
            *set.get_mut(number)? = true;
            number += step;
        }
    }
    Some(set)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and date of a day since the epoch.
fn civil(day: i64) -> (i64, i64, i64) {
    // A guess that is never too late, and a walk from there.
    let mut year = 1970 + day.div_euclid(366);
    while day >= days(year + 1, 1, 1) {
        year += 1;
    }
    let mut left = day - days(year, 1, 1);
    let mut month = 1;
    while left >= month_length(year, month) {
        left -= month_length(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

/// Day since the epoch of a date.
fn days(year: i64, month: i64, date: i64) -> i64 {
    let leap_days = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let months: i64 = (1..month).map(|month| month_length(year, month)).sum();
    (year - 1970) * 365 + leap_days(year) - leap_days(1970) + months + date - 1
}

/// Sunday is 0; the epoch was a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7)
}

fn first_sunday_from(day: i64) -> i64 {
    day + (7 - weekday(day)) % 7
}
