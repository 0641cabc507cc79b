//! I25: a change of members never lowers safety: a group never has fewer voters than before, unless the one that goes drains, or fewer
//! copies were asked for; and no dead voter is left out without another in its place.
//!
//! Judges every membership that any node has committed, without the product's own law (`core/walk/law.rs`).

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Run, ms};
use crate::history::{Membership, Violation};

/// The invariant.
pub const NAME: &str = "I25 never fewer voters";

/// A node that is down, or was asked to leave, for so long is known to be.
const DOWN_US: u64 = 20_000_000;

/// Judges each change of voters against the one before it in the group's log.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut groups: BTreeMap<u16, BTreeMap<u64, &Membership>> = BTreeMap::new();
    for membership in &run.history.memberships {
        let group = groups.entry(membership.group).or_default();
        group.entry(membership.voters.index).or_insert(membership);
    }
    let unread = run
        .copies()
        .filter(|(_, view)| view.position().is_some_and(|at| at.index > 0));
    let unread = unread.filter(|(_, view)| !groups.contains_key(&view.group));
    let unread = unread.map(|(node, view)| broken(format!("group {}: node {node} shows no members", view.group)));
    let mut found: Vec<Violation> = unread.collect();
    for (group, log) in &groups {
        // While a change is not finished, both sets decide: it counts once it is.
        let whole = log.values().filter_map(|one| match one.voters.sets.as_slice() {
            [voters] => Some((*one, voters)),
            _ => None,
        });
        let whole: Vec<_> = whole.collect();
        let pairs = whole.iter().zip(whole.iter().skip(1));
        found.extend(pairs.filter_map(|((_, before), (after, voters))| {
            let what = judge(before, voters, after)?;
            let (at, index) = (ms(after.at_us), after.voters.index);
            Some(broken(format!(
                "group {group}, entry {index} at {at}: {before:?} to {voters:?}: {what}"
            )))
        }));
    }
    found
}

/// What is wrong with a change, made as things were at `now`.
fn judge(before: &BTreeSet<u64>, after: &BTreeSet<u64>, now: &Membership) -> Option<String> {
    let is_down = |node: &&u64| {
        now.down_since_us
            .get(node)
            .is_some_and(|since| now.at_us - since >= DOWN_US)
    };
    let left: Vec<&u64> = before.difference(after).collect();
    let came: Vec<&u64> = after.difference(before).collect();
    let drained = left.iter().filter(|node| now.draining.contains_key(node)).count();
    let asked_for = odd(usize::from(now.replicas));
    let least = odd(before.len() - drained).min(asked_for);
    if after.len() < least {
        return Some(format!("fewer than {least} voters; draining: {:?}", now.draining));
    }
    let is_ill = after.iter().any(|node| is_down(&node));
    if is_ill && after.len() < odd(before.len() - drained) {
        return Some("fewer voters as asked for, and one of those that stay is down".into());
    }
    let leaves = |node: &u64| {
        let asked = now.draining.get(node).filter(|draining| draining.until_us == u64::MAX);
        asked.is_some_and(|draining| now.at_us - draining.from_us >= DOWN_US)
    };
    let bad = came.iter().find(|node| is_down(node) || leaves(node));
    if let Some(bad) = bad {
        return Some(format!("node {bad} is down or drains, and comes in"));
    }
    let lost: Vec<&&u64> = left
        .iter()
        .filter(|node| is_down(node) && !now.draining.contains_key(node))
        .collect();
    let replaced = came.len() + usize::from(before.len().is_multiple_of(2));
    let is_asked_for = after.len() >= asked_for && !is_ill;
    (lost.len() > replaced && !is_asked_for)
        .then(|| format!("{lost:?} are down, and left out without others in their place"))
}

fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) {
        count.saturating_sub(1)
    } else {
        count
    }
}

fn broken(what: String) -> Violation {
    Violation {
        invariant: NAME,
        task: None,
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Draining;

    #[test]
    fn a_change_that_lowers_safety_is_found() {
        let set = |nodes: &[u64]| -> BTreeSet<u64> { nodes.iter().copied().collect() };
        let asked = Draining {
            from_us: 0,
            until_us: u64::MAX,
        };
        for (before, after, down, draining, replicas, is_wrong) in [
            (&[1, 2, 3][..], &[1][..], &[][..], &[][..], 3, true),
            (&[1, 2, 3], &[1], &[], &[3], 3, false),
            (&[1, 2, 3], &[1], &[3], &[], 3, true),
            (&[1, 2, 3], &[1, 2, 4], &[3], &[], 3, false),
            (&[1, 2, 3], &[1, 2, 4], &[4], &[], 3, true),
            (&[1, 2, 3], &[1, 2, 4], &[], &[4], 3, true),
            (&[1, 2, 3], &[1], &[2], &[3], 3, true),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], &[], &[], 5, true),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], &[], &[], 3, false),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], &[4, 5], &[], 3, false),
            (&[1, 2, 3, 4, 5], &[1, 2, 3], &[3, 4], &[], 3, true),
            (&[1], &[1, 2], &[], &[], 3, false),
            (&[1, 2], &[2], &[], &[], 3, false),
        ] {
            let now = Membership {
                at_us: 2 * DOWN_US,
                replicas,
                draining: draining.iter().map(|node| (*node, asked)).collect(),
                down_since_us: down.iter().map(|node| (*node, 0)).collect(),
                ..Membership::default()
            };
            let found = judge(&set(before), &set(after), &now);
            assert_eq!(found.is_some(), is_wrong, "{before:?} to {after:?}: {found:?}");
        }
    }
}
