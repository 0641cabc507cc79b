//! A node's disk: what is written and what is durable, with the faults disks have. It outlives the node's process.
//!
//! Owns the files of the log stream (`disk/files.rs`), the state (`disk/kv.rs`), the spools (`disk/spools.rs`) and the node's
//! identity. A crash of the process loses nothing that was written; a power cut loses any part of what was not synced. One run of a
//! process works on the disk through a [`Mount`], which does nothing any more once that run has ended.

mod files;
mod kv;
mod spools;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use xcron::identity::{Home, Identity, IdentityError, KnownPeer, Stage};
use xcron::steady::TrustedTime;
use xcron::store::KvError;

use crate::dice::Dice;
use files::FileData;
use kv::Tables;
pub use kv::{OnCommit, SimKv};
use spools::SpoolData;
pub use work::Workshop;

/// A disk writes a sector whole or not at all.
pub const SECTOR_BYTES: usize = 512;
/// How long a job is kept from the processor on a usual day, at most, in microseconds.
pub const OFF_CPU_US_MAX: u64 = 60_000;

/// The disk of one node: a cheap handle.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    dice: Dice,
    faults: Faults,
    /// The run of the process that may use the disk.
    run: u64,
    identity: Option<Identity>,
    peers: Vec<KnownPeer>,
    /// The highest wall time that the node trusted.
    trusted_ms: Option<u64>,
    files: BTreeMap<String, Arc<Mutex<FileData>>>,
    /// The names that a power cut leaves: removals that were not synced come back.
    durable_names: BTreeMap<String, Arc<Mutex<FileData>>>,
    tables: Tables,
    spools: BTreeMap<u16, SpoolData>,
    /// Operations so far: a crash can be set to the next-but-so-many-th.
    operations: u64,
    /// The process is to be cut off in the middle of this operation.
    cut_at: Option<u64>,
    is_cut: bool,
    received: u64,
    copy: Option<Copy>,
}

/// A directory as it was.
#[derive(Clone, Debug)]
struct Copy {
    identity: Option<Identity>,
    peers: Vec<KnownPeer>,
    files: BTreeMap<String, FileData>,
    tables: Tables,
    spools: BTreeMap<u16, SpoolData>,
}

/// What the disk does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A sync takes at least so long, in microseconds.
    pub sync_us_min: u64,
    /// And at most so long.
    pub sync_us_max: u64,
    /// The next sync of the log fails, and every one after it.
    pub syncs_fail: bool,
    /// The next write to the log fails, and every one after it.
    pub writes_fail: bool,
    /// There is no room for new segments, nor for more state.
    pub is_full: bool,
    /// Of the machine rather than the disk: a job that has read or written may be kept from the processor for so long at most,
    /// in microseconds.
    pub off_cpu_us_max: u64,
}

/// The disk as one run of a process sees it.
#[derive(Clone, Debug)]
pub struct Mount {
    disk: Disk,
    run: u64,
    work: Arc<Workshop>,
}

fn gone() -> io::Error {
    io::Error::other("this process has ended")
}

impl Disk {
    /// An empty disk.
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            dice,
            faults: Faults::default(),
            run: 0,
            identity: None,
            peers: Vec::new(),
            trusted_ms: None,
            files: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            tables: Tables::default(),
            spools: BTreeMap::new(),
            operations: 0,
            cut_at: None,
            is_cut: false,
            received: 0,
            copy: None,
        })))
    }

    /// The disk for a new run of the node's process.
    pub fn mount(&self) -> Mount {
        let mut inner = self.0.lock();
        inner.run += 1;
        inner.is_cut = false;
        inner.cut_at = None;
        let work = Workshop::new(Dice::new(inner.dice.bits(), "work"));
        Mount {
            disk: self.clone(),
            run: inner.run,
            work,
        }
    }

    /// The process has ended: from now on it reads and writes nothing. What it wrote stays.
    pub fn unmount(&self) {
        let mut inner = self.0.lock();
        inner.run += 1;
        inner.cut_at = None;
    }

    /// The power is cut: any part of what was not synced is lost.
    pub fn lose_power(&self) {
        self.unmount();
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        inner.files = inner.durable_names.clone();
        for file in inner.files.values() {
            file.lock().lose_power(&mut inner.dice);
        }
        inner.tables.lose_power(&mut inner.dice);
        inner.spools.retain(|_, spool| spool.survives(&mut inner.dice));
    }

    /// Everything is gone: another disk.
    pub fn wipe(&self) {
        self.unmount();
        let mut inner = self.0.lock();
        inner.identity = None;
        inner.peers.clear();
        inner.trusted_ms = None;
        inner.files.clear();
        inner.durable_names.clear();
        inner.tables = Tables::default();
        inner.spools.clear();
    }

    /// Keeps a copy of everything, as it is.
    pub fn copy(&self) {
        let mut inner = self.0.lock();
        let files = inner.files.iter();
        inner.copy = Some(Copy {
            identity: inner.identity.clone(),
            peers: inner.peers.clone(),
            files: files.map(|(name, file)| (name.clone(), file.lock().clone())).collect(),
            tables: inner.tables.clone(),
            spools: inner.spools.clone(),
        });
    }

    /// Puts the copy in the place of everything, as an operator does with a backup. Nothing if there is none.
    pub fn put_back(&self) {
        let mut inner = self.0.lock();
        let Some(copy) = inner.copy.clone() else { return };
        let files = copy.files.into_iter();
        inner.files = files.map(|(name, file)| (name, Arc::new(Mutex::new(file)))).collect();
        inner.durable_names = inner.files.clone();
        inner.identity = copy.identity;
        inner.peers = copy.peers;
        inner.tables = copy.tables;
        inner.spools = copy.spools;
    }

    /// Sets what goes wrong.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.0.lock().faults
    }

    /// The process is cut off in the middle of the so-many-th of its next writes and syncs; 0: it is not.
    pub fn cut_after(&self, operations: u64) {
        let mut inner = self.0.lock();
        inner.cut_at = (operations > 0).then_some(inner.operations + operations);
    }

    /// Whether that has happened.
    pub fn is_cut(&self) -> bool {
        self.0.lock().is_cut
    }

    /// Changes bytes of the log at rest; says what was changed, if there is a log.
    pub fn rot(&self) -> Option<String> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let names: Vec<_> = inner.files.keys().cloned().collect();
        let name = names.get(inner.dice.index(names.len().max(1)))?;
        let at = inner.files[name].lock().flip(&mut inner.dice)?;
        Some(format!("file {name}, byte {at}"))
    }

    /// The rows of the state, as they are.
    pub fn rows(&self) -> Arc<dyn xcron::store::kv::ReadKv> {
        self.0.lock().tables.view()
    }

    /// Who the node is, if it knows.
    pub fn identity(&self) -> Option<Identity> {
        self.0.lock().identity.clone()
    }

    /// Snapshots of other nodes that were received whole, so far.
    pub fn received(&self) -> u64 {
        self.0.lock().received
    }
}

impl Inner {
    /// One write or sync: whether the process lives to see its end. At the set one it does not.
    fn operate(&mut self, run: u64) -> io::Result<()> {
        if run != self.run || self.is_cut {
            return Err(gone());
        }
        self.operations += 1;
        if self.cut_at == Some(self.operations) {
            self.is_cut = true;
        }
        Ok(())
    }

    fn read(&self, run: u64) -> io::Result<()> {
        (run == self.run && !self.is_cut).then_some(()).ok_or_else(gone)
    }
}

impl Mount {
    /// The jobs of this run, and how long its runtime has blocked.
    pub fn workshop(&self) -> Arc<Workshop> {
        self.work.clone()
    }

    /// How long the next sync takes.
    pub fn sync_time(&self) -> Duration {
        let mut inner = self.disk.0.lock();
        let (least, most) = (inner.faults.sync_us_min, inner.faults.sync_us_max);
        Duration::from_micros(inner.dice.within(least..most.max(least + 1)))
    }

    /// One small file, written whole or not at all.
    fn write(&self, name: &str, change: impl FnOnce(&mut Inner)) -> Result<(), IdentityError> {
        let mut inner = self.disk.0.lock();
        let written = inner.operate(self.run);
        written.map_err(|error| IdentityError::Io {
            path: name.into(),
            what: "cannot be written",
            error,
        })?;
        if !inner.is_cut {
            change(&mut inner);
        }
        Ok(())
    }

    fn kv_error(error: &io::Error) -> KvError {
        KvError::Disk {
            path: "state".into(),
            what: error.to_string(),
        }
    }
}

impl TrustedTime for Mount {
    fn load(&self) -> Option<u64> {
        self.disk.0.lock().trusted_ms
    }

    fn keep(&self, wall_ms: u64) -> BoxFuture<'_, io::Result<()>> {
        let mut inner = self.disk.0.lock();
        let kept = inner.read(self.run);
        if kept.is_ok() {
            inner.trusted_ms = Some(wall_ms);
        }
        Box::pin(std::future::ready(kept))
    }
}

impl Home for Mount {
    fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        match self.disk.0.lock().identity.clone() {
            Some(identity) if identity.stage == Stage::Superseded => Err(self.superseded()),
            identity => Ok(identity),
        }
    }

    fn keep(&self, identity: &Identity) -> Result<(), IdentityError> {
        self.write("identity", |inner| inner.identity = Some(identity.clone()))
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, IdentityError> {
        Ok(self.disk.0.lock().peers.clone())
    }

    fn keep_peers(&self, peers: Vec<KnownPeer>) -> BoxFuture<'_, Result<(), IdentityError>> {
        let kept = self.write("peers", |inner| inner.peers = peers);
        Box::pin(async move { kept })
    }

    fn note_sound(&self) -> Result<(), IdentityError> {
        Ok(())
    }

    fn superseded(&self) -> IdentityError {
        IdentityError::Superseded("disk".into())
    }
}
