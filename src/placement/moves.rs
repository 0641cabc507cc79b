//! What the log is told of the steps towards the plan: each at DEBUG, and a summary at INFO while groups move.
//!
//! The birth of a cluster takes a hundred steps: nobody can read them, and nobody needs to.

use std::time::Duration;

use crate::core::walk::Step;
use crate::id::{GroupId, NodeHex, nodes_text};

/// A summary comes at most this often, and for the last time when nothing was done for as long.
const EVERY: Duration = Duration::from_secs(10);

/// What was done since the last summary.
#[derive(Debug, Default)]
pub(super) struct Moves {
    since: Option<Duration>,
    learners_added: u32,
    voters_changed: u32,
    copies_dropped: u32,
    leaderships_moved: u32,
    failed: u32,
    last_error: Option<(GroupId, String)>,
}

impl Moves {
    /// A step was taken at `now` (monotonic), or not, for this reason.
    pub(super) fn took(&mut self, now: Duration, group: GroupId, step: &Step, error: Option<&str>) {
        tracing::debug!(group = group.0, step = %shown(step), error, "a step towards the plan");
        self.since.get_or_insert(now);
        if let Some(error) = error {
            self.failed += 1;
            self.last_error = Some((group, format!("{}: {error}", shown(step))));
            return;
        }
        let count = match step {
            Step::AddLearner(_) => &mut self.learners_added,
            Step::SetVoters { .. } | Step::FinishChange => &mut self.voters_changed,
            Step::RemoveLearner(_) => &mut self.copies_dropped,
            Step::TransferLeadership(_) => &mut self.leaderships_moved,
            Step::Wait => return,
        };
        *count += 1;
    }

    /// Tells the log, if there is something to tell and it is time.
    pub(super) fn tell(&mut self, now: Duration) {
        if self.since.is_none_or(|since| now < since + EVERY) {
            return;
        }
        let done = std::mem::take(self);
        let (added, voters, dropped, leaders) = (
            done.learners_added,
            done.voters_changed,
            done.copies_dropped,
            done.leaderships_moved,
        );
        if added + voters + dropped + leaders > 0 {
            tracing::info!(
                copies_added = added,
                voters_changed = voters,
                copies_dropped = dropped,
                leaderships_moved = leaders,
                "groups led here have moved towards the plan (see xcron cluster status)"
            );
        }
        if let Some((group, error)) = done.last_error {
            tracing::warn!(
                failed = done.failed,
                group = group.0,
                error,
                "steps towards the plan have failed and are tried again; this is the last of them"
            );
        }
    }
}

fn shown(step: &Step) -> String {
    match step {
        Step::AddLearner(node) => format!("copy to {}", NodeHex(*node)),
        Step::SetVoters { voters, .. } => format!("voters {}", nodes_text(voters)),
        Step::RemoveLearner(node) => format!("no copy on {}", NodeHex(*node)),
        Step::TransferLeadership(node) => format!("leadership to {}", NodeHex(*node)),
        Step::FinishChange => "the change of voters that was begun".to_owned(),
        Step::Wait => "wait".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_summed_up_once_in_a_while() {
        let mut moves = Moves::default();
        let at = Duration::from_secs;
        moves.took(at(1), GroupId(1), &Step::AddLearner(7), None);
        moves.took(at(2), GroupId(2), &Step::AddLearner(7), None);
        moves.took(at(3), GroupId(2), &Step::TransferLeadership(7), Some("slow"));
        moves.tell(at(10));
        assert_eq!((moves.learners_added, moves.failed), (2, 1), "not yet");
        moves.tell(at(11));
        assert_eq!((moves.learners_added, moves.failed, moves.since), (0, 0, None));
    }

    #[test]
    fn nodes_are_shown_in_hexadecimal() {
        let step = Step::SetVoters {
            voters: [10, 11].into(),
            keep_learners: [].into(),
        };
        assert_eq!(shown(&step), "voters 000000000000000a 000000000000000b");
    }
}
