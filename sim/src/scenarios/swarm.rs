//! Everything follows from the seed: the size of the cluster, its links, disks and clocks, the load, and the faults.
//!
//! First faults under load (safety), then everything is healed, and the cluster must come to rest and serve (liveness).

use futures_util::future::join3;

use crate::dice::Dice;
use crate::disk::{Faults, OFF_CPU_US_MAX};
use crate::nemesis::{self, Plan};
use crate::net::Weather;
use crate::stage::Stage;
use crate::workload::{self, Load};
use crate::world::{Options, STEP_US};

/// Time after the last fault in which dues, retries and changes of members have to settle, in milliseconds.
const SETTLE_MS: u64 = 75_000;
/// Time that nodes have to come to rest after everything was healed, in milliseconds.
const REST_MS: u64 = 60_000;

/// So many of a thousand clusters begin smaller, and grow under load.
const GROWS_PERMILLE: u64 = 250;

/// The world of a seed.
pub(super) fn options(seed: u64) -> Options {
    let mut dice = Dice::new(seed, "options");
    let nodes = dice.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5]);
    let latency_us_max = dice.pick(&[2, 3, 10, 40]) * STEP_US;
    let sync_us_max = dice.pick(&[200, 2_000, 12_000]);
    let drift = dice.pick(&[0, 0, 1_000, 20_000]);
    Options {
        groups: dice.pick(&[1, 2, 4, 4, 8]),
        replicas: dice.pick(&[3, 3, 3, 5]),
        weather: Weather {
            latency_us_min: STEP_US,
            latency_us_max,
            loss_permille: dice.pick(&[0, 0, 5]),
            twice_permille: dice.pick(&[0, 5]),
        },
        rates_ppm: (0..nodes)
            .map(|_| 1_000_000 - drift + dice.within(0..2 * drift + 1))
            .collect(),
        disk: Faults {
            sync_us_min: 50,
            sync_us_max,
            off_cpu_us_max: OFF_CPU_US_MAX,
            ..Faults::default()
        },
        snapshot_entries: Dice::new(seed, "snapshots").pick(&[8, 25, 60]),
        ..Options::calm(seed, nodes)
    }
}

pub(super) async fn play(stage: Stage) {
    let mut dice = stage.dice("swarm");
    let plan = Plan::draw(&mut dice);
    let mut changes = stage.dice("changes");
    let load = Load {
        clients: 1 + dice.index(5),
        calls: 20 + dice.index(80),
        pause_ms_max: dice.pick(&[50, 400, 1_200]),
        delay_secs_max: dice.pick(&[5, 20, 40]),
        bad_targets_permille: dice.pick(&[0, 200, 600]),
        updates_permille: changes.pick(&[0, 100, 250]),
        once_permille: changes.pick(&[0, 150, 400]),
    };
    stage.describe(format!("{plan:?} {load:?}"));
    let mut sizes = stage.dice("sizes");
    let nodes = stage.options.nodes;
    let first = if sizes.chance(GROWS_PERMILLE) { 1 + sizes.index(nodes) } else { nodes };
    stage.found(first).await;
    // Sometimes in the middle of the first moves.
    stage.sleep_ms(dice.pick(&[0, 500, 10_000])).await;
    if first < nodes {
        stage.describe(format!("{first} nodes at first"));
        stage.breaks(None, "Growth");
    }
    let grow = async {
        for node in first..nodes {
            stage.sleep_ms(sizes.within(0..20_000)).await;
            stage.restart(node).await;
            stage.reach("a node that joined under load");
        }
    };
    join3(workload::run(&stage, load, "w", 0), nemesis::run(&stage, &plan), grow).await;
    stage.heal().await;
    for node in 0..stage.options.nodes {
        stage.restart(node).await;
    }
    stage.rest(REST_MS).await;
    stage.fixed(0);
    let afterwards = Load {
        clients: 2,
        calls: 12,
        pause_ms_max: 300,
        delay_secs_max: 8,
        bad_targets_permille: 0,
        updates_permille: load.updates_permille,
        once_permille: load.once_permille,
    };
    workload::run(&stage, afterwards, "after", 50).await;
    stage.sleep_ms(SETTLE_MS).await;
    stage.look_at_all().await;
}
