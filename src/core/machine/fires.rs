//! What becomes of a task's fires: taken by a report or a claim, put back for a retry, ended with an outcome.
//!
//! Pure changes of one task's state, called by the machine.

use super::Tally;
use crate::core::command::{ClaimFire, Settle, Skipped};
use crate::core::reason::Reason;
use crate::core::task::{Outcome, TaskState, Verdict};
use crate::limits::OUTCOMES_KEPT;

/// Which fire an operation is about, and what it says of the dues around it.
pub(super) struct Report {
    due_ms: u64,
    expected_ms: u64,
    skipped: Skipped,
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
            attempt: claim.attempt,
            at_ms: claim.at_ms,
        }
    }
}

/// A fire that was taken out of the state.
pub(super) struct Taken {
    pub(super) due_ms: u64,
    pub(super) run: u64,
    /// Attempts that were reported before.
    pub(super) attempts: u16,
}

/// Finds the fire that is reported on and takes it out of the state: the claimed one, an open one, or the next due, which
/// then moves on. `None` if it has its final outcome already, or if this attempt of it, or a later one, was reported before.
pub(super) fn take_fire(state: &mut TaskState, report: &Report, tally: &mut Tally) -> Option<Taken> {
    if let Some(claim) = state.claim.filter(|claim| claim.due_ms == report.due_ms) {
        let is_next = report.attempt > claim.attempts;
        return is_next.then(|| {
            state.claim = None;
            Taken {
                due_ms: claim.due_ms,
                run: claim.run,
                attempts: claim.attempts,
            }
        });
    }
    if let Some(at) = state.open.iter().position(|open| open.due_ms == report.due_ms) {
        let is_next = report.attempt > state.open[at].attempts;
        return is_next.then(|| {
            let open = state.open.remove(at);
            Taken {
                due_ms: open.due_ms,
                run: open.run,
                attempts: open.attempts,
            }
        });
    }
    if state.next_due_ms != Some(report.expected_ms) {
        return None;
    }
    let Skipped {
        misfires,
        overlaps,
        overlaps_from_ms,
    } = report.skipped;
    skip(state, report, (report.expected_ms, misfires), Reason::Misfire, tally);
    skip(state, report, (overlaps_from_ms, overlaps), Reason::Overlap, tally);
    state.dues_past += 1;
    state.next_due_ms = report.next_due_ms;
    Some(Taken {
        due_ms: report.due_ms,
        run: state.dues_past,
        attempts: 0,
    })
}

/// Ends a row of dues that a later one is fired instead of.
fn skip(state: &mut TaskState, report: &Report, (due_ms, count): (u64, u64), reason: Reason, tally: &mut Tally) {
    if count == 0 {
        return;
    }
    state.dues_past += count;
    let skipped = Outcome {
        due_ms,
        count,
        attempts: 0,
        verdict: Verdict::Skipped,
        reason,
        is_sent: false,
        at_ms: report.at_ms,
    };
    conclude(state, skipped, tally);
}

pub(super) fn outcome(fire: &Taken, settle: &Settle, verdict: Verdict) -> Outcome {
    Outcome {
        due_ms: fire.due_ms,
        count: 1,
        attempts: settle.attempt,
        verdict,
        reason: settle.reason,
        is_sent: settle.is_sent,
        at_ms: settle.at_ms,
    }
}

/// Counts a final outcome and keeps it among the newest.
pub(super) fn conclude(state: &mut TaskState, outcome: Outcome, tally: &mut Tally) {
    let (counter, total) = match outcome.verdict {
        Verdict::Delivered => (&mut state.delivered, &mut tally.delivered),
        Verdict::Failed => (&mut state.failed, &mut tally.failed),
        Verdict::Skipped => {
            let total = match outcome.reason {
                Reason::Overlap => &mut tally.skipped_overlap,
                Reason::Unknown => &mut tally.skipped_unknown,
                _ => &mut tally.skipped_misfire,
            };
            (&mut state.skipped, total)
        }
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
pub(super) fn cancel_all(state: &mut TaskState, at_ms: u64, reason: Reason, tally: &mut Tally) {
    let open = std::mem::take(&mut state.open)
        .into_iter()
        .map(|open| (open.due_ms, open.attempts, open.is_sent));
    // Its attempt may be on its way.
    let claim = state.claim.take();
    let claim = claim.map(|claim| (claim.due_ms, claim.attempts.saturating_add(1), true));
    let next = state.next_due_ms.take().map(|due_ms| (due_ms, 0, false));
    state.dues_past += u64::from(next.is_some());
    for (due_ms, attempts, is_sent) in open.chain(claim).chain(next).collect::<Vec<_>>() {
        let outcome = Outcome {
            due_ms,
            count: 1,
            attempts,
            verdict: Verdict::Cancelled,
            reason,
            is_sent,
            at_ms,
        };
        conclude(state, outcome, tally);
    }
}
