//! The disk of one node is full in the middle of the load, then of two: what was acknowledged stays, and when there is room
//! again, all goes on.

use futures_util::future::join;

use crate::disk::Faults;
use crate::stage::{Act, Stage};
use crate::workload::{self, Load};

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    let load = Load {
        clients: 6,
        calls: 150,
        pause_ms_max: 200,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    join(workload::run(&stage, load, "w", 0), async {
        let mut dice = stage.dice("full");
        for round in 0..4 {
            stage.sleep_ms(dice.within(1_000..3_000)).await;
            let first = dice.index(3);
            let full = [first, (first + 1) % 3];
            fill(&stage, &full[..=round % 2], dice.within(500..4_000)).await;
        }
    })
    .await;
    stage.recover(30_000).await;
}

async fn fill(stage: &Stage, full: &[usize], lasts_ms: u64) {
    let usual = stage.options.disk;
    for node in full {
        stage.breaks(Some(*node), "DiskFull");
    }
    let is_full = Faults { is_full: true, ..usual };
    stage.act_at_once(full.iter().map(|node| Act::Disk(*node, is_full))).await;
    let felt = stage.until_or("a full disk to be felt", 10_000, |shown| !shown[full[0]].is_running);
    stage.demand(felt.await, "a node whose disk is full ends itself");
    stage.sleep_ms(lasts_ms).await;
    // No room yet: it does not start, or not for long.
    stage.restart(full[0]).await;
    stage.sleep_ms(1_000).await;
    for node in full {
        stage.act(Act::Disk(*node, usual)).await;
        stage.restart(*node).await;
    }
    stage.sleep_ms(3_000).await;
    for node in full {
        // The one that started without room may have ended since.
        stage.restart(*node).await;
        stage.ready(*node).await;
    }
}
