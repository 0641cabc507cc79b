//! Snapshots on their way to this node: one a group at a time, from one sender, never into the spool of one that is being
//! installed. Called by `raft/serve.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::id::{GroupCount, GroupId, NodeId};
use crate::store::snapshot::{ChunkError, Receiving, Snapshot};
use crate::store::spool::Spools;

/// The snapshots that are being received.
#[derive(Debug)]
pub struct Inbox {
    spools: Arc<dyn Spools>,
    groups: GroupCount,
    receiving: Mutex<BTreeMap<GroupId, (NodeId, Receiving)>>,
    installing: Arc<Mutex<BTreeSet<GroupId>>>,
}

/// Keeps the group's spool from being overwritten until it is dropped.
#[derive(Debug)]
pub(super) struct Installing {
    group: GroupId,
    installing: Arc<Mutex<BTreeSet<GroupId>>>,
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.installing.lock().remove(&self.group);
    }
}

impl Inbox {
    /// Receives into `spools`.
    pub fn new(spools: Arc<dyn Spools>, groups: GroupCount) -> Self {
        Self {
            spools,
            groups,
            receiving: Mutex::default(),
            installing: Arc::default(),
        }
    }

    /// Where snapshots are kept.
    pub fn spools(&self) -> &Arc<dyn Spools> {
        &self.spools
    }

    /// Takes a chunk. A first one begins anew, whoever sends it: the leader has changed, or did not get its answer.
    pub fn take(&self, group: GroupId, from: NodeId, chunk: &[u8]) -> Result<(), ChunkError> {
        let mut receiving = self.receiving.lock();
        if Receiving::number(chunk)? == 0 {
            if self.installing.lock().contains(&group) {
                return Err(ChunkError::Installing);
            }
            let begun = Receiving::begin(self.spools.clone(), self.groups, group)?;
            receiving.insert(group, (from, begun));
        }
        match receiving.get_mut(&group) {
            Some((sender, begun)) if *sender == from => begun.take(chunk),
            _ => Err(ChunkError::Incomplete),
        }
    }

    /// Whether a snapshot of the group is being installed, or is about to be.
    pub fn is_installing(&self, group: GroupId) -> bool {
        self.installing.lock().contains(&group)
    }

    /// Forgets what was received of the group.
    pub fn forget(&self, group: GroupId) {
        self.receiving.lock().remove(&group);
    }

    /// The snapshot that `from` has sent completely.
    pub fn finish(&self, group: GroupId, from: NodeId) -> Result<Snapshot, ChunkError> {
        let begun = self.receiving.lock().remove(&group);
        let Some((_, begun)) = begun.filter(|(sender, _)| *sender == from) else {
            return Err(ChunkError::Incomplete);
        };
        if !self.installing.lock().insert(group) {
            return Err(ChunkError::Installing);
        }
        begun.finish(Installing {
            group,
            installing: self.installing.clone(),
        })
    }
}
