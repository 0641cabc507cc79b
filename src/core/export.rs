//! A task as a line of JSON, for carrying tasks from one cluster to another: what `xcron export` and `GET /v1/export` write, and
//! `xcron import` reads.
//!
//! A line is `{"v":1,"task":{...},"state":{...}}`: `task` in the form of `PUT /v1/tasks/{id}` with its id. Lines are kept for years:
//! a new field comes at the end and may be missing, anything else is a new `v`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::instant::rfc3339_ms;
use super::task::{Life, Schedule, TaskSpec, TaskState};

/// The version of a line.
pub const LINE_V1: u32 = 1;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<'a> {
    /// Its version.
    pub v: u32,
    /// What the task's creator said.
    #[serde(borrow)]
    pub task: TaskLine<'a>,
    /// What its fires have made of it.
    pub state: StateLine,
}

/// What the creator of a task said.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of PUT /v1/tasks/{id}, which doc/api.md explains")]
pub struct TaskLine<'a> {
    pub id: String,
    pub schedule: ScheduleLine,
    #[serde(borrow)]
    pub callback: CallbackLine<'a>,
    pub delivery: String,
}

/// When it is due: `cron` with its zone, or `at`.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of PUT /v1/tasks/{id}, which doc/api.md explains")]
pub struct ScheduleLine {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
}

/// Where its callbacks go, and what they carry: byte for byte.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of PUT /v1/tasks/{id}, which doc/api.md explains")]
pub struct CallbackLine<'a> {
    pub url: String,
    #[serde(borrow)]
    pub body: &'a RawValue,
}

/// What its fires have made of it.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of GET /v1/tasks/{id}, which doc/api.md explains")]
pub struct StateLine {
    /// `pending`, `finished` or `deleted`.
    pub life: String,
    pub revision: u32,
    pub created_at: String,
    pub next_due_at: Option<String>,
    pub delivered: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// Whether an export holds such a task: `finished` ones only where they are asked for, deleted ones never.
pub fn is_exported(life: Life, finished: bool) -> bool {
    life == Life::Pending || (finished && life == Life::Finished)
}

/// The line of a task. An error: its body is not JSON, which no call lets in.
pub fn line<'a>(spec: &'a TaskSpec, state: &TaskState) -> Result<Line<'a>, serde_json::Error> {
    let (cron, timezone, at) = match &spec.schedule {
        Schedule::Cron { expression, timezone } => (Some(expression.clone()), Some(timezone.clone()), None),
        Schedule::Once { at_ms } => (None, None, Some(rfc3339_ms(*at_ms))),
    };
    let life = match state.life {
        Life::Pending => "pending",
        Life::Finished => "finished",
        Life::Deleted => "deleted",
    };
    Ok(Line {
        v: LINE_V1,
        task: TaskLine {
            id: spec.id.as_str().to_owned(),
            schedule: ScheduleLine { cron, timezone, at },
            callback: CallbackLine {
                url: spec.url.clone(),
                body: serde_json::from_slice(&spec.body)?,
            },
            delivery: spec.delivery.name().to_owned(),
        },
        state: StateLine {
            life: life.to_owned(),
            revision: state.revision,
            created_at: rfc3339_ms(spec.created_ms),
            next_due_at: state.next_due_ms.map(rfc3339_ms),
            delivered: state.delivered,
            failed: state.failed,
            skipped: state.skipped,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::target::Target;
    use crate::core::task::Delivery;
    use crate::id::TaskId;

    #[test]
    fn a_line_is_frozen() {
        let spec = TaskSpec {
            id: TaskId::parse("t-1").expect("valid"),
            schedule: Schedule::Once {
                at_ms: 1_893_456_000_001,
            },
            url: "http://h/".to_owned(),
            body: br#"{"n": 1.0}"#.to_vec(),
            created_ms: 1_772_323_230_456,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        };
        let state = TaskState::new(1_893_456_000_001, Target([0; 16]));
        let text = serde_json::to_string(&line(&spec, &state).expect("JSON")).expect("it encodes");
        assert_eq!(
            text,
            r#"{"v":1,"task":{"id":"t-1","schedule":{"at":"2030-01-01T00:00:00.001Z"},"callback":{"url":"http://h/","body":{"n": 1.0}},"delivery":"at_least_once"},"state":{"life":"pending","revision":1,"created_at":"2026-03-01T00:00:30.456Z","next_due_at":"2030-01-01T00:00:00.001Z","delivered":0,"failed":0,"skipped":0}}"#
        );
        let read: Line<'_> = serde_json::from_str(&text).expect("it is read back");
        assert_eq!(read.task.callback.body.get(), r#"{"n": 1.0}"#);
    }

    #[test]
    fn a_deleted_task_is_in_no_export() {
        for (life, asked, is_in) in [
            (Life::Pending, false, true),
            (Life::Finished, false, false),
            (Life::Finished, true, true),
            (Life::Deleted, true, false),
        ] {
            assert_eq!(is_exported(life, asked), is_in);
        }
    }
}
