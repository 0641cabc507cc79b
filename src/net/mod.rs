//! Peer connections: one node calls another and gets an answer, or knows whether it may have been executed.
//!
//! # Map
//! `client.rs` is the way out: `link.rs` makes and keeps the connection to one peer, `calls.rs` holds the calls on it. `server.rs`
//! is the way in: `door.rs` bounds the connections, `requests.rs` holds what is being done on one. Before a node serves,
//! `greeter.rs` says who is here and asks others the same. Below them `wire.rs` carries frames
//! (`frame.rs`) over a sealed session (`session.rs`, begun by a `hello.rs`), over a stream (`transport.rs`). `offset.rs`
//! estimates how far the peers' clocks are off.
//!
//! Carries opaque bytes: knows neither Raft nor tasks, nor who is in the cluster. Only here is a peer's socket, only here
//! is `snow`. See doc/decisions/005-peer-connections.md.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::id::NodeId;
use crate::secret::ClusterSecret;

mod calls;
mod client;
mod door;
mod frame;
mod greeter;
mod hello;
mod link;
#[cfg(test)]
pub mod memory;
mod observe;
mod offset;
mod remember;
mod requests;
mod server;
mod session;
mod transport;
mod wire;

pub use client::{Parts, Peers};
pub use door::DoorLimits;
pub use frame::Breach;
pub use greeter::{Greeter, Greeting, Peer};
pub use hello::Refusal;
pub use observe::{NetObserve, Side};
pub use offset::Offset;
pub use remember::{LogMark, Remember};
pub use server::serve;
pub use transport::{Dial, Listen, Stream, TcpDial};

/// Which part of a node a request is for. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Service {
    /// Replication of groups.
    Raft = 1,
    /// Requests of clients, forwarded to a group's leader.
    Router = 2,
    /// Everything about nodes rather than tasks.
    Cluster = 3,
}

impl Service {
    /// `None` for what a newer node may know.
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Raft, Self::Router, Self::Cluster]
            .into_iter()
            .find(|service| *service as u8 == byte)
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer has certainly not executed it.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The peer may have executed it.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Where nodes can be reached at the moment.
pub trait AddressBook: Debug + Send + Sync + 'static {
    /// The peer address of `node`, if it is known.
    fn address(&self, node: NodeId) -> Option<SocketAddr>;
}

/// Answers the peers' requests.
pub trait Handle: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the caller waits no longer, or is gone.
    fn handle(&self, from: NodeId, service: Service, request: Bytes) -> BoxFuture<'_, Bytes>;
}

/// This node, as its peers see it, and what it works with.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: u128,
    /// What the cluster's nodes know, and nobody else.
    pub secret: ClusterSecret,
    /// For offsets and backoff.
    pub clock: Arc<dyn Clock>,
    /// For handshakes and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Counts.
    pub observe: Arc<dyn NetObserve>,
    /// Knows how far this node and the others have come.
    pub memory: Arc<dyn Remember>,
}

impl Local {
    /// What it presents itself with, to `to` or, if it was called, to whoever called.
    fn hello(&self, to: NodeId) -> hello::Hello {
        hello::Hello {
            version_min: hello::VERSION_MIN,
            version_max: hello::VERSION_MAX,
            cluster: self.cluster,
            node: self.node,
            to,
            phase: hello::PHASE_SERVES,
            progress: self.memory.own(),
            seen: self.memory.seen(to),
        }
    }

    /// Remembers whoever has proved to be no older copy.
    async fn met(&self, peer: hello::Hello) -> Result<LogMark, Refusal> {
        let met = self.memory.met(peer.node, peer.progress).await;
        met.map_err(Refusal::NotKept)
    }

    /// Counts a refusal; if it says that this node is an older copy of itself, the node ends.
    fn refused(&self, side: Side, refusal: &Refusal) {
        self.observe.refused(side, refusal);
        if *refusal == Refusal::Superseded(self.node) {
            self.memory.superseded();
        }
    }

    /// What goes into each frame that is sent now.
    fn stamp(&self) -> frame::Stamp {
        frame::Stamp {
            wall_ms: self.clock.wall_ms(),
            log: self.memory.own().log,
        }
    }

    fn now(&self) -> offset::Moment {
        offset::Moment {
            wall_ms: self.clock.wall_ms(),
            monotonic: self.clock.monotonic(),
        }
    }
}

#[cfg(test)]
mod tests;
