//! The form of a task under `/v1`: what it is, what became of its dues, what it waits for.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::envelope::{Refusal, UNAVAILABLE};
use super::super::schedule::ScheduleFields;
use crate::core::instant::rfc3339_ms;
use crate::core::task::{Life, Outcome, TaskState, Verdict};
use crate::id::TaskId;
use crate::router::TaskView;

#[derive(Serialize)]
struct Task<'a> {
    id: &'a str,
    revision: u32,
    status: &'static str,
    schedule: ScheduleFields<'a>,
    callback: CallbackFields<'a>,
    delivery: &'static str,
    created_at: String,
    next_due_at: Option<String>,
    counts: Counts,
    retrying: Vec<Retrying>,
    claimed: Option<Claimed>,
    outcomes: Vec<OutcomeFields>,
}

#[derive(Serialize)]
struct CallbackFields<'a> {
    url: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Counts {
    delivered: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
}

#[derive(Serialize)]
struct Retrying {
    due_at: String,
    run: u64,
    attempts: u16,
    retry_at: String,
    reason: Cow<'static, str>,
    #[serde(rename = "sent")]
    is_sent: bool,
}

#[derive(Serialize)]
struct Claimed {
    due_at: String,
    run: u64,
    attempts: u16,
}

#[derive(Serialize)]
struct OutcomeFields {
    due_at: String,
    dues: u64,
    verdict: &'static str,
    reason: Cow<'static, str>,
    attempts: u16,
    http_status: Option<u16>,
    #[serde(rename = "sent")]
    is_sent: bool,
    at: String,
}

#[derive(Serialize)]
struct Changed<'a> {
    id: &'a str,
    revision: u32,
}

/// All of a task.
pub(super) fn json(view: &TaskView) -> Result<Vec<u8>, Refusal> {
    let TaskView { spec, state } = view;
    let body = serde_json::from_slice(&spec.body)
        .map_err(|error| Refusal::new(UNAVAILABLE, format!("the stored callback body is damaged: {error}")))?;
    let task = Task {
        id: spec.id.as_str(),
        revision: state.revision,
        status: status(state.life),
        schedule: ScheduleFields::from(&spec.schedule),
        callback: CallbackFields { url: &spec.url, body },
        delivery: spec.delivery.name(),
        created_at: rfc3339_ms(spec.created_ms),
        next_due_at: state.next_due_ms.map(rfc3339_ms),
        counts: Counts {
            delivered: state.delivered,
            failed: state.failed,
            skipped: state.skipped,
            cancelled: state.cancelled,
        },
        retrying: retrying(state),
        claimed: state.claim.map(|claim| Claimed {
            due_at: rfc3339_ms(claim.due_ms),
            run: claim.run,
            attempts: claim.attempts,
        }),
        outcomes: state.outcomes.iter().map(outcome).collect(),
    };
    Ok(serde_json::to_vec(&task).expect("strings, numbers and checked JSON always encode"))
}

/// The answer to a change.
pub(super) fn changed(id: &TaskId, revision: u32) -> Vec<u8> {
    let changed = Changed {
        id: id.as_str(),
        revision,
    };
    serde_json::to_vec(&changed).expect("plain structs always encode")
}

fn status(life: Life) -> &'static str {
    match life {
        Life::Pending => "pending",
        Life::Finished => "finished",
        Life::Deleted => "deleted",
    }
}

fn retrying(state: &TaskState) -> Vec<Retrying> {
    let open = state.open.iter().map(|open| Retrying {
        due_at: rfc3339_ms(open.due_ms),
        run: open.run,
        attempts: open.attempts,
        retry_at: rfc3339_ms(open.retry_ms),
        reason: open.reason.name(),
        is_sent: open.is_sent,
    });
    open.collect()
}

fn outcome(outcome: &Outcome) -> OutcomeFields {
    OutcomeFields {
        due_at: rfc3339_ms(outcome.due_ms),
        dues: outcome.count,
        verdict: match outcome.verdict {
            Verdict::Delivered => "delivered",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
            Verdict::Cancelled => "cancelled",
        },
        reason: outcome.reason.name(),
        attempts: outcome.attempts,
        http_status: outcome.http_status(),
        is_sent: outcome.is_sent,
        at: rfc3339_ms(outcome.at_ms),
    }
}
