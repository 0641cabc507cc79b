//! What gossip counts and logs: every datagram that came to nothing, with its reason. Owns the reasons and the bound on log
//! lines; turning counts into metrics is the observer's. Used by everything in `membership`.

use std::fmt::{self, Debug, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::log_limit::LogLimit;

/// Why a datagram came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// Shorter than a header and its tag.
    Truncated,
    /// Longer than any datagram a node sends.
    TooLarge,
    /// Not a datagram of xcron.
    Magic,
    /// Another version of the format.
    Version,
    /// Sealed with a key that is not in this node's secret.
    UnknownKey,
    /// Sealed by a node of another cluster.
    OtherCluster,
    /// Sealed too long ago by this node's clock.
    Stale,
    /// Sealed too far ahead of this node's clock.
    Future,
    /// Received before.
    Replayed,
    /// The key is known, the seal does not fit: changed on the way, or made without the key.
    Forged,
    /// Opened, but not a message that this version understands.
    Malformed,
    /// An own message that is larger than a datagram.
    Oversized,
    /// An own datagram that the system would not send.
    NotSent,
    /// The system gave an error where a datagram was expected.
    NotReceived,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::Truncated,
        Self::TooLarge,
        Self::Magic,
        Self::Version,
        Self::UnknownKey,
        Self::OtherCluster,
        Self::Stale,
        Self::Future,
        Self::Replayed,
        Self::Forged,
        Self::Malformed,
        Self::Oversized,
        Self::NotSent,
        Self::NotReceived,
    ];

    /// The reason as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::UnknownKey => "unknown_key",
            Self::OtherCluster => "other_cluster",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::NotSent => "not_sent",
            Self::NotReceived => "not_received",
        }
    }

    /// What the operator of this node may have to do.
    fn advice(self) -> &'static str {
        match self {
            Self::Truncated | Self::TooLarge | Self::Magic => {
                "something else sends to this port: check who reaches it, and --join on the other nodes"
            }
            Self::Version | Self::Malformed => {
                "the sender runs another version of xcron: upgrade one release at a time"
            }
            Self::UnknownKey => "the sender has another secret: compare the secret files",
            Self::OtherCluster => "the sender belongs to another cluster: check --join on both sides",
            Self::Stale | Self::Future => "the clocks of the nodes differ: synchronize them",
            Self::Replayed => "a datagram came twice: the network repeats, or somebody does",
            Self::Forged => "a datagram was changed on the way, or somebody tries keys",
            Self::Oversized => "too many nodes, or too many restarts of one, are remembered: it passes by itself",
            Self::NotSent | Self::NotReceived => "check the network and the firewall of this machine",
        }
    }
}

/// Whoever counts what happens here.
pub trait Observer: Debug + Send + Sync + 'static {
    /// A sealed datagram went out.
    fn sent(&self, bytes: usize);
    /// A datagram came in, good or bad.
    fn received(&self, bytes: usize);
    /// A datagram came to nothing.
    fn dropped(&self, why: Dropped);
    /// A member's facts cannot be read, so it is not in the view.
    fn unreadable(&self);
    /// The gossip ended by itself and begins anew.
    fn reopened(&self);
}

/// Passes everything to the observer and logs a little of it.
#[derive(Debug)]
pub(super) struct Reporter {
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    /// Whoever can send datagrams must not fill the disk.
    log: LogLimit<Dropped>,
}

impl Reporter {
    pub(super) fn new(observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Self {
        Self {
            observer,
            clock,
            log: LogLimit::default(),
        }
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.observer.sent(bytes);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.observer.received(bytes);
    }

    pub(super) fn unreadable(&self, node: &str, from: SocketAddr, error: &dyn Display, is_first: bool) {
        self.observer.unreadable();
        if is_first {
            tracing::warn!(%node, %from, %error, "gossip: a node's facts cannot be read; it is left out");
        }
    }

    pub(super) fn reopened(&self, error: &dyn Display) {
        self.observer.reopened();
        tracing::error!(%error, "gossip ended and begins anew");
    }

    /// Counts a datagram that came to nothing; true if it was logged as well.
    pub(super) fn dropped(&self, why: Dropped, peer: Option<SocketAddr>, error: Option<&dyn Display>) -> bool {
        self.observer.dropped(why);
        let Some(unlogged) = self.log.line(why, self.clock.monotonic()) else {
            return false;
        };
        let peer = peer.map(tracing::field::display);
        let error = error.map(|error| tracing::field::display(error as &dyn Display));
        tracing::warn!(peer, error, unlogged, "gossip dropped: {}: {}", why, why.advice());
        true
    }
}

impl Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
