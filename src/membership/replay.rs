//! Which datagrams have been received already: a bounded memory of those young enough to be accepted again.
//!
//! Pure: the time is handed in. Used by `seal.rs` alone.

use std::collections::BTreeSet;

use super::observe::Dropped;

/// How far the sender's clock, with the way of the datagram, may differ from the receiver's.
///
/// Not the 500 ms within which a node may lead: a node whose clock is wrong is to stay visible, so that it can be told.
/// Far less than a minute, since every datagram of twice this time is remembered.
pub const AGE_MS_MAX: u64 = 30_000;
/// Most datagrams remembered: 270 a second, five times what a node of a hundred receives. With more, the oldest are
/// forgotten and nothing older than they is accepted any more.
pub const REMEMBERED_MAX: usize = 16_384;

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 12;

/// The datagrams accepted lately.
#[derive(Debug, Default)]
pub(super) struct Replays {
    seen: BTreeSet<(u64, [u8; NONCE_BYTES])>,
    /// Nothing of this instant or before is accepted: it may have been forgotten.
    forgotten_ms: u64,
}

impl Replays {
    /// Whether a datagram of `sealed_ms` may be accepted at `now_ms`.
    pub(super) fn check(&self, now_ms: u64, sealed_ms: u64, nonce: [u8; NONCE_BYTES]) -> Result<(), Dropped> {
        if sealed_ms > now_ms.saturating_add(AGE_MS_MAX) {
            return Err(Dropped::Future);
        }
        // What was forgotten under a clock that stood further ahead says nothing any more.
        let forgotten_ms = if self.forgotten_ms > now_ms.saturating_add(AGE_MS_MAX) {
            0
        } else {
            self.forgotten_ms
        };
        if sealed_ms < now_ms.saturating_sub(AGE_MS_MAX) || sealed_ms <= forgotten_ms {
            return Err(Dropped::Stale);
        }
        if self.seen.contains(&(sealed_ms, nonce)) {
            return Err(Dropped::Replayed);
        }
        Ok(())
    }

    /// Remembers a datagram that passed [`Replays::check`] and is genuine: a forged one must not fill the memory. False if
    /// it was remembered already.
    pub(super) fn remember(&mut self, now_ms: u64, sealed_ms: u64, nonce: [u8; NONCE_BYTES]) -> bool {
        let (oldest_ms, newest_ms) = (now_ms.saturating_sub(AGE_MS_MAX), now_ms.saturating_add(AGE_MS_MAX));
        while self.seen.first().is_some_and(|(at, _)| *at < oldest_ms) {
            self.seen.pop_first();
        }
        // The wall clock was set back: what lies beyond the window is refused by its time.
        while self.seen.last().is_some_and(|(at, _)| *at > newest_ms) {
            self.seen.pop_last();
        }
        if self.forgotten_ms > newest_ms {
            self.forgotten_ms = 0;
        }
        let is_new = self.seen.insert((sealed_ms, nonce));
        if self.seen.len() > REMEMBERED_MAX {
            let (at, _) = self.seen.pop_first().expect("it holds more than REMEMBERED_MAX");
            self.forgotten_ms = self.forgotten_ms.max(at);
        }
        is_new
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}
