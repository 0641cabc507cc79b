//! A crontab line as one plain sentence.
//!
//! Owns the wording. Two lines get the same sentence exactly when they match the same local times; `tests.rs` holds that.

use super::Cron;
use super::error::Field;
use super::field::{Bits, Parsed, Sign};
use super::line::{DayRule, Fields};

/// Up to this many times of day are named one by one.
const TIMES_NAMED_MAX: u32 = 4;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From Monday: a week's end belongs together.
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

impl Cron {
    /// The schedule in one English sentence, such as `At 02:30, on the 1st of the month and also on every Friday (UTC).`
    pub fn describe(&self) -> String {
        let fields = &self.fields;
        let months = if fields.month.bits == Field::Month.full() {
            String::new()
        } else {
            let names = spans(fields.month.bits, |month| MONTHS[month - 1].to_owned());
            format!(", in {}", joined(names, "and"))
        };
        format!("{}, {}{months} ({}).", times(fields), days(fields), self.timezone())
    }
}

fn times(fields: &Fields) -> String {
    let (minutes, hours) = (fields.minute.bits, fields.hour.bits);
    let every_hour = hours == Field::Hour.full();
    if !every_hour && minutes.count_ones() * hours.count_ones() <= TIMES_NAMED_MAX {
        let named = numbers(hours).flat_map(|hour| numbers(minutes).map(move |minute| clock(hour, minute)));
        return format!("At {}", joined(named.collect(), "and"));
    }
    let (what, of) = match every_so_many(minutes) {
        Some(1) => ("Every minute".to_owned(), ""),
        Some(step) => (format!("Every {step} minutes"), ""),
        None => {
            let plural = if minutes.is_power_of_two() { "" } else { "s" };
            let named = joined(spans(minutes, |minute| minute.to_string()), "and");
            (format!("At minute{plural} {named}"), " of every hour")
        }
    };
    match runs(hours)[..] {
        _ if every_hour => format!("{what}{of}"),
        [(first, last)] => {
            let (from, to) = (clock(first, least(minutes)), clock(last, greatest(minutes)));
            format!("{what}{of} from {from} to {to}")
        }
        _ => format!(
            "{what} of the hours {}",
            joined(spans(hours, |hour| hour.to_string()), "and")
        ),
    }
}

fn days(fields: &Fields) -> String {
    let any_date = is_full(fields.day_of_month, Field::DayOfMonth);
    let any_weekday = is_full(fields.day_of_week, Field::DayOfWeek);
    match (fields.day_rule(), any_date, any_weekday) {
        (_, true, true) | (DayRule::Either, true, _) | (DayRule::Either, _, true) => "every day".to_owned(),
        (DayRule::Both, true, false) => on_weekday(fields.day_of_week),
        (DayRule::Both, false, true) => on_date(fields.day_of_month),
        (DayRule::Both, false, false) => {
            format!(
                "{}, but only when that is {}",
                on_date(fields.day_of_month),
                is_weekday(fields.day_of_week)
            )
        }
        (DayRule::Either, false, false) => {
            format!(
                "{} and also {}",
                on_date(fields.day_of_month),
                on_weekday(fields.day_of_week)
            )
        }
    }
}

fn is_full(parsed: Parsed, field: Field) -> bool {
    parsed.sign.is_none() && parsed.bits == field.full()
}

fn on_date(parsed: Parsed) -> String {
    match parsed.sign {
        Some(Sign::LastDay { before: 0 }) => "on the last day of the month".to_owned(),
        Some(Sign::LastDay { before: 1 }) => "on the day before the last day of the month".to_owned(),
        Some(Sign::LastDay { before }) => format!("{before} days before the last day of the month"),
        Some(Sign::LastWorkday) => "on the last Monday-to-Friday day of the month".to_owned(),
        Some(Sign::NearestWorkday { day }) => {
            format!(
                "on the Monday-to-Friday day nearest to the {} of the month",
                ordinal(day.into())
            )
        }
        _ => {
            format!("on the {} of the month", joined(spans(parsed.bits, ordinal), "and"))
        }
    }
}

fn on_weekday(parsed: Parsed) -> String {
    if parsed.sign.is_some() {
        return format!("on {}", is_weekday(parsed));
    }
    let names = spans(monday_first(parsed.bits), |day| WEEKDAYS[day].to_owned());
    format!("on every {}", joined(names, "and"))
}

fn is_weekday(parsed: Parsed) -> String {
    match parsed.sign {
        Some(Sign::Nth { weekday, nth }) => format!("the {} {} of the month", ordinal(nth.into()), name(weekday)),
        Some(Sign::LastWeekday { weekday }) => format!("the last {} of the month", name(weekday)),
        _ => {
            let names = numbers(monday_first(parsed.bits))
                .map(|day| WEEKDAYS[day].to_owned())
                .collect();
            format!("a {}", joined(names, "or"))
        }
    }
}

/// Weekdays with Monday as bit 0 and Sunday as bit 6, from the crontab's Sunday as bit 0.
fn monday_first(bits: Bits) -> Bits {
    bits >> 1 | (bits & 1) << 6
}

/// The name of a weekday counted from Sunday.
fn name(weekday: u8) -> &'static str {
    WEEKDAYS[(usize::from(weekday) + 6) % 7]
}

/// `n` when the minutes are 0, n, 2n, and so on evenly through the hour.
fn every_so_many(minutes: Bits) -> Option<usize> {
    let every = |step: usize| (0..60).step_by(step).fold(0, |bits, minute| bits | 1 << minute);
    (1..=30)
        .filter(|step| 60 % step == 0)
        .find(|step| minutes == every(*step))
}

fn numbers(bits: Bits) -> impl Iterator<Item = usize> + Clone {
    (0..64).filter(move |number| bits >> number & 1 == 1)
}

fn least(bits: Bits) -> usize {
    numbers(bits).next().unwrap_or(0)
}

fn greatest(bits: Bits) -> usize {
    numbers(bits).last().unwrap_or(0)
}

/// The set as runs of consecutive numbers, first and last of each.
fn runs(bits: Bits) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers(bits) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// The set in words, three consecutive numbers and more as `3 to 5`.
fn spans(bits: Bits, word: impl Fn(usize) -> String) -> Vec<String> {
    let spans = runs(bits).into_iter().flat_map(|(first, last)| match last - first {
        0 => vec![word(first)],
        1 => vec![word(first), word(last)],
        _ => vec![format!("{} to {}", word(first), word(last))],
    });
    spans.collect()
}

/// A list in English.
fn joined(mut items: Vec<String>, last: &str) -> String {
    match (items.pop(), items.is_empty()) {
        (Some(end), false) => format!("{} {last} {end}", items.join(", ")),
        (end, _) => end.unwrap_or_default(),
    }
}

fn clock(hour: usize, minute: usize) -> String {
    format!("{hour:02}:{minute:02}")
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
