//! A node is asked to leave while it leads and fires. It ends by itself; no fire is late or repeated for it, and no call to
//! another node fails.

use futures_util::future::join;

use crate::history::Told;
use crate::stage::{Stage, once};
use crate::workload::{self, Load};

/// How long a node may take to leave, in milliseconds.
const LEAVES_MS: u64 = 60_000;

pub(super) async fn play(stage: Stage) {
    stage.found(4).await;
    stage.until_planned(0, 3, 3).await;
    let load = Load {
        clients: 4,
        calls: 120,
        pause_ms_max: 500,
        delay_secs_max: 20,
        bad_targets_permille: 0,
        ..Load::default()
    };
    let own = stage.ids_of_one_group("own", 20);
    let goes = stage.leader_of(&own[0]).await;
    let rest = stage.others(goes);
    let mut client = stage.client(20, rest[0]);
    for (after, id) in own.iter().enumerate() {
        let second = stage.now_secs() + 2 + after as u64 / 2;
        client.create_surely(once(id.as_str(), second, "http://ok.test/")).await;
    }
    join(workload::run(&stage, load, "w", 0), async {
        stage.sleep_ms(5_000).await;
        stage.demand(stage.drain(goes, rest[0]).await, "the drain was accepted");
        let has_ended = stage
            .until_or("the drained node to end", LEAVES_MS, |shown| !shown[goes].is_running)
            .await;
        let ended = stage.nodes()[goes].ended.clone();
        stage.demand(
            has_ended && ended == Some(Ok(())),
            &format!("the drained node ends by itself, in order: {ended:?}"),
        );
        stage.describe(format!("node {goes} left by {} us", stage.now_us()));
    })
    .await;
    let fired_by_it = {
        let history = stage.recorder.lock();
        let failed = history.ops.iter().filter(|op| op.node != goes && op.told == Told::Unknown);
        let failed: Vec<_> = failed.map(|op| (op.node, op.from_us, op.call.clone())).collect();
        drop(history);
        stage.demand(failed.is_empty(), &format!("no call to another node failed: {failed:?}"));
        let history = stage.recorder.lock();
        history.attempts.iter().filter(|attempt| attempt.node == goes).count()
    };
    stage.demand(fired_by_it > 0, "the drained node had fired");
    stage.until_planned(rest[0], 3, 3).await;
    stage.fixed(0);
    stage.sleep_ms(25_000).await;
    stage.look_at(&rest).await;
}
