//! A node loses its disk under load and comes back with an empty one: as a new node, which is given copies, and votes only with
//! what it was given.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};
use crate::world::Options;

/// The world: dead nodes are replaced soon.
pub(super) fn options(seed: u64) -> Options {
    let mut options = Options::calm(seed, 3);
    options.config.replace_after_secs = 10;
    options
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 4,
        calls: 120,
        pause_ms_max: 700,
        delay_secs_max: 20,
        bad_targets_permille: 100,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        stage.sleep_ms(3_000).await;
        let node = stage.dice("wiped").index(3);
        let before = stage.nodes()[node].node_id;
        let asks = stage.others(node)[0];
        stage.breaks(Some(node), "Wipe");
        stage.act(Act::Wipe(node)).await;
        stage.sleep_ms(1_000).await;
        stage.restart_as_new(node).await;
        stage.ready(node).await;
        let after = stage.nodes()[node].node_id;
        stage.demand(after.is_some() && after != before, "an empty disk makes a new node");
        let missing = || (0..stage.options.groups).find(|group| !stage.holds(node, *group));
        for _ in 0..60 {
            if missing().is_none() {
                break;
            }
            stage.sleep_ms(1_000).await;
        }
        stage.until_planned(asks, 3, 3).await;
        let missing = missing();
        stage.demand(missing.is_none(), &format!("it has every copy again, but {missing:?}"));
    })
    .await;
    stage.recover(25_000).await;
}
