//! The same as `many_hung_targets`, but for the windows: they hold everything, so that what waits for a target that hangs waits in
//! its queue, and only the places for requests are few.

use xcron::config::Config;

use super::many_hung_targets;
use crate::stage::Stage;
use crate::world::Options;

/// The world: places are few.
pub(super) fn options(seed: u64) -> Options {
    let mut config = Config::default();
    config.fire.in_flight_max = 64;
    config.fire.in_flight_per_target_max = 64;
    Options {
        config,
        ..Options::calm(seed, 3)
    }
}

pub(super) async fn play(stage: Stage) {
    many_hung_targets::play(stage).await;
}
