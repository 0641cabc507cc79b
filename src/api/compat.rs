//! The three calls under `/xcron/`, and the answers to what is no call. Reads, lets `request.rs` check, asks the tasks,
//! and answers in the form of `envelope.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;

use super::call::{is_stale, late, read, time_limit, within};
use super::envelope::{self, Data, MALFORMED, Refusal};
use super::request::Asked;
use super::{ApiState, Call, request};
use crate::core::task::TaskSpec;
use crate::router::QueryError;

type Shared = State<Arc<ApiState>>;

/// `POST /xcron/createTask`.
pub(super) async fn create(State(api): Shared, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    answer(&api, Call::CreateTask, async {
        let bytes = read(request, limit).await?;
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
    .await
}

/// A create whose instant has passed: the same success again if its task is there, since its first answer may have been lost.
async fn repeated(api: &ApiState, limit: Option<Duration>, spec: TaskSpec, past: Refusal) -> Result<Data, Refusal> {
    let view = within(limit, api.tasks.query(spec.id.clone())).await;
    match view.ok_or_else(|| late(limit, "whether the task is stored is not known", "try again"))? {
        Ok(view) if view.spec.is_same_request(&spec) => Ok(Data::Created(spec.id)),
        Ok(_) | Err(QueryError::NotFound) => Err(past),
        Err(error @ QueryError::Unavailable(_)) => Err(error.into()),
    }
}

/// `POST /xcron/deleteTask`.
pub(super) async fn delete(State(api): Shared, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    answer(&api, Call::DeleteTask, async {
        let id = request::id(&read(request, limit).await?)?;
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
pub(super) async fn unknown_path(State(api): Shared) -> Response {
    let message = "no such path: see /xcron/createTask, /xcron/deleteTask, /xcron/queryTask";
    envelope::answer_status(StatusCode::NOT_FOUND, message, api.entropy.as_ref())
}

/// A route's path with a method it does not have.
pub(super) async fn wrong_method(State(api): Shared) -> Response {
    let message = "this path does not have this method: the header Allow names those it has";
    envelope::answer_status(StatusCode::METHOD_NOT_ALLOWED, message, api.entropy.as_ref())
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
    let bytes = read(request, limit).await?;
    if bytes.is_empty() {
        return Err(Refusal::new(
            MALFORMED,
            "`task_id` is missing: give it as ?task_id=... or in a JSON body",
        ));
    }
    request::id(&bytes)
}
