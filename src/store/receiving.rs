//! A snapshot on its way from another node: its chunks are put into the group's spool, in order, each once.
//!
//! Called by `inbox.rs`, which knows from whom.

use std::sync::Arc;

use crate::id::{GroupCount, GroupId};
use crate::store::group::GroupMeta;
use crate::store::inbox::Installing;
use crate::store::snapshot::{Chunk, ChunkError, Snapshot};
use crate::store::spool::Spools;

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Receiving {
    spools: Arc<dyn Spools>,
    groups: GroupCount,
    group: GroupId,
    next: u32,
    /// Checksum of the chunk before that.
    last: Option<u32>,
    complete: Option<GroupMeta>,
}

impl Receiving {
    /// Begins to receive a snapshot of `group`, in place of any before it.
    pub fn begin(spools: Arc<dyn Spools>, groups: GroupCount, group: GroupId) -> Result<Self, ChunkError> {
        spools.begin(group)?;
        Ok(Self {
            spools,
            groups,
            group,
            next: 0,
            last: None,
            complete: None,
        })
    }

    /// The number of a chunk, without looking further into it.
    pub fn number(chunk: &[u8]) -> Result<u32, ChunkError> {
        Ok(Chunk::decode(chunk)?.number)
    }

    /// Takes the next chunk. The last one once more is the same: its sender did not get the answer.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        let chunk = Chunk::decode(bytes)?;
        let checksum = crc32fast::hash(bytes);
        if Some(chunk.number) == self.next.checked_sub(1) && self.last == Some(checksum) {
            return Ok(());
        }
        self.check(&chunk)?;
        self.spools.add(self.group, bytes)?;
        self.last = Some(checksum);
        self.next += 1;
        self.complete = chunk.is_last.then_some(chunk.meta);
        Ok(())
    }

    /// Ends the receiving: everything is on disk, and can be installed.
    pub(super) fn finish(self, installing: Installing) -> Result<Snapshot, ChunkError> {
        let meta = self.complete.ok_or(ChunkError::Incomplete)?;
        self.spools.sync(self.group)?;
        let of = (self.groups, self.group);
        Ok(Snapshot::spooled(self.spools, Some(Arc::new(installing)), of, meta))
    }

    fn check(&self, chunk: &Chunk) -> Result<(), ChunkError> {
        if chunk.group != self.group || chunk.groups != self.groups {
            return Err(ChunkError::Group(chunk.group));
        }
        if chunk.number != self.next || self.complete.is_some() {
            return Err(ChunkError::Order {
                expected: self.next,
                found: chunk.number,
            });
        }
        Ok(())
    }
}
