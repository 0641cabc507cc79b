//! A target that never answers in time is given hundreds of tasks, others a few: none of the others is late.

use futures_util::future::join_all;

use crate::history::{Told, true_us};
use crate::stage::{Stage, once};

/// Tasks of the target that hangs: more than may be in flight to one target.
const HANGING: usize = 600;
/// Tasks of others.
const OTHERS: usize = 200;
/// The most that 99 of 100 of the others may be late, in microseconds, and all.
const P99_US: u64 = 30_000;
const MOST_US: u64 = 200_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let second = stage.now_secs() + 10;
    let clients = (0..20).map(|number| {
        let stage = stage.clone();
        async move {
            let mut client = stage.client(number, number % 3);
            for task in (number..HANGING).step_by(20) {
                let task = once(format!("hang-{task}"), second + task as u64 % 2, "http://hang.test/");
                stage.demand(client.create(task).await == Told::Done, "a task is created");
            }
            for task in (number..OTHERS).step_by(20) {
                let (after, url) = (task as u64 % 20, format!("http://ok{}.test/", task % 7));
                let task = once(format!("other-{task}"), second + 1 + after, &url);
                stage.demand(client.create(task).await == Told::Done, "a task is created");
            }
        }
    });
    join_all(clients).await;
    stage.sleep_ms(40_000).await;
    let (mut late_us, most) = {
        let history = stage.recorder.lock();
        let others = history.attempts.iter().filter(|attempt| attempt.task.starts_with("other"));
        let late = others.map(|attempt| attempt.at_us.saturating_sub(true_us(attempt.due_ms)));
        let hanging = history.attempts.iter().filter(|attempt| attempt.task.starts_with("hang"));
        let mut at_once: Vec<(u64, i64)> = hanging
            .flat_map(|attempt| [(attempt.at_us, 1), (attempt.ended_us.unwrap_or(u64::MAX), -1)])
            .collect();
        at_once.sort_unstable();
        let mut now = 0;
        let most = at_once.iter().map(|(_, change)| {
            now += change;
            now
        });
        (late.collect::<Vec<u64>>(), most.max().unwrap_or(0))
    };
    late_us.sort_unstable();
    stage.demand(late_us.len() == OTHERS, &format!("the others fire once each: {}", late_us.len()));
    let p99 = late_us.get(late_us.len() * 99 / 100).copied().unwrap_or(u64::MAX);
    stage.describe(format!("late: p99 {p99} us, most {:?}, {most} hang at once", late_us.last()));
    stage.demand(most > 200, &format!("the slow target is loaded: {most}"));
    stage.demand(p99 < P99_US, &format!("99 of 100 are in time: {p99} us"));
    stage.demand(late_us.last().is_some_and(|late| *late < MOST_US), &format!("none is late: {:?}", late_us.last()));
    stage.fixed(0);
    stage.sleep_ms(80_000).await;
}
