//! What the body of `PUT /v1/tasks/{id}` must hold: the whole of what the task is to be. Pure: the time is given.
//!
//! Order of checks: size, JSON and kinds, schedule, URL, delivery.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::envelope::{BAD_CRON, MALFORMED, Refusal};
use super::super::json;
use super::super::request;
use super::super::schedule::{self, Names};
use crate::core::instant::instant_ms;
use crate::core::task::{Schedule, TaskSpec};
use crate::id::TaskId;
use crate::router::Change;

#[derive(Deserialize)]
#[serde(expecting = "a JSON object", deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    schedule: Option<&'a RawValue>,
    #[serde(borrow)]
    callback: Option<&'a RawValue>,
    #[serde(borrow)]
    delivery: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object", deny_unknown_fields)]
struct ScheduleFields<'a> {
    #[serde(borrow)]
    cron: Option<&'a RawValue>,
    #[serde(borrow)]
    timezone: Option<&'a RawValue>,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(expecting = "a JSON object", deny_unknown_fields)]
struct CallbackFields<'a> {
    #[serde(borrow)]
    url: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// A change that is well formed.
pub(super) enum Asked {
    /// To be done.
    New(Change),
    /// Its instant is past: the repetition of a change that was done in time, or refused.
    Past(TaskSpec, Refusal),
}

/// Checks a change of the task `id` at `now_ms`.
pub(super) fn read(bytes: &[u8], id: TaskId, replaces: Option<u32>, now_ms: u64) -> Result<Asked, Refusal> {
    let fields: Fields<'_> = json::request(bytes)?;
    let callback = fields.callback.map(|raw| json::object(raw, "callback")).transpose()?;
    let CallbackFields { url, body } = callback.unwrap_or_default();
    let callback = request::CallbackFields { url, body }.check()?;
    let delivery = fields.delivery.map(|raw| json::string(raw, "delivery")).transpose()?;
    let (schedule, first_due_ms, past) = read_schedule(fields.schedule, now_ms)?;
    let url = callback.url()?;
    let delivery = request::delivery(delivery.as_deref())?;
    let body = callback.body.as_bytes().to_vec();
    if let Some(past) = past {
        let spec = TaskSpec {
            id,
            schedule,
            url,
            body,
            created_ms: 0,
            delivery,
            revision: 0,
        };
        return Ok(Asked::Past(spec, past));
    }
    Ok(Asked::New(Change {
        id,
        replaces,
        schedule,
        first_due_ms,
        url,
        body,
        delivery,
    }))
}

/// The schedule, its first due, and why that is refused should it be past.
fn read_schedule(raw: Option<&RawValue>, now_ms: u64) -> Result<(Schedule, u64, Option<Refusal>), Refusal> {
    let missing = || {
        let message = "`schedule` must have `cron` (a crontab line), or `at` (an RFC 3339 instant), and not both";
        Refusal::new(MALFORMED, message)
    };
    let fields: ScheduleFields<'_> = json::object(raw.ok_or_else(missing)?, "schedule")?;
    match (fields.cron, fields.at) {
        (Some(line), None) => {
            let line = json::string(line, "schedule.cron")?;
            let zone = fields.timezone.map(|raw| json::string(raw, "schedule.timezone"));
            let zone = zone.transpose()?;
            if line.is_empty() {
                return Err(Refusal::new(BAD_CRON, "`schedule.cron` must be a crontab line"));
            }
            let names = Names {
                line: "schedule.cron",
                zone: "schedule.timezone",
            };
            let (schedule, first_due_ms) = schedule::cron(&line, zone.as_deref(), &names, now_ms)?;
            Ok((schedule, first_due_ms, None))
        }
        (None, Some(at)) => {
            if fields.timezone.is_some() {
                let message = "`schedule.timezone` belongs to `schedule.cron`; an instant carries its own offset";
                return Err(Refusal::new(MALFORMED, message));
            }
            let text = json::string(at, "schedule.at")?;
            let at_ms = instant_ms(&text).ok_or_else(|| {
                let message = "`schedule.at` must be an RFC 3339 instant of 1970 to 9999, such as 2026-03-01T08:00:00Z";
                Refusal::new(BAD_CRON, message)
            })?;
            let past = schedule::not_past(at_ms, now_ms, "schedule.at").err();
            Ok((Schedule::Once { at_ms }, at_ms, past))
        }
        (Some(_), Some(_)) | (None, None) => Err(missing()),
    }
}
