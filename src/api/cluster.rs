//! `/v1/cluster`: what the cluster looks like, and the wish that a node leaves it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use hyper::StatusCode;

use super::ApiState;
use super::envelope::respond;
use super::problem::problem;
use super::waiting;
use crate::cluster::DrainError;
use crate::cluster::init::InitError;

/// How a call on a node ends, in its path.
const DRAIN: &str = ":drain";

/// `GET /v1/cluster`.
pub(super) async fn status(State(api): State<Arc<ApiState>>) -> Response {
    let status = api.cluster.status().await;
    respond(
        StatusCode::OK,
        serde_json::to_vec(&status).expect("plain structs always encode"),
    )
}

/// `POST /v1/cluster/init`: a node that serves has a cluster.
pub(super) async fn init(State(api): State<Arc<ApiState>>) -> Response {
    waiting::answer(Err(InitError::Member(api.cluster.id())))
}

/// `POST /v1/clock/accept`: of this node alone.
pub(super) async fn accept_clock(State(api): State<Arc<ApiState>>) -> Response {
    match api.cluster.accept_clock() {
        Some(moved_ms) => respond(StatusCode::OK, format!(r#"{{"moved_ms":{moved_ms}}}"#).into_bytes()),
        None => problem(
            StatusCode::CONFLICT,
            "clock_not_held",
            "nothing to accept",
            "this node's clock has made no jump that is held: /readyz tells why it is not ready, if it is not",
        ),
    }
}

/// `POST /v1/cluster/nodes/{id}:drain`.
pub(super) async fn drain(State(api): State<Arc<ApiState>>, Path(call): Path<String>) -> Response {
    let Some(node) = call.strip_suffix(DRAIN) else {
        let detail = format!("{call:?} is no call on a node; there is {{id}}{DRAIN}");
        return problem(StatusCode::NOT_FOUND, "not_found", "no such call", detail);
    };
    match api.cluster.drain(node.to_owned()).await {
        Ok(()) => respond(StatusCode::ACCEPTED, br#"{"draining":true}"#.to_vec()),
        Err(error @ DrainError::NotFound(_)) => problem(
            StatusCode::NOT_FOUND,
            "node_not_found",
            "no such node",
            error.to_string(),
        ),
        Err(error @ DrainError::Alone) => problem(
            StatusCode::CONFLICT,
            "node_alone",
            "nobody to take over",
            error.to_string(),
        ),
        Err(error @ DrainError::NoAnswer { .. }) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "node_unreachable",
            "the node does not answer",
            error.to_string(),
        ),
    }
}
