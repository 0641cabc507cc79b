//! What an answer means for a fire: delivered, tried again at an instant, or ended.
//!
//! Pure: the caller gives the time and the random number for the jitter. The result is replicated, so every replica sees the
//! same decision; a retry is an entry of the due index, not a sleeping task.

use serde::{Deserialize, Serialize};

use crate::core::reason::{NoAnswer, Reason};
use crate::core::task::GONE;

/// Longest wait that a target's `Retry-After` can ask for, in milliseconds: one day.
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Most attempts that a policy can allow.
pub const ATTEMPTS_MAX: u16 = 1_000;
/// Longest delay that a policy can allow, in milliseconds: one week.
pub const DELAY_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

const TOO_MANY_REQUESTS: u16 = 429;
const SERVICE_UNAVAILABLE: u16 = 503;

/// What came back from one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The target answered.
    Status {
        /// HTTP status.
        code: u16,
        /// The target's `Retry-After`, in milliseconds from now.
        retry_after_ms: Option<u64>,
    },
    /// The target did not answer; it may or may not have the request.
    None {
        /// Why.
        kind: NoAnswer,
    },
}

impl Answer {
    /// What it says to who asks why.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Status { code: GONE, .. } => Reason::Gone,
            Self::Status { code, .. } => Reason::Http(*code),
            Self::None { kind } => Reason::None(*kind),
        }
    }
}

/// What becomes of the fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Final: the target has it.
    Delivered,
    /// Another attempt at this instant.
    Retry {
        /// Milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Final: the attempts are used up.
    Failed,
    /// Final, and the target wants nothing more of this task.
    Stop,
}

/// How often and how soon a failed fire is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts_max: u16,
    /// Delay before the second attempt, in milliseconds; doubled for each further one.
    pub first_delay_ms: u64,
    /// Longest delay, in milliseconds.
    pub delay_max_ms: u64,
    /// Part of each delay that is drawn at random, in percent, so that fires that failed together do not come back together.
    pub jitter_percent: u8,
}

impl Default for RetryPolicy {
    /// Three attempts within a minute.
    fn default() -> Self {
        Self {
            attempts_max: 3,
            first_delay_ms: 5_000,
            delay_max_ms: 10 * 60 * 1_000,
            jitter_percent: 20,
        }
    }
}

impl RetryPolicy {
    /// Decides about an attempt (from 1) that has ended at `now_ms` with `answer`.
    pub fn decide(&self, attempt: u16, answer: &Answer, now_ms: u64, random: u64) -> Decision {
        let asked_ms = match answer {
            Answer::Status { code: 200..=299, .. } => return Decision::Delivered,
            Answer::Status { code: GONE, .. } => return Decision::Stop,
            Answer::Status {
                code: TOO_MANY_REQUESTS | SERVICE_UNAVAILABLE,
                retry_after_ms,
            } => retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX),
            Answer::Status { .. } | Answer::None { .. } => 0,
        };
        if attempt >= self.attempts_max {
            return Decision::Failed;
        }
        let delay_ms = self.delay_ms(attempt, random).max(asked_ms);
        Decision::Retry {
            at_ms: now_ms.saturating_add(delay_ms),
        }
    }

    /// Delay after the attempt: exponential, bounded, with the policy's part of it drawn at random.
    fn delay_ms(&self, attempt: u16, random: u64) -> u64 {
        let doublings = u32::from(attempt.saturating_sub(1));
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let full_ms = self.first_delay_ms.saturating_mul(factor).min(self.delay_max_ms);
        let jitter_ms = full_ms.saturating_mul(u64::from(self.jitter_percent.min(100))) / 100;
        full_ms - jitter_ms + random % (jitter_ms + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_000_000;

    fn status(code: u16) -> Answer {
        Answer::Status {
            code,
            retry_after_ms: None,
        }
    }

    #[test]
    fn answers_mean_what_the_wire_says() {
        let policy = RetryPolicy::default();
        let decide = |attempt, answer| policy.decide(attempt, &answer, NOW, 0);
        assert_eq!(decide(1, status(204)), Decision::Delivered);
        assert_eq!(decide(1, status(410)), Decision::Stop);
        assert_eq!(decide(3, status(410)), Decision::Stop);
        assert_eq!(decide(3, status(500)), Decision::Failed);
        assert_eq!(
            decide(
                3,
                Answer::None {
                    kind: NoAnswer::Timeout
                }
            ),
            Decision::Failed
        );
        for failure in [
            status(301),
            status(404),
            status(500),
            Answer::None { kind: NoAnswer::Reset },
        ] {
            assert_eq!(decide(1, failure), Decision::Retry { at_ms: NOW + 4_000 });
            assert_eq!(decide(2, failure), Decision::Retry { at_ms: NOW + 8_000 });
        }
    }

    #[test]
    fn retry_after_is_honoured_within_a_bound() {
        let policy = RetryPolicy::default();
        let busy = |code, retry_after_ms| Answer::Status {
            code,
            retry_after_ms: Some(retry_after_ms),
        };
        let decide = |answer| policy.decide(1, &answer, NOW, 0);
        assert_eq!(decide(busy(429, 60_000)), Decision::Retry { at_ms: NOW + 60_000 });
        assert_eq!(
            decide(busy(503, u64::MAX)),
            Decision::Retry {
                at_ms: NOW + RETRY_AFTER_MS_MAX
            }
        );
        assert_eq!(
            decide(busy(503, 1)),
            Decision::Retry { at_ms: NOW + 4_000 },
            "never sooner than the policy"
        );
        assert_eq!(
            decide(busy(500, 60_000)),
            Decision::Retry { at_ms: NOW + 4_000 },
            "only where it has a meaning"
        );
        assert_eq!(
            policy.decide(3, &busy(429, 1), NOW, 0),
            Decision::Failed,
            "attempts still count"
        );
    }

    proptest! {
        #[test]
        fn a_delay_is_bounded_and_never_negative(
            attempt in 1..u16::MAX, random: u64, first in 1..=DELAY_MS_MAX, max in 1..=DELAY_MS_MAX,
            jitter in 0..=100_u8, now in 0..u64::MAX,
        ) {
            let policy = RetryPolicy {
                attempts_max: u16::MAX, first_delay_ms: first, delay_max_ms: max, jitter_percent: jitter,
            };
            let Decision::Retry { at_ms } = policy.decide(attempt, &status(500), now, random) else {
                return Err(TestCaseError::fail("not used up yet"));
            };
            prop_assert!(at_ms >= now);
            prop_assert!(at_ms - now <= max);
        }

        #[test]
        fn without_jitter_delays_do_not_shrink(attempt in 1..1_000_u16) {
            let policy = RetryPolicy { attempts_max: u16::MAX, jitter_percent: 0, ..RetryPolicy::default() };
            prop_assert!(policy.delay_ms(attempt, 0) <= policy.delay_ms(attempt + 1, 0));
        }
    }
}
