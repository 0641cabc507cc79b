//! The API of a node that is not in a cluster yet, or still reads its disk: health, metrics, and `POST /v1/cluster/init`. Every
//! other call is refused with the reason that `/readyz` tells.
//!
//! Also the switch from this one to the whole API (`mod.rs`), on connections that stay open. Used by `node/front.rs`.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::StatusCode;
use serde_json::json;
use tokio::sync::watch;
use tower_service::Service as _;

use super::envelope::{self, Refusal, UNAVAILABLE, respond};
use super::{health, problem};
use crate::cluster::init::{Founded, Init, InitError};
use crate::entropy::Entropy;
use crate::readiness::Readiness;

/// What a waiting node answers with.
#[derive(Clone)]
pub struct WaitingState {
    /// What `/readyz` tells.
    pub readiness: watch::Receiver<Readiness>,
    /// The text of `/metrics`, in the `OpenMetrics` format.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    /// The way to the wish to found a cluster.
    pub init: Init,
    /// Request ids come from here.
    pub entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for WaitingState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitingState").finish_non_exhaustive()
    }
}

/// Every route that there is before the node is in its cluster; from when `whole` is set, all of that.
pub fn app_until(state: WaitingState, whole: Arc<OnceLock<Router>>) -> Router {
    let waiting = Router::new()
        .route("/v1/cluster/init", post(init))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(unavailable)
        .with_state(Arc::new(state));
    let switch = async move |request: Request| {
        let mut app = whole.get().unwrap_or(&waiting).clone();
        app.call(request).await
    };
    Router::new().fallback(switch)
}

async fn ready(State(api): State<Arc<WaitingState>>) -> Response {
    health::answer_ready(&api.readiness)
}

async fn metrics(State(api): State<Arc<WaitingState>>) -> Response {
    health::answer_metrics((api.metrics_text)())
}

async fn init(State(api): State<Arc<WaitingState>>) -> Response {
    answer(api.init.found().await)
}

/// The answer to `POST /v1/cluster/init`.
pub(super) fn answer(outcome: Result<Founded, InitError>) -> Response {
    let error = match outcome {
        Ok(founded) => {
            let body = json!({
                "cluster": format!("{:032x}", founded.cluster),
                "node": format!("{:016x}", founded.node),
                "silent": founded.silent,
            });
            return respond(StatusCode::OK, body.to_string().into_bytes());
        }
        Err(error) => error,
    };
    let (status, code, title) = match error {
        InitError::Member(_) => (StatusCode::CONFLICT, "already_member", "the node has a cluster"),
        InitError::Exists { .. } => (StatusCode::CONFLICT, "cluster_exists", "there is a cluster"),
        InitError::Elsewhere { .. } => (StatusCode::CONFLICT, "init_elsewhere", "another node founds it"),
        InitError::Failed(_) | InitError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "not_founded", "no cluster"),
    };
    problem::problem(status, code, title, error.to_string())
}

/// Every other call: nothing is done.
async fn unavailable(State(api): State<Arc<WaitingState>>, request: Request) -> Response {
    let readiness = api.readiness.borrow().clone();
    let reason = readiness.reason().unwrap_or("the node is starting");
    let detail = format!("nothing was done: {reason}");
    if request.uri().path().starts_with("/v1/") {
        let (status, title) = (StatusCode::SERVICE_UNAVAILABLE, "the node does not serve yet");
        return problem::problem(status, "unavailable", title, detail);
    }
    if request.uri().path().starts_with("/xcron/") {
        let refusal = Refusal::new(UNAVAILABLE, detail);
        return envelope::answer(&Err(refusal), api.entropy.as_ref()).1;
    }
    envelope::answer_status(StatusCode::SERVICE_UNAVAILABLE, &detail, api.entropy.as_ref())
}
