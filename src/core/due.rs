//! Which attempts a task owes at an instant: the bridge from state and schedule to what is fired.
//!
//! Pure: the caller gives the time. After downtime a one-shot fires late; a cron task fires once, for its latest missed
//! due, and the earlier ones are skipped.

use crate::core::schedule::{Cron, CronError};
use crate::core::task::{Life, Schedule, TaskState};

/// One attempt that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueAttempt {
    /// The due instant to fire.
    pub due_ms: u64,
    /// It does not start before this: the due instant, or that of the retry.
    pub not_before_ms: u64,
    /// The task's next due at this moment: `due_ms`, or the first of the dues that this fire skips.
    pub expected_ms: u64,
    /// Dues from `expected_ms` on that are skipped.
    pub skipped: u64,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// Number of the due in the task, from 1.
    pub run: u64,
    /// The due after this one.
    pub next_due_ms: Option<u64>,
}

/// Everything that is due at `now_ms`, oldest due first. Nothing while a fire is claimed: its attempt has to end before the
/// next one of its task.
pub fn due_attempts(state: &TaskState, schedule: &Schedule, now_ms: u64) -> Result<Vec<DueAttempt>, CronError> {
    if state.life != Life::Pending || state.claim.is_some() {
        return Ok(Vec::new());
    }
    let retries = state
        .open
        .iter()
        .filter(|open| open.retry_ms <= now_ms)
        .map(|open| DueAttempt {
            due_ms: open.due_ms,
            not_before_ms: open.retry_ms,
            expected_ms: open.due_ms,
            skipped: 0,
            attempt: open.attempts.saturating_add(1),
            run: open.run,
            next_due_ms: state.next_due_ms,
        });
    let mut attempts: Vec<_> = retries.collect();
    if let Some(expected_ms) = state.next_due_ms.filter(|due_ms| *due_ms <= now_ms) {
        attempts.push(first_attempt(state, schedule, expected_ms, now_ms)?);
    }
    Ok(attempts)
}

fn first_attempt(
    state: &TaskState,
    schedule: &Schedule,
    expected_ms: u64,
    now_ms: u64,
) -> Result<DueAttempt, CronError> {
    let (due_ms, skipped, next_due_ms) = match schedule {
        Schedule::Once { .. } => (expected_ms, 0, None),
        Schedule::Cron { expression, timezone } => {
            let cron = Cron::parse(expression, timezone)?;
            let missed = cron.missed(expected_ms, now_ms);
            (missed.latest_ms, missed.skipped, cron.next_after(missed.latest_ms))
        }
    };
    let run = state.dues_past + skipped + 1;
    Ok(DueAttempt {
        due_ms,
        not_before_ms: due_ms,
        expected_ms,
        skipped,
        attempt: 1,
        run,
        next_due_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::target::Target;
    use crate::core::task::OpenFire;

    const MINUTE: u64 = 60_000;

    fn cron() -> Schedule {
        Schedule::Cron {
            expression: "*/5 * * * *".into(),
            timezone: "UTC".into(),
        }
    }

    #[test]
    fn nothing_is_early() {
        let state = TaskState::new(5 * MINUTE, Target([0; 16]));
        assert_eq!(due_attempts(&state, &cron(), 5 * MINUTE - 1), Ok(vec![]));
    }

    #[test]
    fn a_one_shot_fires_late() {
        let state = TaskState::new(5 * MINUTE, Target([0; 16]));
        let attempts = due_attempts(&state, &Schedule::Once { at_ms: 5 * MINUTE }, 500 * MINUTE).expect("no cron");
        let only = attempts[0];
        assert_eq!(
            (only.due_ms, only.skipped, only.attempt, only.run, only.next_due_ms),
            (5 * MINUTE, 0, 1, 1, None)
        );
    }

    #[test]
    fn a_cron_task_fires_its_latest_missed_due_and_skips_the_rest() {
        let state = TaskState {
            dues_past: 7,
            ..TaskState::new(5 * MINUTE, Target([0; 16]))
        };
        let attempts = due_attempts(&state, &cron(), 22 * MINUTE).expect("a good line");
        let only = attempts[0];
        assert_eq!(
            (only.expected_ms, only.due_ms, only.skipped, only.run),
            (5 * MINUTE, 20 * MINUTE, 3, 11)
        );
        assert_eq!(only.next_due_ms, Some(25 * MINUTE));
    }

    #[test]
    fn retries_come_beside_the_next_due_when_their_time_has_come() {
        let open = OpenFire {
            due_ms: 5 * MINUTE,
            run: 1,
            attempts: 2,
            retry_ms: 6 * MINUTE,
        };
        let state = TaskState {
            open: vec![open],
            dues_past: 1,
            ..TaskState::new(10 * MINUTE, Target([0; 16]))
        };
        assert_eq!(due_attempts(&state, &cron(), 6 * MINUTE - 1), Ok(vec![]));
        let attempts = due_attempts(&state, &cron(), 10 * MINUTE).expect("a good line");
        let seen: Vec<_> = attempts.iter().map(|a| (a.due_ms, a.attempt, a.run)).collect();
        assert_eq!(seen, [(5 * MINUTE, 3, 1), (10 * MINUTE, 1, 2)]);
    }
}
