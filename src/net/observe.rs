//! What others may count, and how often the log is told of the same trouble. Owns no counter: the node maps
//! [`NetObserve`] to its metrics.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::frame::Breach;
use super::hello::Refusal;
use crate::id::NodeId;

/// The same trouble with the same peer is logged once in this time.
const LOG_AGAIN: Duration = Duration::from_mins(1);
/// Most troubles remembered. Beyond it new ones are counted, but not logged: there are too many to read.
const LOG_KEYS_MAX: usize = 256;

/// Which side of a connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// It made the connection, for its own calls.
    Dialed,
    /// It took the connection, and answers.
    Accepted,
}

/// Told of everything worth counting.
pub trait NetObserve: Debug + Send + Sync + 'static {
    /// A connection was proved to be a peer's, or such a one ended.
    fn connection(&self, side: Side, is_open: bool);
    /// A connection was not made, or not taken.
    fn refused(&self, side: Side, refusal: &Refusal);
    /// A connection was ended because its bytes could not be followed.
    fn broken(&self, side: Side, breach: Breach);
    /// An answer came that nobody waits for any more.
    fn late(&self);
    /// A peer's request was not taken because too much is being done for it.
    fn busy(&self);
}

/// An open connection, counted until dropped, however it ends.
pub(super) struct Open {
    observe: Arc<dyn NetObserve>,
    side: Side,
}

impl Open {
    pub(super) fn new(observe: Arc<dyn NetObserve>, side: Side) -> Self {
        observe.connection(side, true);
        Self { observe, side }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observe.connection(self.side, false);
    }
}

/// Whom a trouble is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Node(NodeId),
    Address(IpAddr),
}

/// Remembers what was logged.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<BTreeMap<(Who, &'static str), Duration>>);

impl LogLimit {
    /// Whether `what` about `who` should be logged at `now` (monotonic).
    pub(super) fn is_due(&self, who: Who, what: &'static str, now: Duration) -> bool {
        let mut told = self.0.lock();
        if told.get(&(who, what)).is_some_and(|at| now < *at + LOG_AGAIN) {
            return false;
        }
        if told.len() >= LOG_KEYS_MAX {
            told.retain(|_, at| now < *at + LOG_AGAIN);
        }
        let has_room = told.len() < LOG_KEYS_MAX;
        if has_room {
            told.insert((who, what), now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_logged_once_a_minute_and_memory_is_bounded() {
        let log = LogLimit::default();
        let at = Duration::from_secs;
        assert!(log.is_due(Who::Node(1), "secret", at(0)));
        assert!(!log.is_due(Who::Node(1), "secret", at(59)));
        assert!(log.is_due(Who::Node(2), "secret", at(59)));
        assert!(log.is_due(Who::Node(1), "cluster", at(59)));
        assert!(log.is_due(Who::Node(1), "secret", at(60)));
        let told = (0..1_000)
            .filter(|node| log.is_due(Who::Node(*node), "flood", at(61)))
            .count();
        assert_eq!(told + 3, LOG_KEYS_MAX);
        assert!(log.is_due(Who::Node(5_000), "flood", at(200)), "old ones make room");
    }
}
