//! Bounds how often the log repeats itself: a trouble that lasts gets a line from time to time, with the number of those left out.
//!
//! Whoever can cause trouble (a stranger, a peer, a target) must not be able to fill the disk with lines about it.
//! Used by everything that logs what may repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// The same trouble is logged once in this time, unless it says otherwise.
const EVERY: Duration = Duration::from_mins(1);
/// Most troubles remembered. Beyond it new ones are counted, but not logged: there are too many to read.
const KEYS_MAX: usize = 256;

/// Remembers what was logged, by what it was about.
#[derive(Debug)]
pub struct LogLimit<K> {
    every: Duration,
    told: Mutex<BTreeMap<K, Told>>,
}

#[derive(Debug)]
struct Told {
    at: Duration,
    /// How many came since without a line.
    unlogged: u64,
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        Self::every(EVERY)
    }
}

impl<K> LogLimit<K> {
    /// At most one line about the same in this time.
    pub const fn every(every: Duration) -> Self {
        Self {
            every,
            told: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K: Ord> LogLimit<K> {
    /// Whether to log this at `now` (monotonic): then how many of the same were left out since the last line.
    pub fn line(&self, key: K, now: Duration) -> Option<u64> {
        let mut told = self.told.lock();
        if let Some(last) = told.get_mut(&key) {
            if now < last.at + self.every {
                last.unlogged += 1;
                return None;
            }
            let unlogged = last.unlogged;
            *last = Told { at: now, unlogged: 0 };
            return Some(unlogged);
        }
        if told.len() >= KEYS_MAX {
            told.retain(|_, last| now < last.at + self.every);
        }
        if told.len() >= KEYS_MAX {
            return None;
        }
        told.insert(key, Told { at: now, unlogged: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_logged_once_a_minute_with_a_count_and_memory_is_bounded() {
        let log = LogLimit::default();
        let at = Duration::from_secs;
        assert_eq!(log.line((1, "secret"), at(0)), Some(0));
        assert_eq!(log.line((1, "secret"), at(58)), None);
        assert_eq!(log.line((1, "secret"), at(59)), None);
        assert_eq!(log.line((2, "secret"), at(59)), Some(0));
        assert_eq!(log.line((1, "cluster"), at(59)), Some(0));
        assert_eq!(log.line((1, "secret"), at(60)), Some(2));
        assert_eq!(log.line((1, "secret"), at(120)), Some(0));
        let told = (0..1_000)
            .filter(|node| log.line((*node, "flood"), at(121)).is_some())
            .count();
        // Those of more than a minute ago have made room.
        assert_eq!(told + 1, KEYS_MAX);
        assert_eq!(log.line((5_000, "flood"), at(122)), None);
        assert_eq!(log.line((5_000, "flood"), at(200)), Some(0), "old ones make room");
    }
}
