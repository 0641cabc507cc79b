//! One log stream per node: the Raft logs of all groups, in segments, checksummed, with one writer and one sync for many.
//!
//! Owns the format below, group commit, and the promise that acknowledged data is never lost without a word. Knows
//! nothing of Raft: votes, marks and entries are opaque bytes. Called by `raft/`; all disk access goes through [`Files`].
//!
//! # Files
//!
//! `segment-0000000001`, ... each of one fixed size, numbered without gaps, and `watermark`. Every file is made whole and
//! durable before it gets its name. All numbers are little-endian; every checksum is CRC-32 (IEEE).
//!
//! ## Segment
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `xcronWAL` |
//! | 8..12 | format version, 1 |
//! | 12..20 | identity of the log: a random number, the same in all its files |
//! | 20..24 | number of the segment, from 1 |
//! | 24..28 | size of the file |
//! | 28..32 | zeros |
//! | 32..36 | checksum of 0..32 |
//! | 4096.. | frames, then zeros to the end |
//!
//! ## Frame
//!
//! Starts at a multiple of 8; zeros fill it up to the next one. Never spans two segments. Its checksums (and those of
//! entries) are taken as if the log's identity (8) stood before the bytes, so that bytes of another log, or of a client that sends
//! frames as a body, are never taken for frames of this one.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `xWf1` |
//! | 4..8 | checksum of 8..40 |
//! | 8..12 | checksum of the payload |
//! | 12..16 | length of the payload |
//! | 16 | kind; the numbers only ever grow |
//! | 17 | 0 |
//! | 18..20 | group |
//! | 20..24 | zeros |
//! | 24..32 | lsn: number of the frame in the stream, from 1, without gaps over all segments |
//! | 32..40 | durable: all frames up to this one were synced when this frame was written |
//! | 40.. | payload |
//!
//! | kind | payload |
//! |---|---|
//! | 1 entries | first index (8), count (4), zeros (4), then per entry: length (4), checksum of group, index and entry (4), entry |
//! | 2 vote | the vote |
//! | 3 truncate | index from which entries are gone (8) |
//! | 4 purge | index up to which entries are gone (8), mark |
//! | 5 committed | the committed point |
//! | 6 drop group | nothing: all about the group is gone |
//! | 7 head | first frame of every segment: state of all groups before it. Count (4), then per group: group (2), flags (2: 1 vote, 2 committed, 4 purged, 8 has a log), lengths of vote, committed and mark (4 each), purged index, first index, next index (8 each), the three values |
//! | 8 moved | as 1: live entries of an old segment, written again so that it can go |
//!
//! ## Watermark
//!
//! Two slots, at 0 and 4096, written in turn: `xcronMRK`, identity (8), sequence (8), last synced lsn (8), oldest segment
//! (4), segment of that lsn (4), checksum (4). Written after each sync and before anything is acknowledged; synced about
//! once a second while jobs come, at each change of segment, and (both slots) before old segments are removed.
//!
//! # Judgement at open
//!
//! *Known durable* is the highest lsn that a whole slot of the watermark, or the durable number of any frame header found
//! anywhere, vouches for. If any frame up to it is missing or bad, or a segment is missing, short, foreign or has a bad
//! header, or the watermark is missing, short or has no whole slot, the log is [`OpenError::Damaged`] and not touched.
//! Bad bytes beyond are a torn tail: the log is cut there, zeros are written over the rest and synced, so that no stale
//! frame can ever be taken for a new one; frames beyond that are whole are kept, and written and synced once more, as a
//! sync of them may have failed. A disk is trusted to write each 512-byte sector whole or not at all.
//!
//! # Space
//!
//! Old segments go when no group has live entries in them. A group that lags keeps an old segment only until it is
//! [`Options::segments_behind_max`] behind; then its entries there are written again at the end, as long as less than half
//! of the log is alive.

mod error;
mod files;
mod frame;
mod group;
mod index;
mod ledger;
mod position;
mod read;
mod recover;
mod run;
mod segment;
mod stream;
mod watermark;
mod writer;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::error::{OpenError, WalError};
pub use self::files::{DirFiles, Files, LogFile};
pub use self::index::VALUE_BYTES_MAX;
pub use self::run::{Ended, OwnThread, Run};
pub use self::writer::{Done, Step, Writer};

use self::group::GroupState;
use self::index::{Index, Limits};
use self::position::Piece;
use self::segment::{SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, Segments};
use self::stream::{Op, Stream};
use self::writer::Shared;
use crate::clock::Clock;

/// Settings of a log. May differ from one open to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// Identity that a log gets if this open makes it; an existing one keeps its own. Draw it at random.
    pub new_log_id: u64,
    /// Size of new segments, in bytes: 16 KiB to 1 GiB. Bounds an entry, see [`Wal::entry_bytes_max`].
    pub segment_bytes: u64,
    /// Recent entries kept in memory for each group.
    pub cache_entries_per_group: usize,
    /// Bytes of recent entries kept in memory for all groups. Entries that are not written yet come on top.
    pub cache_bytes: usize,
    /// A batch is closed when it has this many bytes of entries.
    pub batch_bytes_max: usize,
    /// A batch is closed when it has this many jobs.
    pub batch_jobs_max: usize,
    /// An oldest segment this far behind the end is emptied by writing its live entries again.
    pub segments_behind_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            new_log_id: 0,
            segment_bytes: 32 << 20,
            cache_entries_per_group: 1_000,
            cache_bytes: 64 << 20,
            batch_bytes_max: 1 << 20,
            batch_jobs_max: 256,
            segments_behind_max: 8,
        }
    }
}

/// Told about every sync of the log; metrics hang on it.
pub trait Observe: Send + Sync + Debug {
    /// One sync made `jobs` jobs with `bytes` bytes of frames durable, up to frame `lsn`; it took `duration`. Told before anything
    /// of it is acknowledged.
    fn synced(&self, lsn: u64, jobs: usize, bytes: usize, duration: Duration);
}

/// What the log knows of a group, jobs that are not written yet included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// Index of the first live entry; `None` when there is none.
    pub first_index: Option<u64>,
    /// Index of the last live entry; `None` when there is none.
    pub last_index: Option<u64>,
    /// Last saved vote.
    pub vote: Option<Bytes>,
    /// Last saved committed point. After a crash it may be an earlier one.
    pub committed: Option<Bytes>,
    /// Last purge: index up to which entries are gone, and its mark.
    pub purged: Option<(u64, Bytes)>,
}

impl From<&GroupState> for GroupLog {
    fn from(state: &GroupState) -> Self {
        let span = state.span.filter(|span| span.first < span.next);
        Self {
            first_index: span.map(|span| span.first),
            last_index: span.map(|span| span.next - 1),
            vote: state.vote.clone(),
            committed: state.committed.clone(),
            purged: state.purged.clone(),
        }
    }
}

/// Opens the log in `files`, or makes one if the directory is empty. The [`Writer`] is to be run, by a
/// [`Run`] for example.
pub fn open(
    files: Arc<dyn Files>,
    options: Options,
    clock: Arc<dyn Clock>,
    observe: Arc<dyn Observe>,
) -> Result<(Wal, Writer), OpenError> {
    check(&options)?;
    let limits = Limits {
        cache_entries: options.cache_entries_per_group,
        cache_bytes: options.cache_bytes,
        entry_bytes: entry_bytes_max(options.segment_bytes),
        head_bytes: head_bytes_max(options.segment_bytes),
    };
    let segments = Segments::default();
    let (new_log_id, segment_bytes, now) = (options.new_log_id, options.segment_bytes, clock.monotonic());
    let (index, resume) = recover::open(files.as_ref(), new_log_id, segment_bytes, &segments, now)?;
    if resume.ledger.head_bytes() > limits.head_bytes {
        let what = format!(
            "too small: the state of the log's groups takes {} bytes",
            resume.ledger.head_bytes()
        );
        return Err(OpenError::Option {
            name: "segment_bytes",
            what,
        });
    }
    let shared = Arc::new(Shared::new(index.limited(limits), segments.clone(), resume.log_id));
    let recovered_lsn = resume.lsn;
    let sizes = (options.segment_bytes, options.batch_bytes_max);
    let stream = Stream::new(files, clock, observe, segments, sizes, resume)?;
    let handles = Arc::new(Handles(Arc::clone(&shared)));
    Ok((
        Wal {
            handles,
            entry_bytes_max: limits.entry_bytes,
            recovered_lsn,
        },
        Writer::new(shared, stream, options),
    ))
}

fn check(options: &Options) -> Result<(), OpenError> {
    let refuse = |name, what: &str| {
        Err(OpenError::Option {
            name,
            what: what.to_owned(),
        })
    };
    if !(16 << 10..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes) || !options.segment_bytes.is_multiple_of(4096) {
        return refuse("segment_bytes", "must be a multiple of 4096 from 16384 to 1073741824");
    }
    if options.batch_bytes_max == 0 || options.batch_bytes_max > 64 << 20 {
        return refuse("batch_bytes_max", "must be from 1 to 67108864");
    }
    if options.batch_jobs_max == 0 {
        return refuse("batch_jobs_max", "must be at least 1");
    }
    if options.segments_behind_max == 0 {
        return refuse("segments_behind_max", "must be at least 1");
    }
    Ok(())
}

/// Largest head frame's payload: a quarter of a segment.
fn head_bytes_max(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX) - frame::HEADER_BYTES - frame::ALIGN
}

/// Largest entry, and largest payload of a frame but for its fixed part: what a segment with the largest head has left.
fn entry_bytes_max(segment_bytes: u64) -> usize {
    let left = segment_bytes - segment_bytes / 4 - u64::from(SEGMENT_HEADER_BYTES);
    let fixed = frame::HEADER_BYTES + frame::ENTRIES_BYTES + frame::RECORD_BYTES + frame::ALIGN;
    usize::try_from(left).unwrap_or(usize::MAX) - fixed
}

/// Tells the writer when the last handle is gone.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A handle to the log; cheap to clone. Its calls never wait for the disk, but for [`Wal::read`].
///
/// Jobs are written, made durable and completed in the order they are submitted in. A job that is refused is told so at
/// once, on the caller's thread, and has no effect. What waits is held in memory: the caller bounds it.
#[derive(Clone)]
pub struct Wal {
    handles: Arc<Handles>,
    entry_bytes_max: usize,
    recovered_lsn: u64,
}

impl Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("log_id", &self.log_id())
            .finish_non_exhaustive()
    }
}

impl Wal {
    fn shared(&self) -> &Shared {
        &self.handles.0
    }

    /// Appends entries, the first of which gets `first_index`: the index after the last one, or any for a group that never
    /// had an entry or a purge. They can be read as soon as this returns, before they are durable.
    pub fn append(&self, group: u16, first_index: u64, entries: Vec<Bytes>, done: Done) {
        self.shared()
            .submit(group, Op::Entries(first_index, entries), Some(done));
    }

    /// Saves a group's vote, of at most [`VALUE_BYTES_MAX`] bytes.
    pub fn save_vote(&self, group: u16, vote: Bytes, done: Done) {
        self.shared().submit(group, Op::Vote(vote), Some(done));
    }

    /// Saves a group's committed point, of at most [`VALUE_BYTES_MAX`] bytes (a larger one is ignored). Never synced for
    /// itself: after a power cut an earlier one may be found.
    pub fn save_committed(&self, group: u16, committed: Bytes) {
        self.shared().submit(group, Op::Committed(committed), None);
    }

    /// Drops all entries from `from_index` on.
    pub fn truncate(&self, group: u16, from_index: u64, done: Done) {
        self.shared().submit(group, Op::Truncate(from_index), Some(done));
    }

    /// Drops all entries up to `upto_index` and keeps `mark` (at most [`VALUE_BYTES_MAX`] bytes). Beyond the last entry,
    /// the log is empty and goes on at `upto_index + 1`. Below an earlier purge, nothing changes.
    pub fn purge(&self, group: u16, upto_index: u64, mark: Bytes, done: Done) {
        self.shared().submit(group, Op::Purge(upto_index, mark), Some(done));
    }

    /// Drops everything about a group, its vote included.
    pub fn drop_group(&self, group: u16, done: Done) {
        self.shared().submit(group, Op::Drop, Some(done));
    }

    /// The live entries of `from_index..to_index_excl`, in order: as many as have `bytes_max` bytes together, but one at
    /// least if there is any. Recent ones come from memory; others are read, and checked, from the disk: blocks.
    pub fn read(
        &self,
        group: u16,
        from_index: u64,
        to_index_excl: u64,
        bytes_max: usize,
    ) -> Result<Vec<Bytes>, WalError> {
        let shared = self.shared();
        let plan = |index: &Index| index.plan(group, from_index, to_index_excl, bytes_max, &shared.segments);
        read::fetch(shared.with_index(plan), shared.salt, group)
    }

    /// [`Self::read`], if all of it is still in memory; `None` if it would have to read the disk.
    pub fn recent(&self, group: u16, from_index: u64, to_index_excl: u64, bytes_max: usize) -> Option<Vec<Bytes>> {
        let shared = self.shared();
        let plan = |index: &Index| index.plan(group, from_index, to_index_excl, bytes_max, &shared.segments);
        let pieces = shared.with_index(plan).into_iter();
        let cached = pieces.map(|piece| match piece {
            Piece::Cached(entry) => Some(entry),
            Piece::Disk { .. } => None,
        });
        cached.collect()
    }

    /// What the log knows of a group; nothing for a group it never heard of.
    pub fn group(&self, group: u16) -> GroupLog {
        self.shared()
            .with_index(|index| index.state(group).map(GroupLog::from))
            .unwrap_or_default()
    }

    /// All groups the log knows anything of, ascending.
    pub fn groups(&self) -> Vec<u16> {
        self.shared().with_index(Index::groups)
    }

    /// Why the log takes nothing more; `None` while it does. Once set it stays.
    pub fn failure(&self) -> Option<WalError> {
        self.shared().failure()
    }

    /// Identity of the log, the same for as long as it exists.
    pub fn log_id(&self) -> u64 {
        self.shared().log_id
    }

    /// The last frame that was found when the log was opened, synced.
    pub fn recovered_lsn(&self) -> u64 {
        self.recovered_lsn
    }

    /// Largest entry that an append takes, in bytes.
    pub fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }
}
