//! The spools of snapshots that other nodes send.

use std::io;

use bytes::Bytes;
use xcron::id::GroupId;
use xcron::store::Spools;

use super::Mount;
use crate::dice::Dice;

/// One spool.
#[derive(Clone, Debug, Default)]
pub(super) struct SpoolData {
    pieces: Vec<Bytes>,
    is_synced: bool,
}

impl SpoolData {
    /// Whether a power cut leaves it; one that was not synced may lose its end.
    pub(super) fn survives(&mut self, dice: &mut Dice) -> bool {
        if !self.is_synced {
            self.pieces.truncate(dice.index(self.pieces.len() + 1));
        }
        self.is_synced || dice.chance(500)
    }
}

impl Spools for Mount {
    fn begin(&self, group: GroupId) -> io::Result<()> {
        self.writes(0);
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        inner.spools.insert(group.0, SpoolData::default());
        Ok(())
    }

    fn add(&self, group: GroupId, piece: &[u8]) -> io::Result<()> {
        self.writes(piece.len() as u64);
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        if inner.faults.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let spool = inner.spools.get_mut(&group.0).ok_or(io::ErrorKind::NotFound)?;
        spool.pieces.push(Bytes::copy_from_slice(piece));
        Ok(())
    }

    fn sync(&self, group: GroupId) -> io::Result<()> {
        self.syncs();
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        if inner.faults.syncs_fail || inner.is_cut {
            return Err(io::Error::other("injected: the sync failed"));
        }
        inner.spools.get_mut(&group.0).ok_or(io::ErrorKind::NotFound)?.is_synced = true;
        inner.received += 1;
        Ok(())
    }

    fn read(&self, group: GroupId) -> io::Result<Option<Box<dyn Iterator<Item = io::Result<Bytes>> + Send>>> {
        self.reads(64);
        let inner = self.disk.0.lock();
        inner.read(self.run)?;
        let pieces = inner.spools.get(&group.0).map(|spool| spool.pieces.clone());
        Ok(pieces.map(|pieces| Box::new(pieces.into_iter().map(Ok)) as Box<_>))
    }

    fn remove(&self, group: GroupId) -> io::Result<()> {
        self.writes(0);
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        inner.spools.remove(&group.0);
        Ok(())
    }
}
