//! Leadership of one group is handed over again and again while everything reaches the old leader late: for a moment there is
//! another leader, and the old one does not know it, although its lease has not ended. It must not act for what was asked of it then:
//! neither read nor fire.

use crate::history::Told;
use crate::net::Link;
use crate::stage::{Stage, once};
use crate::world::Options;

/// So late, in microseconds: less than a lease, so that the old leader would go on, and more than an election.
const LATE_US: u64 = 200_000;
/// How long a node may take to leave, in milliseconds.
const LEAVES_MS: u64 = 60_000;

/// Four nodes, so that one may leave, and one group.
pub(super) fn options(seed: u64) -> Options {
    Options {
        groups: 1,
        ..Options::calm(seed, 4)
    }
}

pub(super) async fn play(stage: Stage) {
    stage.found(4).await;
    stage.until_planned(0, 3, 3).await;
    let mut dice = stage.dice("slow");
    for round in 0..4 {
        let id = format!("moved-{round}");
        let old = stage.leader_of(&id).await;
        let others = stage.others(old);
        let second = stage.now_secs() + 60;
        let mut client = stage.client(2 * round, others[0]);
        client.create_surely(once(&*id, second, "http://ok.test/")).await;
        stage.breaks(None, "SlowLinks");
        for other in &others {
            let late = Link {
                extra_us: dice.within(LATE_US / 2..LATE_US),
                ..Link::default()
            };
            stage.net.set_link(*other, old, late);
        }
        stage.sleep_ms(2_000).await;
        let generation = stage.generation(0);
        let read = async {
            let mut reader = stage.client(2 * round + 1, old);
            while stage.nodes()[old].is_running {
                reader.query(&id).await;
            }
        };
        let write = async {
            stage.demand(stage.drain(old, others[0]).await, "the drain was accepted");
            // As soon as another leads, the task is gone: whoever still shows it reads what is over.
            let mut has_moved = false;
            for _ in 0..20_000 {
                if stage.generation(0) > generation && stage.leader(0) != Some(old) {
                    has_moved = true;
                    break;
                }
                stage.sleep_ms(1).await;
            }
            stage.demand(has_moved, "leadership has moved");
            let to = stage.leader(0).unwrap_or(others[0]);
            let told = client.delete_surely(&id, &[to]).await;
            stage.demand(told == Told::Done, &format!("it is deleted: {told:?}"));
            let is_over = stage.until_or("the drained node to end", LEAVES_MS, |shown| !shown[old].is_running);
            stage.demand(is_over.await, "the drained node ends");
        };
        futures_util::future::join(read, write).await;
        stage.net.heal();
        stage.restart(old).await;
        stage.ready(old).await;
        stage.fixed(3_000);
        stage.until_planned(old, 3, 3).await;
    }
    stage.recover(10_000).await;
}
