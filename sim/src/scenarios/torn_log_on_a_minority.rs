//! One node's power is cut in the middle of a write, again and again, each time another node: it finds the torn end of its log,
//! and goes on.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

/// Cuts.
const CUTS: usize = 12;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 5,
        calls: 250,
        pause_ms_max: 400,
        delay_secs_max: 15,
        bad_targets_permille: 100,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("cuts");
        for _ in 0..CUTS {
            let node = dice.index(3);
            stage.breaks(Some(node), "CutInWrite");
            stage.act(Act::CutAfter(node, dice.within(1..60))).await;
            let is_cut = stage
                .until_or("a node to be cut off", 20_000, |shown| !shown[node].is_running)
                .await;
            stage.demand(is_cut, "the power was cut in the middle of a write");
            stage.sleep_ms(dice.within(10..1_000)).await;
            stage.restart(node).await;
            let is_back = stage.until_or("a node to serve again", 20_000, |shown| shown[node].is_ready);
            stage.demand(is_back.await, "a torn end keeps no node from starting");
        }
    })
    .await;
    stage.recover(25_000).await;
}
