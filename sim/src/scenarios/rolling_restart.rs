//! Every node is stopped in order and started again, under load, twice. That is no fault: no fire is late, none is repeated.

use futures_util::future::join;

use crate::stage::Stage;
use crate::workload::{self, Load};

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 4,
        calls: 250,
        pause_ms_max: 400,
        delay_secs_max: 20,
        bad_targets_permille: 0,
    };
    join(workload::run(&stage, load, "w", 0), async {
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
