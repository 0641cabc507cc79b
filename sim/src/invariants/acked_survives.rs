//! I11: a create that was acknowledged is stored at the end of the run, with its content; retention is longer than any run.

use xcron::core::task::{Delivery, Life, Schedule, TaskSpec};

use super::facts::{Facts, Run, broken, ms};
use crate::history::{Task, Told, Violation, When};

/// The invariant.
pub const NAME: &str = "I11 acked survives";

/// Judges every task whose create, or delete, was acknowledged.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    if run.nodes.is_empty() {
        return Vec::new();
    }
    let lost = run
        .tasks
        .values()
        .filter_map(|facts| Some(broken(NAME, facts.id, lost(facts)?)));
    lost.collect()
}

fn lost(facts: &Facts<'_>) -> Option<String> {
    let delete = facts.deletes().find(|op| op.told == Told::Done);
    let life = facts.stored.map(|(_, state)| state.life);
    if let Some(delete) = delete.filter(|_| life != Some(Life::Deleted)) {
        return Some(format!(
            "its delete was acknowledged at {}, and it is stored as {life:?}",
            ms(delete.to_us)
        ));
    }
    let (create, task) = facts.acked()?;
    let what = match facts.stored {
        None => "nothing is stored of it".to_owned(),
        Some((_, state)) if state.life == Life::Deleted => {
            if facts.deletes().next().is_some() {
                return None;
            }
            "it is stored as deleted, which nobody asked for".to_owned()
        }
        Some((Some(spec), _)) if is_any_of(facts, spec, task) => return None,
        Some((spec, _)) => format!("another content is stored: {spec:?}"),
    };
    Some(format!(
        "its create was acknowledged by node {} at {}: {what}",
        create.node,
        ms(create.to_us)
    ))
}

/// Whether a stored spec is what it must be: of a task that was updated, the last certain content, else any that it can have.
fn is_any_of(facts: &Facts<'_>, spec: &TaskSpec, created: &Task) -> bool {
    if !facts.is_updated() {
        return is_of(spec, created);
    }
    match facts.certain() {
        Some((_, task)) => is_of(spec, task),
        None => facts.contents().into_iter().any(|task| is_of(spec, task)),
    }
}

/// Whether a stored spec is what was asked for.
pub fn is_of(spec: &TaskSpec, task: &Task) -> bool {
    let when = match (&spec.schedule, &task.when) {
        (Schedule::Once { at_ms }, When::Once(second)) => *at_ms == second * 1_000,
        (Schedule::Cron { expression, timezone }, When::Cron { line, zone }) => expression == line && timezone == zone,
        _ => false,
    };
    let is_once = spec.delivery == Delivery::AtMostOnce;
    when && spec.id.as_str() == task.id
        && spec.url == task.url
        && spec.body == task.body.as_bytes()
        && is_once == task.at_most_once
}
