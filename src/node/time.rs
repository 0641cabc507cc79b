//! The parts of a node that watch its wall clock: whether it is trusted, and what a wrong one has left behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::World;
use crate::config::Config;
use crate::failure::Failure;
use crate::fire::scrub::Scrub;
use crate::metrics::Metrics;
use crate::raft::Groups;
use crate::steady::{Steady, keep_trusted};

/// Keeps the trusted time, and looks for dues that a wrong clock has left.
pub(super) fn watch_time<P>(
    loops: &mut JoinSet<()>,
    groups: &Groups,
    world: &World<P>,
    steady: &Steady,
    failure: &Failure,
) {
    let scrub = Scrub {
        groups: groups.clone(),
        steady: steady.clone(),
        clock: world.clock.clone(),
        failure: failure.clone(),
    };
    loops.spawn(scrub.run());
    loops.spawn(keep_trusted(steady.clone(), world.trusted_time.clone()));
}

/// The wall clock, held where it is far from what was trusted when the node last ran.
pub(super) fn steady<P>(config: &Config, world: &World<P>, metrics: &Arc<Metrics>) -> Steady {
    let metrics = metrics.clone();
    Steady::new(
        world.clock.clone(),
        world.peers.is_some(),
        Duration::from_secs(config.clock_hold_secs),
        world.trusted_time.load(),
        move |by| metrics.inc_clock_accepted(by.label()),
    )
}
