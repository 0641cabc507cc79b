//! `/v1/tasks/{id}`: shows all of a task, and replaces what it is. What a change must hold is `v1/change.rs`, the form of a
//! task `v1/task.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH};

use super::body::Whole;
use super::call::{is_stale, late, read, time_limit, within};
use super::envelope::{MALFORMED, Refusal, UNAVAILABLE, respond};
use super::{ApiState, Call, problem, request};
use crate::core::task::TaskSpec;
use crate::id::TaskId;
use crate::router::{QueryError, UpdateError};

mod change;
mod task;

type Shared = State<Arc<ApiState>>;
/// The id in the path, if that is text.
type Named = Result<Path<String>, PathRejection>;

fn named(id: Named) -> Result<TaskId, Refusal> {
    match id {
        Ok(Path(id)) => request::task_id(&id),
        Err(error) => Err(Refusal::new(MALFORMED, format!("the task's id in the path: {error}"))),
    }
}

/// A success: its revision, which is its `ETag`, and its JSON.
struct Found {
    revision: u32,
    json: Vec<u8>,
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn show(State(api): Shared, id: Named, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    let is_stale = request.uri().query().map_or(Ok(false), is_stale);
    // It cannot be held while other nodes are waited for.
    drop(request);
    answer(&api, Call::GetTask, async {
        let is_stale = is_stale?;
        let id = named(id)?;
        let view = if is_stale {
            within(limit, api.tasks.query_stale(id)).await
        } else {
            within(limit, api.tasks.query(id)).await
        };
        let view = view.ok_or_else(|| late(limit, "the task was not read", "try again"))??;
        Ok(Found {
            revision: view.state.revision,
            json: task::json(&view)?,
        })
    })
    .await
}

/// `PUT /v1/tasks/{id}`.
pub(super) async fn replace(State(api): Shared, id: Named, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    answer(&api, Call::PutTask, async {
        let replaces = if_match(request.headers())?;
        let Whole { bytes, room: _room } = read(request, limit).await?;
        let id = named(id)?;
        let asked = change::read(&bytes, id.clone(), replaces, api.clock.wall_ms())?;
        drop(bytes);
        let revision = match asked {
            change::Asked::New(change) => {
                let changed = within(limit, api.tasks.update(change)).await;
                let what = "whether the task was changed is not known";
                changed.ok_or_else(|| late(limit, what, "read it, and decide anew"))??
            }
            change::Asked::Past(spec, past) => repeated(&api, limit, &spec, replaces, past).await?,
        };
        Ok(Found {
            revision,
            json: task::changed(&id, revision),
        })
    })
    .await
}

/// A change to an instant that has passed: the same success again if the task is so, since the first answer may have been lost.
async fn repeated(
    api: &ApiState,
    limit: Option<Duration>,
    spec: &TaskSpec,
    replaces: Option<u32>,
    past: Refusal,
) -> Result<u32, Refusal> {
    let view = within(limit, api.tasks.query(spec.id.clone())).await;
    match view.ok_or_else(|| late(limit, "whether the task was changed is not known", "try again"))? {
        Ok(view) => {
            let revision = view.state.revision;
            let is_its = replaces.is_none_or(|replaced| replaced.checked_add(1) == Some(revision));
            match replaces {
                _ if is_its && view.spec.is_same_request(spec) => Ok(revision),
                Some(replaced) if replaced != revision => Err(UpdateError::Outdated { revision }.into()),
                _ => Err(past),
            }
        }
        Err(error @ QueryError::NotFound) => Err(error.into()),
        Err(QueryError::Unavailable(why)) => Err(Refusal::new(
            UNAVAILABLE,
            format!("whether the task was changed is not known: {why}. Read it, and decide anew"),
        )),
    }
}

/// The revision that is to be replaced, as its `ETag`; `None` for whichever it has.
fn if_match(headers: &HeaderMap) -> Result<Option<u32>, Refusal> {
    let mut all = headers.get_all(IF_MATCH).iter();
    let (first, second) = (all.next(), all.next());
    let Some(value) = first else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && second.is_none() {
        return Ok(None);
    }
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let revision = inner.and_then(|digits| digits.parse().ok().filter(|number: &u32| number.to_string() == digits));
    match revision.filter(|_| second.is_none()) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Refusal::new(
            MALFORMED,
            "the header If-Match must be one ETag of this task, such as \"3\" with its quotes, or *",
        )),
    }
}

async fn answer(api: &ApiState, call: Call, work: impl Future<Output = Result<Found, Refusal>>) -> Response {
    let start = api.clock.monotonic();
    let response = match work.await {
        Ok(Found { revision, json }) => {
            let mut response = respond(StatusCode::OK, json);
            let tag = HeaderValue::try_from(format!("\"{revision}\"")).expect("digits in quotes");
            response.headers_mut().insert(ETAG, tag);
            response
        }
        Err(refusal) => problem::of(&refusal),
    };
    let took = api.clock.monotonic().saturating_sub(start);
    api.observe.answered(call, response.status().as_u16(), took);
    response
}
