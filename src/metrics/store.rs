//! Figures of the state and of the disk below it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{Metrics, register};

#[derive(Debug)]
pub(super) struct Store {
    low_water_healed: Counter,
}

impl Store {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            low_water_healed: register(
                r,
                "low_water_healed",
                "Copies whose low-water mark hid dues and was lowered when their leadership began; each is a bug",
                Counter::default(),
            ),
        }
    }
}

impl Metrics {
    /// A low-water mark hid dues, and was lowered.
    pub fn inc_low_water_healed(&self) {
        self.store.low_water_healed.inc();
    }
}
