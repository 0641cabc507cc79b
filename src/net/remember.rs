//! How far nodes have come: the seam to whoever remembers it. Owns no memory; that is `node/memory.rs`.
//!
//! A node that was restored from an older copy of its directory has forgotten votes and entries that it confirmed. Its peers
//! have not: they remember its newest start and how far its log was, and refuse it (`hello.rs`).

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;

use crate::id::{NodeId, Progress};

/// How far a node's log is known to be on its disk. A cheap handle, told of each frame that comes.
#[derive(Clone, Debug, Default)]
pub struct LogMark(Arc<AtomicU64>);

impl LogMark {
    /// The log is on the disk up to `frame`.
    pub fn raise(&self, frame: u64) {
        self.0.fetch_max(frame, Ordering::Relaxed);
    }

    /// How far it is known to be.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Remembers how far nodes have come.
pub trait Remember: Debug + Send + Sync + 'static {
    /// This node.
    fn own(&self) -> Progress;
    /// How far `node` is known to have come; the default if nothing is known.
    fn seen(&self, node: NodeId) -> Progress;
    /// `node` has shown itself, and was not behind what was seen: on disk when this completes. What is told of its log later
    /// goes into the mark.
    fn met(&self, node: NodeId, progress: Progress) -> BoxFuture<'_, Result<LogMark, String>>;
    /// Another node has seen this one further on than it is: it must not go on.
    fn superseded(&self);
}
