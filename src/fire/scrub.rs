//! Looks through the tasks of the groups that this node leads, slowly, for next dues that are not what their schedules say, and has
//! them moved there by an operation in the log.
//!
//! A group is looked through once after each beginning of a leadership (a release may bring new rules of a zone), once a day, and
//! whenever a clock that had jumped is trusted again. Bounded per second: it costs next to nothing, and nothing at all in between.
//! What is moved where is `core/drift.rs`. Started by `node.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Clock;
use crate::core::command::{Op, Reply, Reschedule};
use crate::core::drift::corrected;
use crate::core::machine::View;
use crate::failure::Failure;
use crate::id::GroupId;
use crate::log_limit::LogLimit;
use crate::raft::{Group, Groups, Leadership};
use crate::steady::Steady;
use crate::store::StoreError;

/// Pause between two looks at a few tasks.
const PAUSE: Duration = Duration::from_millis(200);
/// Tasks looked at each time: 500 a second.
const TASKS_PER_LOOK: usize = 100;
/// After this time a group is looked through again.
const AGAIN: Duration = Duration::from_hours(24);

/// What is looked through.
pub struct Scrub {
    /// The groups of this node.
    pub groups: Groups,
    /// Trusted time.
    pub steady: Steady,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Where a fault of the store is reported.
    pub failure: Failure,
}

/// How far a group was looked through.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Round {
    leadership: Leadership,
    /// Corrections of the clock that it knows of.
    corrections: u64,
    /// Where to go on; `None` when it is done, at this time.
    next: Result<Vec<u8>, Duration>,
}

impl Scrub {
    /// Looks for as long as it is polled.
    pub async fn run(self) {
        let corrections = self.steady.corrections();
        let (mut rounds, log) = (BTreeMap::new(), LogLimit::default());
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(now_ms) = self.steady.wall_ms() else { continue };
            let epoch = *corrections.borrow();
            let Some((group, round)) = self.next(&mut rounds, epoch) else {
                continue;
            };
            match self.look(&group, round, now_ms).await {
                Ok(0) => {}
                Ok(moved) => {
                    if let Some(unlogged) = log.line((), self.clock.monotonic()) {
                        tracing::warn!(
                            moved,
                            group = group.id().0,
                            unlogged,
                            "next dues were not what the schedules of their tasks say, and were moved there: \
                             the clock was wrong when they were computed, or the rules of a zone have changed"
                        );
                    }
                }
                Err(fault) => return self.failure.report(fault.to_string()),
            }
        }
    }

    /// A group that is led here and has not been looked through, and how far it was.
    fn next<'r>(&self, rounds: &'r mut BTreeMap<GroupId, Round>, corrections: u64) -> Option<(Group, &'r mut Round)> {
        let now = self.clock.monotonic();
        for group in self.groups.iter() {
            let Some(leadership) = group.leads().filter(|_| group.may_act()) else {
                rounds.remove(&group.id());
                continue;
            };
            let fresh = Round {
                leadership,
                corrections,
                next: Ok(Vec::new()),
            };
            let round = rounds.entry(group.id()).or_insert_with(|| fresh.clone());
            let is_old = matches!(round.next, Err(done) if now >= done + AGAIN);
            if (round.leadership, round.corrections) != (leadership, corrections) || is_old {
                *round = fresh;
            }
        }
        let (id, round) = rounds.iter_mut().find(|(_, round)| round.next.is_ok())?;
        Some((self.groups.get(*id)?, round))
    }

    /// Looks at the next tasks of a group; how many were moved.
    async fn look(&self, group: &Group, round: &mut Round, now_ms: u64) -> Result<u64, StoreError> {
        let Ok(from) = &round.next else { return Ok(0) };
        let store = group.store();
        let states = store.states(from, TASKS_PER_LOOK)?;
        let last = states.last().map(|(row, ..)| [row, &[0][..]].concat());
        let mut ops = Vec::new();
        for (_, key, state) in &states {
            // Only what is due later can be wrong here: most rows need no second read.
            if state.next_due_ms.is_none_or(|due_ms| due_ms <= now_ms) {
                continue;
            }
            let Some(spec) = store.spec(*key)? else { continue };
            // A schedule that this release does not understand is told of when it is due.
            let due_ms = corrected(&spec, state, now_ms).unwrap_or_default();
            ops.extend(due_ms.map(|due_ms| {
                Op::Reschedule(Reschedule {
                    key: *key,
                    generation: round.leadership.generation,
                    revision: state.revision,
                    expected_ms: state.next_due_ms.unwrap_or(0),
                    next_due_ms: due_ms,
                })
            }));
        }
        round.next = last
            .filter(|_| states.len() == TASKS_PER_LOOK)
            .ok_or_else(|| self.clock.monotonic());
        let replies = join_all(ops.iter().map(|op| group.proposer().propose_waiting(op))).await;
        // What was not recorded is found the next time.
        Ok(replies.iter().filter(|reply| matches!(reply, Ok(Reply::Done))).count() as u64)
    }
}
