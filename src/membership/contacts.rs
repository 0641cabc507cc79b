//! Whom to speak to when gossip alone would not reach them: the seeds, and every address at which a member has been alive.
//!
//! chitchat forgets the dead, so two halves of a cluster that were apart for longer than that would never meet again.
//! Owns the addresses and whose turn it is; no I/O. Used by `gossip.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

/// Most addresses remembered of members that were alive once.
pub const REMEMBERED_ADDRESSES_MAX: usize = 256;
/// Most addresses spoken to in one round by a node that is alone.
pub const CONTACTS_PER_ROUND: usize = 8;
/// A node that is not alone speaks to one address in so many rounds.
pub const ROUNDS_PER_CONTACT: u32 = 10;

/// The addresses, in a fixed order.
#[derive(Debug)]
pub(super) struct Contacts {
    own: SocketAddr,
    seeds: BTreeSet<SocketAddr>,
    /// The one heard of last at the end.
    remembered: VecDeque<SocketAddr>,
    /// The last one spoken to.
    last: Option<SocketAddr>,
    round: u32,
}

impl Contacts {
    pub(super) fn new(own: SocketAddr) -> Self {
        Self {
            own,
            seeds: BTreeSet::new(),
            remembered: VecDeque::new(),
            last: None,
            round: 0,
        }
    }

    /// The addresses that the seeds have now.
    pub(super) fn set_seeds(&mut self, seeds: BTreeSet<SocketAddr>) {
        self.seeds = seeds;
    }

    /// A member is alive at `address`.
    pub(super) fn remember(&mut self, address: SocketAddr) {
        self.remembered.retain(|known| *known != address);
        self.remembered.push_back(address);
        if self.remembered.len() > REMEMBERED_ADDRESSES_MAX {
            self.remembered.pop_front();
        }
    }

    /// Whom to speak to in this round, given the addresses of the others that are alive.
    pub(super) fn due(&mut self, live: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        self.round = self.round.wrapping_add(1);
        let is_turn = self.round.is_multiple_of(ROUNDS_PER_CONTACT);
        let count = if live.is_empty() {
            CONTACTS_PER_ROUND
        } else {
            usize::from(is_turn)
        };
        let candidates: BTreeSet<SocketAddr> = self
            .seeds
            .iter()
            .chain(&self.remembered)
            .filter(|address| **address != self.own && !live.contains(address))
            .copied()
            .collect();
        let after = |address: &&SocketAddr| self.last.is_none_or(|last| **address > last);
        let before = |address: &&SocketAddr| self.last.is_some_and(|last| **address <= last);
        let turn = candidates.iter().filter(after).chain(candidates.iter().filter(before));
        let due: Vec<SocketAddr> = turn.take(count).copied().collect();
        if let Some(last) = due.last() {
            self.last = Some(*last);
        }
        due
    }
}
