//! I1: a task whose create was acknowledged is fired at each of its dues, unless it was deleted first; a cron task whose dues
//! passed while nothing could fire fires the latest of them.

use xcron::limits::CLOCK_OFFSET_MS_MAX;

use super::facts::{Facts, Run, broken, due, ms, wall_ms};
use super::loads::Loads;
use crate::history::{Attempt, Task, Violation, When, true_us};
use crate::oracle::schedule::Schedule;

/// The invariant.
pub const NAME: &str = "I1 no loss";

/// How late a fire may be when all is well.
pub const LATE_US: u64 = 2_000_000;
/// Within what time after the last fault everything that was missed is fired.
pub const RECOVERY_US: u64 = 10_000_000;
/// How long an attempt may connect, before which nobody outside sees it: the product's `fire.connect_timeout_ms`.
const CONNECTS_US: u64 = 5_000_000;
/// How long after a fault a fire may still feel it.
const NEAR_US: u64 = 5_000_000;
/// Judges every task whose create was acknowledged.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let loads = Loads::new(run);
    let mut found = Vec::new();
    for facts in run.tasks.values() {
        found.extend(lost(run, facts, &loads).map(|what| broken(NAME, facts.id, what)));
    }
    found
}

/// The first due that was lost.
fn lost(run: &Run<'_>, facts: &Facts<'_>, loads: &Loads<'_>) -> Option<String> {
    let (create, task) = facts.certain()?;
    let schedule = Schedule::of(&task.when)?;
    // The node may have accepted it by a clock that is ahead, up to the moment of its answer.
    let accepted_ms = wall_ms(create.to_us) + 1 + run.history.skew_ms_max;
    let dues = schedule.dues(accepted_ms, wall_ms(run.history.ended_us));
    dues.into_iter().find_map(|due_ms| {
        let due_us = true_us(due_ms);
        let promised_us = promise(run, facts, create.to_us, due_us);
        let attempts = facts.attempts.iter().filter(|attempt| attempt.body == task.body);
        let is_made = |attempt: &&Attempt| attempt.due_ms == due_ms && attempt.decided_us <= promised_us;
        // A later due of a cron task that is fired skips those that were missed before it.
        let may_skip = matches!(task.when, When::Cron { .. }) && due_us < run.history.healed_us + RECOVERY_US;
        let is_skipped = |attempt: &&Attempt| may_skip && attempt.due_ms > due_ms && attempt.decided_us <= promised_us;
        let is_excused = promised_us + CONNECTS_US > run.history.ended_us
            || facts.is_deleted_by(promised_us)
            || facts.is_stopped_by(promised_us)
            || may_be_unknown(run, task, due_us, promised_us)
            || loads.keep_waiting(&task.url, due_us, promised_us, run.history.ended_us);
        if is_excused
            || attempts
                .copied()
                .any(|attempt| is_made(&attempt) || is_skipped(&attempt))
        {
            return None;
        }
        let first = facts.attempts.iter().find(|attempt| attempt.due_ms == due_ms);
        let came = first.map_or("it never did".to_owned(), |attempt| {
            format!("it began at {}", ms(attempt.at_us))
        });
        Some(format!(
            "{} of a task acknowledged by node {} at {}: an attempt was to begin by {}, and {came}",
            due(due_ms),
            create.node,
            ms(create.to_us),
            ms(promised_us)
        ))
    })
}

/// What is delivered at most once may be skipped without a target having seen it, where a fault is near.
fn may_be_unknown(run: &Run<'_>, task: &Task, due_us: u64, promised_us: u64) -> bool {
    task.at_most_once && !run.is_calm(due_us.saturating_sub(NEAR_US), promised_us)
}

/// By when an attempt of a due begins.
fn promise(run: &Run<'_>, facts: &Facts<'_>, acked_us: u64, due_us: u64) -> u64 {
    // A node whose clock is further off than this does not lead.
    let skew_us = run.history.skew_ms_max.min(2 * CLOCK_OFFSET_MS_MAX) * 1_000;
    let healed_us = run.history.healed_us;
    let recovered_us = if healed_us > 0 { healed_us + RECOVERY_US } else { 0 };
    let mut promised_us = (due_us.max(acked_us) + LATE_US + skew_us).max(recovered_us);
    // Attempts of one task do not overlap: one that is still on its way holds up the next.
    for attempt in &facts.attempts {
        if attempt.at_us <= promised_us && run.end_of(attempt) > due_us && true_us(attempt.due_ms) < due_us {
            promised_us = promised_us.max(run.end_of(attempt).saturating_add(LATE_US));
        }
    }
    promised_us
}
