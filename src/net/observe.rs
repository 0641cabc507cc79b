//! What others may count, and how often the log is told of the same trouble. Owns no counter: the node maps
//! [`NetObserve`] to its metrics.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use super::frame::Breach;
use super::hello::Refusal;
use crate::id::NodeId;
use crate::log_limit::LogLimit;

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

/// How often the log is told of the same trouble with the same peer.
pub(super) type PeerLog = LogLimit<(Who, &'static str)>;
