//! What one callback says about itself in its headers.
//!
//! Pure parsing, for the targets of `bench` and `dev`. Missing or unreadable headers are `None`, never an error: who asks
//! decides what they mean.

use hyper::header::{HeaderMap, HeaderValue};

/// The headers of a callback that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback<'a> {
    /// `xcron-task-id`.
    pub task_id: Option<&'a [u8]>,
    /// `webhook-id`: the id of the fire, the same for each attempt.
    pub fire_id: Option<&'a [u8]>,
    /// `xcron-due`, in milliseconds since the epoch.
    pub due_ms: Option<u64>,
    /// `xcron-attempt`, from 1.
    pub attempt: Option<u32>,
}

impl<'a> Callback<'a> {
    /// Reads them.
    pub fn from_headers(headers: &'a HeaderMap) -> Self {
        let text = |name: &str| {
            headers
                .get(name)
                .map(HeaderValue::as_bytes)
                .filter(|value| !value.is_empty())
        };
        Self {
            task_id: text("xcron-task-id"),
            fire_id: text("webhook-id"),
            due_ms: text("xcron-due").and_then(instant_ms),
            attempt: text("xcron-attempt")
                .and_then(number)
                .and_then(|n| u32::try_from(n).ok()),
        }
    }
}

/// Milliseconds since the epoch of `YYYY-MM-DDThh:mm:ss.mmmZ`, the one form a callback carries; years from 1970.
pub fn instant_ms(text: &[u8]) -> Option<u64> {
    let separators = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'.'),
        (23, b'Z'),
    ];
    if text.len() != 24 || separators.iter().any(|&(at, byte)| text[at] != byte) {
        return None;
    }
    let field = |from: usize, to: usize, least: u64, most: u64| {
        number(&text[from..to]).filter(|value| (least..=most).contains(value))
    };
    let days = days_from_epoch(field(0, 4, 1970, 9999)?, field(5, 7, 1, 12)?, field(8, 10, 1, 31)?);
    let (hour, minute) = (field(11, 13, 0, 23)?, field(14, 16, 0, 59)?);
    let (second, milli) = (field(17, 19, 0, 59)?, field(20, 23, 0, 999)?);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + milli)
}

/// Days from 1970-01-01, counted in years that begin in March so that the leap day comes last.
fn days_from_epoch(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |sum: u64, digit| {
        digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_exactly() {
        for (text, ms) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T23:59:59.999Z", 951_868_799_999),
            ("2001-09-09T01:46:40.000Z", 1_000_000_000_000),
            ("2024-12-31T00:00:00.007Z", 1_735_603_200_007),
            ("9999-12-30T22:00:00.000Z", crate::limits::INSTANT_MS_MAX),
        ] {
            assert_eq!(instant_ms(text.as_bytes()), Some(ms), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "2024-12-31T00:00:00Z",
            "2024-12-31T00:00:00.000z",
            "2024-13-31T00:00:00.000Z",
            "2024-12-31T24:00:00.000Z",
            "2024-12-31T00:00:00.000+00:00",
            "1969-12-31T00:00:00.000Z",
            "+024-12-31T00:00:00.000Z",
        ] {
            assert_eq!(instant_ms(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn headers_are_optional() {
        let mut headers = HeaderMap::new();
        let nothing = Callback {
            task_id: None,
            fire_id: None,
            due_ms: None,
            attempt: None,
        };
        assert_eq!(Callback::from_headers(&headers), nothing);
        headers.insert("xcron-attempt", "2".parse().expect("a header value"));
        headers.insert("xcron-due", "soon".parse().expect("a header value"));
        assert_eq!(
            Callback::from_headers(&headers),
            Callback {
                attempt: Some(2),
                ..nothing
            }
        );
    }
}
