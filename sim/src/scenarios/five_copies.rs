//! Five copies wanted, at one, two, four and five nodes, with one of them lost now and then: at two nodes one votes, at four three
//! vote and one learns, and takes the place of a voter that is gone for good.

use futures_util::future::join;

use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

/// Copies wanted.
const REPLICAS: u8 = 5;
/// After this time a dead node's place is taken, in milliseconds: the usual setting.
const REPLACED_MS: u64 = 310_000;

pub(super) async fn play(stage: Stage) {
    for node in 0..stage.options.nodes {
        stage.act(Act::Replicas(node, REPLICAS)).await;
    }
    stage.found(2).await;
    stage.until_planned(0, 1, 2).await;
    let load = Load {
        clients: 2,
        calls: 60,
        pause_ms_max: 1_000,
        delay_secs_max: 25,
        bad_targets_permille: 0,
        ..Load::default()
    };
    stage.breaks(None, "Growth");
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("sizes");
        for node in [2, 3] {
            stage.act(Act::Start { node, join: vec![0, 1] }).await;
            stage.sleep_ms(dice.within(0..4_000)).await;
        }
        for node in [2, 3] {
            stage.ready(node).await;
        }
        stage.until_planned(0, 3, 4).await;
        let gone = dice.index(4);
        stage.act(Act::Kill(gone)).await;
        stage.sleep_ms(REPLACED_MS).await;
        let rest: Vec<usize> = (0..4).filter(|node| *node != gone).collect();
        // The learner votes in its place.
        stage.until_planned(rest[0], 3, 4).await;
        let left = |stage: &Stage| (0..stage.options.groups).all(|group| stage.leader(group).is_some_and(|node| node != gone));
        stage.demand(left(&stage), "the others lead everything");
        let voters = stage.voters_of(rest[0]).await;
        let gone_id = stage.nodes()[gone].node_id.map(|id| format!("{id:016x}"));
        let is_replaced = voters.iter().all(|voters| gone_id.as_ref().is_some_and(|id| !voters.contains(id)));
        stage.demand(is_replaced, &format!("the learner has taken the place of {gone_id:?}: {voters:?}"));
        stage.restart(gone).await;
        stage.ready(gone).await;
        stage.act(Act::Start { node: 4, join: vec![0, 1, 2, 3] }).await;
        stage.ready(4).await;
        stage.until_planned(0, 5, 5).await;
    })
    .await;
    stage.recover(25_000).await;
}
