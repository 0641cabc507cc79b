//! I6: an update is whole and final: no attempt mixes two contents, and once an update was acknowledged none of an earlier content
//! begins. One that had begun cannot be called back.

use super::facts::{Facts, Run, broken, ms, tell, wall_ms};
use crate::history::{Attempt, Op, Task, Told, Violation, When};
use crate::oracle::schedule::Schedule;

/// The invariant.
pub const NAME: &str = "I6 update is atomic";

/// Judges the attempts of every task that may have been updated.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for facts in run.tasks.values().filter(|facts| facts.is_updated()) {
        let wrong = facts.attempts.iter().find_map(|attempt| {
            let what = mixed(run, facts, attempt).or_else(|| late(facts, attempt))?;
            Some(broken(NAME, facts.id, format!("{what}: {}", tell(attempt))))
        });
        found.extend(wrong);
    }
    found
}

/// No content that anybody asked for is like this attempt.
fn mixed(run: &Run<'_>, facts: &Facts<'_>, attempt: &Attempt) -> Option<String> {
    let contents = facts.contents_of(attempt);
    if contents.iter().any(|task| is_due(run, facts, task, attempt)) {
        return None;
    }
    Some(format!(
        "nobody asked for a task with this due, url {} and body {}; near are {contents:?}",
        attempt.url, attempt.body
    ))
}

fn is_due(run: &Run<'_>, facts: &Facts<'_>, task: &Task, attempt: &Attempt) -> bool {
    if let When::Once(second) = task.when {
        return attempt.due_ms == second * 1_000;
    }
    let asked = writes(facts).filter(|(_, content)| *content == task);
    let asked_us = asked.map(|(op, _)| op.from_us).min().unwrap_or(0);
    // It cannot have been accepted before it was asked for, by a clock that is behind.
    let earliest_ms = wall_ms(asked_us).saturating_sub(run.history.skew_ms_max + 1);
    let dues = Schedule::of(&task.when).map(|schedule| schedule.dues(earliest_ms, attempt.due_ms));
    dues.is_some_and(|dues| dues.last() == Some(&attempt.due_ms))
}

/// An update was acknowledged before the attempt began, and came certainly after what the attempt is of.
fn late(facts: &Facts<'_>, attempt: &Attempt) -> Option<String> {
    let contents = facts.contents_of(attempt);
    let mut acked = facts
        .updates()
        .filter(|(op, task)| op.told == Told::Done && op.to_us < attempt.at_us && !contents.contains(task));
    let (update, _) = acked.find(|(update, _)| {
        let mut asked = writes(facts).filter(|(_, task)| contents.contains(task));
        asked.all(|(op, _)| is_before(op, update))
    })?;
    Some(format!(
        "an update was acknowledged by node {} at {}, and then an attempt of an earlier content began",
        update.node,
        ms(update.to_us)
    ))
}

/// Whether a create or an update has its effect, if it has one, before this update. A create certainly: the update found the task.
fn is_before(op: &Op, update: &Op) -> bool {
    matches!(op.call, crate::history::Call::Create(_)) || (op.told == Told::Done && op.to_us <= update.from_us)
}

fn writes<'a>(facts: &Facts<'a>) -> impl Iterator<Item = (&'a Op, &'a Task)> {
    facts.creates().chain(facts.updates())
}
