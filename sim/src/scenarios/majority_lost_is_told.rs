//! Two of three nodes are lost, then come back: the one that is left says that it serves nobody, and all are ready again by
//! themselves afterwards.

use crate::history::Told;
use crate::stage::{Act, Stage, once};

/// Far longer than a node that has lost its majority may call itself ready, in milliseconds.
const TOLD_MS: u64 = 25_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    for round in 0..2 {
        let mut client = stage.client(round, 0);
        let id = format!("waits-{round}");
        let second = stage.now_secs() + 10;
        let told = client.create_surely(once(&*id, second, "http://ok.test/")).await;
        stage.demand(told == Told::Done, "three nodes serve");
        for node in 0..3 {
            stage.demand_ready(node).await;
        }
        let left = stage.leader_of(&id).await;
        for lost in stage.others(left) {
            stage.breaks(Some(lost), "Kill");
            stage.act([Act::Kill(lost), Act::LosePower(lost)][round % 2].clone()).await;
        }
        stage.sleep_ms(TOLD_MS).await;
        let reason = stage.not_ready(left).await;
        let is_told = reason.as_ref().is_some_and(|reason| reason.contains("no leader for"));
        stage.demand(is_told, &format!("the node that is left tells why it is not ready: {reason:?}"));
        let picture = stage.picture(left).await.unwrap_or_default();
        let problems = picture["problems"].to_string();
        stage.demand(problems.contains("no leader for"), &format!("so does the cluster: {problems}"));
        for lost in stage.others(left) {
            stage.restart(lost).await;
        }
        for node in 0..3 {
            stage.ready(node).await;
        }
        stage.fixed(3_000);
        stage.sleep_ms(8_000).await;
        stage.demand(stage.attempts(&id).len() == 1, "what was due meanwhile fires afterwards");
    }
    stage.recover(20_000).await;
}
