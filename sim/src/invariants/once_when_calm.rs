//! I3: with no fault around a fire there is one attempt, and another only after one that failed.

use super::facts::{Run, broken, due, is_heard_2xx, tell};
use crate::history::{Attempt, Violation, true_us};

/// The invariant.
pub const NAME: &str = "I3 once when calm";

/// How long after a fault a fire may still feel it.
const SETTLE_US: u64 = 5_000_000;

/// Judges every fire that no fault touched.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for facts in run.tasks.values() {
        for ((due_ms, _), attempts) in facts.fires() {
            let from_us = true_us(due_ms).min(attempts[0].at_us).saturating_sub(SETTLE_US);
            let to_us = attempts.iter().map(|attempt| run.end_of(attempt)).max();
            if !run.is_calm(from_us, to_us.unwrap_or(from_us)) {
                continue;
            }
            let what = wrong(&attempts).map(|what| format!("{}, without a fault: {what}", due(due_ms)));
            found.extend(what.map(|what| broken(NAME, facts.id, what)));
        }
    }
    found
}

fn wrong(attempts: &[&Attempt]) -> Option<String> {
    if attempts[0].attempt != 1 {
        return Some(format!("the first is not number 1: {}", tell(attempts[0])));
    }
    attempts.windows(2).find_map(|pair| {
        let both = || format!("{}, then {}", tell(pair[0]), tell(pair[1]));
        if is_heard_2xx(pair[0]) {
            Some(format!("repeated after 2xx: {}", both()))
        } else if pair[1].attempt != pair[0].attempt + 1 {
            Some(format!("numbers are not in a row: {}", both()))
        } else {
            None
        }
    })
}
