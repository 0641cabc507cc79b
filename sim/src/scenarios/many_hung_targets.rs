//! A dozen targets hang, with more dues than fit into all windows and more than there are places; others are in time, also
//! tasks that are moved away from where they wait.

use futures_util::future::join_all;
use xcron::config::Config;

use crate::history::{Told, true_us};
use crate::stage::{Stage, once};
use crate::world::Options;

/// Targets that hang, and tasks of each: four groups hold 64 entries each in memory.
const HUNG: usize = 12;
const OF_EACH: usize = 60;
/// Tasks of others.
const OTHERS: usize = 200;
/// Tasks that are moved away.
const MOVED: usize = 40;
/// Clients.
const CLIENTS: usize = 20;
/// The most that 99 of 100 of the others may be late, in microseconds, and all.
const P99_US: u64 = 100_000;
const MOST_US: u64 = 500_000;

/// The world: windows and places are few.
pub(super) fn options(seed: u64) -> Options {
    let mut config = Config::default();
    config.fire.window_tasks_max = 256;
    config.fire.in_flight_max = 64;
    config.fire.in_flight_per_target_max = 64;
    Options {
        config,
        ..Options::calm(seed, 3)
    }
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let second = stage.now_secs() + 10;
    let clients = (0..CLIENTS).map(|number| {
        let stage = stage.clone();
        async move {
            let mut client = stage.client(number, number % 3);
            for task in (number..HUNG * OF_EACH).step_by(CLIENTS) {
                let url = format!("http://hang{}.test/", task % HUNG);
                let task = once(format!("hang-{task}"), second, &url);
                stage.demand(client.create(task).await == Told::Done, "a task is created");
            }
            for task in (number..OTHERS).step_by(CLIENTS) {
                let (after, url) = (task as u64 % 10, format!("http://ok{}.test/", task % 7));
                let task = once(format!("other-{task}"), second + 3 + after, &url);
                stage.demand(client.create(task).await == Told::Done, "a task is created");
            }
        }
    });
    join_all(clients).await;
    stage.sleep_ms((true_us(second * 1_000) - stage.now_us().min(true_us(second * 1_000))) / 1_000 + 1_000).await;
    // What has not begun by now waits for its target's turn.
    let mut client = stage.client(CLIENTS, 0);
    let mut moved = 0;
    for task in 0..HUNG * OF_EACH {
        let id = format!("hang-{task}");
        if moved < MOVED && stage.attempts(&id).is_empty() {
            let task = once(id, second + 6 + moved as u64 % 5, "http://ok9.test/");
            stage.demand(client.update(task, None).await == Told::Done, "a task is updated");
            moved += 1;
        }
    }
    stage.demand(moved == MOVED, &format!("tasks wait: {moved}"));
    stage.sleep_ms(30_000).await;
    let mut late_us: Vec<u64> = {
        let history = stage.recorder.lock();
        let others = history.attempts.iter().filter(|attempt| attempt.url.starts_with("http://ok"));
        others.map(|attempt| attempt.at_us.saturating_sub(true_us(attempt.due_ms))).collect()
    };
    late_us.sort_unstable();
    let p99 = late_us.get(late_us.len() * 99 / 100).copied().unwrap_or(u64::MAX);
    stage.describe(format!("late: p99 {p99} us, most {:?}", late_us.last()));
    stage.demand(late_us.len() == OTHERS + MOVED, &format!("the others fire once each: {}", late_us.len()));
    stage.demand(p99 < P99_US, &format!("99 of 100 are in time: {p99} us"));
    stage.demand(late_us.last().is_some_and(|late| *late < MOST_US), &format!("none is late: {:?}", late_us.last()));
    stage.fixed(0);
    stage.sleep_ms(30_000).await;
}
