//! Thousands of tasks are due in one second, at many targets: all fire once, and soon.

use futures_util::future::join_all;

use crate::history::{Told, true_us};
use crate::stage::{Stage, once};
use crate::world::Options;

/// Tasks, and those of every tenth seed, which takes two minutes of real time.
const TASKS: [usize; 2] = [6_000, 100_000];
const LARGE_EVERY: u64 = 10;
/// Clients that create them.
const CLIENTS: usize = 48;
/// Targets.
const TARGETS: usize = 40;
/// How long the last may take after the due, in microseconds.
const SPREAD_US: u64 = 5_000_000;

/// The world.
pub(super) fn options(seed: u64) -> Options {
    Options {
        groups: 8,
        ..Options::calm(seed, 3)
    }
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let tasks = TASKS[usize::from(stage.options.seed.is_multiple_of(LARGE_EVERY))];
    let second = stage.now_secs() + 60;
    let clients = (0..CLIENTS).map(|number| {
        let stage = stage.clone();
        async move {
            let mut client = stage.client(number, number % 3);
            let mut created = 0;
            for task in (number..tasks).step_by(CLIENTS) {
                let url = format!("http://ok{}.test/", task % TARGETS);
                let told = client.create(once(format!("herd-{task}"), second, &url)).await;
                created += usize::from(told == Told::Done);
            }
            created
        }
    });
    let created: usize = join_all(clients).await.into_iter().sum();
    let due_us = true_us(second * 1_000);
    stage.demand(created == tasks && stage.now_us() < due_us, "the herd was there before its time");
    stage.sleep_ms((due_us - stage.now_us().min(due_us)) / 1_000 + SPREAD_US / 1_000 + 2_000).await;
    let (fired, last_us) = {
        let history = stage.recorder.lock();
        let last = history.attempts.iter().map(|attempt| attempt.at_us).max();
        (history.attempts.len(), last.unwrap_or(u64::MAX))
    };
    stage.describe(format!("{fired} attempts, the last {} us after the due", last_us.saturating_sub(due_us)));
    stage.demand(fired == tasks, &format!("every task fired once: {fired}"));
    stage.demand(
        last_us < due_us + SPREAD_US,
        &format!("the last fires soon: {} us", last_us - due_us),
    );
    stage.fixed(0);
    stage.sleep_ms(3_000).await;
}
