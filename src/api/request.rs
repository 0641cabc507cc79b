//! What a request must hold: from its bytes to a checked [`Asked`] or task id, or the first refusal in the promised
//! order. Pure: the time is given. Called by `compat.rs`.
//!
//! The order (size, JSON and kinds, type, format, URL, task id) is part of the API: doc/api.md.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{BAD_CRON, BAD_URL, MALFORMED, NO_URL, NOT_TEN_DIGITS, PAST, Refusal, TOO_LARGE, UNKNOWN_TYPE};
use super::{json, url};
use crate::core::schedule::{Cron, CronError};
use crate::core::task::{Schedule, TaskSpec};
use crate::id::TaskId;
use crate::limits::{BODY_BYTES_MAX, CRON_BYTES_MAX, TIMEZONE_BYTES_MAX};
use crate::router::NewTask;

/// The zone of a crontab line that names none.
const TIMEZONE_DEFAULT: &str = "UTC";
/// The callback body of a task that gives none.
const BODY_DEFAULT: &str = "{}";
/// Digits of a one-shot's instant: Unix seconds from 2001 to 2286.
const INSTANT_DIGITS: usize = 10;

/// What createTask knows; null counts as absent, other fields are ignored.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct CreateFields<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(borrow)]
    timezone: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    callback: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
struct CallbackFields<'a> {
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// What deleteTask and queryTask know.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct IdFields<'a> {
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
}

/// `type`, known or not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Periodic,
    Once,
    Unknown,
}

/// `format` as it came: a number is taken for an instant alone.
enum Format<'a> {
    Text(Cow<'a, str>),
    Integer(&'a str),
}

/// The fields of a createTask, each of the right kind, none of them judged yet.
struct Create<'a> {
    kind: Kind,
    format: Option<Format<'a>>,
    timezone: Option<Cow<'a, str>>,
    task_id: Option<Cow<'a, str>>,
    url: Option<Cow<'a, str>>,
    body: &'a str,
}

/// A createTask that is well formed.
pub(super) enum Asked {
    /// To be stored.
    New(NewTask),
    /// Its instant is past, but it names its task: the repetition of a create that was stored in time, or refused.
    Past(TaskSpec, Refusal),
}

/// Checks a createTask at `now_ms`.
pub(super) fn create(bytes: &[u8], now_ms: u64) -> Result<Asked, Refusal> {
    let create = Create::read(bytes)?;
    let (schedule, first_due_ms) = match create.kind {
        Kind::Once => {
            let at_ms = instant(create.format.as_ref())?;
            let schedule = Schedule::Once { at_ms };
            if let Err(past) = not_past(at_ms, now_ms) {
                return create.past(schedule, past);
            }
            (schedule, at_ms)
        }
        Kind::Periodic => periodic(create.format.as_ref(), create.timezone.as_deref(), now_ms)?,
        Kind::Unknown => {
            return Err(Refusal::new(
                UNKNOWN_TYPE,
                "`type` must be 1 (periodic: `format` is a crontab line) or 2 (once: `format` is Unix seconds)",
            ));
        }
    };
    let (id, url) = create.id_and_url()?;
    Ok(Asked::New(NewTask {
        id,
        schedule,
        first_due_ms,
        url,
        body: create.body.as_bytes().to_vec(),
    }))
}

/// Reads the task id of a deleteTask or queryTask from its JSON.
pub(super) fn id(bytes: &[u8]) -> Result<TaskId, Refusal> {
    let fields: IdFields<'_> = json::request(bytes)?;
    let raw = fields
        .task_id
        .ok_or_else(|| Refusal::new(MALFORMED, "`task_id` is missing"))?;
    task_id(&json::string(raw, "task_id")?)
}

/// The task id in a query string, if it has one.
pub(super) fn id_in_query(query: &str) -> Option<Result<TaskId, Refusal>> {
    let mut pairs = ::url::form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(name, _)| name == "task_id")
        .map(|(_, text)| task_id(&text))
}

fn task_id(text: &str) -> Result<TaskId, Refusal> {
    TaskId::parse(text).map_err(|error| Refusal::new(MALFORMED, error.to_string()))
}

impl<'a> Create<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let fields: CreateFields<'a> = json::request(bytes)?;
        let callback = fields
            .callback
            .map(|raw| json::object::<CallbackFields<'a>>(raw, "callback"))
            .transpose()?;
        let CallbackFields { url, body } = callback.unwrap_or_default();
        let text = |raw: Option<&'a RawValue>, field| raw.map(|raw| json::string(raw, field)).transpose();
        if body.is_some_and(|body| body.get().len() > BODY_BYTES_MAX) {
            return Err(Refusal::new(
                TOO_LARGE,
                format!("`callback.body` must have at most {BODY_BYTES_MAX} bytes"),
            ));
        }
        let kind = fields.r#type.map_or(Ok(Kind::Unknown), Kind::read)?;
        let format = fields.format.map(|raw| Format::read(raw, kind)).transpose()?;
        if let Some(body) = body.filter(|body| !json::is_object(body)) {
            return Err(json::wrong_kind("callback.body", "an object", body));
        }
        Ok(Self {
            kind,
            format,
            timezone: text(fields.timezone, "timezone")?,
            task_id: text(fields.task_id, "task_id")?,
            url: text(url, "callback.url")?,
            body: body.map_or(BODY_DEFAULT, RawValue::get),
        })
    }

    fn id_and_url(&self) -> Result<(Option<TaskId>, String), Refusal> {
        let url = match &self.url {
            Some(url) if !url.is_empty() => url,
            _ => return Err(Refusal::new(NO_URL, "`callback.url` is missing or empty")),
        };
        url::check(url).map_err(|error| Refusal::new(BAD_URL, error.to_string()))?;
        let id = self.task_id.as_deref().map(task_id).transpose()?;
        Ok((id, url.clone().into_owned()))
    }

    /// A one-shot whose instant is past: refused as such, unless the whole of it could have been stored in time.
    fn past(&self, schedule: Schedule, past: Refusal) -> Result<Asked, Refusal> {
        let Ok((Some(id), url)) = self.id_and_url() else {
            return Err(past);
        };
        let spec = TaskSpec {
            id,
            schedule,
            url,
            body: self.body.as_bytes().to_vec(),
            created_ms: 0,
        };
        Ok(Asked::Past(spec, past))
    }
}

impl Kind {
    fn read(raw: &RawValue) -> Result<Self, Refusal> {
        let number = json::integer(raw, "type", "an integer")?.parse::<i64>();
        match number {
            Ok(1) => Ok(Self::Periodic),
            Ok(2) => Ok(Self::Once),
            Ok(_) => Ok(Self::Unknown),
            Err(_) => Err(Refusal::new(MALFORMED, "`type` is too large for an integer")),
        }
    }
}

impl<'a> Format<'a> {
    fn read(raw: &'a RawValue, kind: Kind) -> Result<Self, Refusal> {
        if raw.get().starts_with('"') || kind == Kind::Periodic {
            return json::string(raw, "format").map(Self::Text);
        }
        json::integer(raw, "format", "a string, or an integer for type 2").map(Self::Integer)
    }
}

/// The due of a one-shot.
fn instant(format: Option<&Format<'_>>) -> Result<u64, Refusal> {
    let digits = match format {
        Some(Format::Text(text)) => text.as_ref(),
        Some(Format::Integer(text)) => text,
        None => "",
    };
    let seconds = digits.parse::<u64>().ok();
    let is_ten_digits = digits.len() == INSTANT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let Some(seconds) = seconds.filter(|_| is_ten_digits) else {
        return Err(Refusal::new(
            NOT_TEN_DIGITS,
            format!("`format` must be Unix seconds, exactly {INSTANT_DIGITS} digits, for type 2"),
        ));
    };
    Ok(seconds * 1_000)
}

/// The second that has begun is not past.
fn not_past(at_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    let now = now_ms / 1_000;
    if at_ms / 1_000 < now {
        return Err(Refusal::new(PAST, format!("`format` is before now, which is {now}")));
    }
    Ok(())
}

/// A periodic schedule and its first due after `now_ms`.
fn periodic(format: Option<&Format<'_>>, timezone: Option<&str>, now_ms: u64) -> Result<(Schedule, u64), Refusal> {
    let refuse = |message: String| Refusal::new(BAD_CRON, message);
    let expression = match format {
        Some(Format::Text(text)) => text.as_ref(),
        Some(Format::Integer(_)) | None => "",
    };
    if expression.is_empty() {
        return Err(refuse("`format` must be a crontab line for type 1".to_owned()));
    }
    if expression.len() > CRON_BYTES_MAX {
        return Err(refuse(format!("`format` must have at most {CRON_BYTES_MAX} bytes")));
    }
    let timezone = timezone.unwrap_or(TIMEZONE_DEFAULT);
    if timezone.is_empty() || timezone.len() > TIMEZONE_BYTES_MAX {
        return Err(refuse(format!("`timezone` must have 1 to {TIMEZONE_BYTES_MAX} bytes")));
    }
    let cron = Cron::parse(expression, timezone).map_err(|error| {
        // A zone may also stand in the line itself, which then goes before the field.
        let field = match &error {
            CronError::UnknownTimezone { name } if name == timezone => "timezone",
            _ => "format",
        };
        refuse(format!("`{field}`: {error}"))
    })?;
    let Some(first_due_ms) = cron.next_after(now_ms) else {
        return Err(refuse(
            "`format` never fires: no date has this day and month".to_owned(),
        ));
    };
    let schedule = Schedule::Cron {
        expression: expression.to_owned(),
        timezone: timezone.to_owned(),
    };
    Ok((schedule, first_due_ms))
}
