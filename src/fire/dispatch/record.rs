//! What a fire puts into its group's log: the claim before the only attempt of a task that is delivered at most once, and
//! the outcome of every attempt. Decides nothing about when: that is the dispatcher's.

use std::time::Duration;

use super::attempt::Fired;
use super::{Dispatcher, Queued};
use crate::core::command::{AttemptResult, ClaimFire, Op, Reply, Settle};
use crate::core::due::DueAttempt;
use crate::core::retry::{Answer, Decision};
use crate::core::task::{Claim, TaskState};
use crate::raft::{Group, ProposeError};

/// Pause before what was not recorded is said again.
const REPORT_AGAIN: Duration = Duration::from_millis(200);

impl Dispatcher {
    /// What is reported of an attempt that has ended.
    pub(super) fn settle(
        &self,
        fire: Queued,
        task: &Fired,
        attempt: DueAttempt,
        answer: &Answer,
        at_ms: u64,
    ) -> Settle {
        let parts = &self.0.parts;
        let decision = parts
            .retry
            .decide(attempt.attempt, answer, at_ms, parts.entropy.next_u64());
        Settle {
            key: fire.key,
            generation: fire.generation,
            revision: task.state.revision,
            due_ms: attempt.due_ms,
            expected_ms: attempt.expected_ms,
            skipped: attempt.skipped,
            attempt: attempt.attempt,
            result: match decision {
                Decision::Delivered => AttemptResult::Delivered,
                Decision::Retry { .. } if task.is_once => AttemptResult::Failed,
                Decision::Retry { at_ms } => AttemptResult::Retry { at_ms },
                Decision::Failed => AttemptResult::Failed,
                Decision::Stop => AttemptResult::Stop,
            },
            status: match answer {
                Answer::Status { code, .. } => *code,
                Answer::None { .. } => 0,
            },
            at_ms,
            next_due_ms: attempt.next_due_ms,
            expire_ms: at_ms.saturating_add(parts.retention_ms),
        }
    }

    /// What is reported of a fire that somebody has claimed and not reported on.
    pub(super) fn unknown(&self, fire: Queued, state: &TaskState, claim: Claim) -> Settle {
        let at_ms = self.0.parts.clock.wall_ms();
        Settle {
            key: fire.key,
            generation: fire.generation,
            revision: state.revision,
            due_ms: claim.due_ms,
            expected_ms: claim.due_ms,
            skipped: 0,
            attempt: 1,
            result: AttemptResult::Unknown,
            status: 0,
            at_ms,
            next_due_ms: state.next_due_ms,
            expire_ms: at_ms.saturating_add(self.0.parts.retention_ms),
        }
    }

    /// Puts the outcomes into the log. `false` if one of them may not have got there: the task is then looked at again,
    /// and the same fire is repeated with the same id if it is still open.
    pub(super) async fn report(&self, group: &Group, fire: Queued, settles: &[Settle]) -> bool {
        let mut is_settled = true;
        for settle in settles {
            is_settled &= self.record(group, fire, &Op::Settle(settle.clone())).await.is_some();
        }
        is_settled
    }

    /// Takes the only attempt of a fire for this leadership. `false`: it must not be made.
    pub(super) async fn claim(
        &self,
        group: &Group,
        fire: Queued,
        state: &TaskState,
        attempt: DueAttempt,
        at_ms: u64,
    ) -> bool {
        let op = Op::Claim(ClaimFire {
            key: fire.key,
            generation: fire.generation,
            revision: state.revision,
            due_ms: attempt.due_ms,
            expected_ms: attempt.expected_ms,
            skipped: attempt.skipped,
            at_ms,
            next_due_ms: attempt.next_due_ms,
        });
        // Existed: a try of this very claim was of unknown outcome. Nobody else claims under this leadership.
        matches!(self.record(group, fire, &op).await, Some(Reply::Done | Reply::Existed))
    }

    /// Goes on proposing while the leadership lasts: a leader that cannot reach the others for a moment must not make the
    /// attempt again, one more than the policy allows, only because it could not tell of it. What is said twice changes
    /// nothing. `None` if it may not have got into the log.
    async fn record(&self, group: &Group, fire: Queued, op: &Op<'_>) -> Option<Reply> {
        loop {
            match group.proposer().propose_waiting(op).await {
                Ok(reply) => return Some(reply),
                Err(error @ (ProposeError::NotLeader | ProposeError::Unknown | ProposeError::Overloaded)) => {
                    tracing::debug!(task = ?fire.key, %error, "a claim or an outcome was not recorded");
                }
            }
            let leads = self.0.parts.windows.of(fire.group).with(|window| window.generation());
            if leads != Some(fire.generation) {
                return None;
            }
            tokio::time::sleep(REPORT_AGAIN).await;
        }
    }
}
