//! Which attempts a task owes at an instant: the bridge from state and schedule to what is fired.
//!
//! Pure: the caller gives the time. After downtime a one-shot fires late; a cron task fires once, for its latest missed
//! due, and the earlier ones are skipped.

use crate::core::command::Skipped;
use crate::core::schedule::{Cron, CronError};
use crate::core::task::{Life, Schedule, TaskState};
use crate::limits::OPEN_FIRES_MAX;

/// One attempt that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueAttempt {
    /// The due instant to fire.
    pub due_ms: u64,
    /// It does not start before this: the due instant, or that of the retry.
    pub not_before_ms: u64,
    /// The task's next due at this moment: `due_ms`, or the first of the dues that this fire skips.
    pub expected_ms: u64,
    /// The dues from `expected_ms` on that are skipped.
    pub skipped: Skipped,
    /// It is skipped as well: as many fires of the task wait for their retry as may.
    pub is_overlap: bool,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// Number of the due in the task, from 1.
    pub run: u64,
    /// The due after this one.
    pub next_due_ms: Option<u64>,
}

/// Everything that is due at `now_ms`, in the order of the instants at which it was to start. Nothing while a fire is claimed:
/// its attempt has to end before the next one of its task.
///
/// Dues that are skipped are told apart by `firing_since_ms`, from when on this node could fire the task's group.
pub fn due_attempts(
    state: &TaskState,
    schedule: &Schedule,
    firing_since_ms: u64,
    now_ms: u64,
) -> Result<Vec<DueAttempt>, CronError> {
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
            skipped: Skipped::default(),
            is_overlap: false,
            attempt: open.attempts.saturating_add(1),
            run: open.run,
            next_due_ms: state.next_due_ms,
        });
    let mut attempts: Vec<_> = retries.collect();
    if let Some(expected_ms) = state.next_due_ms.filter(|due_ms| *due_ms <= now_ms) {
        attempts.push(first_attempt(state, schedule, expected_ms, firing_since_ms, now_ms)?);
    }
    attempts.sort_by_key(|attempt| attempt.not_before_ms);
    Ok(attempts)
}

fn first_attempt(
    state: &TaskState,
    schedule: &Schedule,
    expected_ms: u64,
    firing_since_ms: u64,
    now_ms: u64,
) -> Result<DueAttempt, CronError> {
    let (due_ms, skipped, next_due_ms) = match schedule {
        Schedule::Once { .. } => (expected_ms, Skipped::default(), None),
        Schedule::Cron { expression, timezone } => {
            let cron = Cron::parse(expression, timezone)?;
            let missed = cron.missed(expected_ms, now_ms);
            let skipped = told_apart(&cron, expected_ms, missed.skipped, firing_since_ms);
            (missed.latest_ms, skipped, cron.next_after(missed.latest_ms))
        }
    };
    let run = state.dues_past + skipped.count() + 1;
    Ok(DueAttempt {
        due_ms,
        not_before_ms: due_ms,
        expected_ms,
        skipped,
        is_overlap: state.open.len() >= OPEN_FIRES_MAX,
        attempt: 1,
        run,
        next_due_ms,
    })
}

/// Which of `count` dues from `expected_ms` on passed while nobody could fire, and which later.
fn told_apart(cron: &Cron, expected_ms: u64, count: u64, firing_since_ms: u64) -> Skipped {
    if count == 0 || expected_ms >= firing_since_ms {
        let overlaps_from_ms = if count == 0 { 0 } else { expected_ms };
        return Skipped {
            misfires: 0,
            overlaps: count,
            overlaps_from_ms,
        };
    }
    let before = cron.missed(expected_ms, firing_since_ms - 1);
    let misfires = (before.skipped + 1).min(count);
    let overlaps = count - misfires;
    let first_later = cron.next_after(before.latest_ms).filter(|_| overlaps > 0);
    Skipped {
        misfires,
        overlaps,
        overlaps_from_ms: first_later.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::reason::Reason;
    use crate::core::target::Target;
    use crate::core::task::OpenFire;

    const MINUTE: u64 = 60_000;

    fn cron() -> Schedule {
        Schedule::Cron {
            expression: "*/5 * * * *".into(),
            timezone: "UTC".into(),
        }
    }

    /// All dues since the beginning have passed while somebody could fire.
    fn due(state: &TaskState, now_ms: u64) -> Vec<DueAttempt> {
        due_attempts(state, &cron(), 0, now_ms).expect("a good line")
    }

    fn open(due_ms: u64, retry_ms: u64) -> OpenFire {
        OpenFire {
            due_ms,
            run: 1,
            attempts: 2,
            retry_ms,
            reason: Reason::Http(500),
            is_sent: true,
        }
    }

    #[test]
    fn nothing_is_early() {
        let state = TaskState::new(5 * MINUTE, Target([0; 16]));
        assert_eq!(due(&state, 5 * MINUTE - 1), vec![]);
    }

    #[test]
    fn a_one_shot_fires_late() {
        let state = TaskState::new(5 * MINUTE, Target([0; 16]));
        let once = Schedule::Once { at_ms: 5 * MINUTE };
        let attempts = due_attempts(&state, &once, 400 * MINUTE, 500 * MINUTE).expect("no cron");
        let only = attempts[0];
        assert_eq!(
            (
                only.due_ms,
                only.skipped.count(),
                only.attempt,
                only.run,
                only.next_due_ms
            ),
            (5 * MINUTE, 0, 1, 1, None)
        );
    }

    #[test]
    fn a_cron_task_fires_its_latest_missed_due_and_skips_the_rest() {
        let state = TaskState {
            dues_past: 7,
            ..TaskState::new(5 * MINUTE, Target([0; 16]))
        };
        let only = due(&state, 22 * MINUTE)[0];
        assert_eq!(
            (only.expected_ms, only.due_ms, only.skipped.count(), only.run),
            (5 * MINUTE, 20 * MINUTE, 3, 11)
        );
        assert_eq!(only.next_due_ms, Some(25 * MINUTE));
    }

    #[test]
    fn what_passed_without_a_node_is_told_apart_from_what_passed_under_one() {
        let state = TaskState::new(5 * MINUTE, Target([0; 16]));
        // 5, 10 and 15 are skipped, 20 is fired; the node could fire from `since` on.
        let skipped = |since| due_attempts(&state, &cron(), since, 22 * MINUTE).expect("a good line")[0].skipped;
        let expected = |misfires, overlaps, overlaps_from_ms| Skipped {
            misfires,
            overlaps,
            overlaps_from_ms,
        };
        assert_eq!(skipped(0), expected(0, 3, 5 * MINUTE));
        assert_eq!(skipped(5 * MINUTE), expected(0, 3, 5 * MINUTE));
        assert_eq!(skipped(5 * MINUTE + 1), expected(1, 2, 10 * MINUTE));
        assert_eq!(skipped(10 * MINUTE), expected(1, 2, 10 * MINUTE));
        assert_eq!(skipped(15 * MINUTE), expected(2, 1, 15 * MINUTE));
        assert_eq!(skipped(15 * MINUTE + 1), expected(3, 0, 0));
        assert_eq!(skipped(21 * MINUTE), expected(3, 0, 0));
        let nothing = due_attempts(&state, &cron(), 5 * MINUTE, 6 * MINUTE).expect("a good line")[0].skipped;
        assert_eq!(nothing, Skipped::default());
    }

    #[test]
    fn retries_come_beside_the_next_due_when_their_time_has_come() {
        let state = TaskState {
            open: vec![open(5 * MINUTE, 6 * MINUTE)],
            dues_past: 1,
            ..TaskState::new(10 * MINUTE, Target([0; 16]))
        };
        assert_eq!(due(&state, 6 * MINUTE - 1), vec![]);
        let seen = |state: &TaskState, now_ms| -> Vec<_> {
            let due = due(state, now_ms);
            due.iter().map(|a| (a.due_ms, a.attempt, a.not_before_ms)).collect()
        };
        assert_eq!(
            seen(&state, 10 * MINUTE),
            [(5 * MINUTE, 3, 6 * MINUTE), (10 * MINUTE, 1, 10 * MINUTE)]
        );
        let state = TaskState {
            open: vec![open(MINUTE, 6 * MINUTE), open(5 * MINUTE, 11 * MINUTE)],
            ..TaskState::new(10 * MINUTE, Target([0; 16]))
        };
        let attempts = seen(&state, 12 * MINUTE);
        let order: Vec<_> = attempts.into_iter().map(|(due_ms, ..)| due_ms / MINUTE).collect();
        assert_eq!(
            order,
            [1, 10, 5],
            "a due does not wait behind retries that come after it"
        );
    }

    #[test]
    fn a_due_beside_as_many_open_fires_as_may_be_is_skipped_and_none_of_them_ends() {
        let open: Vec<_> = (0..OPEN_FIRES_MAX as u64)
            .map(|n| open(n * MINUTE, 60 * MINUTE))
            .collect();
        let state = TaskState {
            open,
            ..TaskState::new(10 * MINUTE, Target([0; 16]))
        };
        let only = due(&state, 10 * MINUTE)[0];
        assert_eq!((only.due_ms, only.is_overlap), (10 * MINUTE, true));
        let state = TaskState {
            open: state.open[1..].to_vec(),
            ..state
        };
        assert!(!due(&state, 10 * MINUTE)[0].is_overlap);
    }
}
