//! I26: no due row of any copy lies below the copy's low-water mark, where no scan would find it. Neither at the end nor after any
//! commit, those in the middle of an install included: a node may die, or begin to lead, at any moment.

use std::collections::BTreeSet;

use xcron::id::{GroupId, TaskKey};
use xcron::store::key::{self, Fact, Table};
use xcron::store::kv::{ReadKv, Write};

use super::facts::Run;
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "I26 low water";

/// Judges every copy of every group at the end.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let hidden = run.copies().filter_map(|(node, view)| {
        let (at_ms, ..) = view.dues.first().filter(|(at_ms, ..)| *at_ms < view.low_water_ms)?;
        Some(violation(node, view.group, *at_ms, view.low_water_ms))
    });
    hidden.collect()
}

/// Judges the groups whose index or mark a commit has changed; `rows` are those after it.
pub fn look(node: usize, writes: &[Write], rows: &dyn ReadKv) -> Vec<Violation> {
    let mark = key::fact(Fact::LowWater, GroupId(0));
    let touched = writes.iter().filter(|write| write.table == Table::Due);
    let groups: BTreeSet<u16> = touched
        .filter_map(|write| match key::parse_due(&write.key) {
            Some((group, ..)) => write.value.is_some().then_some(group.0),
            None if write.key.len() == mark.len() && write.key[..3] == mark[..3] => {
                Some(u16::from_be_bytes([write.key[3], write.key[4]]))
            }
            None => None,
        })
        .collect();
    groups
        .into_iter()
        .filter_map(|group| hidden(node, group, rows))
        .collect()
}

fn hidden(node: usize, group: u16, rows: &dyn ReadKv) -> Option<Violation> {
    let low_water = rows
        .get(Table::Due, &key::fact(Fact::LowWater, GroupId(group)))
        .ok()??;
    let low_water_ms = u64::from_be_bytes(low_water.as_ref().try_into().ok()?);
    let from = key::due(GroupId(group), 0, TaskKey([0; 16]));
    let to = key::due_from(GroupId(group), low_water_ms);
    let found = rows.scan(Table::Due, &from, &to, 1).ok()?;
    let (row, _) = found.first()?;
    let (_, at_ms, _) = key::parse_due(row)?;
    Some(violation(node, group, at_ms, low_water_ms))
}

fn violation(node: usize, group: u16, at_ms: u64, low_water_ms: u64) -> Violation {
    Violation {
        invariant: NAME,
        task: None,
        what: format!("node {node}, group {group}: the due at {at_ms} is below the low-water mark {low_water_ms}"),
    }
}
