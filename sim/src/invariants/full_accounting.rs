//! I23: every due of every task has come to exactly one end, or has not come yet, and their number is that of the schedule.

use xcron::core::reason::Reason;
use xcron::core::task::{Life, Outcome, TaskSpec, TaskState, Verdict};

use super::acked_survives::is_of;
use super::facts::{Facts, Run, broken, due, ms};
use super::loads::Loads;
use super::no_loss::{LATE_US, RECOVERY_US};
use crate::history::{Task, Violation, When, true_us};
use crate::oracle::schedule::Schedule;

/// The invariant.
pub const NAME: &str = "I23 full accounting";

/// A retry may wait for another attempt of its task that is on its way: how much later it is looked at then.
const WAITS_US: u64 = 15_000_000;

/// Judges every task that is stored.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let loads = Loads::new(run);
    for facts in run.tasks.values() {
        let Some((spec, state)) = facts.stored else { continue };
        let url = spec.as_ref().map_or("", |spec| spec.url.as_str());
        let wrong = sums(state)
            .or_else(|| life(state))
            .or_else(|| overdue(run, &loads, url, state))
            .or_else(|| given_up(run, facts, state))
            .or_else(|| content(facts, spec.as_ref(), state));
        found.extend(wrong.map(|what| broken(NAME, facts.id, format!("{what}: {state:?}"))));
    }
    found
}

fn sums(state: &TaskState) -> Option<String> {
    let ended = state.delivered + state.failed + state.skipped + state.cancelled;
    let open = state.open.len() as u64 + u64::from(state.claim.is_some());
    let past = state.dues_past;
    (past != ended + open).then(|| format!("{past} dues are past, {ended} have ended and {open} are open"))
}

fn life(state: &TaskState) -> Option<String> {
    let is_owing = state.next_due_ms.is_some() || !state.open.is_empty() || state.claim.is_some();
    let is_kept_for_ever = state.expire_ms.is_none();
    let is_pending = state.life == Life::Pending;
    let is_right = is_owing == is_pending && is_kept_for_ever == is_pending;
    (!is_right).then(|| {
        format!(
            "{:?}, owing: {is_owing}, with an end: {}",
            state.life, !is_kept_for_ever
        )
    })
}

/// A fire fails by its last attempt or by the target's wish only; one that is delivered at most once by its first that was sent.
fn given_up(run: &Run<'_>, facts: &Facts<'_>, state: &TaskState) -> Option<String> {
    let most = run.history.attempts_max;
    let may_be_once = facts.contents().iter().any(|task| task.at_most_once);
    let is_wrong = |outcome: &&Outcome| {
        let is_begun = may_be_once && outcome.is_sent;
        let is_failed = outcome.verdict == Verdict::Failed && outcome.reason != Reason::Gone;
        let is_early = is_failed && outcome.attempts < most && !is_begun;
        is_early || outcome.attempts > most
    };
    let outcome = state.outcomes.iter().find(is_wrong)?;
    Some(format!("a fire has {most} attempts, and {outcome:?} is final"))
}

/// What should have been looked at long ago.
fn overdue(run: &Run<'_>, loads: &Loads<'_>, url: &str, state: &TaskState) -> Option<String> {
    let healed_us = run.history.healed_us;
    let ended_us = run.history.ended_us;
    let is_overdue = |at_ms: u64| {
        let promised_us = (true_us(at_ms) + LATE_US + WAITS_US).max(healed_us + RECOVERY_US + WAITS_US);
        let is_late = promised_us + run.history.skew_ms_max * 1_000 < ended_us;
        is_late && !loads.keep_waiting(url, true_us(at_ms), promised_us, ended_us)
    };
    let at = state
        .next_due_ms
        .into_iter()
        .chain(state.open.iter().map(|open| open.retry_ms))
        .chain(state.claim.map(|claim| claim.at_ms));
    let at_ms = at.into_iter().find(|at_ms| is_overdue(*at_ms))?;
    Some(format!("{} still waits at {}", due(at_ms), ms(run.history.ended_us)))
}

/// The numbers are those of one of the contents that it can have.
fn content(facts: &Facts<'_>, spec: Option<&TaskSpec>, state: &TaskState) -> Option<String> {
    if facts.is_updated() {
        // How many dues the contents before the last one had is known to nobody outside.
        return None;
    }
    let contents = facts.contents();
    let mut fits = contents
        .into_iter()
        .filter(|task| spec.is_none_or(|spec| is_of(spec, task)));
    let first = fits.next()?;
    let complaint = numbers(first, spec, state)?;
    fits.all(|task| numbers(task, spec, state).is_some())
        .then_some(complaint)
}

fn numbers(task: &Task, spec: Option<&TaskSpec>, state: &TaskState) -> Option<String> {
    let known = state.dues_past + u64::from(state.next_due_ms.is_some());
    if let When::Once(second) = task.when {
        let is_its = |at_ms: u64| at_ms == second * 1_000;
        let dues = state.open.iter().map(|open| open.due_ms).chain(state.next_due_ms);
        let mut dues = dues.chain(state.outcomes.iter().map(|outcome| outcome.due_ms));
        let is_right = known == 1 && dues.all(is_its);
        return (!is_right).then(|| format!("a one-shot of {second} s has {known} dues"));
    }
    let schedule = Schedule::of(&task.when)?;
    // A task that is over may have been ended by anybody at any time: only one that goes on has a due to count up to.
    let (created_ms, next_ms) = (spec?.created_ms, state.next_due_ms?);
    let dues = schedule.dues(created_ms, next_ms);
    let is_right = dues.last() == Some(&next_ms) && dues.len() as u64 == known;
    (!is_right).then(|| {
        let (count, last) = (dues.len(), dues.last());
        format!(
            "created at {created_ms}, next {}: {known} dues are accounted for, {:?} has {count} up to {last:?}",
            due(next_ms),
            task.when
        )
    })
}
