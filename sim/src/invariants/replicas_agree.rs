//! I17: copies of a group at the same position of its log are the same, and each is what its digest says.

use std::collections::BTreeMap;

use xcron::core::machine::digest_of_row;
use xcron::core::record;
use xcron::id::TaskKey;

use super::facts::Run;
use super::view::GroupView;
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "I17 replicas agree";

/// Compares all copies at the end of the run.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (node, view) in run.copies() {
        let digest = digest(view);
        if digest != view.digest {
            let (group, stored) = (view.group, view.digest);
            found.push(violation(format!(
                "node {node}, group {group}: the digest of its rows is {digest}, the one stored {stored}"
            )));
        }
    }
    let mut firsts: BTreeMap<(u16, &[u8]), (usize, &GroupView)> = BTreeMap::new();
    for (node, view) in run.copies() {
        let (first_node, first) = *firsts.entry((view.group, &view.applied)).or_insert((node, view));
        if let Some(what) = difference(first, view) {
            let at = view.position();
            let group = view.group;
            found.push(violation(format!(
                "group {group} at {at:?}: nodes {first_node} and {node} differ in {what}"
            )));
        }
    }
    found
}

fn violation(what: String) -> Violation {
    Violation {
        invariant: NAME,
        task: None,
        what,
    }
}

/// The digest that the rows have.
fn digest(view: &GroupView) -> u64 {
    let parts = view.tasks.iter().map(|(key, (_, state))| {
        let row = record::encode_state(state);
        digest_of_row(TaskKey(*key), &row)
    });
    parts.fold(0, u64::wrapping_add)
}

fn difference(one: &GroupView, other: &GroupView) -> Option<String> {
    let group = |view: &GroupView| (view.generation, view.leader, view.digest);
    if group(one) != group(other) {
        let (one, other) = (group(one), group(other));
        return Some(format!("generation, leader, digest: {one:?} and {other:?}"));
    }
    let keys = one.tasks.keys().chain(other.tasks.keys());
    if let Some(key) = keys
        .into_iter()
        .find(|key| one.tasks.get(*key) != other.tasks.get(*key))
    {
        let (one, other) = (one.tasks.get(key), other.tasks.get(key));
        return Some(format!("the task {key:02x?}: {one:?} and {other:?}"));
    }
    let is_in = |view: &GroupView, entry| view.dues.binary_search(entry).is_ok();
    let entry = one.dues.iter().find(|entry| !is_in(other, entry));
    let entry = entry.or_else(|| other.dues.iter().find(|entry| !is_in(one, entry)));
    entry.map(|entry| format!("the entry {entry:02x?} of the due index"))
}
