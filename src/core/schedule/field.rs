//! One field of a crontab line, read by the rules of vixie cron into a set of numbers.
//!
//! Owns the grammar of a field and the extension signs `L`, `W` and `#`. How the fields act together is `pattern.rs`.

use super::error::{CronError, Field, Problem};

/// A set of small numbers, one bit each.
pub(super) type Bits = u64;

/// A sign beyond crontab that names one day of a month. Weekdays count from Sunday = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// `L`, `L-n`: the last day of the month, or the day `before` days earlier.
    LastDay { before: u8 },
    /// `LW`: the last day of the month that is Monday to Friday.
    LastWorkday,
    /// `nW`: the day Monday to Friday nearest to day `day` of the same month.
    NearestWorkday { day: u8 },
    /// `d#k`: the `nth` such weekday of the month.
    Nth { weekday: u8, nth: u8 },
    /// `dL`: the last such weekday of the month.
    LastWeekday { weekday: u8 },
}

/// What one field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    /// The numbers named; empty when `sign` is set. Sunday is 0 alone.
    pub(super) bits: Bits,
    /// The sign that stands there instead.
    pub(super) sign: Option<Sign>,
    /// Whether the field's text begins with `*`, which is what vixie cron decides several things by.
    pub(super) starred: bool,
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// Days 1 to 28: those that every month has.
const NEAREST_MAX: u8 = 28;

impl Field {
    /// Lowest and highest number of the field.
    fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// Every number of the field; Sunday is counted once.
    pub(super) fn full(self) -> Bits {
        let (low, high) = if self == Self::DayOfWeek { (0, 6) } else { self.bounds() };
        (low..=high).fold(0, |bits, value| bits | 1 << value)
    }

    fn refuse(self, item: &str, problem: Problem) -> CronError {
        CronError::Field {
            field: self,
            item: item.to_owned(),
            problem,
        }
    }

    /// Reads the field's text, which has no blanks in it.
    pub(super) fn parse(self, text: &str) -> Result<Parsed, CronError> {
        let starred = text.starts_with('*');
        if let Some(sign) = self.sign(text)? {
            return Ok(Parsed {
                bits: 0,
                sign: Some(sign),
                starred,
            });
        }
        let mut bits = 0;
        for item in text.split(',') {
            bits |= self.item(text, item)?;
        }
        if self == Self::DayOfWeek && bits & 1 << 7 != 0 {
            bits = bits & !(1 << 7) | 1;
        }
        Ok(Parsed {
            bits,
            sign: None,
            starred,
        })
    }

    /// One item of a list: `*`, a value or a range, the first and the last with or without a step.
    fn item(self, text: &str, item: &str) -> Result<Bits, CronError> {
        if item.is_empty() {
            return Err(self.refuse(text, Problem::Empty));
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (low, high) = if range == "*" {
            self.bounds()
        } else if range.starts_with('*') {
            return Err(self.refuse(item, Problem::AfterStar));
        } else if let Some((low, high)) = range.split_once('-') {
            let (low_value, high_value) = (self.value(item, low)?, self.value(item, high)?);
            if low_value > high_value {
                let to_sunday = self == Self::DayOfWeek && high_value == 0;
                let problem = if to_sunday {
                    Problem::BackwardsToSunday
                } else {
                    Problem::Backwards
                };
                return Err(self.refuse(item, problem));
            }
            (low_value, high_value)
        } else {
            let value = self.value(item, range)?;
            if step.is_some() {
                return Err(self.refuse(item, Problem::StepOnSingle));
            }
            (value, value)
        };
        let step = match step.map(number) {
            None => 1,
            Some(None) => return Err(self.refuse(item, Problem::StepNotANumber)),
            Some(Some(0)) => return Err(self.refuse(item, Problem::StepZero)),
            Some(Some(step)) => step,
        };
        Ok((low..=high).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    /// A number within the field's bounds, or one of its names.
    fn value(self, item: &str, text: &str) -> Result<u8, CronError> {
        let (low, high) = self.bounds();
        if let Some(value) = number(text) {
            return match u8::try_from(value) {
                Ok(value) if (low..=high).contains(&value) => Ok(value),
                _ => Err(self.refuse(item, Problem::OutOfRange)),
            };
        }
        let (names, first): (&[&str], u8) = match self {
            Self::Month => (&MONTHS, 1),
            Self::DayOfWeek => (&WEEKDAYS, 0),
            _ => (&[], 0),
        };
        if let Some(value) = (first..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text)) {
            return Ok(value.0);
        }
        Err(self.refuse(
            item,
            if text == "?" {
                Problem::QuestionMark
            } else {
                Problem::NotAValue
            },
        ))
    }

    /// The extension sign that the field's text is, `None` when it has nothing of one.
    fn sign(self, text: &str) -> Result<Option<Sign>, CronError> {
        let found = match self {
            Self::DayOfMonth if text.contains(['L', 'l', 'W', 'w']) => self.sign_of_month(text)?,
            Self::DayOfWeek if text.contains('#') => self.nth(text)?,
            Self::DayOfWeek => self.last_weekday(text)?,
            _ => return Ok(None),
        };
        if found.is_none() && self == Self::DayOfMonth {
            let problem = if text.contains(',') {
                Problem::SignInList
            } else {
                Problem::BadSign
            };
            return Err(self.refuse(text, problem));
        }
        Ok(found)
    }

    fn sign_of_month(self, text: &str) -> Result<Option<Sign>, CronError> {
        let upper = text.to_ascii_uppercase();
        if upper == "L" {
            return Ok(Some(Sign::LastDay { before: 0 }));
        }
        if upper == "LW" {
            return Ok(Some(Sign::LastWorkday));
        }
        if let Some(before) = upper.strip_prefix("L-").and_then(number) {
            return match u8::try_from(before) {
                Ok(before @ 1..=30) => Ok(Some(Sign::LastDay { before })),
                _ => Err(self.refuse(text, Problem::OutOfRange)),
            };
        }
        if let Some(day) = upper.strip_suffix('W').filter(|day| number(day).is_some()) {
            let day = self.value(text, day)?;
            if day > NEAREST_MAX {
                return Err(self.refuse(text, Problem::NearestTooLate));
            }
            return Ok(Some(Sign::NearestWorkday { day }));
        }
        Ok(None)
    }

    fn nth(self, text: &str) -> Result<Option<Sign>, CronError> {
        if text.contains(',') {
            return Err(self.refuse(text, Problem::SignInList));
        }
        let Some((weekday, nth)) = text.split_once('#') else {
            return Ok(None);
        };
        let weekday = self.value(text, weekday)? % 7;
        match number(nth).map(u8::try_from) {
            Some(Ok(nth @ 1..=5)) => Ok(Some(Sign::Nth { weekday, nth })),
            Some(_) => Err(self.refuse(text, Problem::OutOfRange)),
            None => Err(self.refuse(text, Problem::BadSign)),
        }
    }

    fn last_weekday(self, text: &str) -> Result<Option<Sign>, CronError> {
        let is_last = |item: &str| item.ends_with(['L', 'l']);
        if !text.split(',').any(is_last) {
            return Ok(None);
        }
        if text.contains(',') {
            return Err(self.refuse(text, Problem::SignInList));
        }
        let weekday = &text[..text.len() - 1];
        if weekday.is_empty() || weekday.contains(['-', '/', '*']) {
            return Err(self.refuse(text, Problem::BadSign));
        }
        Ok(Some(Sign::LastWeekday {
            weekday: self.value(text, weekday)? % 7,
        }))
    }
}

/// A plain decimal number; one too large for any field reads as the largest there is.
fn number(text: &str) -> Option<usize> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(usize::MAX))
}
