//! What operators do, as `doc/deployment.md` says it: restarts in any order with pauses of any length, a node away for minutes, command
//! lines as people leave them, a node that leaves, another secret, a directory that is put back. One of them at a time, and none of
//! them may lose anything.

use super::{Kind, has_copies};
use crate::dice::Dice;
use crate::stage::{Act, Shown, Stage};

/// How long a node may take to serve again before an operator goes on, in milliseconds.
const SERVES_MS: u64 = 40_000;
/// How long a node may take to stop in order, or to leave, in milliseconds.
const STOPS_MS: u64 = 40_000;
const LEAVES_MS: u64 = 120_000;
/// Pauses that people make, in milliseconds.
const PAUSES_MS: [u64; 4] = [500, 4_000, 15_000, 60_000];

pub(super) async fn run(stage: &Stage, dice: &mut Dice, kind: Kind, node: usize) {
    match kind {
        Kind::Rolling => drop(rolling(stage, dice, &[]).await),
        Kind::Away => away(stage, dice, node).await,
        Kind::Drain => drain(stage, dice, node).await,
        Kind::Secret => secret(stage, dice).await,
        Kind::PutBack => put_back(stage, dice, node).await,
        other => unreachable!("{other:?} is no operation"),
    }
}

/// A pause.
async fn rest(stage: &Stage, dice: &mut Dice) {
    let longest_ms = dice.pick(&PAUSES_MS);
    stage.sleep_ms(dice.within(0..longest_ms)).await;
}

/// Stops a node: mostly in order.
async fn stop(stage: &Stage, dice: &mut Dice, node: usize) {
    let is_orderly = dice.chance(700);
    stage
        .act(if is_orderly { Act::Stop(node) } else { Act::Kill(node) })
        .await;
    stage
        .until_or("node to stop", STOPS_MS, |shown| !shown[node].is_running)
        .await;
}

/// Starts a node with a command line as it may be: all the others; one of them, which need not be there; or, for a node that has been
/// in the cluster before, none.
async fn start(stage: &Stage, dice: &mut Dice, node: usize) {
    let mut join = stage.others(node);
    let is_member = stage.nodes()[node].node_id.is_some();
    match dice.within(0..10) {
        0 | 1 if is_member => join.clear(),
        2..5 if !join.is_empty() => join = vec![dice.pick(&join)],
        _ => {}
    }
    stage.act(Act::Start { node, join }).await;
}

async fn serves(stage: &Stage, node: usize) -> bool {
    stage
        .until_or("node to serve", SERVES_MS, |shown| shown[node].is_ready)
        .await
}

/// Restarts every node but these, one after the other, in any order. `false` if one of them did not serve again.
async fn rolling(stage: &Stage, dice: &mut Dice, but: &[usize]) -> bool {
    let mut order: Vec<usize> = (0..stage.options.nodes).filter(|node| !but.contains(node)).collect();
    dice.shuffle(&mut order);
    let mut all_serve = true;
    for node in order {
        stop(stage, dice, node).await;
        rest(stage, dice).await;
        start(stage, dice, node).await;
        all_serve &= serves(stage, node).await;
        rest(stage, dice).await;
    }
    stage.reach("a rolling restart");
    all_serve
}

/// A node is away for minutes, and all the others are restarted meanwhile.
async fn away(stage: &Stage, dice: &mut Dice, node: usize) {
    stop(stage, dice, node).await;
    rest(stage, dice).await;
    rolling(stage, dice, &[node]).await;
    stage.reach("a restart of all others while a node was away");
    start(stage, dice, node).await;
    serves(stage, node).await;
}

/// A node is asked to leave, and comes back after a while: with its directory, or without.
async fn drain(stage: &Stage, dice: &mut Dice, node: usize) {
    let all_serve = |shown: &[Shown]| shown.iter().all(|shown| shown.is_ready);
    if stage.options.nodes < 3 || !stage.until_or("every node to serve", SERVES_MS, all_serve).await {
        return;
    }
    let through = dice.pick(&stage.others(node));
    if !stage.drain(node, through).await {
        return;
    }
    let has_left = |shown: &[Shown]| !shown[node].is_running;
    if !stage.until_or("node to leave", LEAVES_MS, has_left).await {
        return;
    }
    stage.reach("a node that left");
    rest(stage, dice).await;
    if dice.chance(500) {
        stage.act(Act::Wipe(node)).await;
    }
    start(stage, dice, node).await;
    serves(stage, node).await;
}

/// Another secret, as the page says: a second key everywhere, then the first one, then alone.
async fn secret(stage: &Stage, dice: &mut Dice) {
    for step in 1..=3 {
        for node in 0..stage.options.nodes {
            stage.act(Act::Secret(node, step)).await;
        }
        if !rolling(stage, dice, &[]).await {
            // What every node has now goes with what the others have: the change waits.
            return;
        }
    }
    stage.reach("another secret");
}

/// A directory is put back as it was some time ago: its node must not go on with it, and becomes a new one.
async fn put_back(stage: &Stage, dice: &mut Dice, node: usize) {
    stop(stage, dice, node).await;
    stage.act(Act::Copy(node)).await;
    start(stage, dice, node).await;
    if !serves(stage, node).await {
        return;
    }
    rest(stage, dice).await;
    if !has_copies(stage).await {
        return;
    }
    stop(stage, dice, node).await;
    stage.act(Act::PutBack(node)).await;
    start(stage, dice, node).await;
    stage.sleep_ms(8_000).await;
    if stage.nodes()[node].is_running {
        // Nothing was promised since the copy was made.
        stage.reach("a directory that was put back in time");
        return;
    }
    stage.reach("a directory that was put back, and refused");
    stage.act(Act::Wipe(node)).await;
    stage.restart_as_new(node).await;
}
