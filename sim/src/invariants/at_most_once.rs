//! I24: a fire of a task that is delivered at most once has one attempt at the most that has begun, under every fault. One of which
//! no byte has left, since there was no connection, has not begun.

use std::collections::BTreeMap;

use super::facts::{Facts, Run, broken, tell};
use crate::history::{Attempt, Violation};

/// The invariant.
pub const NAME: &str = "I24 at most once";

/// Judges the fires of every task.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let wrong = run
        .tasks
        .values()
        .filter_map(|facts| Some(broken(NAME, facts.id, repeated(facts)?)));
    wrong.collect()
}

fn repeated(facts: &Facts<'_>) -> Option<String> {
    let mut firsts: BTreeMap<&str, &Attempt> = BTreeMap::new();
    let is_once = |attempt: &&&Attempt| {
        let contents = facts.contents_of(attempt);
        attempt.is_sent && !contents.is_empty() && contents.iter().all(|task| task.at_most_once)
    };
    facts.attempts.iter().filter(is_once).find_map(|attempt| {
        let first = firsts.insert(&attempt.fire_id, attempt)?;
        Some(format!("a second attempt: {}, then {}", tell(first), tell(attempt)))
    })
}
