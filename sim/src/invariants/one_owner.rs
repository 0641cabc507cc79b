//! I13: in one generation of a group one process makes all attempts, and all copies name the same leader.

use std::collections::BTreeMap;

use super::facts::{Run, broken, tell};
use crate::history::{Attempt, Violation};

/// The invariant.
pub const NAME: &str = "I13 one owner";

/// Judges all attempts, and the leaders that the nodes know of at the end.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<(u16, u64), &Attempt> = BTreeMap::new();
    for attempt in &run.history.attempts {
        let first = *owners.entry((attempt.group, attempt.generation)).or_insert(attempt);
        if (first.node, first.run_of_node) != (attempt.node, attempt.run_of_node) {
            let what = format!(
                "two processes fired in one generation: {}, and {}",
                tell(first),
                tell(attempt)
            );
            found.push(broken(NAME, &attempt.task, what));
        }
    }
    let mut leaders = BTreeMap::new();
    for (node, view) in run.copies() {
        let key = (view.group, view.generation);
        let (leader, shown_by) = *leaders.entry(key).or_insert((view.leader, node));
        if leader != view.leader {
            let what = format!(
                "group {}, generation {}: node {shown_by} has leader {leader:?}, node {node} has {:?}",
                view.group, view.generation, view.leader
            );
            found.push(Violation {
                invariant: NAME,
                task: None,
                what,
            });
        }
    }
    found
}
