//! The form of every answer under `/xcron/*`: `{"uuid", "code", "message"?, "data"?}`, and the codes.
//!
//! Owns codes and bytes; which code a request gets is decided in `request.rs` and `compat.rs`.

use axum::body::Body;
use axum::response::Response;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::value::RawValue;

use super::schedule::{ScheduleFields, TIMEZONE_DEFAULT};
use crate::core::instant::rfc3339_ms;
use crate::core::task::{Delivery, Schedule};
use crate::entropy::Entropy;
use crate::id::TaskId;
use crate::router::{CreateError, DeleteError, QueryError, TaskView, UpdateError};

/// The body is not JSON, or a field is of the wrong kind.
pub(super) const MALFORMED: u16 = 1000;
/// Type 2: `format` is not 10 digits.
pub(super) const NOT_TEN_DIGITS: u16 = 1001;
/// Type 2: before now.
pub(super) const PAST: u16 = 1002;
/// No callback URL.
pub(super) const NO_URL: u16 = 1003;
/// Not stored, or not known whether.
pub(super) const UNAVAILABLE: u16 = 1004;
/// Type 1: no schedule, or one that never fires.
pub(super) const BAD_CRON: u16 = 1005;
/// A URL that is not taken.
pub(super) const BAD_URL: u16 = 1006;
/// The request or the callback body is too large.
pub(super) const TOO_LARGE: u16 = 1007;
/// No such task.
pub(super) const NOT_FOUND: u16 = 1008;
/// A limit is reached.
pub(super) const TOO_MANY: u16 = 1009;
/// The task has another revision by now. Only under `/v1`, where it is told as a problem.
pub(super) const OUTDATED: u16 = 412;
/// Not authorised.
pub(super) const FORBIDDEN: u16 = 1011;
/// The id is taken.
pub(super) const CONFLICT: u16 = 1012;
/// No such type of task.
pub(super) const UNKNOWN_TYPE: u16 = 1020;

/// The body did not come in time. Only under `/v1`; under `/xcron` it is [`MALFORMED`].
pub(super) const LATE: u16 = 408;
/// The latest instant that ten digits can say, in Unix seconds.
const INSTANT_SECONDS_MAX: u64 = 9_999_999_999;

/// Bytes an answer has besides its message and data.
const ENVELOPE_BYTES: usize = 256;

/// Why a request is not answered with success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// One of the codes above.
    pub code: u16,
    /// For the client: what is wrong with what, and what to do.
    pub message: String,
    /// When to try again, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// Of [`UNAVAILABLE`]: the disk is nearly full. `/v1` tells it apart.
    pub is_disk_reserve: bool,
}

impl Refusal {
    /// A refusal with nothing to wait for.
    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            is_disk_reserve: false,
        }
    }

    /// A limit is reached.
    fn too_many(message: String, retry_after_ms: u64) -> Self {
        Self {
            retry_after_ms: Some(retry_after_ms),
            ..Self::new(TOO_MANY, message)
        }
    }

    /// The disk is nearly full.
    fn disk_reserve(message: String) -> Self {
        Self {
            is_disk_reserve: true,
            ..Self::new(UNAVAILABLE, message)
        }
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        let message = error.to_string();
        match error {
            CreateError::Conflict => Self::new(CONFLICT, message),
            CreateError::TooMany { retry_after_ms, .. } => Self::too_many(message, retry_after_ms),
            CreateError::DiskReserve => Self::disk_reserve(message),
            CreateError::Unavailable(_) | CreateError::Unknown { .. } => Self::new(UNAVAILABLE, message),
        }
    }
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        let message = error.to_string();
        match error {
            UpdateError::NotFound => Self::new(NOT_FOUND, message),
            UpdateError::Outdated { .. } => Self::new(OUTDATED, message),
            UpdateError::TooMany { retry_after_ms, .. } => Self::too_many(message, retry_after_ms),
            UpdateError::DiskReserve => Self::disk_reserve(message),
            UpdateError::Unavailable(_) | UpdateError::Unknown => Self::new(UNAVAILABLE, message),
        }
    }
}

impl From<DeleteError> for Refusal {
    fn from(error: DeleteError) -> Self {
        let message = error.to_string();
        match error {
            DeleteError::NotFound => Self::new(NOT_FOUND, message),
            DeleteError::TooMany { retry_after_ms, .. } => Self::too_many(message, retry_after_ms),
            DeleteError::Unavailable(_) | DeleteError::Unknown => Self::new(UNAVAILABLE, message),
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let code = match error {
            QueryError::NotFound => NOT_FOUND,
            QueryError::Unavailable(_) => UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

/// What a success carries.
#[derive(Debug)]
pub(super) enum Data {
    /// Nothing: the task is deleted.
    None,
    /// The id of a created task.
    Created(TaskId),
    /// A task.
    Task(Box<TaskView>),
}

#[derive(Serialize)]
struct Envelope<'a> {
    uuid: &'a str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<DataFields<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DataFields<'a> {
    Created { task_id: &'a str },
    Task(TaskFields<'a>),
}

#[derive(Serialize)]
struct TaskFields<'a> {
    task_id: &'a str,
    create_time: String,
    r#type: u8,
    format: String,
    /// These two only where `format` is not the whole truth.
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<ScheduleFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    run_count: u64,
    /// These two only where the client asked for it: the original has no such tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_count: Option<u64>,
    callback: CallbackFields<'a>,
}

#[derive(Serialize)]
struct CallbackFields<'a> {
    url: &'a str,
    body: &'a RawValue,
}

impl<'a> TaskFields<'a> {
    fn new(view: &'a TaskView) -> Result<Self, Refusal> {
        let TaskView { spec, state } = view;
        let (kind, format, is_whole) = match &spec.schedule {
            Schedule::Cron { expression, timezone } => (1, expression.clone(), timezone == TIMEZONE_DEFAULT),
            Schedule::Once { at_ms } => {
                // Rounded up: whoever reads only this never expects the callback before it comes.
                let seconds = at_ms.div_ceil(1_000).min(INSTANT_SECONDS_MAX);
                (2, format!("{seconds:010}"), seconds * 1_000 == *at_ms)
            }
        };
        let at = match &spec.schedule {
            Schedule::Once { at_ms } if !is_whole => Some(rfc3339_ms(*at_ms)),
            Schedule::Once { .. } | Schedule::Cron { .. } => None,
        };
        let body = serde_json::from_slice(&spec.body)
            .map_err(|error| Refusal::new(UNAVAILABLE, format!("the stored callback body is damaged: {error}")))?;
        let is_once = spec.delivery == Delivery::AtMostOnce;
        Ok(Self {
            task_id: spec.id.as_str(),
            create_time: (spec.created_ms / 1_000).to_string(),
            r#type: kind,
            format,
            schedule: (!is_whole).then(|| ScheduleFields::from(&spec.schedule)),
            at,
            run_count: state.delivered,
            delivery: is_once.then(|| spec.delivery.name()),
            skipped_count: is_once.then_some(state.skipped),
            callback: CallbackFields { url: &spec.url, body },
        })
    }
}

impl<'a> DataFields<'a> {
    fn new(data: &'a Data) -> Result<Option<Self>, Refusal> {
        Ok(match data {
            Data::None => None,
            Data::Created(id) => Some(Self::Created { task_id: id.as_str() }),
            Data::Task(view) => Some(Self::Task(TaskFields::new(view)?)),
        })
    }
}

/// The answer to a call, and its code.
pub(super) fn answer(result: &Result<Data, Refusal>, entropy: &dyn Entropy) -> (u16, Response) {
    let refused = match result.as_ref().map_err(Clone::clone).and_then(DataFields::new) {
        Ok(data) => {
            let envelope = |uuid: &_| {
                encode(&Envelope {
                    uuid,
                    code: 0,
                    message: None,
                    data,
                })
            };
            return (0, respond(StatusCode::OK, with_uuid(entropy, envelope)));
        }
        Err(Refusal {
            code: LATE, message, ..
        }) => Refusal::new(MALFORMED, message),
        Err(refusal) => refusal,
    };
    let mut response = refuse(StatusCode::OK, &refused, entropy);
    if let Some(after_ms) = refused.retry_after_ms {
        let seconds = after_ms.div_ceil(1_000).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    (refused.code, response)
}

/// The answer to what is no call: the code is the status.
pub(super) fn answer_status(status: StatusCode, message: &str, entropy: &dyn Entropy) -> Response {
    answer_refused(status, status.as_u16(), message, entropy)
}

/// The answer to what is not let through to a call.
pub(super) fn answer_refused(status: StatusCode, code: u16, message: &str, entropy: &dyn Entropy) -> Response {
    refuse(status, &Refusal::new(code, message), entropy)
}

fn refuse(status: StatusCode, refusal: &Refusal, entropy: &dyn Entropy) -> Response {
    let Refusal { code, message, .. } = refusal;
    let envelope = |uuid: &_| {
        encode(&Envelope {
            uuid,
            code: *code,
            message: Some(message),
            data: None,
        })
    };
    respond(status, with_uuid(entropy, envelope))
}

fn with_uuid(entropy: &dyn Entropy, encode: impl FnOnce(&str) -> Vec<u8>) -> Vec<u8> {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
    encode(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
}

fn encode(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENVELOPE_BYTES);
    serde_json::to_writer(&mut bytes, envelope)
        .expect("strings, numbers and checked JSON always encode, a Vec takes them all");
    bytes
}

/// An answer of JSON.
pub(super) fn respond(status: StatusCode, json: Vec<u8>) -> Response {
    let mut response = Response::new(Body::new(Full::from(json)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
