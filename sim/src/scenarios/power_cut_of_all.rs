//! All nodes lose their power in the same moment, in the middle of the load: what was acknowledged is there afterwards.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 6,
        calls: 150,
        pause_ms_max: 150,
        delay_secs_max: 20,
        bad_targets_permille: 100,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("power");
        for _ in 0..3 {
            stage.sleep_ms(dice.within(1_000..4_000)).await;
            stage.breaks(None, "PowerOfAll");
            stage.act_at_once((0..3).map(Act::LosePower)).await;
            stage.demand(
                stage.nodes().iter().all(|shown| !shown.is_running),
                "no node runs without power",
            );
            stage.sleep_ms(dice.within(20..2_000)).await;
            for node in 0..3 {
                stage.restart(node).await;
                stage.sleep_ms(dice.within(0..300)).await;
            }
            stage.rest(30_000).await;
        }
    })
    .await;
    stage.demand(stage.told().1 > 0, "calls were cut off by a power cut");
    stage.recover(30_000).await;
}
