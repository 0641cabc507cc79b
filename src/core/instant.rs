//! Instants as the wire writes them: RFC 3339 in headers, and the date form of `Retry-After`.

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::limits::INSTANT_MS_MAX;

/// An instant as RFC 3339 in UTC with milliseconds; bounded by the last instant that the product knows.
pub fn rfc3339_ms(ms: u64) -> String {
    let bounded = i64::try_from(ms.min(INSTANT_MS_MAX)).expect("the bound fits");
    let instant = Timestamp::from_millisecond(bounded).expect("the bound is within what the library can say");
    instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The instant of an RFC 3339 text, in milliseconds; what is finer is cut off. `None` for anything else, for what lies before
/// 1970, and for what lies beyond the last instant that the product knows.
pub fn instant_ms(text: &str) -> Option<u64> {
    // The library also takes zones in brackets, and blanks for the T.
    let is_plain = |byte: u8| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte);
    let instant: Timestamp = text.parse().ok().filter(|_| text.bytes().all(is_plain))?;
    let ms = u64::try_from(instant.as_millisecond()).ok();
    ms.filter(|ms| *ms <= INSTANT_MS_MAX)
}

/// The instant of an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`, in milliseconds; `None` for anything else.
pub fn http_date_ms(text: &str) -> Option<u64> {
    let instant =
        rfc2822::DateTimeParser::new().parse_timestamp(text.strip_suffix("GMT").map(|t| format!("{t}+0000"))?);
    u64::try_from(instant.ok()?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(1_234_567_890_123), "2009-02-13T23:31:30.123Z");
        assert_eq!(rfc3339_ms(1_772_323_200_007), "2026-03-01T00:00:00.007Z");
        assert_eq!(rfc3339_ms(INSTANT_MS_MAX), "9999-12-30T22:00:00.000Z");
        assert_eq!(rfc3339_ms(u64::MAX), "9999-12-30T22:00:00.000Z");
    }

    #[test]
    fn http_dates_are_read_and_others_refused() {
        assert_eq!(http_date_ms("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777_000));
        assert_eq!(http_date_ms("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        for text in [
            "",
            "120",
            "GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sün GMT",
        ] {
            assert_eq!(http_date_ms(text), None, "{text}");
        }
    }

    #[test]
    fn instants_are_read_and_others_refused() {
        assert_eq!(instant_ms("2026-03-01T00:00:00Z"), Some(1_772_323_200_000));
        assert_eq!(instant_ms("2026-03-01T01:00:00.0079+01:00"), Some(1_772_323_200_007));
        assert_eq!(instant_ms("9999-12-30T22:00:00Z"), Some(INSTANT_MS_MAX));
        for text in [
            "",
            "1772323200",
            "2026-03-01",
            "2026-03-01T00:00:00",
            "2026-03-01 00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-03-01T00:00:00+01:00[Europe/Berlin]",
            "1969-12-31T23:59:59Z",
            "9999-12-30T22:00:00.001Z",
        ] {
            assert_eq!(instant_ms(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_comes_back(ms in 0..=INSTANT_MS_MAX) {
            prop_assert_eq!(instant_ms(&rfc3339_ms(ms)), Some(ms));
        }

        #[test]
        fn nothing_panics(text in ".{0,40}", near in "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT") {
            let _ = (http_date_ms(&text), http_date_ms(&near), instant_ms(&text), instant_ms(&near));
        }
    }
}
