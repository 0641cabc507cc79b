//! A node that missed much is sent snapshots, and loses its power while their rows take the place of its own. It finishes from what
//! it had received, all of which must have been on disk before the first row was removed; it serves again, and nothing is lost.

use futures_util::future::join_all;

use crate::history::Told;
use crate::stage::{Act, Stage, once};

/// Power cuts that must have left an install half done, and the most that are tried for that.
const HALF_DONE: usize = 2;
const ROUNDS_MAX: usize = 12;
/// Clients, and the tasks that each creates in a round: more entries in each group than the logs keep.
const CLIENTS: usize = 6;
const TASKS: usize = 80;
/// How long the node may take to begin an install once it reaches the others, in milliseconds.
const BEGINS_MS: u64 = 10_000;
/// How long the node may take to serve again, in milliseconds.
const SERVES_MS: u64 = 30_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut dice = stage.dice("cuts");
    let (mut seen, mut half_done) = (0, 0);
    for round in 0..ROUNDS_MAX {
        let node = dice.index(3);
        stage.breaks(Some(node), "CutOff");
        stage.isolate(&[node]);
        stage.sleep_ms(3_000).await;
        miss_much(&stage, round, &stage.others(node)).await;
        stage.net.heal();
        if !stage.until_installing(node, BEGINS_MS).await {
            continue;
        }
        seen += 1;
        stage.sleep_ms(dice.within(0..20)).await;
        stage.act(Act::LosePower(node)).await;
        half_done += usize::from(stage.is_installing(node));
        stage.sleep_ms(500).await;
        stage.restart(node).await;
        let serves = stage.until_or("the node to serve", SERVES_MS, |shown| shown[node].is_ready);
        let serves = serves.await;
        let ended = stage.nodes()[node].ended.clone();
        stage.demand(serves, &format!("node {node} finishes what it began, and serves: {ended:?}"));
        stage.fixed(5_000);
        if half_done >= HALF_DONE || !serves {
            break;
        }
        stage.sleep_ms(8_000).await;
    }
    stage.describe(format!("installs cut short: {seen}, of which the disk held {half_done} half done"));
    stage.demand(half_done > 0, "a power cut left an install half done");
    stage.recover(70_000).await;
}

/// Tasks are created by the nodes that reach each other.
async fn miss_much(stage: &Stage, round: usize, through: &[usize]) {
    let clients = (0..CLIENTS).map(|number| {
        let (stage, node) = (stage.clone(), through[number % through.len()]);
        async move {
            let mut client = stage.client(number, node);
            let mut created = 0;
            for task in 0..TASKS {
                let second = stage.now_secs() + 60 + task as u64;
                let task = once(format!("r{round}-c{number}-{task}"), second, "http://ok.test/");
                created += usize::from(client.create(task).await == Told::Done);
            }
            created
        }
    });
    let created: usize = join_all(clients).await.into_iter().sum();
    stage.demand(created > CLIENTS * TASKS * 9 / 10, "two of three nodes take tasks");
}
