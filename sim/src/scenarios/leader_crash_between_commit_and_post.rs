//! A leader dies at the moment of its request, which nobody sees, and after its request, whose answer nobody hears: its successor
//! fires, with the same name.

use crate::history::Told;
use crate::stage::{Stage, once};
use crate::targets::Trap;

/// How late a fire may be whose leader has died, in milliseconds.
const FAILOVER_MS: u64 = 5_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    for round in 0..6 {
        let trap = [Trap::BeforeRequest, Trap::BeforeAnswer][round % 2];
        crash(&stage, round, trap).await;
    }
    stage.recover(20_000).await;
}

async fn crash(stage: &Stage, round: usize, trap: Trap) {
    let mut client = stage.client(round, round % 3);
    let (id, name) = (format!("crash-{round}"), format!("trap{round}"));
    let second = stage.now_secs() + 2;
    let told = client.create_surely(once(&*id, second, &format!("http://{name}.test/"))).await;
    stage.demand(told == Told::Done, "the task was created");
    let leader = stage.leader_of(&id).await;
    stage.breaks(Some(leader), "Crash");
    stage.targets.set_trap(&name, trap);
    let is_dead = stage
        .until_or("the leader to die", 4_000, |shown| !shown[leader].is_running)
        .await;
    stage.demand(is_dead, "the leader died at the moment of its request");
    let before = stage.attempts(&id).len();
    stage.sleep_ms(FAILOVER_MS).await;
    let attempts = stage.attempts(&id);
    let expected = usize::from(trap == Trap::BeforeAnswer);
    stage.demand(before == expected, "the target saw what the dead leader had sent, and no more");
    stage.demand(
        attempts.len() == expected + 1,
        &format!("its successor fires once, within {FAILOVER_MS} ms: {attempts:?}"),
    );
    stage.demand(
        attempts.iter().all(|attempt| attempt.fire_id == attempts[0].fire_id)
            && attempts.iter().skip(expected).all(|attempt| attempt.node != leader),
        "another node repeats it by the same name",
    );
    stage.restart(leader).await;
    stage.ready(leader).await;
    stage.fixed(5_000);
    stage.sleep_ms(6_000).await;
}
