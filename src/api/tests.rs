//! The API in process, on tasks that answer as told: codes, order of checks, bytes, envelope, routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Builder;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower_service::Service;

use super::{ApiObserve, ApiState, Call, app};
use crate::clock::Clock;
use crate::cluster::status::ClusterStatus;
use crate::cluster::{ClusterCalls, DrainError};
use crate::entropy::Entropy;
use crate::id::TaskId;
use crate::peer::BoxFuture;
use crate::readiness::Readiness;
use crate::router::{
    Change, CreateError, Cursor, DeleteError, NewTask, Page, QueryError, TaskView, Tasks, UpdateError,
};

mod cluster;
mod codes;
mod corpus;
mod doc;
mod export;
mod repeat;
mod routes;
mod v1;

/// 2026-03-01T00:00:00.500Z: half a second past a whole one, to tell the two apart.
pub(super) const NOW_MS: u64 = 1_772_323_200_500;
pub(super) const NOW_SECONDS: u64 = NOW_MS / 1_000;

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn wall_ms(&self) -> u64 {
        NOW_MS
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Counts up, so that two requests differ.
#[derive(Debug, Default)]
struct CountingEntropy(Mutex<u8>);

impl Entropy for CountingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut count = self.0.lock();
        *count = count.wrapping_add(1);
        bytes.fill(*count);
    }
}

/// What the handlers told and asked.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) answered: Mutex<Vec<(Call, u16)>>,
    pub(super) opened: Mutex<Vec<bool>>,
    pub(super) created: Mutex<Vec<NewTask>>,
    pub(super) changed: Mutex<Vec<Change>>,
    pub(super) asked: Mutex<Vec<TaskId>>,
    pub(super) asked_stale: Mutex<Vec<TaskId>>,
}

impl ApiObserve for Seen {
    fn answered(&self, call: Call, code: u16, _: Duration) {
        self.answered.lock().push((call, code));
    }

    fn connections(&self, open: bool) {
        self.opened.lock().push(open);
    }
}

/// Tasks that answer as told. A create without a set outcome succeeds with its own id, or with `made`.
#[derive(Default)]
pub(super) struct FakeTasks {
    pub(super) create: Option<CreateError>,
    pub(super) delete: Option<DeleteError>,
    pub(super) update: Option<UpdateError>,
    pub(super) view: Option<TaskView>,
    pub(super) query: Option<QueryError>,
    /// The tasks of each group.
    pub(super) pages: Vec<Vec<TaskView>>,
    /// Never answer.
    pub(super) silent: bool,
    /// Panic, as no code of ours should.
    pub(super) broken: bool,
    pub(super) seen: Arc<Seen>,
}

impl Tasks for FakeTasks {
    fn create(&self, task: NewTask) -> BoxFuture<'_, Result<TaskId, CreateError>> {
        Box::pin(async move {
            assert!(!self.broken, "a fault in a handler, made by the test");
            if self.silent {
                std::future::pending::<()>().await;
            }
            self.seen.created.lock().push(task.clone());
            let id = task.id.unwrap_or_else(|| TaskId::parse("made").expect("valid"));
            self.create.clone().map_or(Ok(id), Err)
        })
    }

    fn update(&self, change: Change) -> BoxFuture<'_, Result<u32, UpdateError>> {
        Box::pin(async move {
            let revision = change.replaces.unwrap_or(1) + 1;
            self.seen.changed.lock().push(change);
            self.update.clone().map_or(Ok(revision), Err)
        })
    }

    fn delete(&self, id: TaskId) -> BoxFuture<'_, Result<(), DeleteError>> {
        self.seen.asked.lock().push(id);
        Box::pin(async move { self.delete.clone().map_or(Ok(()), Err) })
    }

    fn query(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>> {
        self.seen.asked.lock().push(id);
        let error = self.query.clone().unwrap_or(QueryError::NotFound);
        Box::pin(async move { self.view.clone().ok_or(error) })
    }

    fn page(&self, from: Cursor) -> BoxFuture<'_, Result<Page, QueryError>> {
        let answer = self
            .query
            .clone()
            .map_or_else(|| Ok(export::page(&self.pages, &from)), Err);
        Box::pin(async move { answer })
    }

    fn query_stale(&self, id: TaskId) -> BoxFuture<'_, Result<TaskView, QueryError>> {
        self.seen.asked_stale.lock().push(id.clone());
        self.query(id)
    }
}

/// A cluster of one node, which may leave; any other is unknown, alone or silent, by its id.
struct FakeCluster {
    /// How far the clock has moved that is held, until it is accepted.
    held_ms: Mutex<Option<i64>>,
}

impl ClusterCalls for FakeCluster {
    fn id(&self) -> u128 {
        0xc0
    }

    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(async {
            ClusterStatus {
                cluster: "c".repeat(32),
                problems: Vec::new(),
                copies_wanted: 3,
                nodes: Vec::new(),
                groups: Vec::new(),
            }
        })
    }

    fn accept_clock(&self) -> Option<i64> {
        self.held_ms.lock().take()
    }

    fn drain(&self, node: String) -> BoxFuture<'_, Result<(), DrainError>> {
        Box::pin(async move {
            match node.as_str() {
                "a" => Ok(()),
                "alone" => Err(DrainError::Alone),
                "silent" => Err(DrainError::NoAnswer {
                    node,
                    what: "not sent".into(),
                }),
                _ => Err(DrainError::NotFound(node)),
            }
        })
    }
}

/// The API on `tasks`, and the sender of its readiness.
pub(super) fn app_with(tasks: FakeTasks) -> (Router, watch::Sender<Readiness>) {
    let (readiness, seen) = watch::channel(Readiness::Starting);
    let observe = tasks.seen.clone();
    let state = ApiState {
        tasks: Arc::new(tasks),
        cluster: Arc::new(FakeCluster {
            held_ms: Mutex::new(Some(2_592_000_000)),
        }),
        clock: Arc::new(FixedClock),
        entropy: Arc::new(CountingEntropy::default()),
        readiness: seen,
        metrics_text: Arc::new(|| "xcron_up 1\n# EOF\n".to_owned()),
        observe,
    };
    (app(state), readiness)
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    pub(super) fn code(&self) -> u64 {
        self.json()["code"].as_u64().expect("every envelope has a code")
    }

    pub(super) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

pub(super) async fn send(app: &Router, request: Request<Body>) -> Answer {
    let response: Response = app.clone().call(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Answer {
        status: parts.status,
        headers: parts.headers,
        text,
    }
}

pub(super) fn request(method: Method, path: &str) -> Builder {
    Request::builder().method(method).uri(path)
}

pub(super) async fn post(app: &Router, call: &str, body: impl Into<Body>) -> Answer {
    let request = request(Method::POST, &format!("/xcron/{call}"))
        .body(body.into())
        .expect("a request");
    send(app, request).await
}

pub(super) async fn get(app: &Router, path: &str) -> Answer {
    send(app, request(Method::GET, path).body(Body::empty()).expect("a request")).await
}

/// A createTask that succeeds.
pub(super) fn good() -> Value {
    json!({"type": 1, "format": "*/5 * * * *", "callback": {"url": "http://127.0.0.1:9/hook", "body": {"n": 1}}})
}

/// [`good`] with the value at `pointer` replaced; null removes it.
pub(super) fn good_but(changes: &[(&str, Value)]) -> String {
    let mut value = good();
    for (pointer, new) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        value.pointer_mut(parent).expect("an object")[name] = new.clone();
    }
    value.to_string()
}

/// The answer to `body` as a createTask on tasks that succeed.
pub(super) async fn create(body: impl Into<Body>) -> Answer {
    post(&app_with(FakeTasks::default()).0, "createTask", body).await
}
