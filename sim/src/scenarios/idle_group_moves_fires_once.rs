//! An idle cluster with one task. Its leadership moves, because its leader dies, stops in order or loses its power; long after
//! that the task is due: it fires, once, in time (story 11 of faults.md).

use crate::history::true_us;
use crate::stage::{Act, Stage, once};

/// How late a fire of an idle cluster may be, in microseconds.
const LATE_US: u64 = 50_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    for round in 0..3 {
        let id = format!("idle-{round}");
        let mut client = stage.client(round, round % 3);
        let second = stage.now_secs() + 45;
        client.create_surely(once(&*id, second, "http://ok.test/")).await;
        stage.sleep_ms(5_000).await;
        let leader = stage.leader_of(&id).await;
        match round {
            0 => {
                stage.breaks(Some(leader), "Kill");
                stage.act(Act::Kill(leader)).await;
            }
            1 => stage.stop(leader).await,
            _ => {
                stage.breaks(Some(leader), "Power");
                stage.act(Act::LosePower(leader)).await;
            }
        }
        stage.sleep_ms(6_000).await;
        let moved = stage.leader_of(&id).await;
        stage.demand(moved != leader, "leadership has moved");
        if round == 2 {
            stage.restart(leader).await;
        }
        stage.fixed(0);
        let due_us = true_us(second * 1_000);
        stage.sleep_ms((due_us - stage.now_us()) / 1_000 + 5_000).await;
        let attempts = stage.attempts(&id);
        let is_once = attempts.len() == 1 && (due_us..due_us + LATE_US).contains(&(attempts[0].at_us + 2_000));
        stage.demand(is_once, &format!("it fires once, in time, {due_us} us: {attempts:?}"));
        stage.restart(leader).await;
        stage.ready(leader).await;
        stage.sleep_ms(10_000).await;
    }
    stage.recover(5_000).await;
}
