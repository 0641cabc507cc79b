//! The three calls under `/xcron/`, and the answers to what is no call. Reads, lets `request.rs` check, asks the tasks,
//! and answers in the form of `envelope.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use super::body::Whole;
use super::call::{is_stale, late, read, time_limit, within};
use super::envelope::{self, Data, MALFORMED, Refusal, UNAVAILABLE};
use super::request::Asked;
use super::{ApiState, Call, problem, request};
use crate::core::task::TaskSpec;
use crate::router::QueryError;

/// Names the fields of a createTask that were not looked at.
const IGNORED_FIELDS: HeaderName = HeaderName::from_static("xcron-ignored-fields");
/// How many of them are named, and how much of each name.
const IGNORED_NAMES_MAX: usize = 8;
const IGNORED_NAME_CHARS_MAX: usize = 64;
/// What there is; a test holds it against the routes.
const PATHS: &str = "no such path. There are POST /xcron/createTask, POST /xcron/deleteTask, GET /xcron/queryTask, GET and PUT \
                     /v1/tasks/{id}, GET /v1/export, GET /v1/cluster, POST /v1/cluster/init, POST /v1/cluster/nodes/{id}:drain, POST \
                     /v1/clock/accept, GET /healthz, \
                     GET /readyz, GET /metrics";

type Shared = State<Arc<ApiState>>;

/// `POST /xcron/createTask`.
pub(super) async fn create(State(api): Shared, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    let mut ignored = Vec::new();
    let mut response = answer(&api, Call::CreateTask, async {
        let Whole { bytes, room: _room } = read(request, limit).await?;
        ignored = request::ignored_fields(&bytes);
        let asked = request::create(&bytes, api.clock.wall_ms())?;
        drop(bytes);
        let task = match asked {
            Asked::New(task) => task,
            Asked::Past(spec, past) => return repeated(&api, limit, spec, past).await,
        };
        let retry = match &task.id {
            Some(id) => format!("sending the same request with task_id {id} again is safe"),
            None => "give the task a task_id of your own: a create with one can be sent again safely".to_owned(),
        };
        let created = within(limit, api.tasks.create(task)).await;
        let created = created.ok_or_else(|| late(limit, "whether the task was stored is not known", &retry))?;
        Ok(Data::Created(created?))
    })
    .await;
    if let Some(names) = ignored_names(&ignored) {
        response.headers_mut().insert(IGNORED_FIELDS, names);
    }
    response
}

/// Names of fields as a header can carry them: the first ones, and what is no plain text in them as question marks.
fn ignored_names(names: &[String]) -> Option<HeaderValue> {
    let plain = |name: &String| -> String {
        let kept = name.chars().take(IGNORED_NAME_CHARS_MAX);
        kept.map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '?' })
            .collect()
    };
    let names: Vec<String> = names.iter().take(IGNORED_NAMES_MAX).map(plain).collect();
    HeaderValue::try_from(names.join(", "))
        .ok()
        .filter(|_| !names.is_empty())
}

/// A create whose instant has passed: the same success again if its task is there, since its first answer may have been lost.
async fn repeated(api: &ApiState, limit: Option<Duration>, spec: TaskSpec, past: Refusal) -> Result<Data, Refusal> {
    let view = within(limit, api.tasks.query(spec.id.clone())).await;
    match view.ok_or_else(|| late(limit, "whether the task is stored is not known", "try again"))? {
        Ok(view) if view.spec.is_same_request(&spec) => Ok(Data::Created(spec.id)),
        Ok(_) | Err(QueryError::NotFound) => Err(past),
        Err(QueryError::Unavailable(why)) => Err(Refusal::new(
            UNAVAILABLE,
            format!("whether the task is stored is not known: {why}. Sending the same request again is safe"),
        )),
    }
}

/// `POST /xcron/deleteTask`.
pub(super) async fn delete(State(api): Shared, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    answer(&api, Call::DeleteTask, async {
        let id = request::id(&read(request, limit).await?.bytes)?;
        let deleted = within(limit, api.tasks.delete(id)).await;
        let what = "whether the task was deleted is not known";
        deleted.ok_or_else(|| late(limit, what, "sending the same request again is safe"))??;
        Ok(Data::None)
    })
    .await
}

/// `GET /xcron/queryTask`: the id stands in the query string, or in a JSON body.
pub(super) async fn query(State(api): Shared, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    answer(&api, Call::QueryTask, async {
        let is_stale = request.uri().query().map_or(Ok(false), is_stale)?;
        let id = match request.uri().query().and_then(request::id_in_query) {
            Some(id) => id?,
            None => id_in_body(request, limit).await?,
        };
        let view = if is_stale {
            within(limit, api.tasks.query_stale(id)).await
        } else {
            within(limit, api.tasks.query(id)).await
        };
        let view = view.ok_or_else(|| late(limit, "the task was not read", "try again"))?;
        Ok(Data::Task(Box::new(view?)))
    })
    .await
}

/// Any path that is not a route.
pub(super) async fn unknown_path(State(api): Shared, request: Request) -> Response {
    if is_v1(&request) {
        return problem::problem(StatusCode::NOT_FOUND, "not_found", "no such path", PATHS);
    }
    envelope::answer_status(StatusCode::NOT_FOUND, PATHS, api.entropy.as_ref())
}

/// A route's path with a method it does not have.
pub(super) async fn wrong_method(State(api): Shared, request: Request) -> Response {
    let message = "this path does not have this method: the header Allow names those it has";
    if is_v1(&request) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return problem::problem(status, "method_not_allowed", "no such method", message);
    }
    envelope::answer_status(StatusCode::METHOD_NOT_ALLOWED, message, api.entropy.as_ref())
}

fn is_v1(request: &Request) -> bool {
    request.uri().path().starts_with("/v1/")
}

async fn answer(api: &ApiState, call: Call, work: impl Future<Output = Result<Data, Refusal>>) -> Response {
    let start = api.clock.monotonic();
    let result = work.await;
    let (code, response) = envelope::answer(&result, api.entropy.as_ref());
    api.observe
        .answered(call, code, api.clock.monotonic().saturating_sub(start));
    response
}

async fn id_in_body(request: Request, limit: Option<Duration>) -> Result<crate::id::TaskId, Refusal> {
    let Whole { bytes, .. } = read(request, limit).await?;
    if bytes.is_empty() {
        return Err(Refusal::new(
            MALFORMED,
            "`task_id` is missing: give it as ?task_id=... or in a JSON body",
        ));
    }
    request::id(&bytes)
}
