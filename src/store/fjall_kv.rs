//! The state on fjall: the only user of that crate.
//!
//! One database per node, one keyspace per table, one journal for all. No fsync on a commit: see doc/decisions/001-log.md.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use crate::store::journal::{self, JournalError};
use crate::store::key::Table;
use crate::store::kv::{Kv, KvError, ReadKv, Row, Write};

/// Bound of the journal, in bytes: it is replayed at every start, so it decides how long a start takes.
const JOURNAL_BYTES_MAX: u64 = 96 << 20;
/// Size at which a table's memory is written out, in bytes.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;

/// Fewer open tables than these are not taken by fjall.
const TABLES_OPEN_MIN: usize = 10;

/// The thread that opens the database; its panics are damage on disk and need no report of their own.
pub const OPENING_THREAD: &str = "xcron-open";

/// A fjall database.
pub struct FjallKv {
    path: PathBuf,
    database: Database,
    tables: [Keyspace; Table::ALL.len()],
}

impl std::fmt::Debug for FjallKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallKv")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FjallKv {
    /// Opens or creates the database in `path`; at most `tables_open_max` files of tables are kept open.
    pub fn open(path: &Path, cache_bytes: u64, tables_open_max: u32) -> Result<Self, KvError> {
        // Some damage makes fjall panic instead of telling it: on a thread of its own, that is an answer as well.
        let (owned, name) = (path.to_owned(), OPENING_THREAD.to_owned());
        let opening = std::thread::Builder::new()
            .name(name)
            .spawn(move || Self::open_here(&owned, cache_bytes, tables_open_max));
        let opening = opening.map_err(|error| KvError::Disk {
            path: path.display().to_string(),
            what: format!("cannot start a thread: {error}"),
        })?;
        opening.join().unwrap_or_else(|_| {
            Err(KvError::Damaged {
                path: path.display().to_string(),
                what: "the store gave up in the middle of reading its files: they do not fit together".into(),
            })
        })
    }

    fn open_here(path: &Path, cache_bytes: u64, tables_open_max: u32) -> Result<Self, KvError> {
        let fail = |error: fjall::Error| translate(path, &error);
        journal::check(path).map_err(|error| match error {
            JournalError::Io { .. } => KvError::Disk {
                path: path.display().to_string(),
                what: error.to_string(),
            },
            JournalError::OutOfLine { .. } | JournalError::Damaged { .. } | JournalError::Missing { .. } => {
                KvError::Damaged {
                    path: path.display().to_string(),
                    what: error.to_string(),
                }
            }
        })?;
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .max_cached_files(Some((tables_open_max as usize).max(TABLES_OPEN_MIN)))
            .open()
            .map_err(fail)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
        let open = |table: Table| database.keyspace(table.name(), options).map_err(fail);
        let tables = [open(Table::Spec)?, open(Table::State)?, open(Table::Due)?];
        // A table whose directory has no durable name is not there after a power cut, and its rows with it: fjall leaves that to
        // the file system.
        sync_directories(path).map_err(|error| KvError::Disk {
            path: path.display().to_string(),
            what: error.to_string(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            database,
            tables,
        })
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }
}

impl ReadKv for FjallKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self
            .table(table)
            .get(key)
            .map_err(|error| translate(&self.path, &error))?;
        Ok(value.map(Into::into))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        collect(&self.path, self.table(table).range::<&[u8], _>(bounds(from, to)), limit)
    }
}

impl Kv for FjallKv {
    fn commit(&self, writes: Vec<Write>) -> Result<(), KvError> {
        let mut batch = self.database.batch();
        for Write { table, key, value } in writes {
            match value {
                Some(value) => batch.insert(self.table(table), key, value),
                None => batch.remove(self.table(table), key),
            }
        }
        batch.commit().map_err(|error| translate(&self.path, &error))
    }

    fn persist(&self) -> Pin<Box<dyn Future<Output = Result<(), KvError>> + Send>> {
        let (database, path) = (self.database.clone(), self.path.clone());
        let sync = move || {
            database
                .persist(PersistMode::SyncAll)
                .map_err(|error| translate(&path, &error))
        };
        let joined = tokio::task::spawn_blocking(sync);
        Box::pin(async move { joined.await.expect("the sync does not panic") })
    }

    fn check(&self) -> Result<(), KvError> {
        // The one call that tells of a failure without writing anything; what is buffered goes to the system, unsynced.
        let checked = self.database.persist(PersistMode::Buffer);
        checked.map_err(|error| translate(&self.path, &error))
    }

    fn view(&self) -> Arc<dyn ReadKv> {
        Arc::new(FjallView {
            path: self.path.clone(),
            snapshot: self.database.snapshot(),
            tables: self.tables.clone(),
        })
    }
}

struct FjallView {
    path: PathBuf,
    snapshot: fjall::Snapshot,
    tables: [Keyspace; Table::ALL.len()],
}

impl ReadKv for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.snapshot.get(&self.tables[table as usize], key);
        Ok(value.map_err(|error| translate(&self.path, &error))?.map(Into::into))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        let rows = self
            .snapshot
            .range::<&[u8], _>(&self.tables[table as usize], bounds(from, to));
        collect(&self.path, rows, limit)
    }
}

fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    // An upside-down range is a panic inside the tree; here it is simply empty.
    (Bound::Included(from), Bound::Excluded(to.max(from)))
}

fn collect(path: &Path, rows: fjall::Iter, limit: usize) -> Result<Vec<Row>, KvError> {
    let row = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(|error| translate(path, &error))?;
        Ok((key.into(), value.into()))
    };
    rows.take(limit).map(row).collect()
}

/// Makes the names of all directories below durable, and what is in them.
fn sync_directories(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    std::fs::File::open(path)?.sync_all()
}

fn translate(path: &Path, error: &fjall::Error) -> KvError {
    let (path, what) = (path.display().to_string(), error.to_string());
    match error {
        fjall::Error::Locked => KvError::InUse { path },
        fjall::Error::Poisoned => KvError::Disk {
            path,
            what: "an earlier write failed, maybe in the background: the disk is full or failing".into(),
        },
        error if is_refusal(error) => KvError::Disk { path, what },
        _ => KvError::Damaged { path, what },
    }
}

/// Whether the operating system refused, at whatever depth. A file that is missing, cut or in the way, or an offset that no
/// file has, is not a refusal: it means that the directory is not as it was left.
fn is_refusal(error: &fjall::Error) -> bool {
    use std::io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return !matches!(
                io.kind(),
                AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof
            );
        }
        cause = error.source();
    }
    false
}
