//! Targets take seconds to accept, or never do; tasks are deleted or updated meanwhile. No request of what they were leaves after the
//! answer, and what nobody touched is delivered.

use futures_util::future::join_all;

use crate::history::{Task, Told};
use crate::stage::{Stage, once};

/// Clients, and the tasks of each.
const CLIENTS: usize = 4;
const TASKS: usize = 24;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let clients = (0..CLIENTS).map(|number| {
        let stage = stage.clone();
        async move {
            let mut dice = stage.dice(&format!("changes {number}"));
            let mut client = stage.client(number, number % 3);
            let mut stopped = 0;
            for task in 0..TASKS {
                let id = format!("c{number}-{task}");
                let created = Task {
                    at_most_once: dice.chance(300),
                    ..once(id.clone(), stage.now_secs() + 2, "http://accept.test/")
                };
                client.create_surely(created.clone()).await;
                stage.sleep_ms(dice.within(1_000..4_500)).await;
                let told = match dice.within(0..3) {
                    0 => client.delete(&id).await,
                    1 => {
                        let when = once("", stage.now_secs() + 3, "").when;
                        let body = format!("{{\"again\":{task}}}");
                        client.update(Task { when, body, ..created }, None).await
                    }
                    _ => continue,
                };
                stopped += usize::from(told == Told::Done);
            }
            stopped
        }
    });
    let stopped: usize = join_all(clients).await.into_iter().sum();
    stage.demand(stopped > CLIENTS * TASKS / 4, "tasks were deleted and updated");
    let withdrawn = stage.recorder.lock().withdrawn;
    stage.demand(withdrawn > 0, "requests were withdrawn after they had connected");
    stage.recover(25_000).await;
}
