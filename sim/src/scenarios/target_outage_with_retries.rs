//! Targets that cannot be reached when their tasks are due, and come back before the last retry; one that does not. A leader dies
//! between two attempts.

use crate::history::{Answered, Attempt};
use crate::stage::{Act, Stage, once};

/// Tasks of each kind.
const TASKS: u64 = 15;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut client = stage.client(0, 1);
    let second = stage.now_secs() + 3;
    stage.targets.set_outage("away", true);
    stage.targets.set_outage("lost", true);
    for number in 0..TASKS {
        for name in ["away", "lost", "busy", "broken"] {
            let task = once(format!("{name}-{number}"), second + number % 3, &format!("http://{name}.test/"));
            client.create_surely(task).await;
        }
    }
    stage.sleep_ms(7_000).await;
    // Between the first and the second attempt, or the second and the third.
    let dies = stage.leader_of("away-0").await;
    stage.breaks(Some(dies), "Kill");
    stage.act(Act::Kill(dies)).await;
    stage.sleep_ms(1_000).await;
    stage.targets.set_outage("away", false);
    stage.sleep_ms(2_000).await;
    stage.restart(dies).await;
    stage.ready(dies).await;
    stage.sleep_ms(60_000).await;
    let most = usize::from(stage.options.config.retry.attempts_max);
    let is_ok = |attempt: &Attempt| attempt.answered == Answered::Status(200);
    for number in 0..TASKS {
        for name in ["away", "busy"] {
            let attempts = stage.attempts(&format!("{name}-{number}"));
            let is_delivered = attempts.len() > 1 && attempts.last().is_some_and(is_ok);
            stage.demand(is_delivered, &format!("a retry reaches the target: {attempts:?}"));
        }
        for name in ["lost", "broken"] {
            let attempts = stage.attempts(&format!("{name}-{number}"));
            let numbers: std::collections::BTreeSet<_> = attempts.iter().map(|attempt| attempt.attempt).collect();
            stage.demand(
                numbers.len() == most && !attempts.iter().any(is_ok),
                &format!("{most} attempts are made, and no more: {attempts:?}"),
            );
        }
    }
    stage.targets.set_outage("lost", false);
    stage.recover(20_000).await;
}
