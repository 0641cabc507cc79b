//! A leader is cut off from the other nodes but not from its targets. The majority acknowledges updates around the dues: from
//! then on the old leader must not fire what the tasks were, though it cannot know, and the majority fires what they are.

use futures_util::future::join_all;

use crate::history::{START_WALL_MS, Task, Told, When, true_us};
use crate::stage::{Client, Stage, once};

/// Times that a leader is cut off.
const ROUNDS: usize = 8;
/// Tasks each time.
const TASKS: usize = 6;
/// An update this near to its due, in microseconds, is a race.
const NEAR_US: u64 = 1_000_000;

#[derive(Default)]
struct Seen {
    /// Updates that were acknowledged around the old due, while the old leader was cut off.
    races: usize,
    /// Fires of a leader that was cut off.
    lonely: usize,
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut clients: Vec<Client> = (0..TASKS).map(|number| stage.client(number, number % 3)).collect();
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        cut_off(&stage, &mut clients, round, &mut seen).await;
    }
    stage.describe(format!("{} races, {} fires of a lonely leader", seen.races, seen.lonely));
    stage.demand(seen.races > 0, "updates were acknowledged around their dues by the majority");
    stage.demand(seen.lonely > 0, "a leader that was cut off has fired");
    stage.recover(20_000).await;
}

async fn cut_off(stage: &Stage, clients: &mut [Client], round: usize, seen: &mut Seen) {
    let mut dice = stage.dice(&format!("round {round}"));
    let ids = stage.ids_of_one_group(&format!("r{round}"), TASKS);
    let second = stage.now_secs() + 4;
    let due = |number: usize| second + number as u64 / 2;
    let creates = clients.iter_mut().zip(&ids).enumerate().map(|(number, (client, id))| {
        let task = once(id.as_str(), due(number), "http://ok.test/");
        async move { client.create_surely(task).await }
    });
    let created = join_all(creates).await;
    stage.demand(created.iter().all(|told| *told == Told::Done), "the tasks were created");
    let leader = stage.leader_of(&ids[0]).await;
    let others = stage.others(leader);
    // Within its lease, or so that the majority has another leader around the dues.
    let before_ms = if round.is_multiple_of(2) { 20..300 } else { 300..2_600 };
    let cut_ms = true_us(second * 1_000) / 1_000 - dice.within(before_ms);
    stage.sleep_ms(cut_ms.saturating_sub(stage.now_us() / 1_000)).await;
    stage.breaks(Some(leader), "CutOff");
    stage.isolate(&[leader]);
    let cut_us = stage.now_us();
    let updates = clients.iter_mut().zip(&ids).enumerate().map(|(number, (client, id))| {
        let begin_ms = (due(number) * 1_000 - START_WALL_MS).saturating_sub(dice.within(0..700));
        let (stage, others) = (stage.clone(), others.clone());
        let task = moved(id, second + 9);
        async move {
            stage.sleep_ms(begin_ms.saturating_sub(stage.now_us() / 1_000)).await;
            (client.update_surely(task, &others).await, stage.now_us())
        }
    });
    let updated = join_all(updates).await;
    stage.sleep_ms(1_000).await;
    for (number, (told, at_us)) in updated.iter().enumerate() {
        stage.demand(*told == Told::Done, "the majority acknowledges updates");
        seen.races += usize::from(at_us.abs_diff(true_us(due(number) * 1_000)) < NEAR_US);
        let attempts = stage.attempts(&ids[number]);
        let lonely = attempts.iter().filter(|attempt| attempt.node == leader && attempt.at_us > cut_us);
        seen.lonely += lonely.count();
    }
    stage.sleep_ms(true_us((second + 13) * 1_000) / 1_000 - stage.now_us() / 1_000).await;
    for id in &ids {
        let attempts = stage.attempts(id);
        let new = attempts.iter().filter(|attempt| attempt.body == moved(id, 0).body);
        stage.demand(
            new.count() == 1,
            &format!("the majority fires what it has become, once: {attempts:?}"),
        );
    }
    stage.net.heal();
    stage.fixed(5_000);
    stage.sleep_ms(6_000).await;
}

/// What a task becomes.
fn moved(id: &str, second: u64) -> Task {
    Task {
        when: When::Once(second),
        body: "{\"moved\":true}".into(),
        ..once(id, second, "http://ok.test/")
    }
}
