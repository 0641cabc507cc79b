//! No ghosts: what nobody created, or only creates that were refused, is neither fired nor stored.

use std::collections::BTreeMap;

use xcron::id::TaskId;

use super::facts::{Facts, Run, broken, ms, tell};
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "no ghosts";

/// Judges every attempt and every stored row.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let fired = run
        .tasks
        .values()
        .filter_map(|facts| Some(broken(NAME, facts.id, fired(facts)?)));
    let keys: BTreeMap<[u8; 16], &Facts<'_>> = run
        .tasks
        .values()
        .filter_map(|facts| Some((TaskId::parse(facts.id).ok()?.key().0, facts)))
        .collect();
    let stored = run.stored.iter().filter_map(|(key, stored)| {
        let facts = keys.get(key);
        if facts.is_some_and(|facts| facts.creates().next().is_some()) {
            return None;
        }
        Some(Violation {
            invariant: NAME,
            task: facts.map(|facts| facts.id.to_owned()),
            what: format!("stored, and no create of it was done or may have been: {stored:?}"),
        })
    });
    fired.chain(stored).collect()
}

fn fired(facts: &Facts<'_>) -> Option<String> {
    let first = facts.attempts.first()?;
    let Some(created_us) = facts.creates().map(|(op, _)| op.from_us).min() else {
        return Some(format!("no create of it was done or may have been: {}", tell(first)));
    };
    let is_before = first.at_us < created_us;
    is_before.then(|| {
        format!(
            "before its first create was sent at {}: {}",
            ms(created_us),
            tell(first)
        )
    })
}
