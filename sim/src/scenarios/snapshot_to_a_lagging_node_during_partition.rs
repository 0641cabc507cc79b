//! A follower misses more than the others keep in their logs. Then one other node reaches it, over a link that fails again and
//! again; the third does not. It catches up by snapshots.

use futures_util::future::join_all;

use crate::history::Told;
use crate::net::Link;
use crate::stage::{Stage, once};

/// Clients, and the tasks that each creates: more entries in each group than the logs keep.
const CLIENTS: usize = 6;
const TASKS: usize = 80;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let mut dice = stage.dice("links");
    let lagging = dice.index(3);
    let others = stage.others(lagging);
    stage.breaks(Some(lagging), "CutOff");
    stage.isolate(&[lagging]);
    stage.sleep_ms(3_000).await;
    let received = stage.disks[lagging].received();
    let clients = (0..CLIENTS).map(|number| {
        let (stage, node) = (stage.clone(), others[number % 2]);
        async move {
            let mut client = stage.client(number, node);
            let mut created = 0;
            for task in 0..TASKS {
                let second = stage.now_secs() + 60 + task as u64;
                let task = once(format!("c{number}-{task}"), second, "http://ok.test/");
                created += usize::from(client.create(task).await == Told::Done);
            }
            created
        }
    });
    let created: usize = join_all(clients).await.into_iter().sum();
    stage.demand(created > CLIENTS * TASKS * 9 / 10, "two of three nodes take tasks");
    let near = others[dice.index(2)];
    for _ in 0..12 {
        stage.net.set_link(near, lagging, Link::default());
        stage.net.set_link(lagging, near, Link::default());
        stage.sleep_ms(dice.within(5..400)).await;
        stage.net.set_link(near, lagging, Link::CUT);
        stage.sleep_ms(dice.within(5..400)).await;
        if dice.chance(300) {
            stage.net.reset(near, lagging);
        }
    }
    stage.net.set_link(near, lagging, Link::default());
    stage.sleep_ms(8_000).await;
    stage.net.heal();
    stage.sleep_ms(8_000).await;
    stage.demand(
        stage.disks[lagging].received() > received,
        "the node that lagged received a snapshot",
    );
    stage.recover(70_000).await;
}
