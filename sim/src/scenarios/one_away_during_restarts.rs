//! One node is away while the others are restarted one after the other, in any order, seconds to minutes apart; then it comes back,
//! soon or after so long that nobody remembers it. The leaders that it comes back to have never heard of it since their own start.
//! No group ever has fewer voters for it (I25), and nothing is lost.

use futures_util::future::join;

use crate::dice::Dice;
use crate::stage::{Act, Stage};
use crate::workload::{self, Load};
use crate::world::Options;

/// Longer than gossip remembers a dead node, in milliseconds.
const FORGOTTEN_MS: u64 = 11 * 60_000;

/// The world: three nodes, sometimes four, with three copies.
pub(super) fn options(seed: u64) -> Options {
    let mut dice = Dice::new(seed, "one away");
    Options::calm(seed, dice.pick(&[3, 3, 3, 4]))
}

pub(super) async fn play(stage: Stage) {
    let nodes = stage.options.nodes;
    stage.found(nodes).await;
    stage.until_planned(0, 3, 3).await;
    let load = Load {
        clients: 3,
        calls: 150,
        pause_ms_max: 900,
        delay_secs_max: 30,
        bad_targets_permille: 0,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        for round in 0..2 {
            one_away(&stage, round).await;
        }
    })
    .await;
    stage.recover(25_000).await;
    stage.until_planned(0, 3, 3).await;
}

async fn one_away(stage: &Stage, round: usize) {
    let mut dice = stage.dice(&format!("restarts {round}"));
    let mut order: Vec<usize> = (0..stage.options.nodes).collect();
    dice.shuffle(&mut order);
    let (away, others) = (order[0], &order[1..]);
    stage.breaks(None, "OneAway");
    match dice.index(3) {
        0 => stage.act(Act::Kill(away)).await,
        1 => stage.act(Act::LosePower(away)).await,
        _ => stage.stop(away).await,
    }
    for node in others {
        stage.sleep_ms(dice.within(1_000..20_000)).await;
        if dice.chance(700) {
            stage.stop(*node).await;
        } else {
            stage.act(Act::Kill(*node)).await;
        }
        stage.sleep_ms(dice.within(0..3_000)).await;
        stage.restart(*node).await;
        stage.ready(*node).await;
    }
    let longer_ms = dice.pick(&[0, 10_000, 60_000, FORGOTTEN_MS]);
    stage.sleep_ms(dice.within(500..10_000) + longer_ms).await;
    stage.restart(away).await;
    stage.ready(away).await;
    stage.sleep_ms(15_000).await;
    stage.fixed(2_000);
}
