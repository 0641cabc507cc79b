//! One node's wall clock jumps, of a leader or of a follower, while the clocks of the others are right. Nothing fires early in true
//! time by more than a clock may be off, and what the node leads soon fires elsewhere.

use std::time::Duration;

use xcron::limits::CLOCK_OFFSET_MS_MAX;

use crate::history::{START_WALL_MS, true_us};
use crate::stage::{Stage, once};

const HOUR_MS: i64 = 3_600_000;
/// Whose clock: the leader's or another's; and how far it jumps.
const JUMPS: [(bool, i64); 9] = [
    (true, HOUR_MS),
    (true, -HOUR_MS),
    (false, HOUR_MS),
    (false, -HOUR_MS),
    (true, 24 * HOUR_MS),
    (true, 2_000),
    (true, -2_000),
    (true, 400),
    (true, -400),
];
/// Tasks that are due during a jump, one a second.
const TASKS: u64 = 10;
/// How late a fire may be whose leader's clock is wrong: it is noticed, and somebody else leads.
const LATE: Duration = Duration::from_secs(8);

pub(super) async fn play(stage: Stage) {
    stage.found_at_rest(3).await;
    for (number, (is_leader, skew_ms)) in JUMPS.into_iter().enumerate() {
        jump(&stage, number, is_leader, skew_ms).await;
    }
    stage.recover(20_000).await;
}

async fn jump(stage: &Stage, number: usize, is_leader: bool, skew_ms: i64) {
    let mut client = stage.client(number, number % 3);
    let ids = stage.ids_of_one_group(&format!("j{number}"), 10);
    let far = stage.ids_of_one_group(&format!("j{number}"), 12).split_off(10);
    let second = stage.now_secs() + 4;
    for (after, id) in (0..TASKS).zip(&ids) {
        client.create_surely(once(id.as_str(), second + after, "http://ok.test/")).await;
    }
    // Due in half an hour, and in half a day: long before that the clock is right again.
    for (after, id) in [1_800, 43_200].into_iter().zip(&far) {
        client.create_surely(once(id.as_str(), second + after, "http://ok.test/")).await;
    }
    let leader = stage.leader_of(&ids[0]).await;
    let node = if is_leader { leader } else { (leader + 1) % 3 };
    stage.breaks(Some(node), "ClockJump");
    let jump_ms = true_us(second * 1_000) / 1_000 + stage.dice(&format!("jump {number}")).within(900..2_900);
    stage.sleep_ms(jump_ms.saturating_sub(stage.now_us() / 1_000)).await;
    stage.demand(stage.leader_of(&ids[0]).await == leader, "the clock of the right node jumps");
    stage.skew(node, skew_ms).await;
    stage.sleep_ms(12_000).await;
    stage.skew(node, 0).await;
    stage.sleep_ms(6_000).await;
    stage.fixed(0);
    judge(stage, &ids, &far, second, (is_leader, skew_ms));
}

fn judge(stage: &Stage, ids: &[String], far: &[String], second: u64, jump: (bool, i64)) {
    // Times in the history are those of the beginning of a step of the world.
    let early_ms = jump.1.unsigned_abs().min(CLOCK_OFFSET_MS_MAX) + 2;
    for (after, id) in (0..TASKS).zip(ids) {
        let due_us = (second + after) * 1_000_000 - START_WALL_MS * 1_000;
        let attempts = stage.attempts(id);
        let first = attempts.first().map_or(u64::MAX, |first| first.at_us);
        let in_time = due_us - early_ms * 1_000..due_us + u64::try_from(LATE.as_micros()).unwrap_or(0);
        let what = format!("{id} of {jump:?} fires in time, {due_us} us: {attempts:?}");
        stage.demand(in_time.contains(&first), &what);
    }
    for id in far {
        let attempts = stage.attempts(id);
        let what = format!("{id} of {jump:?} is not due for long: {attempts:?}");
        stage.demand(attempts.is_empty(), &what);
    }
}
