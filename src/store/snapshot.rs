//! A consistent copy of one group's rows: cut into chunks for another node, and kept there in a spool.
//!
//! Building one costs nothing: the state is durable already, a snapshot is a view of it. It is never whole in memory.
//! `install.rs` puts it in the place of a group's rows. Called by `raft/`.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::core::record;
use crate::id::{GroupCount, GroupId};
use crate::store::group::{GroupMeta, GroupStore, StoreError};
use crate::store::inbox::Installing;
use crate::store::key::{self, Table};
use crate::store::kv::{ReadKv, Row};
use crate::store::spool::{PIECE_BYTES_MAX, Spools};

/// Rows read at a time.
pub(super) const SCAN_ROWS: usize = 64;
/// A chunk is closed when it has so many bytes; the row that passes them is in it.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_V1: u8 = 1;

const _: () = assert!(CHUNK_BYTES + crate::limits::ENTRY_BYTES_MAX < PIECE_BYTES_MAX);

/// A view of one group's rows at the moment it was taken.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) source: Source,
    groups: GroupCount,
    group: GroupId,
    /// The group's position and replicated facts in the view.
    pub meta: GroupMeta,
}

#[derive(Clone)]
pub(super) enum Source {
    /// This node's own rows.
    View(Arc<dyn ReadKv>),
    /// What another node sent, complete and on disk; not overwritten as long as it is held here.
    Spool {
        spools: Arc<dyn Spools>,
        installing: Option<Arc<Installing>>,
    },
}

/// One piece of a snapshot on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// From 0.
    pub number: u32,
    pub groups: GroupCount,
    pub group: GroupId,
    /// The group's facts; the same in every chunk.
    pub meta: GroupMeta,
    /// Ordinal of the table, and its rows.
    pub table: u8,
    pub rows: Vec<(Bytes, Bytes)>,
    /// Nothing follows.
    pub is_last: bool,
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

    /// One that is in `spools` whole.
    pub(super) fn spooled(
        spools: Arc<dyn Spools>,
        installing: Option<Arc<Installing>>,
        (groups, group): (GroupCount, GroupId),
        meta: GroupMeta,
    ) -> Self {
        Self {
            source: Source::Spool { spools, installing },
            groups,
            group,
            meta,
        }
    }

    /// One more piece of its install is done.
    pub(super) fn step(&self) {
        if let Source::Spool {
            installing: Some(installing),
            ..
        } = &self.source
        {
            installing.step();
        }
    }

    /// The snapshot as chunks to send. Not for one that came from another node itself.
    pub fn chunks(&self) -> Chunks {
        Chunks {
            snapshot: self.clone(),
            table: 0,
            from: Vec::new(),
            number: 0,
            is_done: false,
        }
    }
}

/// Cuts a snapshot into chunks, one at a time.
pub struct Chunks {
    snapshot: Snapshot,
    table: usize,
    from: Vec<u8>,
    number: u32,
    is_done: bool,
}

impl Chunks {
    /// The next chunk; `None` after the last.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Source::View(view) = &self.snapshot.source else {
            return Ok(None);
        };
        if self.is_done {
            return Ok(None);
        }
        let (table, view) = (Table::ALL[self.table], view.clone());
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
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = record::versioned(CHUNK_V1, self);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
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

/// First key of the group's rows in a table, and the first beyond them.
pub(super) fn range(groups: GroupCount, group: GroupId, table: Table) -> (Vec<u8>, Vec<u8>) {
    let range = match table {
        Table::Spec | Table::State => groups.shards_of(group),
        Table::Due => group.0..group.0 + 1,
    };
    (key::shard(range.start).to_vec(), key::shard(range.end).to_vec())
}
