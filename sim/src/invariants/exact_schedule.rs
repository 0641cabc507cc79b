//! I10: what is fired is what the schedule says: every attempt's due is a due of the task, and its run is the number of that
//! due, those that were skipped counted.

use super::facts::{Facts, Run, broken, due, tell, wall_ms};
use crate::history::{Attempt, Task, Violation};
use crate::oracle::schedule::Schedule;

/// The invariant.
pub const NAME: &str = "I10 exact schedule";

/// Judges the attempts of every task.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let wrong = run
        .tasks
        .values()
        .filter_map(|facts| Some(broken(NAME, facts.id, wrong(run, facts)?)));
    wrong.collect()
}

fn wrong(run: &Run<'_>, facts: &Facts<'_>) -> Option<String> {
    if facts.is_updated() {
        // Its runs are counted on through all contents: update_is_atomic.rs judges what can be known.
        return None;
    }
    let last_ms = facts.attempts.iter().map(|attempt| attempt.due_ms).max()?;
    let contents = facts.contents();
    let mut complaints = contents.into_iter().filter_map(|task| {
        let schedule = Schedule::of(&task.when)?;
        Some(unlike(run, facts, task, &schedule, last_ms))
    });
    // Of several contents that it may have, one that explains everything is enough.
    let first = complaints.next()??;
    complaints.all(|complaint| complaint.is_some()).then_some(first)
}

/// The first attempt that is not what the schedule says.
fn unlike(run: &Run<'_>, facts: &Facts<'_>, task: &Task, schedule: &Schedule, last_ms: u64) -> Option<String> {
    let exactly_ms = facts
        .stored
        .and_then(|(spec, _)| spec.as_ref())
        .map(|spec| spec.created_ms);
    let asked_us = facts.creates().map(|(op, _)| op.from_us).min().unwrap_or(0);
    // Not stored any more: it cannot have been accepted before it was asked for, by a clock that is behind.
    let earliest_ms = wall_ms(asked_us).saturating_sub(run.history.skew_ms_max + 1);
    let dues = schedule.dues(exactly_ms.unwrap_or(earliest_ms), last_ms);
    let place = |attempt: &Attempt| dues.binary_search(&attempt.due_ms).ok().map(|place| place as u64 + 1);
    if let Some(attempt) = facts.attempts.iter().find(|attempt| place(attempt).is_none()) {
        let near: Vec<_> = dues
            .iter()
            .filter(|due_ms| due_ms.abs_diff(attempt.due_ms) < 120_000)
            .collect();
        return Some(format!(
            "{:?} is not due then (near are {near:?}): {}",
            task.when,
            tell(attempt)
        ));
    }
    // How many dues passed before the first that the product knew: none if the creation is known exactly.
    let first = facts.attempts.first()?;
    let before = place(first)?.wrapping_sub(first.run);
    if first.run > place(first)? {
        let place = place(first)?;
        return Some(format!(
            "{} is number {place} at most: {}",
            due(first.due_ms),
            tell(first)
        ));
    }
    let is_right = |attempt: &&&Attempt| place(attempt).map(|place| place.wrapping_sub(before)) == Some(attempt.run);
    let uneven = facts.attempts.iter().find(|attempt| !is_right(attempt));
    let shifted = (exactly_ms.is_some() && before != 0).then_some(first);
    let attempt = uneven.or(shifted)?;
    let place = place(attempt)?;
    Some(format!(
        "{} is number {place} since the creation; the first attempt said run {} of {}: {}",
        due(attempt.due_ms),
        first.run,
        due(first.due_ms),
        tell(attempt)
    ))
}
