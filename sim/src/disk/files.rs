//! The log stream's files: sectors that are written and sectors that are durable.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use xcron::wal::{Files, LogFile};

use super::{Mount, SECTOR_BYTES};
use crate::dice::Dice;

/// What is in a file.
#[derive(Clone, Debug)]
pub(super) struct FileData {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ, or may.
    dirty: BTreeSet<usize>,
}

impl FileData {
    /// Each sector that was not synced is there or not, as it happens.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        for sector in std::mem::take(&mut self.dirty) {
            let range = self.range(sector);
            if dice.chance(500) {
                self.durable[range.clone()].copy_from_slice(&self.live[range]);
            }
        }
        self.live.clone_from(&self.durable);
    }

    /// Flips one bit of what is not zero.
    pub(super) fn flip(&mut self, dice: &mut Dice) -> Option<usize> {
        let used = self.live.iter().rposition(|byte| *byte != 0)? + 1;
        let at = dice.index(used);
        let bit = 1 << dice.within(0..8);
        self.live[at] ^= bit;
        self.durable[at] ^= bit;
        Some(at)
    }

    fn range(&self, sector: usize) -> std::ops::Range<usize> {
        sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.live.len())
    }

    fn write(&mut self, start: usize, bytes: &[u8]) {
        self.live[start..start + bytes.len()].copy_from_slice(bytes);
        self.dirty
            .extend(start / SECTOR_BYTES..(start + bytes.len()).div_ceil(SECTOR_BYTES));
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            let range = self.range(sector);
            self.durable[range.clone()].copy_from_slice(&self.live[range]);
        }
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    mount: Mount,
    data: Arc<Mutex<FileData>>,
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl LogFile for SimFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.mount.disk.0.lock().read(self.mount.run)?;
        let data = self.data.lock();
        let start = place(offset)?;
        let found = data.live.get(start..start + into.len());
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.mount.disk.0.lock();
        inner.operate(self.mount.run)?;
        let start = place(offset)?;
        if inner.is_cut || inner.faults.writes_fail {
            // Some of it may have been written.
            let part = inner.dice.index(bytes.len() + 1);
            self.data.lock().write(start, &bytes[..part]);
            return Err(io::Error::other("injected: the write failed"));
        }
        self.data.lock().write(start, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.mount.disk.0.lock();
        inner.operate(self.mount.run)?;
        let mut data = self.data.lock();
        if inner.faults.syncs_fail {
            // What could not be written is forgotten: it is still read, and no later sync brings it back.
            data.dirty.clear();
            return Err(io::Error::other("injected: the sync failed"));
        }
        if inner.is_cut {
            return Err(io::Error::other("the power is gone"));
        }
        data.sync();
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.mount.disk.0.lock().read(self.mount.run)?;
        Ok(self.data.lock().live.len() as u64)
    }
}

impl Files for Mount {
    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.disk.0.lock();
        inner.read(self.run)?;
        Ok(inner.files.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn LogFile>> {
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        if inner.faults.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if inner.is_cut {
            // Whole or not at all.
            return Err(io::Error::other("the power is gone"));
        }
        let mut live = vec![0; place(bytes)?];
        live[..head.len()].copy_from_slice(head);
        let data = FileData {
            durable: live.clone(),
            live,
            dirty: BTreeSet::new(),
        };
        let data = Arc::new(Mutex::new(data));
        inner.files.insert(name.to_owned(), data.clone());
        // Making a file syncs the directory.
        inner.durable_names = inner.files.clone();
        Ok(Arc::new(SimFile {
            mount: self.clone(),
            data,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let inner = self.disk.0.lock();
        inner.read(self.run)?;
        let data = inner.files.get(name).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(SimFile {
            mount: self.clone(),
            data,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        if inner.is_cut {
            return Err(io::Error::other("the power is gone"));
        }
        inner.files.remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.disk.0.lock();
        inner.operate(self.run)?;
        if inner.is_cut {
            return Err(io::Error::other("the power is gone"));
        }
        inner.durable_names = inner.files.clone();
        Ok(())
    }
}
