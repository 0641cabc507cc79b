//! I8: one id is one task: everything that is fired under it is what one create that was not refused asked for.

use super::facts::{Facts, Run, broken, tell};
use crate::history::{Task, Violation, When};

/// The invariant.
pub const NAME: &str = "I8 idempotent create";

/// Judges the attempts of every task that anybody created.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let wrong = run
        .tasks
        .values()
        .filter_map(|facts| Some(broken(NAME, facts.id, wrong(facts)?)));
    wrong.collect()
}

fn wrong(facts: &Facts<'_>) -> Option<String> {
    if facts.is_updated() {
        // A create after an update may be of another content: update_is_atomic.rs.
        return None;
    }
    let contents = facts.contents();
    let acked: Vec<&Task> = facts
        .creates()
        .filter(|(op, _)| op.told == crate::history::Told::Done)
        .map(|(_, task)| task)
        .collect();
    if let Some(other) = acked.iter().find(|task| **task != acked[0]) {
        return Some(format!("two contents acknowledged: {:?} and {other:?}", acked[0]));
    }
    if contents.is_empty() {
        return None;
    }
    let is_of = |task: &&&Task| {
        facts.attempts.iter().all(|attempt| {
            let is_due = !matches!(task.when, When::Once(second) if attempt.due_ms != second * 1_000);
            attempt.url == task.url && attempt.body == task.body && is_due
        })
    };
    if contents.iter().any(|task| is_of(&task)) {
        return None;
    }
    // The attempt that is like none of them tells most; otherwise they are like different ones.
    let like = |attempt: &&&crate::history::Attempt| {
        contents
            .iter()
            .any(|task| attempt.url == task.url && attempt.body == task.body)
    };
    let attempt = facts
        .attempts
        .iter()
        .find(|attempt| !like(attempt))
        .or(facts.attempts.last())?;
    Some(format!(
        "it may be {contents:?}, and no one of these was in every attempt; such as {} with url {} and body {}",
        tell(attempt),
        attempt.url,
        attempt.body
    ))
}
