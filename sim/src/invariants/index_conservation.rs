//! I18: the due index of every copy holds exactly the instants at which its tasks must be looked at.

use std::collections::{BTreeMap, BTreeSet};

use xcron::core::task::TaskState;

use super::facts::Run;
use super::view::GroupView;
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "I18 index conservation";

/// Ordinals of the wakes, as stored. When a task is to be looked at for two reasons at once, the lowest stands.
const FIRE: u8 = 1;
const RETRY: u8 = 2;
const EXPIRE: u8 = 3;

/// Judges every copy of every group.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (node, view) in run.copies() {
        found.extend(wrong(view).map(|what| Violation {
            invariant: NAME,
            task: None,
            what: format!("node {node}, group {}: {what}", view.group),
        }));
    }
    found
}

fn wrong(view: &GroupView) -> Option<String> {
    let entries = view.tasks.iter().flat_map(|(key, (_, state))| {
        let wakes = wakes(state).into_iter();
        wakes.map(|(at_ms, wake)| (at_ms, *key, wake))
    });
    let wanted: BTreeSet<_> = entries.collect();
    let held: BTreeSet<_> = view.dues.iter().copied().collect();
    let name = |key: &[u8; 16]| {
        let spec = view.tasks.get(key).and_then(|(spec, _)| spec.as_ref());
        spec.map_or_else(|| format!("{key:02x?}"), |spec| spec.id.to_string())
    };
    if let Some((at_ms, key, wake)) = wanted.difference(&held).next() {
        return Some(format!(
            "{} must be looked at at {at_ms} (wake {wake}), and has no entry",
            name(key)
        ));
    }
    if let Some((at_ms, key, wake)) = held.difference(&wanted).next() {
        return Some(format!(
            "the entry at {at_ms} (wake {wake}) of {} has no reason",
            name(key)
        ));
    }
    None
}

fn wakes(state: &TaskState) -> BTreeMap<u64, u8> {
    let retries = state.open.iter().map(|open| (open.retry_ms, RETRY));
    let claim = state.claim.map(|claim| (claim.at_ms, RETRY));
    // Inserted from the weakest reason to the strongest, so that the strongest stays.
    let mut wakes: BTreeMap<u64, u8> = state.expire_ms.map(|at_ms| (at_ms, EXPIRE)).into_iter().collect();
    wakes.extend(retries.chain(claim));
    wakes.extend(state.next_due_ms.map(|at_ms| (at_ms, FIRE)));
    wakes
}
