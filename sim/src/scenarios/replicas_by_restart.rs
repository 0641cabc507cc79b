//! Five nodes with three copies are restarted one by one with `--replicas 5`, and back: the most that any node says counts. So voters
//! come with the first restart, and go with the last; meanwhile nothing flaps.

use futures_util::future::join;

use crate::stage::Stage;
use crate::stage::Act;
use crate::workload::{self, Load};

pub(super) async fn play(stage: Stage) {
    stage.found(5).await;
    stage.until_planned(0, 3, 3).await;
    let load = Load {
        clients: 2,
        calls: 150,
        pause_ms_max: 1_000,
        delay_secs_max: 25,
        bad_targets_permille: 0,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("order");
        for replicas in [5, 3] {
            let mut order = vec![0, 1, 2, 3, 4];
            dice.shuffle(&mut order);
            for (done, node) in order.iter().enumerate() {
                stage.act(Act::Replicas(*node, replicas)).await;
                stage.stop(*node).await;
                stage.sleep_ms(dice.within(0..2_000)).await;
                stage.restart(*node).await;
                stage.ready(*node).await;
                stage.sleep_ms(dice.within(500..4_000)).await;
                if done + 1 < order.len() && dice.chance(300) {
                    stage.until_planned(0, 5, 5).await;
                }
            }
            let copies = usize::from(replicas);
            stage.until_planned(0, copies, copies).await;
        }
    })
    .await;
    stage.recover(25_000).await;
}
