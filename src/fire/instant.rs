//! Instants as HTTP headers write them: RFC 3339 out, HTTP dates in. Pure arithmetic on UTC, without zones.
//!
//! Schedules and zones are `core::schedule`'s; this is only the text of `xcron-due` and `Retry-After`.

use crate::limits::INSTANT_MS_MAX;

const MS_PER_DAY: u64 = 86_400_000;
/// Days from 0000-03-01, where this arithmetic counts from, to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
const DAYS_PER_400_YEARS: u64 = 146_097;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// An instant in RFC 3339 with milliseconds, in UTC: `2026-03-01T00:00:00.000Z`. Past the year 9999 it is that year's last one.
pub fn rfc3339_ms(instant_ms: u64) -> String {
    let instant_ms = instant_ms.min(INSTANT_MS_MAX + 999);
    let (year, month, day) = civil_of_days(instant_ms / MS_PER_DAY);
    let ms = instant_ms % MS_PER_DAY;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        ms % 1_000
    )
}

/// The instant of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`, in milliseconds since the Unix epoch.
///
/// The two obsolete forms of RFC 9110 are not read, and neither is anything before 1970. The name of the weekday is not checked.
pub fn http_date_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shape = b"aaa, 00 aaa 0000 00:00:00 GMT";
    let fits = |(byte, wanted): (&u8, &u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        other => byte == other,
    };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let month_index = MONTHS.iter().position(|name| *name == &text[8..11])?;
    let month = u64::try_from(month_index).ok()? + 1;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    // 60 is a leap second: it counts as the next minute's first.
    if year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_of_civil(year, month, day);
    if civil_of_days(days) != (year, month, day) {
        return None;
    }
    Some(days * MS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1_000)
}

/// Year, month and day of a number of days since the epoch. Years are counted from March, so that a leap day comes last.
fn civil_of_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let day_of_era = days % DAYS_PER_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = days / DAYS_PER_400_YEARS * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// The other way round, for dates since the epoch. A day outside its month gives a day of a neighbouring one.
fn days_of_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let year_of_era = year % 400;
    let month_from_march = (month + 9) % 12;
    let days_before = (153 * month_from_march + 2) / 5 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    (year / 400 * DAYS_PER_400_YEARS + days_before + day).saturating_sub(DAYS_TO_EPOCH + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants_are_written_exactly() {
        for (instant_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (999, "1970-01-01T00:00:00.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_000_000_000_000, "2001-09-09T01:46:40.000Z"),
            (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_772_323_200_000, "2026-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (INSTANT_MS_MAX, "9999-12-31T23:59:59.000Z"),
            (INSTANT_MS_MAX + 999, "9999-12-31T23:59:59.999Z"),
            (INSTANT_MS_MAX + 1_000, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339_ms(instant_ms), text);
        }
    }

    #[test]
    fn every_day_until_9999_follows_the_calendar() {
        let mut expected = (1970, 1, 1);
        for days in 0..=INSTANT_MS_MAX / MS_PER_DAY {
            assert_eq!(civil_of_days(days), expected);
            let (year, month, day) = expected;
            assert_eq!(days_of_civil(year, month, day), days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
        assert_eq!(expected, (10_000, 1, 1));
    }

    #[test]
    fn http_dates_are_read_and_others_refused() {
        for (text, instant_ms) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777_000),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799_000),
            ("Fri, 31 Dec 9999 23:59:59 GMT", INSTANT_MS_MAX),
        ] {
            assert_eq!(http_date_ms(text), Some(instant_ms), "{text}");
        }
        for text in [
            "",
            "120",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 00 Jan 1970 00:00:00 GMT",
            "Tue, 29 Feb 1900 23:59:59 GMT",
            "Thu, 29 Feb 2001 23:59:59 GMT",
            "Sun, 06 Nov 0094 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sün, 06 Nov 1994 08:49:37 GM",
        ] {
            assert_eq!(http_date_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}", near in "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT") {
            let _ = http_date_ms(&text);
            let _ = http_date_ms(&near);
        }
    }
}
