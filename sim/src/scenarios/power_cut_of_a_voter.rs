//! A node whose disk is slow is asked for its vote by one that does not hear the leader, and loses its power before the vote can be
//! on its disk. It comes back to the old leader, which goes on. Had the vote counted, a second leader would take back what the
//! old one has acknowledged meanwhile.

use futures_util::future::join;

use crate::disk::Faults;
use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

/// Rounds.
const ROUNDS: usize = 8;
/// How long a sync of the voter takes, in microseconds: longer than a round.
const SYNC_US: u64 = 6_000_000;

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 4,
        calls: 200,
        pause_ms_max: 500,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("rounds");
        for _ in 0..ROUNDS {
            let leader = stage.leader_of("any").await;
            let mut others = stage.others(leader);
            dice.shuffle(&mut others);
            let (voter, other) = (others[0], others[1]);
            stage.breaks(None, "a voter loses its power");
            let slow = Faults {
                sync_us_min: SYNC_US,
                sync_us_max: SYNC_US,
                ..stage.options.disk
            };
            stage.act(Act::Disk(voter, slow)).await;
            stage.isolate(&[leader]);
            // The election comes after a lease.
            stage.sleep_ms(dice.within(900..1_700)).await;
            stage.act(Act::LosePower(voter)).await;
            stage.net.heal();
            stage.isolate(&[other]);
            stage.act(Act::Disk(voter, stage.options.disk)).await;
            stage.restart(voter).await;
            stage.sleep_ms(dice.within(2_000..5_000)).await;
            stage.net.heal();
            stage.ready(voter).await;
            stage.fixed(4_000);
            stage.sleep_ms(dice.within(4_000..6_000)).await;
        }
    })
    .await;
    stage.recover(25_000).await;
}
