//! A consistent copy of one group's rows: cut into chunks for another node, kept there in a spool, and installed from it.
//!
//! Building one costs nothing: the state is durable already, a snapshot is a view of it. It is never whole in memory. An
//! install replaces the group's rows; it is done only from a spool that is on disk, so that a node that dies half way
//! finishes it at its next start. Called by `raft/`.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::record;
use crate::id::{GroupCount, GroupId};
use crate::store::group::{GroupMeta, GroupStore, StoreError};
use crate::store::inbox::Installing;
use crate::store::key::{self, Fact, Table};
use crate::store::kv::{Kv, ReadKv, Row, Write};
use crate::store::spool::{PIECE_BYTES_MAX, Spools};

/// Rows read at a time.
const SCAN_ROWS: usize = 64;
/// A chunk is closed when it has so many bytes; the row that passes them is in it.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_V1: u8 = 1;

const _: () = assert!(CHUNK_BYTES + crate::limits::ENTRY_BYTES_MAX < PIECE_BYTES_MAX);

/// A view of one group's rows at the moment it was taken.
pub struct Snapshot {
    source: Source,
    groups: GroupCount,
    group: GroupId,
    /// The group's position and replicated facts in the view.
    pub meta: GroupMeta,
}

enum Source {
    /// This node's own rows.
    View(Arc<dyn ReadKv>),
    /// What another node sent, complete and on disk; not overwritten as long as it is held here.
    Spool {
        spools: Arc<dyn Spools>,
        _installing: Option<Installing>,
    },
}

/// One piece of a snapshot on its way.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    /// From 0.
    number: u32,
    groups: GroupCount,
    group: GroupId,
    /// The group's facts; the same in every chunk.
    meta: GroupMeta,
    /// Ordinal of the table, and its rows.
    table: u8,
    rows: Vec<(Bytes, Bytes)>,
    /// Nothing follows.
    is_last: bool,
}

/// Why what another node sends is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Its bytes are damaged, or of another release.
    #[error("a chunk of a snapshot cannot be read: {0}")]
    Unreadable(String),
    /// It is not the one that follows.
    #[error("chunk {found} of a snapshot came, {expected} was expected: begin again")]
    Order {
        /// The number that follows.
        expected: u32,
        /// The number it has.
        found: u32,
    },
    /// It is of another group or cluster.
    #[error("a chunk of group {0} came in a snapshot of another")]
    Group(GroupId),
    /// The disk refused.
    #[error("a snapshot cannot be stored: {0}")]
    Disk(#[from] io::Error),
    /// The one before it is being installed.
    #[error("the snapshot before it is being installed: try again")]
    Installing,
    /// There is nothing to install.
    #[error("the snapshot is not complete: begin again")]
    Incomplete,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("group", &self.group)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// Takes a view of the group's rows; `meta` is their position.
    pub fn take(store: &GroupStore, meta: GroupMeta) -> Self {
        Self {
            source: Source::View(store.kv().view()),
            groups: store.groups(),
            group: store.group(),
            meta,
        }
    }

    /// The snapshot as chunks to send. Not for one that came from another node itself.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks {
            snapshot: self,
            table: 0,
            from: Vec::new(),
            number: 0,
            is_done: false,
        }
    }
}

/// Cuts a snapshot into chunks, one at a time.
pub struct Chunks<'a> {
    snapshot: &'a Snapshot,
    table: usize,
    from: Vec<u8>,
    number: u32,
    is_done: bool,
}

impl Chunks<'_> {
    /// The next chunk; `None` after the last.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Source::View(view) = &self.snapshot.source else {
            return Ok(None);
        };
        if self.is_done {
            return Ok(None);
        }
        let table = Table::ALL[self.table];
        let rows = self.rows(view.as_ref(), table)?;
        let is_table_done = rows.is_empty();
        let last_table = self.table + 1 == Table::ALL.len();
        self.is_done = is_table_done && last_table;
        let chunk = Chunk {
            number: self.number,
            groups: self.snapshot.groups,
            group: self.snapshot.group,
            meta: self.snapshot.meta.clone(),
            table: table as u8,
            rows,
            is_last: self.is_done,
        };
        if is_table_done {
            self.table += 1;
            self.from.clear();
        }
        self.number += 1;
        Ok(Some(chunk.encode()))
    }

    /// About [`CHUNK_BYTES`] of the rows that follow.
    fn rows(&mut self, view: &dyn ReadKv, table: Table) -> Result<Vec<Row>, StoreError> {
        let (first, end) = range(self.snapshot.groups, self.snapshot.group, table);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            let scanned = view.scan(table, self.from.as_slice().max(&first), &end, SCAN_ROWS)?;
            let is_end = scanned.len() < SCAN_ROWS;
            for row in scanned {
                bytes += row.0.len() + row.1.len();
                self.from = [&row.0, &[0][..]].concat();
                rows.push(row);
                if bytes >= CHUNK_BYTES {
                    return Ok(rows);
                }
            }
            if is_end {
                return Ok(rows);
            }
        }
    }
}

impl Chunk {
    fn encode(&self) -> Bytes {
        let mut bytes = record::versioned(CHUNK_V1, self);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let unreadable = |what: &str| ChunkError::Unreadable(what.to_owned());
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| unreadable("it is cut"))?;
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(unreadable("its checksum is wrong"));
        }
        let chunk: Self = record::decode("chunk", CHUNK_V1, body).map_err(|error| unreadable(&error.to_string()))?;
        if usize::from(chunk.table) >= Table::ALL.len() {
            return Err(unreadable("it is of an unknown table"));
        }
        Ok(chunk)
    }
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct Receiving {
    spools: Arc<dyn Spools>,
    groups: GroupCount,
    group: GroupId,
    next: u32,
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
            complete: None,
        })
    }

    /// The number of a chunk, without looking further into it.
    pub fn number(chunk: &[u8]) -> Result<u32, ChunkError> {
        Ok(Chunk::decode(chunk)?.number)
    }

    /// Takes the next chunk.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), ChunkError> {
        let chunk = Chunk::decode(bytes)?;
        self.check(&chunk)?;
        self.spools.add(self.group, bytes)?;
        self.next += 1;
        self.complete = chunk.is_last.then_some(chunk.meta);
        Ok(())
    }

    /// Ends the receiving: everything is on disk, and can be installed.
    pub(super) fn finish(self, installing: Installing) -> Result<Snapshot, ChunkError> {
        let meta = self.complete.ok_or(ChunkError::Incomplete)?;
        self.spools.sync(self.group)?;
        Ok(Snapshot {
            source: Source::Spool {
                spools: self.spools,
                _installing: Some(installing),
            },
            groups: self.groups,
            group: self.group,
            meta,
        })
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

impl GroupStore {
    /// Replaces the group's rows by the snapshot's. Should the node die half way, the next [`resume`] finishes it, if the
    /// snapshot came from another node.
    pub async fn install(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mark = |value: Option<Vec<u8>>| Write {
            table: Table::State,
            key: key::fact(Fact::Installing, self.group()).to_vec(),
            value,
        };
        self.kv().commit(vec![mark(Some(Vec::new()))])?;
        self.reset_low_water()?;
        for table in Table::ALL {
            self.remove_rows(table)?;
        }
        match &snapshot.source {
            Source::View(_) => {
                let mut chunks = snapshot.chunks();
                while let Some(bytes) = chunks.next_chunk()? {
                    self.put_rows(self.readable(Chunk::decode(&bytes))?)?;
                }
            }
            Source::Spool { spools, .. } => {
                for chunk in self.spooled(spools.as_ref())? {
                    self.put_rows(chunk?)?;
                }
            }
        }
        let mut writes = self.meta_writes(&snapshot.meta).to_vec();
        writes.push(mark(None));
        self.kv().commit(writes)?;
        // The log is cut up to the snapshot after this, and the spool is gone: both need the rows on disk.
        self.kv().persist().await?;
        if let Source::Spool { spools, .. } = &snapshot.source {
            let removed = spools.remove(self.group());
            removed.map_err(|error| self.spool_error(&error.to_string()))?;
        }
        Ok(())
    }

    fn put_rows(&self, chunk: Chunk) -> Result<(), StoreError> {
        let table = Table::ALL[usize::from(chunk.table)];
        let put = |(key, value): Row| Write {
            table,
            key: key.to_vec(),
            value: Some(value.to_vec()),
        };
        Ok(self.kv().commit(chunk.rows.into_iter().map(put).collect())?)
    }

    fn remove_rows(&self, table: Table) -> Result<(), StoreError> {
        let mut from = Vec::new();
        while self.remove_some_rows(table, &mut from)? {}
        Ok(())
    }

    /// Removes some of the group's rows in a table, and moves `from` behind them: what was removed is slow to scan again.
    /// `false` if there was none.
    pub(super) fn remove_some_rows(&self, table: Table, from: &mut Vec<u8>) -> Result<bool, StoreError> {
        let (first, end) = range(self.groups(), self.group(), table);
        let rows = self.kv().scan(table, from.as_slice().max(&first), &end, SCAN_ROWS)?;
        let Some((last, _)) = rows.last() else { return Ok(false) };
        *from = [last, &[0][..]].concat();
        let remove = |(key, _): Row| Write {
            table,
            key: key.to_vec(),
            value: None,
        };
        self.kv().commit(rows.into_iter().map(remove).collect())?;
        Ok(true)
    }

    /// The chunks of the group's spool, each checked.
    fn spooled<'a>(
        &'a self,
        spools: &dyn Spools,
    ) -> Result<impl Iterator<Item = Result<Chunk, StoreError>> + 'a, StoreError> {
        let pieces = spools
            .read(self.group())
            .map_err(|error| self.spool_error(&error.to_string()))?;
        let pieces = pieces.ok_or_else(|| self.spool_error("it is missing"))?;
        Ok(pieces.map(|piece| {
            let piece = piece.map_err(|error| self.spool_error(&error.to_string()))?;
            self.readable(Chunk::decode(&piece))
        }))
    }

    fn readable(&self, chunk: Result<Chunk, ChunkError>) -> Result<Chunk, StoreError> {
        chunk.map_err(|error| self.spool_error(&error.to_string()))
    }

    fn spool_error(&self, what: &str) -> StoreError {
        StoreError::Torn {
            group: self.group(),
            what: format!(
                "the installation of a snapshot was cut short, and what it was made from cannot be used: {what}"
            ),
        }
    }
}

/// Finishes an install that was cut short, or removes what is left of a snapshot that never was installed. Before the group
/// is opened.
pub async fn resume(
    kv: &Arc<dyn Kv>,
    groups: GroupCount,
    group: GroupId,
    spools: &Arc<dyn Spools>,
) -> Result<(), StoreError> {
    let store = GroupStore::unchecked(kv.clone(), groups, group);
    if kv.get(Table::State, &key::fact(Fact::Installing, group))?.is_none() {
        return spools
            .remove(group)
            .map_err(|error| store.spool_error(&error.to_string()));
    }
    // All of it is read before any of it is used: a damaged end must not be found half way.
    let (mut next, mut complete) = (0, None);
    for chunk in store.spooled(spools.as_ref())? {
        let chunk = chunk?;
        if chunk.group != group || chunk.groups != groups || chunk.number != next || complete.is_some() {
            return Err(store.spool_error("its chunks are not in order"));
        }
        next += 1;
        complete = chunk.is_last.then_some(chunk.meta);
    }
    let meta = complete.ok_or_else(|| store.spool_error("its end is missing"))?;
    let snapshot = Snapshot {
        source: Source::Spool {
            spools: spools.clone(),
            _installing: None,
        },
        groups,
        group,
        meta,
    };
    store.install(&snapshot).await
}

/// First key of the group's rows in a table, and the first beyond them.
fn range(groups: GroupCount, group: GroupId, table: Table) -> (Vec<u8>, Vec<u8>) {
    let range = match table {
        Table::Spec | Table::State => groups.shards_of(group),
        Table::Due => group.0..group.0 + 1,
    };
    (key::shard(range.start).to_vec(), key::shard(range.end).to_vec())
}

#[cfg(test)]
mod tests;
