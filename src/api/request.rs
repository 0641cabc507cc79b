//! What a request must hold: from its bytes to a checked [`Asked`] or task id, or the first refusal in the promised
//! order. Pure: the time is given. Called by `compat.rs`; the callback is read for `v1/` as well.
//!
//! The order (size, JSON and kinds, type, format, URL, task id) is part of the API: doc/api.md.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::{BAD_CRON, BAD_URL, MALFORMED, NO_URL, NOT_TEN_DIGITS, PAST, Refusal, TOO_LARGE, UNKNOWN_TYPE};
use super::schedule::{self, Names};
use super::{json, url};
use crate::core::task::{Delivery, Schedule, TaskSpec};
use crate::id::TaskId;
use crate::limits::BODY_BYTES_MAX;
use crate::router::NewTask;

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
    #[serde(borrow)]
    delivery: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object")]
pub(super) struct CallbackFields<'a> {
    #[serde(borrow)]
    pub(super) url: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) body: Option<&'a RawValue>,
}

/// Where a task's callbacks go, and what they carry; the URL is not judged yet.
pub(super) struct Callback<'a> {
    url: Option<Cow<'a, str>>,
    /// The client's JSON object, byte for byte.
    pub(super) body: &'a str,
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
    callback: Callback<'a>,
    delivery: Option<Cow<'a, str>>,
}

/// The fields of a createTask and of its callback that are known; a test holds them against the structs above.
const CREATE_FIELDS: [&str; 6] = ["type", "format", "timezone", "task_id", "callback", "delivery"];
const CALLBACK_FIELDS: [&str; 2] = ["url", "body"];

/// The names of fields of a createTask that nothing knows: most likely misspelt.
pub(super) fn ignored_fields(bytes: &[u8]) -> Vec<String> {
    let fields = json::fields(bytes);
    let callback = fields.get("callback").map(|raw| json::fields(raw.get().as_bytes()));
    let unknown = fields.keys().filter(|name| !CREATE_FIELDS.contains(&name.as_ref()));
    let mut names: Vec<String> = unknown.map(ToString::to_string).collect();
    let callback = callback.unwrap_or_default();
    let unknown = callback.keys().filter(|name| !CALLBACK_FIELDS.contains(&name.as_ref()));
    names.extend(unknown.map(|name| format!("callback.{name}")));
    names
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
            if let Err(past) = schedule::not_past(at_ms, now_ms, "format") {
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
    let (url, id, delivery) = create.rest()?;
    Ok(Asked::New(NewTask {
        id,
        schedule,
        first_due_ms,
        url,
        body: create.callback.body.as_bytes().to_vec(),
        delivery,
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

/// A task id that is of its form.
pub(super) fn task_id(text: &str) -> Result<TaskId, Refusal> {
    TaskId::parse(text).map_err(|error| Refusal::new(MALFORMED, error.to_string()))
}

/// How often the target may be sent a fire.
pub(super) fn delivery(name: Option<&str>) -> Result<Delivery, Refusal> {
    let Some(name) = name else {
        return Ok(Delivery::default());
    };
    Delivery::of_name(name).ok_or_else(|| {
        Refusal::new(
            MALFORMED,
            "`delivery` must be \"at_least_once\" (the default) or \"at_most_once\"",
        )
    })
}

impl<'a> CallbackFields<'a> {
    fn read(raw: Option<&'a RawValue>) -> Result<Self, Refusal> {
        let read = raw.map(|raw| json::object::<Self>(raw, "callback")).transpose();
        read.map(Option::unwrap_or_default)
    }

    /// The callback, if its parts are of their kinds and not too large.
    pub(super) fn check(&self) -> Result<Callback<'a>, Refusal> {
        self.check_size()?;
        self.check_body()?;
        self.read_texts()
    }

    fn check_size(&self) -> Result<(), Refusal> {
        if self.body.is_some_and(|body| body.get().len() > BODY_BYTES_MAX) {
            let message = format!("`callback.body` must have at most {BODY_BYTES_MAX} bytes");
            return Err(Refusal::new(TOO_LARGE, message));
        }
        Ok(())
    }

    fn check_body(&self) -> Result<(), Refusal> {
        match self.body.filter(|body| !json::is_object(body)) {
            Some(body) => Err(json::wrong_kind("callback.body", "an object", body)),
            None => Ok(()),
        }
    }

    fn read_texts(&self) -> Result<Callback<'a>, Refusal> {
        let url = self.url.map(|raw| json::string(raw, "callback.url")).transpose()?;
        Ok(Callback {
            url,
            body: self.body.map_or(BODY_DEFAULT, RawValue::get),
        })
    }
}

impl Callback<'_> {
    /// The URL, if it is one that callbacks can go to.
    pub(super) fn url(&self) -> Result<String, Refusal> {
        let url = match &self.url {
            Some(url) if !url.is_empty() => url,
            _ => return Err(Refusal::new(NO_URL, "`callback.url` is missing or empty")),
        };
        url::check(url).map_err(|error| Refusal::new(BAD_URL, error.to_string()))?;
        Ok(url.clone().into_owned())
    }
}

impl<'a> Create<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let fields: CreateFields<'a> = json::request(bytes)?;
        let callback = CallbackFields::read(fields.callback)?;
        let text = |raw: Option<&'a RawValue>, field| raw.map(|raw| json::string(raw, field)).transpose();
        callback.check_size()?;
        let kind = fields.r#type.map_or(Ok(Kind::Unknown), Kind::read)?;
        let format = fields.format.map(|raw| Format::read(raw, kind)).transpose()?;
        callback.check_body()?;
        Ok(Self {
            kind,
            format,
            timezone: text(fields.timezone, "timezone")?,
            task_id: text(fields.task_id, "task_id")?,
            delivery: text(fields.delivery, "delivery")?,
            callback: callback.read_texts()?,
        })
    }

    /// What is judged after the schedule, in this order.
    fn rest(&self) -> Result<(String, Option<TaskId>, Delivery), Refusal> {
        let url = self.callback.url()?;
        let id = self.task_id.as_deref().map(task_id).transpose()?;
        Ok((url, id, delivery(self.delivery.as_deref())?))
    }

    /// A one-shot whose instant is past: refused as such, unless the whole of it could have been stored in time.
    fn past(&self, schedule: Schedule, past: Refusal) -> Result<Asked, Refusal> {
        let Ok((url, Some(id), delivery)) = self.rest() else {
            return Err(past);
        };
        let spec = TaskSpec {
            id,
            schedule,
            url,
            body: self.callback.body.as_bytes().to_vec(),
            created_ms: 0,
            delivery,
            revision: 1,
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
    if digits.len() != INSTANT_DIGITS {
        return Err(Refusal::new(
            NOT_TEN_DIGITS,
            format!("`format` must be Unix seconds, exactly {INSTANT_DIGITS} digits, for type 2"),
        ));
    }
    let seconds = digits.parse::<u64>().ok();
    let Some(seconds) = seconds.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())) else {
        // As the original has it: the length was right, and what it could not read as a number lay before now.
        return Err(Refusal::new(
            PAST,
            format!("`format` must be Unix seconds for type 2: {digits:?} is no number, so it is not later than now"),
        ));
    };
    Ok(seconds * 1_000)
}

/// A periodic schedule and its first due after `now_ms`.
fn periodic(format: Option<&Format<'_>>, timezone: Option<&str>, now_ms: u64) -> Result<(Schedule, u64), Refusal> {
    let expression = match format {
        Some(Format::Text(text)) => text.as_ref(),
        Some(Format::Integer(_)) | None => "",
    };
    if expression.is_empty() {
        return Err(Refusal::new(BAD_CRON, "`format` must be a crontab line for type 1"));
    }
    let names = Names {
        line: "format",
        zone: "timezone",
    };
    schedule::cron(expression, timezone, &names, now_ms)
}
