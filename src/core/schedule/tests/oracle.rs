//! A second, slow reading of the dialect: every minute is asked whether it matches. Shares no code with the product.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A line as texts.
pub(super) struct Oracle {
    fields: Vec<String>,
    zone: TimeZone,
}

const NAMES: &str = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC";
const WEEKDAYS: &str = "SUN MON TUE WED THU FRI SAT";

impl Oracle {
    pub(super) fn new(line: &str, zone: &str) -> Self {
        let fields: Vec<String> = line.split(' ').map(str::to_uppercase).collect();
        assert_eq!(fields.len(), 5, "{line}");
        Self {
            fields,
            zone: TimeZone::get(zone).expect("a zone"),
        }
    }

    fn matches_date(&self, date: Date) -> bool {
        let (date_field, weekday_field) = (&self.fields[2], &self.fields[4]);
        let on_date = if date_field.contains(['L', 'W']) {
            Self::sign_of_month(date_field, date)
        } else {
            listed(date_field, 1, 31, "", i64::from(date.day()))
        };
        let on_weekday = if weekday_field.contains(['L', '#']) {
            Self::sign_of_week(weekday_field, date)
        } else {
            let sunday = i64::from(date.weekday().to_sunday_zero_offset());
            listed(weekday_field, 0, 7, WEEKDAYS, sunday) || sunday == 0 && listed(weekday_field, 0, 7, WEEKDAYS, 7)
        };
        let both = date_field.starts_with('*') || weekday_field.starts_with('*');
        let on_day = if both {
            on_date && on_weekday
        } else {
            on_date || on_weekday
        };
        on_day && listed(&self.fields[3], 1, 12, NAMES, i64::from(date.month()))
    }

    fn sign_of_month(text: &str, date: Date) -> bool {
        let last = date.last_of_month();
        let is_workday = |day: Date| day.weekday().to_monday_zero_offset() < 5;
        if text == "L" {
            return date == last;
        }
        if text == "LW" {
            return [0, 1, 2]
                .map(|d| last - d.days())
                .into_iter()
                .find(|day| is_workday(*day))
                == Some(date);
        }
        if let Some(before) = text.strip_prefix("L-") {
            return date + before.parse::<i64>().expect("a number").days() == last;
        }
        let day: i8 = text.trim_end_matches('W').parse().expect("a number");
        let wanted = Date::new(date.year(), date.month(), day).expect("days up to 28 exist");
        let by_distance = [0, -1, 1, -2, 2].map(|d| wanted + d.days());
        let nearest = by_distance
            .into_iter()
            .find(|day| day.month() == date.month() && is_workday(*day));
        nearest == Some(date)
    }

    fn sign_of_week(text: &str, date: Date) -> bool {
        let weekday = |name: &str| {
            let number = WEEKDAYS
                .split(' ')
                .position(|known| known == name)
                .and_then(|n| i8::try_from(n).ok());
            number.unwrap_or_else(|| name.parse::<i8>().expect("a number") % 7)
        };
        let is = |name: &str| date.weekday().to_sunday_zero_offset() == weekday(name);
        match text.split_once('#') {
            Some((name, nth)) => is(name) && (date.day() + 6) / 7 == nth.parse::<i8>().expect("a number"),
            None => is(text.trim_end_matches('L')) && (date + 7.days()).month() != date.month(),
        }
    }

    pub(super) fn matches(&self, local: i64) -> bool {
        let at = Timestamp::from_second(local).expect("in range").to_zoned(TimeZone::UTC);
        listed(&self.fields[0], 0, 59, "", i64::from(at.minute()))
            && listed(&self.fields[1], 0, 23, "", i64::from(at.hour()))
            && self.matches_date(at.date())
    }

    /// Local seconds at a second of UTC.
    fn local(&self, at: i64) -> i64 {
        at + i64::from(
            self.zone
                .to_offset(Timestamp::from_second(at).expect("in range"))
                .seconds(),
        )
    }

    /// Every due in `from..end`, whole minutes of UTC in seconds, by looking at each minute.
    pub(super) fn dues(&self, from: i64, end: i64) -> Vec<i64> {
        let is_fixed = !self.fields[0].starts_with('*') && !self.fields[1].starts_with('*');
        // What local clocks showed up to 26 hours before `from` counts as shown.
        let lead = from - 26 * 3_600;
        let mut shown = BTreeSet::new();
        let mut dues = Vec::new();
        let mut previous = self.local(lead) - 60;
        for at in (lead..end).step_by(60) {
            let local = self.local(at);
            let is_new = shown.insert(local);
            let left_out = (previous + 60..local)
                .step_by(60)
                .any(|local| is_fixed && self.matches(local));
            if at >= from && (left_out || self.matches(local) && (is_new || !is_fixed)) {
                dues.push(at);
            }
            previous = local;
        }
        dues
    }
}

/// Whether the list holds the number, by walking each of its items.
fn listed(text: &str, low: i64, high: i64, names: &str, wanted: i64) -> bool {
    let value = |word: &str| {
        let named = names.split(' ').position(|name| !name.is_empty() && name == word);
        named.map_or_else(
            || word.parse().expect("a number"),
            |n| i64::try_from(n).expect("small") + low,
        )
    };
    text.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((first, last)) => (value(first), value(last)),
            None => (value(range), value(range)),
        };
        let step: i64 = step.parse().expect("a number");
        let mut number = first;
        while number <= last {
            if number == wanted {
                return true;
            }
            number += step;
        }
        false
    })
}
