//! The headers of a callback: what a target is told about the fire besides the body.
//!
//! Part of the wire: a target may rely on each of them. The signature is added once tasks have secrets.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::Attempt;
use crate::core::instant::rfc3339_ms;

const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const TASK_ID: HeaderName = HeaderName::from_static("xcron-task-id");
const DUE: HeaderName = HeaderName::from_static("xcron-due");
const ATTEMPT: HeaderName = HeaderName::from_static("xcron-attempt");
const RUN: HeaderName = HeaderName::from_static("xcron-run");
const GENERATION: HeaderName = HeaderName::from_static("xcron-generation");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Every header of this attempt but those the client adds itself (host, length, user agent).
pub(super) fn callback_headers(attempt: &Attempt) -> HeaderMap {
    let fire_id = attempt.fire_id.to_string();
    let traceparent = traceparent(&fire_id, attempt.attempt);
    // Some of the room is for the client's own.
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(CONTENT_TYPE, APPLICATION_JSON);
    headers.insert(WEBHOOK_ID, text(fire_id));
    headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(attempt.now_ms / 1_000));
    headers.insert(TASK_ID, text(attempt.task_id.to_string()));
    headers.insert(DUE, text(rfc3339_ms(attempt.due_ms)));
    headers.insert(ATTEMPT, HeaderValue::from(attempt.attempt));
    headers.insert(RUN, HeaderValue::from(attempt.run));
    headers.insert(GENERATION, HeaderValue::from(attempt.generation));
    headers.insert(TRACEPARENT, text(traceparent));
    headers
}

/// Takes the text over without a copy. What cannot be in a header becomes empty: a task id checked at its door never does.
fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// W3C trace context: the fire is the trace, and each attempt a span of it, so that a target's traces can be found by
/// fire id, and repeats of a fire lie together. Derived, not drawn: a replay sends the same bytes.
fn traceparent(fire_id: &str, attempt: u16) -> String {
    let low = fire_id.get(16..).unwrap_or_default();
    let low = u64::from_str_radix(low, 16).unwrap_or_default();
    let span = mix(low.wrapping_add(u64::from(attempt)));
    // Flag 01: without it, targets that follow their caller would record none of these requests.
    format!("00-{fire_id}-{span:016x}-01")
}

/// Spreads neighbours over all 64 bits (the finalizer of splitmix64); never 0, which W3C forbids as a span id.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_frozen_valid_and_differ_by_attempt() {
        let fire_id = "a037969387e65d81c692da75d980e3b0";
        let first = traceparent(fire_id, 1);
        assert_eq!(first.len(), 55);
        assert_eq!(first, "00-a037969387e65d81c692da75d980e3b0-76bf6b6cae6840a6-01");
        let mut spans: Vec<String> = (0..=u16::MAX).map(|attempt| traceparent(fire_id, attempt)).collect();
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), 65_536);
    }

    #[test]
    fn no_span_is_zero() {
        let maps_to_zero = 0_u64.wrapping_sub(0x9e37_79b9_7f4a_7c15);
        assert_eq!(mix(maps_to_zero), 1);
        // The first output of splitmix64 from seed 0.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn what_cannot_be_a_header_is_left_empty() {
        assert_eq!(text("a\r\nb: c".to_owned()), "");
        assert_eq!(text("a".to_owned()), "a");
    }
}
