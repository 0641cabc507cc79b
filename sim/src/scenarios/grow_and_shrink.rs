//! A node becomes two and three under load, and one again, by draining; which ones go is in the dice. At two nodes one votes for all
//! and nothing depends on the other; at the end the last one has everything.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

/// How long a node may take to leave, in milliseconds.
const LEAVES_MS: u64 = 60_000;

pub(super) async fn play(stage: Stage) {
    stage.found(1).await;
    let load = Load {
        clients: 3,
        calls: 160,
        pause_ms_max: 900,
        delay_secs_max: 25,
        bad_targets_permille: 0,
        ..Load::default()
    };
    stage.breaks(None, "Growth");
    let mut last = 0;
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("sizes");
        stage.act(Act::Start { node: 1, join: vec![0] }).await;
        stage.ready(1).await;
        stage.until_planned(0, 1, 2).await;
        stage.demand(leads_all(&stage, 0), "nothing depends on the second node");
        lose_the_second(&stage, dice.within(200..8_000)).await;
        stage.act(Act::Start { node: 2, join: vec![0, 1] }).await;
        stage.ready(2).await;
        stage.until_planned(1, 3, 3).await;
        stage.sleep_ms(dice.within(0..5_000)).await;
        let mut order = vec![0, 1, 2];
        dice.shuffle(&mut order);
        last = order[2];
        leave(&stage, order[0], order[1]).await;
        stage.until_planned(order[1], 1, 2).await;
        stage.sleep_ms(dice.within(0..5_000)).await;
        leave(&stage, order[1], order[2]).await;
        stage.until_planned(last, 1, 1).await;
        stage.demand(leads_all(&stage, last), "the last node has everything");
        let (_, unknown) = stage.told();
        stage.describe(format!("node {last} is left; {unknown} calls of unknown outcome"));
    })
    .await;
    stage.fixed(0);
    stage.sleep_ms(25_000).await;
    stage.look_at(&[last]).await;
}

fn leads_all(stage: &Stage, node: usize) -> bool {
    (0..stage.options.groups).all(|group| stage.leader(group) == Some(node))
}

/// It only holds copies: without it all goes on.
async fn lose_the_second(stage: &Stage, away_ms: u64) {
    let generations = |stage: &Stage| -> Vec<_> { (0..stage.options.groups).map(|group| stage.generation(group)).collect() };
    let before = generations(stage);
    stage.act(Act::Kill(1)).await;
    stage.sleep_ms(away_ms).await;
    stage.restart(1).await;
    stage.ready(1).await;
    stage.demand(generations(stage) == before, "no group has noticed that the second node was away");
}

async fn leave(stage: &Stage, goes: usize, through: usize) {
    stage.demand(stage.drain(goes, through).await, "the drain was accepted");
    let has_ended = stage
        .until_or("the drained node to end", LEAVES_MS, |shown| !shown[goes].is_running)
        .await;
    let ended = stage.nodes()[goes].ended.clone();
    stage.demand(
        has_ended && ended == Some(Ok(())),
        &format!("node {goes} leaves by itself, in order: {ended:?}"),
    );
}
