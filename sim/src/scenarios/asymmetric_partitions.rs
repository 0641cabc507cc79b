//! Links that work one way only, rings, and nodes that hear all and are heard by none: a majority that can talk to each other serves
//! within seconds.

use futures_util::future::join;

use crate::history::Told;
use crate::net::Link;
use crate::stage::{Stage, cron, once};
use crate::workload::{self, Load};
use crate::world::Options;

/// How long a partition lasts, in milliseconds; the majority serves in its second half.
const LASTS_MS: u64 = 16_000;

/// The world of a seed: three or five nodes.
pub(super) fn options(seed: u64) -> Options {
    Options::calm(seed, if seed.is_multiple_of(3) { 5 } else { 3 })
}

pub(super) async fn play(stage: Stage) {
    let nodes = stage.options.nodes;
    stage.found(nodes).await;
    stage.until_planned(0, 3, 3).await;
    let load = Load {
        clients: 3,
        calls: 120,
        pause_ms_max: 1_500,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    let mut client = stage.client(40, 0);
    client.create_surely(cron("every-minute", "* * * * *", "http://ok.test/")).await;
    join(workload::run(&stage, load, "w", 0), async {
        for round in 0..6 {
            let id = format!("p-{round}");
            let leader = stage.leader_of(&id).await;
            stage.breaks(None, "Asymmetric");
            let served_by = partition(&stage, round, leader);
            stage.sleep_ms(LASTS_MS / 2).await;
            client.turn_to(served_by);
            let told = client.create(once(&*id, stage.now_secs() + 2, "http://ok.test/")).await;
            let what = format!("node {served_by} serves in partition {round} of leader {leader}: {told:?}");
            stage.demand(told == Told::Done, &what);
            stage.sleep_ms(LASTS_MS / 2).await;
            let has_fired = !stage.attempts(&id).is_empty();
            stage.demand(has_fired, &format!("{id} fires within {LASTS_MS} ms"));
            stage.net.heal();
            stage.fixed(5_000);
            stage.sleep_ms(8_000).await;
        }
    })
    .await;
    stage.recover(25_000).await;
}

/// Breaks links; a node that must serve nevertheless.
fn partition(stage: &Stage, round: usize, leader: usize) -> usize {
    let others = stage.others(leader);
    match round {
        // Heard by none, hears all.
        0 => stage.cut(&[leader], &others),
        // Heard by all, hears none.
        1 => stage.cut(&others, &[leader]),
        // Does not hear one, and is not heard by another.
        2 => {
            stage.cut(&others[..1], &[leader]);
            stage.cut(&[leader], &others[1..2]);
        }
        // Two that do not reach each other, with one between them.
        3 => {
            stage.cut(&[leader], &others[..1]);
            stage.cut(&others[..1], &[leader]);
        }
        // A follower that nobody hears: it asks for votes in vain.
        4 => stage.cut(&others[..1], &[&others[1..], &[leader]].concat()),
        // Two followers of which one does not hear the other, and the leader hears the other late.
        _ => {
            stage.cut(&others[..1], &others[1..2]);
            let late = Link {
                extra_us: 300_000,
                ..Link::default()
            };
            stage.net.set_link(others[0], leader, late);
        }
    }
    others[others.len() - 1]
}
