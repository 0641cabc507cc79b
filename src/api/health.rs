//! What machines ask about a node: does it live, may it be sent requests, what has it counted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tokio::sync::watch;

use super::ApiState;
use super::envelope::respond;
use crate::readiness::Readiness;

const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Serialize)]
struct Status<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// `GET /healthz`: the process answers.
pub(super) async fn alive() -> Response {
    answer(
        StatusCode::OK,
        &Status {
            status: "ok",
            reason: None,
        },
    )
}

/// `GET /readyz`: 200, or 503 and the reason.
pub(super) async fn ready(State(api): State<Arc<ApiState>>) -> Response {
    answer_ready(&api.readiness)
}

pub(super) fn answer_ready(readiness: &watch::Receiver<Readiness>) -> Response {
    let readiness = readiness.borrow().clone();
    match readiness.reason() {
        None => answer(
            StatusCode::OK,
            &Status {
                status: "ready",
                reason: None,
            },
        ),
        reason => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &Status {
                status: "not ready",
                reason,
            },
        ),
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(api): State<Arc<ApiState>>) -> Response {
    answer_metrics((api.metrics_text)())
}

pub(super) fn answer_metrics(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
    response
}

fn answer(status: StatusCode, body: &Status<'_>) -> Response {
    respond(status, serde_json::to_vec(body).expect("strings always encode"))
}
