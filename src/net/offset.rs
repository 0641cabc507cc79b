//! How far a peer's wall clock is from this node's: estimates from single exchanges, and the best of them. Pure.
//!
//! A peer's clock, read at some moment between sending and receiving, is off by at most half the round trip from where it
//! is believed to be: that half is the uncertainty, and short round trips say most. Called by `client.rs` for each answer.

use std::collections::VecDeque;
use std::time::Duration;

/// How long an exchange counts: clocks drift apart by some milliseconds in this time, at most.
const WINDOW: Duration = Duration::from_secs(30);
/// Of the exchanges of a busy connection one in this time is kept, the best: all of the last moments may be poor.
const SLOT: Duration = Duration::from_secs(2);
/// The wall clock moving by more against the monotonic one is a jump: what was measured before is worth nothing.
const JUMP_MS: u64 = 20;
/// Three readings in whole milliseconds, and half their sum.
const ROUNDING_MS: u64 = 2;

/// This node's clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub wall_ms: u64,
    pub monotonic: Duration,
}

impl Moment {
    /// What the wall clock said when the monotonic one began: the same for all moments, but for jumps and slewing.
    fn base_ms(self) -> i64 {
        signed(self.wall_ms) - signed(u64::try_from(self.monotonic.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A peer's wall clock against this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The peer's clock minus this node's, in milliseconds.
    pub offset_ms: i64,
    /// How much the true offset may differ from that, either way, in milliseconds.
    pub uncertainty_ms: u64,
    /// When it was measured, by the monotonic clock.
    pub measured: Duration,
}

/// The best of the last exchanges with one peer: at most one per slot of the window.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    samples: VecDeque<Offset>,
    base_ms: Option<i64>,
}

impl Offsets {
    /// Takes an exchange: the peer's clock said `peer_wall_ms` between `sent` and `received`.
    pub(super) fn add(&mut self, sent: Moment, received: Moment, peer_wall_ms: u64) {
        let base_ms = received.base_ms();
        if self.base_ms.is_some_and(|before| before.abs_diff(base_ms) > JUMP_MS) {
            self.samples.clear();
        }
        self.base_ms = Some(base_ms);
        if sent.base_ms().abs_diff(base_ms) > JUMP_MS {
            return;
        }
        let half_trip = received.monotonic.saturating_sub(sent.monotonic) / 2;
        let middle_ms = i64::midpoint(signed(sent.wall_ms), signed(received.wall_ms));
        self.keep(Offset {
            offset_ms: signed(peer_wall_ms) - middle_ms,
            uncertainty_ms: u64::try_from(half_trip.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX) + ROUNDING_MS,
            measured: received.monotonic,
        });
    }

    fn keep(&mut self, fresh: Offset) {
        // The peer's clock has jumped: no offset explains both.
        let explains = |old: &Offset| {
            old.offset_ms.abs_diff(fresh.offset_ms) <= old.uncertainty_ms.saturating_add(fresh.uncertainty_ms) + JUMP_MS
        };
        self.samples.retain(explains);
        let slot = |sample: &Offset| sample.measured.as_millis() / SLOT.as_millis();
        match self.samples.back_mut() {
            Some(last) if slot(last) == slot(&fresh) => {
                if fresh.uncertainty_ms <= last.uncertainty_ms {
                    *last = fresh;
                }
            }
            _ => self.samples.push_back(fresh),
        }
        self.samples.retain(|sample| fresh.measured < sample.measured + WINDOW);
    }

    /// The most certain of the exchanges that count at `now`; of equals the latest.
    pub(super) fn best(&self, now: Duration) -> Option<Offset> {
        let fresh = self
            .samples
            .iter()
            .rev()
            .filter(|sample| now < sample.measured + WINDOW);
        fresh.min_by_key(|sample| sample.uncertainty_ms).copied()
    }
}

/// Any wall clock, also a mad peer's: half the range, so that sums of two stay in bounds.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WALL_MS: u64 = 1_772_323_200_000;

    fn moment(ms: u64) -> Moment {
        Moment {
            wall_ms: WALL_MS + ms,
            monotonic: Duration::from_millis(ms),
        }
    }

    fn best(offsets: &Offsets, now_ms: u64) -> Option<(i64, u64)> {
        let best = offsets.best(Duration::from_millis(now_ms));
        best.map(|best| (best.offset_ms, best.uncertainty_ms))
    }

    #[test]
    fn the_shortest_round_trip_of_the_window_counts() {
        let mut offsets = Offsets::default();
        assert_eq!(best(&offsets, 0), None);
        offsets.add(moment(0), moment(100), WALL_MS + 350);
        assert_eq!(best(&offsets, 100), Some((300, 52)));
        offsets.add(moment(200), moment(204), WALL_MS + 512);
        offsets.add(moment(2_300), moment(2_400), WALL_MS + 2_600);
        assert_eq!(best(&offsets, 2_400), Some((310, 4)));
        assert_eq!(best(&offsets, 30_203), Some((310, 4)));
        assert_eq!(best(&offsets, 30_204), Some((250, 52)));
        assert_eq!(best(&offsets, 32_400), None);
    }

    #[test]
    fn a_good_exchange_is_not_lost_among_many_poor_ones() {
        let mut offsets = Offsets::default();
        offsets.add(moment(0), moment(1), WALL_MS + 7);
        for n in 0..25_000 {
            offsets.add(moment(n), moment(n + 20), WALL_MS + n + 50);
        }
        assert_eq!(best(&offsets, 25_000), Some((7, 3)));
        assert_eq!(best(&offsets, 30_001), Some((40, 12)));
        assert_eq!(offsets.samples.len(), 13);
    }

    #[test]
    fn a_jump_of_the_own_clock_makes_earlier_measurements_worthless() {
        let mut offsets = Offsets::default();
        offsets.add(moment(0), moment(2), WALL_MS + 1);
        let jumped = |ms| Moment {
            wall_ms: WALL_MS + 5_000 + ms,
            monotonic: Duration::from_millis(ms),
        };
        offsets.add(moment(10), jumped(12), WALL_MS + 11);
        assert_eq!(
            best(&offsets, 12),
            None,
            "an exchange across the jump says nothing either"
        );
        offsets.add(jumped(20), jumped(30), WALL_MS + 25);
        assert_eq!(best(&offsets, 30), Some((-5_000, 7)));
    }

    #[test]
    fn a_jump_of_the_peers_clock_makes_earlier_measurements_worthless() {
        let mut offsets = Offsets::default();
        offsets.add(moment(0), moment(2), WALL_MS + 1);
        offsets.add(moment(1_000), moment(1_100), WALL_MS + 3_601_050);
        assert_eq!(best(&offsets, 1_100), Some((3_600_000, 52)));
    }

    proptest! {
        #[test]
        fn the_true_offset_is_within_the_uncertainty(
            true_offset_us in -10_000_000i64..10_000_000,
            there_us in 0u64..2_000_000,
            back_us in 0u64..2_000_000,
            start_us in 0u64..1_000_000,
        ) {
            let own = |us: u64| Moment { wall_ms: WALL_MS + us / 1_000, monotonic: Duration::from_micros(us) };
            let peer_us = i64::try_from(WALL_MS * 1_000 + start_us + there_us).expect("fits") + true_offset_us;
            let mut offsets = Offsets::default();
            offsets.add(own(start_us), own(start_us + there_us + back_us), u64::try_from(peer_us / 1_000).expect("after 1970"));
            let best = offsets.best(Duration::from_micros(start_us + there_us + back_us)).expect("just measured");
            let error_us = (best.offset_ms * 1_000 - true_offset_us).unsigned_abs();
            prop_assert!(error_us <= best.uncertainty_ms * 1_000, "{best:?}");
        }

        #[test]
        fn no_clock_is_too_mad(walls in any::<[u64; 3]>(), monotonic in any::<[u32; 2]>()) {
            let moment = |wall_ms, ms: u32| Moment { wall_ms, monotonic: Duration::from_millis(ms.into()) };
            let mut offsets = Offsets::default();
            offsets.add(moment(walls[0], monotonic[0]), moment(walls[1], monotonic[1]), walls[2]);
            let _ = offsets.best(Duration::ZERO);
        }
    }
}
