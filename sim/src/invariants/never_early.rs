//! I2: no attempt begins before its due, by the clock of the node that makes it, nor in true time by more than that clock's
//! error.

use super::facts::{Run, broken, due, ms, tell, wall_ms};
use crate::history::Violation;

/// The invariant.
pub const NAME: &str = "I2 never early";

/// Times in the history are those of the beginning of a step of the world.
const STEP_MS: u64 = 2;

/// Judges every attempt.
pub fn check(run: &Run<'_>) -> Vec<Violation> {
    let skew_ms = run.history.skew_ms_max;
    let mut found = Vec::new();
    for attempt in &run.history.attempts {
        let what = if attempt.node_wall_ms < attempt.due_ms {
            format!("the node's clock showed {}", attempt.node_wall_ms)
        } else if wall_ms(attempt.at_us) + STEP_MS + skew_ms < attempt.due_ms {
            format!(
                "it began at {}, and no clock is wrong by more than {skew_ms} ms",
                ms(attempt.at_us)
            )
        } else {
            continue;
        };
        let what = format!("before {}: {what}: {}", due(attempt.due_ms), tell(attempt));
        found.push(broken(NAME, &attempt.task, what));
    }
    found
}
