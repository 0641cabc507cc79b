//! A leader is cut off while its callbacks are in flight; another leads, and dies; the first one may lead again before its old
//! callbacks have ended. What they end with is nothing to the new leadership: no attempt overlaps another, no due is lost.

use xcron::config::Config;

use crate::stage::{Act, Stage, once};
use crate::world::Options;

/// Rounds.
const ROUNDS: usize = 3;
/// Tasks of a round, all at one target; half of them wait for their turn.
const TASKS: usize = 6;
const AT_ONCE: usize = 3;

/// The world: a target takes few callbacks at once.
pub(super) fn options(seed: u64) -> Options {
    let calm = Options::calm(seed, 3);
    let mut config = Config::default();
    config.fire.in_flight_per_target_max = u32::try_from(AT_ONCE).expect("small");
    Options { config, ..calm }
}

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    for round in 0..ROUNDS {
        let ids = stage.ids_of_one_group(&format!("round-{round}"), TASKS);
        let mut client = stage.client(round, 0);
        let second = stage.now_secs() + 2;
        for id in &ids {
            client.create_surely(once(id.as_str(), second, "http://hang.test/")).await;
        }
        let leader = stage.leader_of(&ids[0]).await;
        let attempts = || ids.iter().map(|id| stage.attempts(id).len()).sum::<usize>();
        let has_begun = stage.until_or("callbacks in flight", 5_000, |_| attempts() == AT_ONCE);
        stage.demand(has_begun.await, "the leader has begun its callbacks");
        stage.breaks(Some(leader), "Isolated");
        stage.isolate(&[leader]);
        let is_moved = stage.until_or("another leader's callbacks", 5_000, |_| attempts() == 2 * AT_ONCE);
        stage.demand(is_moved.await, "another node leads and repeats them");
        let next = stage.leader_of(&ids[0]).await;
        stage.net.heal();
        // It must hear what it missed, or nobody votes for it.
        stage.sleep_ms(600).await;
        stage.act(Act::Kill(next)).await;
        stage.sleep_ms(3_000).await;
        if stage.leader_of(&ids[0]).await == leader {
            stage.reach("a leadership that came back to its stragglers");
        }
        stage.restart(next).await;
        stage.ready(next).await;
        stage.fixed(5_000);
        // Three attempts of ten seconds for each half, and what lies between them.
        stage.sleep_ms(110_000).await;
    }
    stage.recover(60_000).await;
}
