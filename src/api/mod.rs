//! The HTTP API: routes, what they need, and who is told of each answer. Only `api` knows HTTP servers.
//!
//! `compat.rs` has the three calls, `v1/` the ones that they cannot say, `request.rs` what a request must hold, `envelope.rs` the form of an answer,
//! `server.rs` the connections. Decides nothing about tasks: it checks, asks [`Tasks`], and answers. Used by `node.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::cluster::ClusterCalls;
use crate::entropy::Entropy;
use crate::readiness::Readiness;
use crate::router::Tasks;

mod bodies;
mod body;
mod call;
mod cluster;
mod compat;
mod envelope;
mod export;
mod guard;
mod health;
mod json;
mod problem;
mod request;
mod schedule;
mod server;
mod url;
mod v1;
mod waiting;

pub use bodies::Bodies;
pub use guard::Guard;
pub use server::{Listen, Parts, ServeLimits, serve};
pub use waiting::{WaitingState, app_until};

/// A call of the API, as counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /xcron/createTask`.
    CreateTask,
    /// `POST /xcron/deleteTask`.
    DeleteTask,
    /// `GET /xcron/queryTask`.
    QueryTask,
    /// `GET /v1/tasks/{id}`.
    GetTask,
    /// `PUT /v1/tasks/{id}`.
    PutTask,
    /// `GET /v1/export`.
    Export,
}

impl Call {
    /// The label of the metrics; under `/xcron/` the name in the path as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTask => "createTask",
            Self::DeleteTask => "deleteTask",
            Self::QueryTask => "queryTask",
            Self::GetTask => "getTask",
            Self::PutTask => "putTask",
            Self::Export => "export",
        }
    }
}

/// Told of what the API does. Called on the path of every request: it must not block.
pub trait ApiObserve: Send + Sync + 'static {
    /// A call was answered with `code` (0 = success; under `/v1` the HTTP status) `duration` after its header had been read.
    fn answered(&self, call: Call, code: u16, duration: Duration);
    /// A connection was opened (`true`) or has ended (`false`).
    fn connections(&self, open: bool);
}

/// What the handlers need.
#[derive(Clone)]
pub struct ApiState {
    /// Where tasks are created, deleted and read.
    pub tasks: Arc<dyn Tasks>,
    /// What `/v1/cluster` tells.
    pub cluster: Arc<dyn ClusterCalls>,
    /// Says what "now" is for a request, and how long it took.
    pub clock: Arc<dyn Clock>,
    /// Request ids come from here.
    pub entropy: Arc<dyn Entropy>,
    /// What `/readyz` tells.
    pub readiness: watch::Receiver<Readiness>,
    /// The text of `/metrics`, in the `OpenMetrics` format.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// Told of every answer.
    pub observe: Arc<dyn ApiObserve>,
}

impl fmt::Debug for ApiState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiState")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

/// Routes and what answers them.
pub type App = Router;

/// Every route of the API.
pub fn app(state: ApiState) -> App {
    Router::new()
        .route("/xcron/createTask", post(compat::create))
        .route("/xcron/deleteTask", post(compat::delete))
        .route("/xcron/queryTask", get(compat::query))
        .route("/v1/tasks/{id}", get(v1::show).put(v1::replace))
        .route("/v1/export", get(export::tasks))
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/cluster/init", post(cluster::init))
        .route("/v1/cluster/nodes/{call}", post(cluster::drain))
        .route("/v1/clock/accept", post(cluster::accept_clock))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(compat::unknown_path)
        .method_not_allowed_fallback(compat::wrong_method)
        .with_state(Arc::new(state))
}

#[cfg(test)]
mod tests;
