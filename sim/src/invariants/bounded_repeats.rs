//! I4: repeats carry the name of their fire, are bounded by the policy and the changes of the owner, and never overlap under one
//! owner.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, Run, broken, due, is_heard_2xx, tell};
use crate::history::{Attempt, Violation};

/// The invariant.
pub const NAME: &str = "I4 bounded repeats";

/// Judges the attempts of every task.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut names: BTreeMap<&str, &Attempt> = BTreeMap::new();
    for attempt in &run.history.attempts {
        let first = *names.entry(&attempt.fire_id).or_insert(attempt);
        if (&first.task, first.due_ms) != (&attempt.task, attempt.due_ms) {
            let what = format!(
                "two fires of one name {}: {} of {}, and {}",
                first.fire_id,
                tell(first),
                first.task,
                tell(attempt)
            );
            found.push(broken(NAME, &attempt.task, what));
        }
    }
    for facts in run.tasks.values() {
        for ((due_ms, _), attempts) in facts.fires() {
            let what = too_many(run, &attempts).or_else(|| two_names(&attempts));
            found.extend(what.map(|what| broken(NAME, facts.id, format!("{}: {what}", due(due_ms)))));
        }
        found.extend(under_one_owner(run, facts).map(|what| broken(NAME, facts.id, what)));
    }
    found
}

/// Each owner makes at most as many attempts as the policy allows.
fn too_many(run: &Run<'_>, attempts: &[&Attempt]) -> Option<String> {
    let owners: BTreeSet<u64> = attempts.iter().map(|attempt| attempt.generation).collect();
    let most = usize::from(run.history.attempts_max) * owners.len();
    (attempts.len() > most).then(|| {
        format!(
            "{} attempts in the generations {owners:?}, {most} are allowed; the last: {}",
            attempts.len(),
            tell(attempts[most])
        )
    })
}

fn two_names(attempts: &[&Attempt]) -> Option<String> {
    let first = attempts.first()?;
    let other = attempts.iter().find(|attempt| attempt.fire_id != first.fire_id)?;
    Some(format!(
        "two names of one fire: {} and {}: {}",
        first.fire_id,
        other.fire_id,
        tell(other)
    ))
}

/// What the attempts of one generation did to each other: the first thing that is wrong.
fn under_one_owner(run: &Run<'_>, facts: &Facts<'_>) -> Option<String> {
    let mut lasts: BTreeMap<u64, &Attempt> = BTreeMap::new();
    let mut fires: BTreeMap<(u64, u64, &str), &Attempt> = BTreeMap::new();
    for attempt in &facts.attempts {
        if let Some(last) = lasts.insert(attempt.generation, attempt)
            && last.run_of_node == attempt.run_of_node
            && attempt.at_us < run.end_of(last)
        {
            return Some(format!(
                "attempts of one owner overlap: {}, and {}",
                tell(last),
                tell(attempt)
            ));
        }
        let Some(before) = fires.insert((attempt.generation, attempt.due_ms, &attempt.body), attempt) else {
            continue;
        };
        // An owner that loses its group while it reports cannot know whether the report will be kept, and looks again.
        if !run.is_calm(before.at_us, attempt.at_us) {
            continue;
        }
        if is_heard_2xx(before) {
            return Some(format!(
                "repeated by the same owner after 2xx: {}, then {}",
                tell(before),
                tell(attempt)
            ));
        }
        if attempt.attempt <= before.attempt {
            return Some(format!(
                "the number does not rise: {}, then {}",
                tell(before),
                tell(attempt)
            ));
        }
    }
    None
}
