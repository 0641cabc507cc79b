//! Tasks that are delivered at most once, while their leader dies before its request and before the answer, loses its power, is
//! cut off, stands still, and hands over: no target sees a fire twice, and every due has an end that is told.

use crate::history::{Task, Told};
use crate::stage::{Act, Stage, once};
use crate::targets::Trap;

/// Tasks of each round, one for each target.
const TARGETS: [&str; 6] = ["ok", "late", "slow", "hang", "flaky", "broken"];
/// Faults, one after the other.
const FAULTS: [Trouble; 7] = [
    Trouble::None,
    Trouble::Trap(Trap::BeforeRequest),
    Trouble::Trap(Trap::BeforeAnswer),
    Trouble::Power,
    Trouble::CutOff,
    Trouble::Pause,
    Trouble::Restart,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Trap(Trap),
    Power,
    CutOff,
    Pause,
    Restart,
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut missed = 0;
    for (round, trouble) in FAULTS.into_iter().enumerate() {
        missed += one(&stage, round, trouble).await;
    }
    stage.demand(missed > 0, "a fire was given up, rather than made twice");
    stage.recover(30_000).await;
}

/// Fires some tasks in trouble; how many of them no target ever saw, or was not heard of.
async fn one(stage: &Stage, round: usize, trouble: Trouble) -> usize {
    let mut dice = stage.dice(&format!("round {round}"));
    let mut client = stage.client(round, round % 3);
    let ids = stage.ids_of_one_group(&format!("o{round}"), TARGETS.len());
    let second = stage.now_secs() + 3;
    for (id, target) in ids.iter().zip(TARGETS) {
        // The trap is for one of them.
        let is_trapped = matches!(trouble, Trouble::Trap(_)) && target == "ok";
        let host = if is_trapped { format!("trap{round}") } else { target.to_owned() };
        let task = Task {
            at_most_once: true,
            ..once(id.as_str(), second, &format!("http://{host}.test/"))
        };
        let told = client.create_surely(task).await;
        stage.demand(told == Told::Done, "the task was created");
    }
    let leader = stage.leader_of(&ids[0]).await;
    let due_ms = crate::history::true_us(second * 1_000) / 1_000;
    let until = |ms: u64| ms.saturating_sub(stage.now_us() / 1_000);
    match trouble {
        Trouble::None => {}
        Trouble::Trap(trap) => {
            stage.breaks(Some(leader), "Crash");
            stage.targets.set_trap(&format!("trap{round}"), trap);
            let is_dead = stage
                .until_or("the leader to die", 6_000, |shown| !shown[leader].is_running)
                .await;
            stage.demand(is_dead, "the leader died at the moment of its request");
        }
        Trouble::Power | Trouble::CutOff | Trouble::Pause => {
            // Around the claims, or around the answers.
            let around_ms = due_ms + dice.within(0..60);
            stage.sleep_ms(until(around_ms)).await;
            stage.breaks(Some(leader), format!("{trouble:?}"));
            match trouble {
                Trouble::Power => stage.act(Act::LosePower(leader)).await,
                Trouble::Pause => stage.act(Act::Pause(leader)).await,
                _ => stage.isolate(&[leader]),
            }
        }
        Trouble::Restart => {
            stage.sleep_ms(until(due_ms.saturating_sub(dice.within(0..200)))).await;
            stage.breaks(Some(leader), "Restart");
            stage.stop(leader).await;
        }
    }
    stage.sleep_ms(until(due_ms + 15_000)).await;
    stage.net.heal();
    stage.act(Act::Resume(leader)).await;
    stage.restart(leader).await;
    stage.ready(leader).await;
    stage.fixed(5_000);
    stage.sleep_ms(18_000).await;
    let mut missed = 0;
    for id in &ids {
        // One that found no connection has not begun, and is made again (decision 019).
        let mut attempts = stage.attempts(id);
        attempts.retain(|attempt| attempt.is_sent);
        stage.demand(attempts.len() <= 1, &format!("it is fired once at the most: {attempts:?}"));
        let is_quiet = trouble == Trouble::None;
        stage.demand(
            !is_quiet || attempts.len() == 1,
            &format!("without a fault it is fired: {attempts:?}"),
        );
        missed += usize::from(attempts.is_empty());
    }
    missed
}
