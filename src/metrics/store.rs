//! Figures of the state and of the disk below it.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Metrics, register};

#[derive(Debug)]
pub(super) struct Store {
    low_water_healed: Counter,
    disk_free: Gauge,
    disk_used: Gauge,
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
            disk_free: register(
                r,
                "disk_free_bytes",
                "Bytes free on the disk of the data directory",
                Gauge::default(),
            ),
            disk_used: register(
                r,
                "disk_used_bytes",
                "Bytes used on the disk of the data directory, by whomever",
                Gauge::default(),
            ),
        }
    }
}

impl Metrics {
    /// A low-water mark hid dues, and was lowered.
    pub fn inc_low_water_healed(&self) {
        self.store.low_water_healed.inc();
    }

    /// The room on the disk of the data directory.
    pub fn set_disk(&self, free_bytes: u64, used_bytes: u64) {
        let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.store.disk_free.set(gauge(free_bytes));
        self.store.disk_used.set(gauge(used_bytes));
    }
}
