//! What becomes of a task's fires: taken by a report or a claim, put back for a retry, ended with an outcome.
//!
//! Pure changes of one task's state, called by the machine.

use super::Tally;
use crate::core::command::{ClaimFire, Settle};
use crate::core::task::{OpenFire, Outcome, TaskState, Verdict};
use crate::limits::{OPEN_FIRES_MAX, OUTCOMES_KEPT};

/// Which fire an operation is about, and what it says of the dues around it.
pub(super) struct Report {
    due_ms: u64,
    expected_ms: u64,
    skipped: u64,
    next_due_ms: Option<u64>,
    attempt: u16,
    at_ms: u64,
}

impl Report {
    pub(super) fn of(settle: &Settle) -> Self {
        Self {
            due_ms: settle.due_ms,
            expected_ms: settle.expected_ms,
            skipped: settle.skipped,
            next_due_ms: settle.next_due_ms,
            attempt: settle.attempt,
            at_ms: settle.at_ms,
        }
    }

    pub(super) fn of_claim(claim: &ClaimFire) -> Self {
        Self {
            due_ms: claim.due_ms,
            expected_ms: claim.expected_ms,
            skipped: claim.skipped,
            next_due_ms: claim.next_due_ms,
            attempt: 1,
            at_ms: claim.at_ms,
        }
    }
}

/// Finds the fire that is reported on and takes it out of the state: the claimed one, an open one, or the next due, which
/// then moves on. `None` if it has its final outcome already, or if a later attempt of it was reported first.
pub(super) fn take_fire(state: &mut TaskState, report: &Report, tally: &mut Tally) -> Option<OpenFire> {
    if let Some(claim) = state.claim.take_if(|claim| claim.due_ms == report.due_ms) {
        return Some(OpenFire {
            due_ms: claim.due_ms,
            run: claim.run,
            attempts: 0,
            retry_ms: 0,
        });
    }
    if let Some(at) = state.open.iter().position(|open| open.due_ms == report.due_ms) {
        return (report.attempt > state.open[at].attempts).then(|| state.open.remove(at));
    }
    if state.next_due_ms != Some(report.expected_ms) {
        return None;
    }
    if report.skipped > 0 {
        let skipped = Outcome {
            due_ms: report.expected_ms,
            count: report.skipped,
            attempts: 0,
            verdict: Verdict::SkippedMisfire,
            status: 0,
            at_ms: report.at_ms,
        };
        state.dues_past += report.skipped;
        conclude(state, skipped, tally);
    }
    state.dues_past += 1;
    state.next_due_ms = report.next_due_ms;
    Some(OpenFire {
        due_ms: report.due_ms,
        run: state.dues_past,
        attempts: 0,
        retry_ms: 0,
    })
}

/// Puts a fire back to wait for its retry. Beyond the bound the oldest open fire ends as failed.
pub(super) fn reopen(state: &mut TaskState, fire: OpenFire, settle: &Settle, tally: &mut Tally) {
    let at = state.open.partition_point(|open| open.due_ms < fire.due_ms);
    state.open.insert(at, fire);
    if state.open.len() > OPEN_FIRES_MAX {
        let oldest = state.open.remove(0);
        conclude(
            state,
            Outcome {
                attempts: oldest.attempts,
                ..outcome(&oldest, settle, Verdict::Failed)
            },
            tally,
        );
    }
}

pub(super) fn outcome(fire: &OpenFire, settle: &Settle, verdict: Verdict) -> Outcome {
    Outcome {
        due_ms: fire.due_ms,
        count: 1,
        attempts: settle.attempt,
        verdict,
        status: settle.status,
        at_ms: settle.at_ms,
    }
}

/// Counts a final outcome and keeps it among the newest.
pub(super) fn conclude(state: &mut TaskState, outcome: Outcome, tally: &mut Tally) {
    let (counter, total) = match outcome.verdict {
        Verdict::Delivered => (&mut state.delivered, &mut tally.delivered),
        Verdict::Failed => (&mut state.failed, &mut tally.failed),
        Verdict::SkippedMisfire => (&mut state.skipped, &mut tally.skipped),
        Verdict::SkippedUnknown => (&mut state.skipped, &mut tally.skipped_unknown),
        Verdict::Cancelled => (&mut state.cancelled, &mut tally.cancelled),
    };
    *counter += outcome.count;
    *total += outcome.count;
    state.outcomes.push(outcome);
    if state.outcomes.len() > OUTCOMES_KEPT {
        state.outcomes.remove(0);
    }
}

/// Ends every open fire, the claimed one and the next due as cancelled.
pub(super) fn cancel_all(state: &mut TaskState, at_ms: u64, tally: &mut Tally) {
    let open = std::mem::take(&mut state.open)
        .into_iter()
        .map(|open| (open.due_ms, open.attempts));
    let claim = state.claim.take().map(|claim| (claim.due_ms, 1));
    let next = state.next_due_ms.take().map(|due_ms| (due_ms, 0));
    state.dues_past += u64::from(next.is_some());
    for (due_ms, attempts) in open.chain(claim).chain(next).collect::<Vec<_>>() {
        let outcome = Outcome {
            due_ms,
            count: 1,
            attempts,
            verdict: Verdict::Cancelled,
            status: 0,
            at_ms,
        };
        conclude(state, outcome, tally);
    }
}
