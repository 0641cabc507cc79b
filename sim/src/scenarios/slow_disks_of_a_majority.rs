//! The disks of both followers take more than a second for a sync, for a while. Nobody can lead better: leadership stays where it is,
//! and what is due meanwhile fires afterwards.

use futures_util::future::join;

use crate::disk::Faults;
use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

/// A sync of a slow disk, in microseconds.
const SYNC_US: (u64, u64) = (1_200_000, 1_600_000);
/// How long the disks are slow, in milliseconds.
const LASTS_MS: u64 = 12_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 3,
        calls: 80,
        pause_ms_max: 1_000,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        for round in 0..3 {
            stage.sleep_ms(3_000).await;
            let leader = stage.leader_of("any").await;
            let generation = stage.generation(0);
            stage.breaks(None, "slow disks");
            let slow = Faults {
                sync_us_min: SYNC_US.0,
                sync_us_max: SYNC_US.1,
                ..stage.options.disk
            };
            for follower in stage.others(leader) {
                stage.act(Act::Disk(follower, slow)).await;
            }
            stage.sleep_ms(LASTS_MS).await;
            for follower in stage.others(leader) {
                stage.act(Act::Disk(follower, stage.options.disk)).await;
            }
            stage.sleep_ms(4_000).await;
            stage.fixed(1_000);
            let now = stage.generation(0);
            let what = format!("the leadership stays in round {round}: {generation:?}, then {now:?}");
            stage.demand(now == generation, &what);
            stage.sleep_ms(4_000).await;
        }
    })
    .await;
    stage.recover(25_000).await;
}
