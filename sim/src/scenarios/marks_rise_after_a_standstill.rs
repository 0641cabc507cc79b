//! A follower stands still for longer than its low-water marks stay, while tasks are created and fall due. When it goes on, all of
//! its marks rise at once, and just then what it missed comes: entries with dues that are past, or a snapshot with them. It may
//! stand still again in the middle of an install, so that the marks rise right then. No due may come to lie below its mark (I26),
//! however long a thread is kept from the processor in between.

use futures_util::future::join_all;

use crate::history::Told;
use crate::stage::{Act, Stage, once};
use crate::world::Options;

/// Rounds; in every second one there are more entries in each group than the logs keep.
const ROUNDS: usize = 4;
/// Clients, and the tasks of each.
const CLIENTS: usize = 12;
const TASKS: [usize; 2] = [24, 90];
/// Longer than a mark stays, in milliseconds.
const STANDS_MS: u64 = 13_000;
/// How long those that it led take to have another leader, in milliseconds.
const MOVED_MS: u64 = 3_000;
/// The dues come so many seconds later, and their targets do not answer: they are open when the node goes on.
const DUE_SECS: u64 = 6;
/// How long a node may take to begin an install, in milliseconds.
const BEGINS_MS: u64 = 3_000;
/// A thread may be kept from the processor for so long, in microseconds.
const OFF_CPU_US: u64 = 800_000;

/// The world: machines with more to do than they can.
pub(super) fn options(seed: u64) -> Options {
    let mut options = Options {
        groups: 8,
        ..Options::calm(seed, 3)
    };
    options.disk.off_cpu_us_max = OFF_CPU_US;
    options
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut dice = stage.dice("standstills");
    let mut in_installs = 0;
    for round in 0..ROUNDS {
        let node = dice.index(3);
        let others = stage.others(node);
        stage.breaks(Some(node), "Pause");
        stage.act(Act::Pause(node)).await;
        let ends_us = stage.now_us() + STANDS_MS * 1_000;
        stage.sleep_ms(MOVED_MS).await;
        let created = create(&stage, round, &others).await;
        stage.sleep_ms(ends_us.saturating_sub(stage.now_us()) / 1_000).await;
        stage.act(Act::Resume(node)).await;
        if round % 2 == 1 && stage.until_installing(node, BEGINS_MS).await {
            in_installs += 1;
            stage.act(Act::Pause(node)).await;
            stage.sleep_ms(STANDS_MS).await;
            stage.act(Act::Resume(node)).await;
        }
        stage.sleep_ms(4_000).await;
        stage.fixed(1_000);
        // Nothing of this round is open in the next one: it would hold the marks down.
        delete(&stage, &others, created).await;
        stage.sleep_ms(dice.within(12_000..20_000)).await;
    }
    stage.demand(in_installs > 0, "a node stood still in the middle of an install");
    stage.recover(30_000).await;
}

/// Tasks that are due in some seconds, at a target that does not answer; the ids of those that were acknowledged.
async fn create(stage: &Stage, round: usize, through: &[usize]) -> Vec<String> {
    let (tasks, second) = (TASKS[round % 2], stage.now_secs() + DUE_SECS);
    let clients = (0..CLIENTS).map(|number| {
        let (stage, node) = (stage.clone(), through[number % through.len()]);
        async move {
            let mut client = stage.client(number, node);
            let mut created = Vec::new();
            for task in 0..tasks {
                let id = format!("r{round}-c{number}-{task}");
                let task = once(&*id, second + task as u64 % 3, "http://hang.test/");
                if client.create(task).await == Told::Done {
                    created.push(id);
                }
            }
            created
        }
    });
    let created: Vec<String> = join_all(clients).await.into_iter().flatten().collect();
    stage.demand(created.len() > CLIENTS * tasks * 9 / 10, "two of three nodes take tasks");
    created
}

async fn delete(stage: &Stage, through: &[usize], created: Vec<String>) {
    let deletes = (0..CLIENTS).map(|number| {
        let mine: Vec<String> = created.iter().skip(number).step_by(CLIENTS).cloned().collect();
        let (stage, through) = (stage.clone(), through.to_vec());
        async move {
            let mut client = stage.client(number, through[0]);
            for id in mine {
                client.delete_surely(&id, &through).await;
            }
        }
    });
    join_all(deletes).await;
}
