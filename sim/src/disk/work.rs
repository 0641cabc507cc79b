//! What the disk's calls cost, and where threads meet: each read and write takes virtual time, and is a point at which another
//! thread of the process may go on.
//!
//! A job (`strands.rs`) gives its turn up here. The runtime's own thread cannot: what it does is added up, and the node stands still
//! for so long afterwards (`host.rs`), as a process does whose runtime blocks. Called by the parts of the disk before they lock it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Mount;
use crate::dice::Dice;
use crate::strands::{self, Strands};

/// A read of the runtime's thread meets so many of a thousand times a job that goes on in the middle of it.
const MEETS_PERMILLE: u64 = 300;
/// So many of a thousand writes wait for the disk.
const WAITS_PERMILLE: u64 = 20;
/// Bytes that are written in a microsecond.
const BYTES_PER_US: u64 = 300;

/// One run of a process, as its disk sees it.
#[derive(Debug)]
pub struct Workshop {
    /// Its jobs.
    pub strands: Strands,
    /// How long its runtime's thread has blocked since somebody asked.
    blocked_us: AtomicU64,
    dice: Mutex<Dice>,
}

impl Workshop {
    pub(super) fn new(dice: Dice) -> Arc<Self> {
        Arc::new(Self {
            strands: Strands::default(),
            blocked_us: AtomicU64::new(0),
            dice: Mutex::new(dice),
        })
    }

    /// How long the runtime's thread has blocked since the last time this was asked, in microseconds.
    pub fn take_blocked_us(&self) -> u64 {
        self.blocked_us.swap(0, Ordering::SeqCst)
    }

    fn takes(&self, us: u64, off_cpu_us_max: u64) {
        if strands::is_job() {
            return strands::pause(us + self.off_the_cpu_us(off_cpu_us_max));
        }
        self.blocked_us.fetch_add(us, Ordering::SeqCst);
        if self.strands.count() > 0 {
            let meets = {
                let mut dice = self.dice.lock();
                dice.chance(MEETS_PERMILLE).then(|| dice.bits())
            };
            if let Some(number) = meets {
                self.strands.turn(usize::try_from(number % 64).expect("small"));
            }
        }
    }
}

impl Workshop {
    /// How long a thread is not given the processor: mostly not at all, sometimes as long as the machine's other work likes.
    fn off_the_cpu_us(&self, most: u64) -> u64 {
        let mut dice = self.dice.lock();
        match dice.within(0..100) {
            0..60 => 0,
            60..95 => dice.within(0..3_000),
            _ => dice.within(5_000..most.max(5_001)),
        }
    }
}

impl Mount {
    fn takes(&self, us: u64) {
        let off_cpu_us_max = self.disk.0.lock().faults.off_cpu_us_max;
        self.work.takes(us, off_cpu_us_max);
    }

    /// A read of about so many rows.
    pub(super) fn reads(&self, rows: u64) {
        let us = self.work.dice.lock().within(2..10) + rows;
        self.takes(us);
    }

    /// A write of so many bytes that nobody waits for to be on the disk.
    pub(super) fn writes(&self, bytes: u64) {
        let sync_us_max = self.disk.0.lock().faults.sync_us_max;
        let us = {
            let mut dice = self.work.dice.lock();
            let waits = dice.chance(WAITS_PERMILLE);
            let waits_us = if waits { dice.within(0..sync_us_max / 4 + 1) } else { 0 };
            dice.within(10..60) + bytes / BYTES_PER_US + waits_us
        };
        self.takes(us);
    }

    /// A sync.
    pub(super) fn syncs(&self) {
        let time = self.sync_time();
        self.takes(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Between a write that is there and whatever comes after it.
    pub(super) fn wrote(&self) {
        self.takes(1);
    }
}
