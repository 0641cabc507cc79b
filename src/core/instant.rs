//! Instants as text.

/// An instant as RFC 3339 in UTC with milliseconds, as the callback headers carry it. Bounded by year 9999.
pub fn rfc3339(ms: u64) -> String {
    let bounded = i64::try_from(ms.min(crate::limits::INSTANT_MS_MAX)).expect("the bound fits");
    let instant = jiff::Timestamp::from_millisecond(bounded).expect("the bound is within what the library can say");
    instant.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_772_323_200_007), "2026-03-01T00:00:00.007Z");
        assert_eq!(rfc3339(crate::limits::INSTANT_MS_MAX), "9999-12-31T23:59:59.000Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.000Z");
    }
}
