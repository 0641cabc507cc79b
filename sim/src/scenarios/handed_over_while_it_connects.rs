//! A leader stops while targets take seconds to accept what it has claimed, and everything reaches it late: another leads before it
//! knows, and its lease has not ended. What is deleted there must not be sent here, whenever its target accepts.

use futures_util::future::join_all;

use crate::history::{Task, Told};
use crate::net::Link;
use crate::stage::{Act, Stage, once};
use crate::world::Options;

/// Rounds.
const ROUNDS: usize = 4;
/// Clients, and the tasks of each.
const CLIENTS: usize = 20;
const TASKS: usize = 4;
/// So late, in microseconds: less than a lease, so that the old leader would go on, and more than an election and a delete.
const LATE_US: u64 = 250_000;
/// How long it takes until everything is claimed, in milliseconds.
const CLAIMED_MS: u64 = 700;
/// Steps until another must lead.
const STEPS_MAX: usize = 10_000;

/// Three nodes and one group.
pub(super) fn options(seed: u64) -> Options {
    Options {
        groups: 1,
        ..Options::calm(seed, 3)
    }
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut dice = stage.dice("late");
    for round in 0..ROUNDS {
        let old = stage.leader_of("any").await;
        let others = stage.others(old);
        let second = stage.now_secs() + 4;
        let name = move |number: usize, task: usize| format!("r{round}-c{number}-{task}");
        let created = (0..CLIENTS).map(|number| {
            let mut client = stage.client(number, others[number % 2]);
            async move {
                for task in 0..TASKS {
                    let url = format!("http://accept{task}.test/");
                    let task = Task {
                        at_most_once: true,
                        ..once(name(number, task), second, &url)
                    };
                    client.create_surely(task).await;
                }
            }
        });
        join_all(created).await;
        stage.breaks(None, "SlowLinks");
        for other in &others {
            let late = Link {
                extra_us: dice.within(LATE_US / 2..LATE_US),
                ..Link::default()
            };
            stage.net.set_link(*other, old, late);
        }
        let generation = stage.generation(0);
        let due_us = crate::history::true_us(second * 1_000);
        stage.sleep_ms(due_us.saturating_sub(stage.now_us()) / 1_000 + CLAIMED_MS).await;
        stage.act(Act::Stop(old)).await;
        let mut has_moved = false;
        for _ in 0..STEPS_MAX {
            has_moved = stage.generation(0) > generation && stage.leader(0) != Some(old);
            if has_moved {
                break;
            }
            stage.sleep_ms(1).await;
        }
        stage.demand(has_moved, "leadership has moved");
        let to = stage.leader(0).unwrap_or(others[0]);
        let deleted = (0..CLIENTS).map(|number| {
            let mut client = stage.client(number, to);
            async move {
                let mut deleted = 0;
                for task in 0..TASKS {
                    let told = client.delete_surely(&name(number, task), &[to]).await;
                    deleted += usize::from(told == Told::Done);
                }
                deleted
            }
        });
        let deleted: usize = join_all(deleted).await.into_iter().sum();
        stage.demand(deleted > CLIENTS * TASKS / 2, &format!("tasks are deleted: {deleted}"));
        let is_over = stage.until_or("the old leader to end", 40_000, |shown| !shown[old].is_running);
        stage.demand(is_over.await, "the old leader ends");
        stage.net.heal();
        stage.restart(old).await;
        stage.ready(old).await;
        stage.fixed(3_000);
        stage.until_planned(old, 3, 3).await;
    }
    let withdrawn = stage.recorder.lock().withdrawn;
    stage.demand(withdrawn > 0, "requests were withdrawn after they had connected");
    stage.recover(10_000).await;
}
