//! Every node is stopped in order and started again, under load, twice. That is no fault: no fire is late, none is repeated.

use futures_util::future::join3;

use crate::stage::{Stage, once};
use crate::workload::{self, Load};

/// Tasks whose targets take their time: some are in flight whenever a node stops.
const LATE: usize = 160;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 4,
        calls: 250,
        pause_ms_max: 400,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    let late = async {
        let mut client = stage.client(30, 0);
        for number in 0..LATE {
            client.turn_to(number % 3);
            let (id, second) = (format!("late-{number}"), stage.now_secs() + 2);
            client.create_surely(once(id, second, "http://late.test/")).await;
            stage.sleep_ms(250).await;
        }
    };
    join3(late, workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("restarts");
        for node in [0, 1, 2, 0, 1, 2] {
            stage.sleep_ms(dice.within(2_000..5_000)).await;
            stage.stop(node).await;
            stage.sleep_ms(dice.within(0..2_000)).await;
            stage.restart(node).await;
            stage.ready(node).await;
        }
    })
    .await;
    let fired = stage.recorder.lock().attempts.len();
    stage.demand(fired > 100, "tasks fired meanwhile");
    stage.recover(25_000).await;
}
