//! What a fire puts into its group's log: the claim before the only attempt of a task that is delivered at most once, and
//! the outcome of every attempt. Decides nothing about when: that is the dispatcher's.

use std::time::Duration;

use url::Url;

use super::attempt::Fired;
use super::{Dispatcher, Queued};
use crate::core::command::{AttemptResult, ClaimFire, Op, Reply, Settle, Skipped};
use crate::core::due::DueAttempt;
use crate::core::instant::rfc3339_ms;
use crate::core::reason::Reason;
use crate::core::retry::{Answer, Decision};
use crate::core::task::{Claim, TaskState};
use crate::fire::deliver::LocalLimit;
use crate::raft::{Group, ProposeError};

/// Pause before what was not recorded is said again.
const REPORT_AGAIN: Duration = Duration::from_millis(200);

impl Dispatcher {
    /// What is reported of an attempt that has ended with this answer, a byte of which may have been sent.
    pub(super) fn settle(
        &self,
        fire: Queued,
        task: &Fired,
        attempt: DueAttempt,
        (answer, is_sent): (&Answer, bool),
        at_ms: u64,
    ) -> Settle {
        let parts = &self.0.parts;
        let decision = parts
            .retry
            .decide(attempt.attempt, answer, at_ms, parts.entropy.next_u64());
        let result = match decision {
            Decision::Delivered => AttemptResult::Delivered,
            // It has begun, and may have done its work. What has not begun may be tried again.
            Decision::Retry { .. } if task.is_once && is_sent => AttemptResult::Failed,
            Decision::Retry { at_ms } => AttemptResult::Retry { at_ms },
            Decision::Failed => AttemptResult::Failed,
            Decision::Stop => AttemptResult::Stop,
        };
        let settle = Settle {
            result,
            is_sent,
            next_due_ms: attempt.next_due_ms,
            ..self.report_of(fire, task, attempt, answer.reason(), at_ms)
        };
        if result != AttemptResult::Delivered {
            parts.metrics.inc_attempt_failure(settle.reason.label());
        }
        self.tell(task, &settle);
        settle
    }

    /// What is reported of a due that is skipped, since as many fires of its task wait for their retry as may.
    pub(super) fn overlap(&self, fire: Queued, task: &Fired, attempt: DueAttempt) -> Settle {
        let at_ms = self.0.parts.clock.wall_ms();
        Settle {
            attempt: 0,
            ..self.report_of(fire, task, attempt, Reason::Overlap, at_ms)
        }
    }

    /// What is reported of a fire that somebody has claimed and not reported on.
    pub(super) fn unknown(&self, fire: Queued, task: &Fired, claim: Claim) -> Settle {
        let claimed = DueAttempt {
            due_ms: claim.due_ms,
            not_before_ms: claim.due_ms,
            expected_ms: claim.due_ms,
            skipped: Skipped::default(),
            is_overlap: false,
            attempt: claim.attempts.saturating_add(1),
            run: claim.run,
            next_due_ms: task.state.next_due_ms,
        };
        let at_ms = self.0.parts.clock.wall_ms();
        let settle = Settle {
            result: AttemptResult::Unknown,
            is_sent: true,
            ..self.report_of(fire, task, claimed, Reason::Unknown, at_ms)
        };
        self.tell(task, &settle);
        settle
    }

    /// A report that no byte was sent and the due is skipped, for others to be made of.
    fn report_of(&self, fire: Queued, task: &Fired, attempt: DueAttempt, reason: Reason, at_ms: u64) -> Settle {
        Settle {
            key: fire.key,
            generation: fire.generation,
            revision: task.state.revision,
            due_ms: attempt.due_ms,
            expected_ms: attempt.expected_ms,
            skipped: attempt.skipped,
            attempt: attempt.attempt,
            result: AttemptResult::Overlap,
            reason,
            is_sent: false,
            at_ms,
            next_due_ms: attempt.next_due_ms,
            expire_ms: at_ms.saturating_add(self.0.parts.retention_ms),
        }
    }

    /// One line for a fire that has failed, but not for each of a target that fails all the time.
    fn tell(&self, task: &Fired, settle: &Settle) {
        if !matches!(
            settle.result,
            AttemptResult::Failed | AttemptResult::Stop | AttemptResult::Unknown
        ) {
            return;
        }
        let now_ms = self.0.parts.clock.monotonic_ms();
        let Some(left_out) = self.0.failed.admit(task.state.target, now_ms) else {
            return;
        };
        // Without path and query: they may hold what is nobody's business.
        let target = Url::parse(&task.url).map(|url| url.origin().ascii_serialization());
        tracing::warn!(
            task = task.id.as_str(),
            due = rfc3339_ms(settle.due_ms),
            target = target.as_deref().unwrap_or_default(),
            reason = %settle.reason.name(),
            attempts = settle.attempt,
            left_out,
            "a fire has failed; left_out counts those of this target that had no line since the last one"
        );
    }

    /// One line for attempts that this node had no means to make, in a while.
    pub(super) fn tell_not_tried(&self, limit: LocalLimit) {
        self.0.parts.metrics.inc_attempt_not_tried(limit.name());
        let now_ms = self.0.parts.clock.monotonic_ms();
        if let Some(left_out) = self.0.not_tried.admit(limit, now_ms) {
            tracing::warn!(
                lacks = limit.name(),
                left_out,
                "this node has no means to make a callback, which waits; left_out counts those without a line since the last one"
            );
        }
    }

    /// Puts the outcome into the log, if there is one. `false` if it may not have got there: the task is then looked at again,
    /// and the same fire is repeated with the same id if it is still open.
    pub(super) async fn report(&self, group: &Group, fire: Queued, settle: Option<&Settle>) -> bool {
        let Some(settle) = settle else { return true };
        self.record(group, fire, &Op::Settle(settle.clone())).await.is_some()
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
            attempt: attempt.attempt,
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
