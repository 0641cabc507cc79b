//! Lines of the log that would repeat themselves: one for each subject in a while, with the number of those that were left out.
//!
//! Pure bookkeeping, bounded. Used by the dispatcher for fires that fail and for attempts that this node had no means to make.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// A subject has at most one line in this time, in milliseconds.
const PAUSE_MS: u64 = 10_000;
/// Subjects that are remembered; beyond, new ones have no line until others were quiet for a while.
const SUBJECTS_MAX: usize = 1_024;

/// When each subject had its last line.
#[derive(Debug)]
pub(super) struct Throttle<K>(Mutex<HashMap<K, Line>>);

#[derive(Debug)]
struct Line {
    at_ms: u64,
    left_out: u64,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Whether to write a line about the subject at this time of the monotonic clock, and how many were left out since its last.
    pub(super) fn admit(&self, subject: K, now_ms: u64) -> Option<u64> {
        let mut lines = self.0.lock();
        if let Some(line) = lines.get_mut(&subject) {
            if now_ms < line.at_ms + PAUSE_MS {
                line.left_out += 1;
                return None;
            }
            line.at_ms = now_ms;
            return Some(std::mem::take(&mut line.left_out));
        }
        if lines.len() >= SUBJECTS_MAX {
            lines.retain(|_, line| now_ms < line.at_ms + PAUSE_MS);
        }
        if lines.len() >= SUBJECTS_MAX {
            return None;
        }
        let line = Line {
            at_ms: now_ms,
            left_out: 0,
        };
        lines.insert(subject, line);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_line_in_a_while_and_tells_what_was_left_out() {
        let throttle = Throttle::default();
        assert_eq!(throttle.admit("a", 5), Some(0));
        assert_eq!(throttle.admit("a", 5), None);
        assert_eq!(throttle.admit("a", 4 + PAUSE_MS), None);
        assert_eq!(
            throttle.admit("b", 4 + PAUSE_MS),
            Some(0),
            "another's silence is not its own"
        );
        assert_eq!(throttle.admit("a", 5 + PAUSE_MS), Some(2));
        assert_eq!(throttle.admit("a", 5 + 2 * PAUSE_MS), Some(0));
    }

    #[test]
    fn subjects_are_bounded_and_quiet_ones_make_room() {
        let throttle = Throttle::default();
        assert!((0..SUBJECTS_MAX).all(|n| throttle.admit(n, 0).is_some()));
        assert_eq!(throttle.admit(SUBJECTS_MAX, 1), None);
        assert_eq!(throttle.admit(SUBJECTS_MAX, PAUSE_MS), Some(0));
    }
}
