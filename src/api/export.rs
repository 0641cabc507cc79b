//! `GET /v1/export`: the tasks of the whole cluster, a line of JSON each, some at a time; the header `Link` says where the next ones are.
//!
//! What a line is is `core/export.rs`'s; how the tasks are read is `router`'s.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, LINK};

use super::call::{late, time_limit, within};
use super::envelope::{MALFORMED, Refusal, UNAVAILABLE, respond};
use super::{ApiState, Call, problem};
use crate::core::export::{is_exported, line};
use crate::router::{Cursor, QueryError};

/// Once an answer has so many bytes, it gets no further tasks: one read of a group, beyond it, has about as many again.
const ANSWER_BYTES: usize = 1 << 20;
/// An answer that has taken so long is given, whatever is in it.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    cursor: Cursor,
    finished: bool,
}

/// `GET /v1/export`.
pub(super) async fn tasks(State(api): State<Arc<ApiState>>, request: Request) -> Response {
    let limit = time_limit(request.extensions());
    let asked = asked(request.uri().query().unwrap_or_default());
    drop(request);
    let start = api.clock.monotonic();
    let found = match asked {
        Ok(asked) => within(limit, lines(&api, asked))
            .await
            .unwrap_or_else(|| Err(late(limit, "the tasks were not read", "try again"))),
        Err(refusal) => Err(refusal),
    };
    let response = match found {
        Ok((lines, next)) => answered(lines, next),
        Err(refusal) => problem::of(&refusal),
    };
    let took = api.clock.monotonic().saturating_sub(start);
    api.observe.answered(Call::Export, response.status().as_u16(), took);
    response
}

fn asked(query: &str) -> Result<Asked, Refusal> {
    let mut asked = Asked::default();
    for (name, value) in ::url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("cursor", text) => {
                asked.cursor = text
                    .parse()
                    .map_err(|error| Refusal::new(MALFORMED, format!("`cursor` is {text:?}: {error}")))?;
            }
            ("finished", "true") => asked.finished = true,
            ("finished", "false") => asked.finished = false,
            ("finished", text) => {
                let message = format!("`finished` is {text:?}: give \"true\" or \"false\" (the default)");
                return Err(Refusal::new(MALFORMED, message));
            }
            (other, _) => {
                let message = format!("there is no parameter {other:?} here: there are `cursor` and `finished`");
                return Err(Refusal::new(MALFORMED, message));
            }
        }
    }
    Ok(asked)
}

/// Lines, and what to ask for next.
async fn lines(api: &ApiState, asked: Asked) -> Result<(Vec<u8>, Option<Asked>), Refusal> {
    let began = api.clock.monotonic();
    let (mut lines, mut from) = (Vec::new(), asked.cursor);
    loop {
        let page = api.tasks.page(from).await.map_err(|error| match error {
            QueryError::Unavailable(why) => {
                Refusal::new(UNAVAILABLE, format!("the tasks could not be read: {why}. Try again"))
            }
            error @ QueryError::NotFound => error.into(),
        })?;
        for task in page
            .tasks
            .iter()
            .filter(|task| is_exported(task.state.life, asked.finished))
        {
            let written = line(&task.spec, &task.state).and_then(|line| serde_json::to_writer(&mut lines, &line));
            written.map_err(|error| {
                let id = task.spec.id.as_str();
                Refusal::new(
                    UNAVAILABLE,
                    format!("the body of task {id} as it is stored is not JSON: {error}"),
                )
            })?;
            lines.push(b'\n');
        }
        let Some(next) = page.next else {
            return Ok((lines, None));
        };
        let is_long = api.clock.monotonic().saturating_sub(began) >= ANSWER_TIME;
        if lines.len() >= ANSWER_BYTES || is_long {
            let finished = asked.finished;
            return Ok((lines, Some(Asked { cursor: next, finished })));
        }
        from = next;
    }
}

fn answered(lines: Vec<u8>, next: Option<Asked>) -> Response {
    let mut response = respond(StatusCode::OK, lines);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(Asked { cursor, finished }) = next {
        let mut link = format!("</v1/export?cursor={cursor}");
        if finished {
            // Nothing can fail that writes to a string.
            let _ = write!(link, "&finished=true");
        }
        link.push_str(">; rel=\"next\"");
        headers.insert(LINK, HeaderValue::try_from(link).expect("digits and letters"));
    }
    response
}
