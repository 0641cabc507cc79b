//! Whether a task's next due is what its schedule says: it is not where a wrong clock computed it, or where the rules of its zone
//! have changed since.
//!
//! Pure: the caller gives the time, which must be trusted.

use crate::core::schedule::{Cron, CronError};
use crate::core::task::{Delivery, Life, Schedule, TaskSpec, TaskState};

/// A due this near, in milliseconds, is left alone: the clocks of two leaders differ by less, and what is about to fire may be on
/// its way.
pub const MARGIN_MS: u64 = 2_000;

/// The due at which the task should fire next, if that is another than the stored one. `None` where nothing is to be moved.
pub fn corrected(spec: &TaskSpec, state: &TaskState, now_ms: u64) -> Result<Option<u64>, CronError> {
    let Schedule::Cron { expression, timezone } = &spec.schedule else {
        // A one-shot's due is its schedule.
        return Ok(None);
    };
    let near_ms = now_ms.saturating_add(MARGIN_MS);
    let is_far = |due_ms: &u64| *due_ms > near_ms;
    let Some(stored_ms) = state.next_due_ms.filter(is_far) else {
        return Ok(None);
    };
    if state.life != Life::Pending || state.claim.is_some() || spec.revision != state.revision {
        return Ok(None);
    }
    // A due that had its only attempt has none again, also where a wrong clock made that long before its time.
    let tried_ms = match spec.delivery {
        Delivery::AtMostOnce => state
            .outcomes
            .iter()
            .filter(|outcome| outcome.attempts > 0)
            .map(|outcome| outcome.due_ms)
            .max(),
        Delivery::AtLeastOnce => None,
    };
    let from_ms = near_ms.max(tried_ms.unwrap_or(0));
    let due_ms = Cron::parse(expression, timezone)?.next_after(from_ms);
    Ok(due_ms.filter(|due_ms| *due_ms != stored_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::reason::Reason;
    use crate::core::target::Target;
    use crate::core::task::{Outcome, Verdict};
    use crate::id::TaskId;

    const MINUTE: u64 = 60_000;
    const NOW: u64 = 1_000 * MINUTE + 30_000;

    fn spec(delivery: Delivery) -> TaskSpec {
        TaskSpec {
            id: TaskId::parse("t").expect("valid"),
            schedule: Schedule::Cron {
                expression: "*/5 * * * *".into(),
                timezone: "UTC".into(),
            },
            url: String::new(),
            body: Vec::new(),
            created_ms: 0,
            delivery,
            revision: 1,
        }
    }

    fn moved(state: &TaskState, delivery: Delivery) -> Option<u64> {
        corrected(&spec(delivery), state, NOW).expect("a good line")
    }

    #[test]
    fn a_due_that_a_wrong_clock_made_comes_back() {
        let month = 30 * 24 * 60 * MINUTE;
        let moved = |due_ms| moved(&TaskState::new(due_ms, Target([0; 16])), Delivery::AtLeastOnce);
        assert_eq!(moved(1_005 * MINUTE), None, "what the schedule says");
        assert_eq!(moved(1_005 * MINUTE + month), Some(1_005 * MINUTE));
        assert_eq!(
            moved(1_002 * MINUTE),
            Some(1_005 * MINUTE),
            "no instant of the schedule"
        );
        assert_eq!(moved(990 * MINUTE), None, "it is due");
        assert_eq!(moved(NOW + MARGIN_MS), None, "it is about to be");
    }

    #[test]
    fn a_leader_whose_clock_is_a_little_behind_moves_nothing() {
        // Fired at 1000:00 by the leader before, whose clock is half a second ahead.
        let state = TaskState::new(1_005 * MINUTE, Target([0; 16]));
        for behind_ms in [0, 500, 1_999] {
            let now_ms = 1_000 * MINUTE - behind_ms;
            let moved = corrected(&spec(Delivery::AtLeastOnce), &state, now_ms);
            assert_eq!(moved, Ok(None), "{behind_ms}");
        }
    }

    #[test]
    fn what_had_its_only_attempt_has_no_other() {
        let mut state = TaskState::new(2_000 * MINUTE, Target([0; 16]));
        let outcome = Outcome {
            due_ms: 1_010 * MINUTE,
            count: 1,
            attempts: 1,
            verdict: Verdict::Delivered,
            reason: Reason::Http(200),
            is_sent: true,
            at_ms: 0,
        };
        state.outcomes.push(outcome);
        assert_eq!(moved(&state, Delivery::AtMostOnce), Some(1_015 * MINUTE));
        assert_eq!(moved(&state, Delivery::AtLeastOnce), Some(1_005 * MINUTE));
    }

    #[test]
    fn one_shots_and_tasks_that_are_over_are_left_alone() {
        let once = TaskSpec {
            schedule: Schedule::Once { at_ms: 2_000 * MINUTE },
            ..spec(Delivery::AtLeastOnce)
        };
        let state = TaskState::new(2_000 * MINUTE, Target([0; 16]));
        assert_eq!(corrected(&once, &state, NOW), Ok(None));
        let over = TaskState {
            life: Life::Deleted,
            ..TaskState::new(2_000 * MINUTE, Target([0; 16]))
        };
        assert_eq!(moved(&over, Delivery::AtLeastOnce), None);
    }
}
