//! I7: what all clients were told of a task could have happened one call at a time. The judgement is `oracle/linear.rs`.

use super::facts::{Run, broken};
use crate::history::Violation;
use crate::oracle::linear;

/// The invariant.
pub const NAME: &str = "I7 linearizable";

/// Judges the calls of every task.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let judged = run.tasks.values().map(|facts| (facts.id, linear::check(&facts.ops)));
    let wrong = judged.filter_map(|(id, verdict)| Some(broken(NAME, id, verdict.err()?)));
    wrong.collect()
}
