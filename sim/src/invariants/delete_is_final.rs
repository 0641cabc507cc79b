//! I5: once a delete was acknowledged, no attempt of the task begins. One that had begun cannot be called back.

use super::facts::{Run, broken, ms, tell};
use crate::history::{Told, Violation};

/// The invariant.
pub const NAME: &str = "I5 delete is final";

/// Judges every task that was deleted for certain.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for facts in run.tasks.values() {
        let acked = facts.deletes().filter(|op| op.told == Told::Done);
        let Some(delete) = acked.min_by_key(|op| op.to_us) else {
            continue;
        };
        let late = facts.attempts.iter().filter(|attempt| attempt.at_us > delete.to_us);
        found.extend(late.map(|attempt| {
            let acked = format!(
                "the delete was acknowledged by node {} at {}",
                delete.node,
                ms(delete.to_us)
            );
            broken(NAME, facts.id, format!("{acked}, and then began {}", tell(attempt)))
        }));
    }
    found
}
