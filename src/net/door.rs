//! Who may stay connected: strangers, who have proved nothing yet, and peers. Owns the bounds on both.
//!
//! A stranger too many sends the oldest stranger away, so that thousands who only hold on cannot keep a peer out: a peer
//! proves itself in milliseconds. A peer that connects anew replaces its former connection, which it has given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::hello::Refusal;
use crate::id::NodeId;

/// Most connections that have proved nothing, where there are files enough.
pub(super) const STRANGERS_MAX: usize = 256;
/// Most peers connected, where there are files enough.
const PEERS_MAX: usize = 1_024;

/// How many connections may be open that others have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    strangers_max: usize,
    peers_max: usize,
}

impl DoorLimits {
    /// For a node that may have so many connections with others. A quarter is for strangers; half of the others are peers'
    /// that have connected, the other half this node's own.
    pub fn of_files(files: u32) -> Self {
        let files = files as usize;
        let strangers_max = (files / 4).clamp(1, STRANGERS_MAX);
        Self {
            strangers_max,
            peers_max: (files.saturating_sub(strangers_max) / 2).clamp(1, PEERS_MAX),
        }
    }
}

#[derive(Debug)]
pub(super) struct Door {
    inner: Arc<Mutex<Inner>>,
    limits: DoorLimits,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    strangers: BTreeMap<u64, Arc<Notify>>,
    peers: BTreeMap<NodeId, (u64, Arc<Notify>)>,
}

impl Door {
    pub(super) fn new(limits: DoorLimits) -> Self {
        Self {
            inner: Arc::default(),
            limits,
        }
    }

    /// Lets a stranger in.
    pub(super) fn enter(&self) -> Guest {
        let sent_away = Arc::new(Notify::new());
        let mut inner = self.inner.lock();
        inner.last += 1;
        let number = inner.last;
        inner.strangers.insert(number, sent_away.clone());
        if inner.strangers.len() > self.limits.strangers_max
            && let Some((_, oldest)) = inner.strangers.pop_first()
        {
            oldest.notify_one();
        }
        Guest {
            door: self.inner.clone(),
            peers_max: self.limits.peers_max,
            number,
            peer: None,
            sent_away,
        }
    }
}

/// A connection's place, until dropped.
#[derive(Debug)]
pub(super) struct Guest {
    door: Arc<Mutex<Inner>>,
    peers_max: usize,
    number: u64,
    peer: Option<NodeId>,
    sent_away: Arc<Notify>,
}

impl Guest {
    /// Completes when the connection has to end.
    pub(super) fn sent_away(&self) -> impl Future<Output = ()> + use<> {
        let sent_away = self.sent_away.clone();
        async move { sent_away.notified().await }
    }

    /// It has proved to be `node`.
    pub(super) fn prove(&mut self, node: NodeId) -> Result<(), Refusal> {
        let mut inner = self.door.lock();
        if inner.strangers.remove(&self.number).is_none() {
            return Err(Refusal::Crowded);
        }
        if inner.peers.len() >= self.peers_max && !inner.peers.contains_key(&node) {
            return Err(Refusal::Crowded);
        }
        self.peer = Some(node);
        let before = inner.peers.insert(node, (self.number, self.sent_away.clone()));
        if let Some((_, former)) = before {
            former.notify_one();
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut inner = self.door.lock();
        inner.strangers.remove(&self.number);
        if let Some(node) = self.peer
            && inner.peers.get(&node).is_some_and(|(number, _)| *number == self.number)
        {
            inner.peers.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn door() -> Door {
        Door::new(DoorLimits::of_files(u32::MAX))
    }

    fn is_sent_away(guest: &Guest) -> bool {
        guest.sent_away().now_or_never().is_some()
    }

    #[test]
    fn one_stranger_too_many_sends_the_oldest_away_and_no_peer() {
        let door = door();
        let mut peer = door.enter();
        assert_eq!(peer.prove(7), Ok(()));
        let mut strangers: Vec<Guest> = (0..STRANGERS_MAX).map(|_| door.enter()).collect();
        assert!(!strangers.iter().any(is_sent_away));
        let _more = door.enter();
        assert!(is_sent_away(&strangers[0]));
        assert!(!is_sent_away(&strangers[1]) && !is_sent_away(&peer));
        assert_eq!(strangers[0].prove(8), Err(Refusal::Crowded), "too late");
        assert_eq!(strangers[1].prove(8), Ok(()));
    }

    #[test]
    fn a_peer_that_comes_again_replaces_its_former_connection() {
        let door = door();
        let [mut former, mut latter] = [door.enter(), door.enter()];
        assert_eq!(former.prove(7), Ok(()));
        assert_eq!(latter.prove(7), Ok(()));
        assert!(is_sent_away(&former));
        drop(former);
        assert!(!is_sent_away(&latter));
        assert_eq!(door.inner.lock().peers.len(), 1, "the latter one stays known");
        drop(latter);
        assert!(door.inner.lock().peers.is_empty() && door.inner.lock().strangers.is_empty());
    }

    #[test]
    fn few_files_make_a_small_door() {
        for (files, strangers_max, peers_max) in [(32, 8, 12), (2_304, 256, 1_024), (u32::MAX, 256, 1_024), (0, 1, 1)] {
            let limits = DoorLimits {
                strangers_max,
                peers_max,
            };
            assert_eq!(DoorLimits::of_files(files), limits);
        }
        let door = Door::new(DoorLimits::of_files(32));
        let mut strangers: Vec<Guest> = (0..9).map(|_| door.enter()).collect();
        assert!(is_sent_away(&strangers[0]) && !is_sent_away(&strangers[1]));
        assert_eq!(strangers[1].prove(1), Ok(()));
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let door = door();
        let prove = |node| {
            let mut guest = door.enter();
            guest.prove(node).map(|()| guest)
        };
        let peers: Vec<Guest> = (0..1_024).map(|node| prove(node).expect("room")).collect();
        assert_eq!(prove(5_000).expect_err("full"), Refusal::Crowded);
        assert!(prove(5).is_ok(), "a peer that comes again takes no more room");
        drop(peers);
        assert!(prove(5_000).is_ok());
    }
}
