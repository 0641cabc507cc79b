//! What must hold, one small file each, and the judgement of a whole run.
//!
//! Every invariant reads a [`Run`] (`facts.rs`): the history that the outside saw, and the state of each node at the end
//! (`view.rs`). [`Commits`] and [`low_water`] watch each commit while the run goes on. [`story`] tells what happened to one task.

mod acked_survives;
mod at_most_once;
mod bounded_repeats;
mod commits;
mod delete_is_final;
mod exact_schedule;
mod facts;
mod fencing;
mod full_accounting;
mod healed;
mod idempotent_create;
mod index_conservation;
mod linearizable;
mod loads;
pub mod low_water;
mod never_early;
mod never_fewer_voters;
mod no_ghosts;
mod no_loss;
mod once_when_calm;
mod one_owner;
mod position;
mod replicas_agree;
mod run_count;
mod story;
#[cfg(test)]
mod tests;
mod update_is_atomic;
mod view;

pub use commits::Commits;
pub use facts::Run;
pub use position::{Position, Voters};
pub use story::story;
pub use view::{GroupView, NodeState, meta, read};

use crate::history::{History, Violation};

/// One invariant's judgement of a run.
pub type Check = fn(&Run<'_>) -> Vec<Violation>;

/// Every invariant.
pub const ALL: &[(&str, Check)] = &[
    (no_loss::NAME, no_loss::check),
    (never_early::NAME, never_early::check),
    (once_when_calm::NAME, once_when_calm::check),
    (bounded_repeats::NAME, bounded_repeats::check),
    (delete_is_final::NAME, delete_is_final::check),
    (update_is_atomic::NAME, update_is_atomic::check),
    (linearizable::NAME, linearizable::check),
    (idempotent_create::NAME, idempotent_create::check),
    (run_count::NAME, run_count::check),
    (exact_schedule::NAME, exact_schedule::check),
    (acked_survives::NAME, acked_survives::check),
    (one_owner::NAME, one_owner::check),
    (fencing::NAME, fencing::check),
    (replicas_agree::NAME, replicas_agree::check),
    (index_conservation::NAME, index_conservation::check),
    (low_water::NAME, low_water::check),
    (healed::NAME, healed::check),
    (full_accounting::NAME, full_accounting::check),
    (at_most_once::NAME, at_most_once::check),
    (no_ghosts::NAME, no_ghosts::check),
    (never_fewer_voters::NAME, never_fewer_voters::check),
];

/// Every promise that was broken in a run whose nodes ended in these states. No state at all: only what the outside saw is
/// judged.
pub fn judge(history: &History, nodes: &[NodeState]) -> Vec<Violation> {
    let run = Run::new(history, nodes);
    ALL.iter().flat_map(|(_, check)| check(&run)).collect()
}
