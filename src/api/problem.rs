//! The errors of `/v1`: problem documents (RFC 9457) with a stable `code`, and what each refusal of the calls is there.

use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;

use super::envelope::{
    BAD_CRON, BAD_URL, LATE, MALFORMED, NO_URL, NOT_FOUND, OUTDATED, PAST, Refusal, TOO_LARGE, TOO_MANY, respond,
};

const PROBLEM_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
}

/// A problem document.
pub(super) fn problem(status: StatusCode, code: &str, title: &str, detail: impl AsRef<str>) -> Response {
    let body = Problem {
        kind: "about:blank",
        title,
        status: status.as_u16(),
        code,
        detail: detail.as_ref(),
    };
    let mut response = respond(status, serde_json::to_vec(&body).expect("plain structs always encode"));
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM_TYPE);
    response
}

/// The problem that a refusal is.
pub(super) fn of(refusal: &Refusal) -> Response {
    let (status, code, title) = match refusal.code {
        MALFORMED => (StatusCode::BAD_REQUEST, "malformed", "the request cannot be read"),
        LATE => (
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the request did not come in time",
        ),
        TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large"),
        PAST => (StatusCode::UNPROCESSABLE_ENTITY, "past", "the instant is past"),
        BAD_CRON => (StatusCode::UNPROCESSABLE_ENTITY, "bad_schedule", "no such schedule"),
        NO_URL | BAD_URL => (StatusCode::UNPROCESSABLE_ENTITY, "bad_url", "no callback can go there"),
        NOT_FOUND => (StatusCode::NOT_FOUND, "task_not_found", "no such task"),
        OUTDATED => (StatusCode::PRECONDITION_FAILED, "outdated", "the task has changed"),
        TOO_MANY => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "a limit is reached"),
        _ if refusal.is_disk_reserve => (
            StatusCode::INSUFFICIENT_STORAGE,
            "disk_reserve",
            "not done: the disk is nearly full",
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "not done, or not known whether",
        ),
    };
    let mut response = problem(status, code, title, &refusal.message);
    if let Some(after_ms) = refusal.retry_after_ms {
        let seconds = after_ms.div_ceil(1_000).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
