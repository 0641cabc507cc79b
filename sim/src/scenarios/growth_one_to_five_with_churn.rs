//! A node that is alone becomes five under load. Some are killed meanwhile, also in the middle of their first moves.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

pub(super) async fn play(stage: Stage) {
    stage.found(1).await;
    let load = Load {
        clients: 4,
        calls: 60,
        pause_ms_max: 1_500,
        delay_secs_max: 30,
        bad_targets_permille: 100,
        ..Load::default()
    };
    stage.breaks(None, "Growth");
    join(workload::run(&stage, load, "w", 0), grow(&stage)).await;
    stage.recover(30_000).await;
    stage.until_planned(0, 3, 3).await;
    let picture = stage.picture(0).await.unwrap_or_default();
    let nodes = picture["nodes"].as_array().cloned().unwrap_or_default();
    let holding = nodes.iter().filter(|node| node["replicas"].as_u64() > Some(0)).count();
    stage.demand(holding == 5, &format!("five nodes hold copies: {nodes:?}"));
}

async fn grow(stage: &Stage) {
    let mut dice = stage.dice("churn");
    let mut kills = 0;
    for node in 1..5 {
        let join = (0..node).collect();
        stage.act(Act::Start { node, join }).await;
        if dice.chance(500) {
            stage.ready(node).await;
        }
        for _ in 0..2 {
            stage.sleep_ms(dice.within(100..6_000)).await;
            let victim = dice.index(node + 1);
            if !stage.nodes()[victim].is_running {
                continue;
            }
            kills += 1;
            let how = [Act::Kill(victim), Act::LosePower(victim)];
            stage.act(how[dice.index(2)].clone()).await;
            stage.sleep_ms(dice.within(50..3_000)).await;
            let join = if victim == 0 { vec![] } else { vec![0, victim - 1] };
            stage.act(Act::Start { node: victim, join }).await;
        }
    }
    stage.demand(kills > 4, "nodes were killed while the cluster grew");
}
