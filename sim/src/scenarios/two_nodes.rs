//! Two nodes: the first votes for all, the second learns. Without the learner all goes on; without the voter nothing is lost, and it goes on when it
//! is back.

use crate::history::Told;
use crate::stage::{Act, Stage, once};

pub(super) async fn play(stage: Stage) {
    stage.found(2).await;
    stage.until_planned(0, 1, 2).await;
    for group in 0..stage.options.groups {
        let leader = stage.leader(group);
        stage.demand(leader == Some(0), &format!("nothing depends on the second node, but {leader:?} leads {group}"));
    }
    for round in 0..3 {
        lose_the_learner(&stage, round).await;
        lose_the_voter(&stage, round).await;
    }
    stage.recover(20_000).await;
}

async fn lose_the_learner(stage: &Stage, round: usize) {
    let mut client = stage.client(2 * round, 0);
    let id = format!("without-learner-{round}");
    let voter = stage.leader_of(&id).await;
    let learner = 1 - voter;
    stage.breaks(Some(learner), "Kill");
    stage.act([Act::Kill(learner), Act::LosePower(learner)][round % 2].clone()).await;
    client.turn_to(voter);
    let told = client.create(once(&*id, stage.now_secs() + 2, "http://ok.test/")).await;
    stage.demand(told == Told::Done, &format!("the voter of {id} serves alone: {told:?}"));
    stage.sleep_ms(4_000).await;
    stage.demand(stage.attempts(&id).len() == 1, "and fires");
    stage.restart(learner).await;
    stage.ready(learner).await;
    stage.fixed(3_000);
    stage.sleep_ms(6_000).await;
}

async fn lose_the_voter(stage: &Stage, round: usize) {
    let mut client = stage.client(2 * round + 1, 0);
    let id = format!("without-voter-{round}");
    let second = stage.now_secs() + 3;
    let told = client.create_surely(once(&*id, second, "http://ok.test/")).await;
    stage.demand(told == Told::Done, "both nodes serve");
    let voter = stage.leader_of(&id).await;
    stage.breaks(Some(voter), "Power");
    stage.act([Act::LosePower(voter), Act::Kill(voter)][round % 2].clone()).await;
    client.turn_to(1 - voter);
    let other = stage.ids_of_one_group(&id, 1).remove(0);
    let told = client.create(once(other, second + 60, "http://ok.test/")).await;
    stage.demand(stage.attempts(&id).is_empty(), "it was lost before the due");
    stage.describe(format!("without its voter, a create: {told:?}"));
    stage.sleep_ms(6_000).await;
    stage.demand(stage.attempts(&id).is_empty(), "a learner fires nothing");
    stage.restart(voter).await;
    stage.ready(voter).await;
    stage.fixed(3_000);
    stage.sleep_ms(6_000).await;
    stage.demand(stage.attempts(&id).len() == 1, "what was due meanwhile fires afterwards");
}
