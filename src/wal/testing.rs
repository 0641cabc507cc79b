//! What the tests of the log share: a disk in memory with faults, dice, and a model of the log as plain maps.
//!
//! Compiled for tests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::files::{Files, LogFile};
use super::{GroupLog, Observe, OpenError, Options, Wal, WalError, Writer};
use crate::clock::Clock;

pub const SECTOR: usize = 512;

/// Small deterministic dice (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    pub fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.roll(below as u64)).expect("below a usize")
    }
}

/// Time moves by a quarter of a second at each look, so that the watermark is synced now and then.
#[derive(Debug, Default)]
pub struct TickClock(AtomicU64);

impl Clock for TickClock {
    fn wall_ms(&self) -> u64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(250, Ordering::Relaxed))
    }
}

/// Counts syncs.
#[derive(Debug, Default)]
pub struct Syncs(pub AtomicU64);

impl Observe for Syncs {
    fn synced(&self, _lsn: u64, _jobs: usize, _bytes: usize, _duration: Duration) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many more operations of each sort succeed; negative = all.
#[derive(Debug)]
pub struct Faults {
    pub writes: AtomicI64,
    pub syncs: AtomicI64,
    pub creates: AtomicI64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            writes: AtomicI64::new(-1),
            syncs: AtomicI64::new(-1),
            creates: AtomicI64::new(-1),
        }
    }
}

fn spend(left: &AtomicI64, kind: io::ErrorKind) -> io::Result<()> {
    match left.load(Ordering::Relaxed) {
        0 => Err(io::Error::new(kind, "injected")),
        some => {
            left.store(if some > 0 { some - 1 } else { some }, Ordering::Relaxed);
            Ok(())
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug)]
struct MemFile {
    content: Mutex<Content>,
    faults: Arc<Faults>,
}

impl LogFile for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = content
            .live
            .get(start..start + into.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failed = spend(&self.faults.writes, io::ErrorKind::Other);
        let mut content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        // A failed write may have written some of it.
        let bytes = if failed.is_err() {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let end = start + bytes.len();
        assert!(end <= content.live.len(), "the log never writes beyond a file's size");
        content.live[start..end].copy_from_slice(bytes);
        content.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        failed
    }

    fn sync_data(&self) -> io::Result<()> {
        let failed = spend(&self.faults.syncs, io::ErrorKind::Other);
        let content = &mut *self.content.lock();
        for sector in std::mem::take(&mut content.dirty) {
            // A failed sync may forget what it could not write: it is still read, and no later sync brings it back.
            if failed.is_ok() {
                let range = sector * SECTOR..((sector + 1) * SECTOR).min(content.live.len());
                content.durable[range.clone()].copy_from_slice(&content.live[range]);
            }
        }
        failed
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.content.lock().live.len() as u64)
    }
}

#[derive(Debug, Default)]
struct Names {
    live: BTreeMap<String, Arc<MemFile>>,
    durable: BTreeMap<String, Arc<MemFile>>,
}

/// A disk in memory that knows what a power cut would leave.
#[derive(Debug, Default)]
pub struct MemFiles {
    names: Mutex<Names>,
    pub faults: Arc<Faults>,
}

impl MemFiles {
    fn with(contents: impl Iterator<Item = (String, Vec<u8>)>) -> Arc<Self> {
        let files = Self::default();
        for (name, bytes) in contents {
            files.put(&name, bytes);
        }
        Arc::new(files)
    }

    /// Puts a file there, whole and durable.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Arc<dyn LogFile> {
        let content = Content {
            live: bytes.clone(),
            durable: bytes,
            dirty: BTreeSet::new(),
        };
        let file = Arc::new(MemFile {
            content: Mutex::new(content),
            faults: Arc::clone(&self.faults),
        });
        let mut names = self.names.lock();
        names.live.insert(name.to_owned(), Arc::clone(&file));
        names.durable = names.live.clone();
        file
    }

    /// What the killed process leaves: all that was written.
    pub fn killed(&self) -> Arc<Self> {
        let names = self.names.lock();
        Self::with(
            names
                .live
                .iter()
                .map(|(name, file)| (name.clone(), file.content.lock().live.clone())),
        )
    }

    /// What a power cut leaves: of sectors (and removals) that were not synced, any may be lost.
    pub fn power_cut(&self, dice: &mut Dice) -> Arc<Self> {
        let names = self.names.lock();
        let kept_of_4 = dice.roll(5);
        let mut left = Vec::new();
        for (name, file) in &names.durable {
            if !names.live.contains_key(name) && dice.roll(2) == 0 {
                continue;
            }
            let content = file.content.lock();
            let mut bytes = content.durable.clone();
            for sector in &content.dirty {
                if dice.roll(4) < kept_of_4 {
                    let range = sector * SECTOR..((sector + 1) * SECTOR).min(bytes.len());
                    bytes[range.clone()].copy_from_slice(&content.live[range]);
                }
            }
            left.push((name.clone(), bytes));
        }
        Self::with(left.into_iter())
    }

    pub fn names(&self) -> Vec<String> {
        self.names.lock().live.keys().cloned().collect()
    }

    /// Changes a file behind the log's back.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let names = self.names.lock();
        let file = names.live.get(name).expect("the test names a file that exists");
        let content = &mut *file.content.lock();
        change(&mut content.live);
        content.durable = content.live.clone();
    }
}

impl Files for MemFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn LogFile>> {
        spend(&self.faults.creates, io::ErrorKind::StorageFull)?;
        let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        content[..head.len()].copy_from_slice(head);
        Ok(self.put(name, content))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = self
            .names
            .lock()
            .live
            .get(name)
            .cloned()
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.names
            .lock()
            .live
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let names = &mut *self.names.lock();
        names.durable = names.live.clone();
        Ok(())
    }
}

/// Small segments, small caches: everything happens soon.
pub fn small() -> Options {
    Options {
        new_log_id: 0x00c0_ffee,
        segment_bytes: 16 << 10,
        cache_entries_per_group: 8,
        cache_bytes: 4 << 10,
        batch_bytes_max: 8 << 10,
        batch_jobs_max: 8,
        segments_behind_max: 3,
    }
}

pub fn open(files: &Arc<MemFiles>, options: Options) -> Result<(Wal, Writer), OpenError> {
    let files: Arc<dyn Files> = Arc::clone(files) as _;
    super::open(
        files,
        options,
        Arc::new(TickClock::default()),
        Arc::new(Syncs::default()),
    )
}

/// Results of jobs in the order they were told.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Answer>>>);

/// Number of a job, and what it was told.
type Answer = (usize, Result<(), WalError>);

impl Told {
    pub fn done(&self, job: usize) -> super::Done {
        let told = self.clone();
        Box::new(move |result| told.0.lock().push((job, result)))
    }

    pub fn all(&self) -> Vec<Answer> {
        self.0.lock().clone()
    }

    /// Highest job that was acknowledged, plus one.
    pub fn acked(&self) -> usize {
        self.0
            .lock()
            .iter()
            .filter(|(_, result)| result.is_ok())
            .map(|(job, _)| job + 1)
            .max()
            .unwrap_or(0)
    }
}

/// One operation, as the model and the log both understand it.
#[derive(Debug, Clone)]
pub enum Act {
    Append(Vec<Bytes>),
    Vote(Bytes),
    Committed(Bytes),
    /// Drops this many of the last entries.
    Truncate(u64),
    /// Purges all but this many of the last entries; negative = beyond the last.
    Purge(i64),
    Drop,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelGroup {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    next: Option<u64>,
    entries: BTreeMap<u64, Bytes>,
}

/// The log as it should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model(pub BTreeMap<u16, ModelGroup>);

/// What can be seen of a group: its state and its entries.
pub type View = BTreeMap<u16, (GroupLog, Vec<Bytes>)>;

impl Model {
    /// Does `act` here and submits it to the log.
    pub fn act(&mut self, wal: &Wal, group: u16, act: Act, done: super::Done) {
        let known = self.0.entry(group).or_default();
        let next = known.next.unwrap_or(1);
        match act {
            Act::Append(entries) => {
                known.entries.extend((next..).zip(entries.iter().cloned()));
                known.next = Some(next + entries.len() as u64);
                wal.append(group, next, entries, done);
            }
            Act::Vote(vote) => {
                known.vote = Some(vote.clone());
                wal.save_vote(group, vote, done);
            }
            Act::Committed(at) => {
                known.committed = Some(at.clone());
                wal.save_committed(group, at);
            }
            Act::Truncate(count) => {
                let from = next.saturating_sub(count);
                known.entries.split_off(&from);
                let first = known.purged.as_ref().map_or(1, |(upto, _)| upto + 1);
                known.next = known.next.map(|next| next.min(from.max(first)));
                wal.truncate(group, from, done);
            }
            Act::Purge(keep) => {
                let upto = next.saturating_add_signed(-1 - keep);
                let mark = Bytes::from(format!("mark {upto}"));
                if known.purged.as_ref().is_none_or(|(before, _)| *before <= upto) {
                    known.purged = Some((upto, mark.clone()));
                    known.entries = known.entries.split_off(&(upto + 1));
                    known.next = Some(next.max(upto + 1));
                }
                wal.purge(group, upto, mark, done);
            }
            Act::Drop => {
                self.0.remove(&group);
                wal.drop_group(group, done);
            }
        }
    }

    pub fn view(&self) -> View {
        let seen = self.0.iter().map(|(group, known)| {
            let log = GroupLog {
                first_index: known.entries.keys().next().copied(),
                last_index: known.entries.keys().next_back().copied(),
                vote: known.vote.clone(),
                committed: known.committed.clone(),
                purged: known.purged.clone(),
            };
            (*group, (log, known.entries.values().cloned().collect()))
        });
        seen.filter(|(_, (log, _))| *log != GroupLog::default()).collect()
    }
}

/// What the log shows, read in pieces of `bytes_max`.
pub fn view(wal: &Wal, bytes_max: usize) -> Result<View, WalError> {
    let mut view = View::new();
    for group in wal.groups() {
        let log = wal.group(group);
        let mut entries = Vec::new();
        if let (Some(first), Some(last)) = (log.first_index, log.last_index) {
            while first + (entries.len() as u64) <= last {
                let part = wal.read(group, first + entries.len() as u64, last + 1, bytes_max)?;
                assert!(!part.is_empty(), "entries from {first} to {last} exist");
                entries.extend(part);
            }
        }
        if log != GroupLog::default() {
            view.insert(group, (log, entries));
        }
    }
    Ok(view)
}

/// An act at random: mostly appends, groups of unequal activity, purges that let segments go.
pub fn random_act(dice: &mut Dice) -> (u16, Act) {
    let groups = [1, 1, 1, 2, 2, 3, 900];
    let group = groups[dice.index(groups.len())];
    let small = |dice: &mut Dice| Bytes::from(vec![u8::try_from(dice.roll(256)).expect("a byte"); dice.index(40)]);
    let act = match dice.roll(100) {
        0..60 => {
            // None without entries: with nothing to sync, it would be told before a committed point ahead of it is safe.
            let count = 1 + dice.index(4);
            let entry = |dice: &mut Dice| {
                let bytes = if dice.roll(10) == 0 { 1500 } else { dice.index(300) };
                (0..bytes)
                    .map(|_| u8::try_from(dice.roll(256)).expect("a byte"))
                    .collect()
            };
            Act::Append((0..count).map(|_| entry(dice)).collect())
        }
        60..70 => Act::Vote(small(dice)),
        70..78 => Act::Committed(small(dice)),
        78..85 => Act::Truncate(dice.roll(4)),
        85..98 if group != 3 || dice.roll(4) == 0 => Act::Purge(i64::try_from(dice.roll(20)).expect("small") - 1),
        98 => Act::Drop,
        _ => Act::Append(vec![Bytes::from_static(b"one")]),
    };
    (group, act)
}
