//! What a node remembers of another: where it was, and how far it had come. Stored as a list, whose entries are never changed:
//! a new field is a new version of the file. Kept by `node/memory.rs`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, Progress};

/// Most nodes remembered; of more, those that were heard of longest ago are forgotten.
pub const KNOWN_PEERS_MAX: usize = 1_024;

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Its id.
    pub node: NodeId,
    /// Where its peer port was when it was last alive.
    pub address: Option<SocketAddr>,
    /// Its newest start, and how far its log was known to be on its disk.
    pub progress: Progress,
    /// When its start or its address was last learned, by this node's wall clock.
    pub heard_ms: u64,
}
