//! Snapshots on their way to this node: one a group at a time, from one sender, never into the spool of one that is being
//! installed. Its calls write and sync: they are made away from the runtime's threads. Called by `raft/`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::id::{GroupCount, GroupId, NodeId};
use crate::store::receiving::Receiving;
use crate::store::snapshot::{ChunkError, Snapshot};
use crate::store::spool::Spools;

/// Pieces of an install that are done, by group that has one.
type Installs = Arc<Mutex<BTreeMap<GroupId, Arc<AtomicU64>>>>;

/// The snapshots that are being received.
#[derive(Debug)]
pub struct Inbox {
    spools: Arc<dyn Spools>,
    groups: GroupCount,
    /// Each with a lock of its own, held while it is written: another group's need not wait for that.
    receiving: Mutex<BTreeMap<GroupId, Arc<Mutex<Begun>>>>,
    installing: Installs,
}

/// What one sender has sent so far; nothing any more once it was finished or given up.
#[derive(Debug)]
struct Begun {
    sender: NodeId,
    receiving: Option<Receiving>,
}

/// Keeps the group's spool from being overwritten until it is dropped.
#[derive(Debug)]
pub(super) struct Installing {
    group: GroupId,
    steps: Arc<AtomicU64>,
    all: Installs,
}

impl Installing {
    /// One more piece of the install is done.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.all.lock().remove(&self.group);
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

    /// Takes a chunk. A first one begins anew, whoever sends it: the leader has changed, or did not get its answer.
    pub fn take(&self, group: GroupId, from: NodeId, chunk: &[u8]) -> Result<(), ChunkError> {
        let is_first = Receiving::number(chunk)? == 0;
        let slot = {
            let mut receiving = self.receiving.lock();
            let new = || {
                let begun = Begun {
                    sender: from,
                    receiving: None,
                };
                Arc::new(Mutex::new(begun))
            };
            receiving.entry(group).or_insert_with(new).clone()
        };
        let mut begun = slot.lock();
        if is_first {
            if self.is_installing(group) {
                return Err(ChunkError::Installing);
            }
            *begun = Begun {
                sender: from,
                receiving: Some(Receiving::begin(self.spools.clone(), self.groups, group)?),
            };
        }
        if begun.sender != from {
            return Err(ChunkError::Incomplete);
        }
        let receiving = begun.receiving.as_mut().ok_or(ChunkError::Incomplete)?;
        receiving.take(chunk)
    }

    /// Whether a snapshot of the group is being installed, or is about to be.
    pub fn is_installing(&self, group: GroupId) -> bool {
        self.installing.lock().contains_key(&group)
    }

    /// How many pieces of the group's install are done; `None` if there is none.
    pub fn progress(&self, group: GroupId) -> Option<u64> {
        let installing = self.installing.lock();
        installing.get(&group).map(|steps| steps.load(Ordering::Relaxed))
    }

    /// Forgets what was received of the group.
    pub fn forget(&self, group: GroupId) {
        self.receiving.lock().remove(&group);
    }

    /// The snapshot that `from` has sent completely, on disk.
    pub fn finish(&self, group: GroupId, from: NodeId) -> Result<Snapshot, ChunkError> {
        let slot = self
            .receiving
            .lock()
            .get(&group)
            .cloned()
            .ok_or(ChunkError::Incomplete)?;
        let mut begun = slot.lock();
        if begun.sender != from {
            return Err(ChunkError::Incomplete);
        }
        let receiving = begun.receiving.take().ok_or(ChunkError::Incomplete)?;
        let steps = Arc::<AtomicU64>::default();
        {
            let mut installing = self.installing.lock();
            if installing.contains_key(&group) {
                return Err(ChunkError::Installing);
            }
            installing.insert(group, steps.clone());
        }
        let installing = Installing {
            group,
            steps,
            all: self.installing.clone(),
        };
        receiving.finish(installing)
    }
}
