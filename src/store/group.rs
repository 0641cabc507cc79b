//! One group's part of the state: what the machine reads, what is committed after each entry, and the due index.
//!
//! Called by `raft/machine.rs` (the only writer) and by the firing (scans and the low-water mark).

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::core::machine::{Changes, DueChange, DueEntry, GroupState, View};
use crate::core::record::{self, RecordError};
use crate::core::task::{TaskSpec, TaskState};
use crate::id::{GroupCount, GroupId, TaskKey};
use crate::store::key::{self, Fact, Table};
use crate::store::kv::{Kv, KvError, Row, Write};

const META_V1: u8 = 1;
const LOWEST_KEY: TaskKey = TaskKey([0; 16]);

/// Why the state of a group cannot be read or written. Always final for the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store below failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A record does not decode.
    #[error("group {group}: {error}. Start with --rejoin to set the directory aside")]
    Record {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        error: RecordError,
    },
    /// The tables are at different log positions, a table hides rows that it holds, or they were to be written while they are
    /// being replaced.
    #[error("group {group}: {what}; the state is damaged. Start with --rejoin to set the directory aside")]
    Torn {
        /// The group.
        group: GroupId,
        /// What differs.
        what: String,
    },
}

/// What is stored about a group as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMeta {
    /// Position in the group's log and its membership there, encoded by the caller; empty before the first entry.
    pub applied: Vec<u8>,
    /// The replicated facts of the group.
    pub state: GroupState,
}

/// An entry of the due index.
pub type Due = (u64, TaskKey, DueEntry);

/// A row of the table of states: its key as it is stored, the task's, and the state.
pub type TaskRow = (Vec<u8>, TaskKey, TaskState);

/// One group's rows in the store.
#[derive(Debug)]
pub struct GroupStore {
    kv: Arc<dyn Kv>,
    groups: GroupCount,
    group: GroupId,
    /// Held over every commit of rows or of the mark, so that an entry put below it and a move of it cannot pass each other.
    mark: Mutex<Mark>,
}

/// The low-water mark, and whether it may move.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Below this instant there is no entry in the due index.
    at_ms: u64,
    rows: Rows,
}

/// What is being done with the group's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// They are those of one moment: entries are applied to them.
    Whole,
    /// A snapshot's take their place. The mark stays at 0 until all of them are there: what is missing meanwhile was not
    /// fired.
    Replaced,
    /// They are about to be removed.
    Closed,
}

impl GroupStore {
    /// Opens the group's rows and checks that all tables are at the same position.
    pub fn open(kv: Arc<dyn Kv>, groups: GroupCount, group: GroupId) -> Result<(Self, GroupMeta), StoreError> {
        let meta = load_meta(kv.as_ref(), group)?;
        let low_water = kv.get(Table::Due, &key::fact(Fact::LowWater, group))?;
        let low_water = low_water.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?)));
        Ok((Self::with_mark(kv, groups, group, low_water.unwrap_or(0)), meta))
    }

    /// The group's rows, whatever they are: only for replacing them.
    pub(super) fn unchecked(kv: Arc<dyn Kv>, groups: GroupCount, group: GroupId) -> Self {
        Self::with_mark(kv, groups, group, 0)
    }

    fn with_mark(kv: Arc<dyn Kv>, groups: GroupCount, group: GroupId, at_ms: u64) -> Self {
        Self {
            kv,
            groups,
            group,
            mark: Mutex::new(Mark {
                at_ms,
                rows: Rows::Whole,
            }),
        }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// How many groups share the store.
    pub fn groups(&self) -> GroupCount {
        self.groups
    }

    /// The store below.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    /// Writes what a batch of entries changed, together with the position after it, all or nothing. Takes the rows of
    /// specs and states out of `changes`, so that no body is copied.
    pub fn commit(&self, meta: &GroupMeta, changes: &mut Changes) -> Result<(), StoreError> {
        let mut writes = Vec::with_capacity(4 + changes.specs.len() + changes.states.len() + changes.dues.len());
        let mut task_rows = |table: Table, rows: &mut Vec<(TaskKey, Option<Vec<u8>>)>| {
            writes.extend(rows.drain(..).map(|(key, value)| Write {
                table,
                key: key::task(key).to_vec(),
                value,
            }));
        };
        task_rows(Table::Spec, &mut changes.specs);
        task_rows(Table::State, &mut changes.states);
        let mut mark = self.whole("an entry is applied")?;
        let lowest = changes
            .dues
            .iter()
            .filter(|due| due.after.is_some())
            .map(|due| due.at_ms)
            .min();
        for DueChange {
            at_ms,
            key,
            after: entry,
            ..
        } in &changes.dues
        {
            let value = entry.map(|entry| key::due_entry(entry).to_vec());
            writes.push(Write {
                table: Table::Due,
                key: key::due(self.group, *at_ms, *key).to_vec(),
                value,
            });
        }
        let lowered = lowest.filter(|lowest| lowest < &mark.at_ms);
        writes.extend(lowered.map(|at_ms| self.low_water_write(at_ms)));
        writes.extend(self.meta_writes(meta));
        self.kv.commit(writes)?;
        mark.at_ms = lowered.unwrap_or(mark.at_ms);
        Ok(())
    }

    /// Up to `limit` due-index entries from `from` on and before `to_ms`, in order.
    pub fn dues(&self, from: (u64, TaskKey), to_ms: u64, limit: usize) -> Result<Vec<Due>, StoreError> {
        let first = key::due(self.group, from.0, from.1);
        let rows = self
            .kv
            .scan(Table::Due, &first, &key::due_from(self.group, to_ms), limit)?;
        let parse = |(key, entry): Row| {
            let (_, at_ms, key) = key::parse_due(&key)?;
            Some((at_ms, key, key::parse_due_entry(&entry)?))
        };
        let torn = || StoreError::Torn {
            group: self.group,
            what: "the due index holds a row of another layout".into(),
        };
        rows.into_iter().map(|row| parse(row).ok_or_else(torn)).collect()
    }

    /// Up to `limit` states of the group's tasks, from the row `from` on, each with its row's key; an empty `from` is the first.
    pub fn states(&self, from: &[u8], limit: usize) -> Result<Vec<TaskRow>, StoreError> {
        let shards = self.groups.shards_of(self.group);
        let (first, end) = (key::shard(shards.start), key::shard(shards.end));
        let rows = self.kv.scan(Table::State, from.max(&first), &end, limit)?;
        let parse = |(row, value): Row| {
            let key = key::parse_task(&row).ok_or_else(|| StoreError::Torn {
                group: self.group,
                what: "the table of states holds a row of another layout".into(),
            })?;
            let state = self.decoded(record::decode_state(&value))?;
            Ok((row.to_vec(), key, state))
        };
        rows.into_iter().map(parse).collect()
    }

    /// Below this instant the due index is empty: every scan begins here, never at the tombstones before it.
    pub fn low_water_ms(&self) -> u64 {
        self.mark.lock().at_ms
    }

    /// Moves the low-water mark up to the first entry, but not beyond `to_ms`. Local to this replica and not synced: an
    /// older mark after a crash only makes the next scan longer. It stays while the rows are replaced or removed.
    pub fn raise_low_water(&self, to_ms: u64) -> Result<u64, StoreError> {
        let mut mark = self.mark.lock();
        if mark.rows != Rows::Whole {
            return Ok(mark.at_ms);
        }
        let first = self.dues((mark.at_ms, LOWEST_KEY), to_ms, 1)?;
        let raised = first.first().map_or(to_ms, |(at_ms, ..)| *at_ms);
        if raised > mark.at_ms {
            self.kv.commit(vec![self.low_water_write(raised)])?;
            mark.at_ms = raised;
        }
        Ok(mark.at_ms)
    }

    /// Lowers the mark to the first entry below it, if there is one, which is a fault: no scan would ever have found it.
    /// Walks over all that is left of removed entries, without the lock: whoever commits must not wait for that.
    pub fn heal_low_water(&self) -> Result<Option<Due>, StoreError> {
        let below = self.dues((0, LOWEST_KEY), self.low_water_ms(), 1)?;
        let Some(found) = below.first().copied() else {
            return Ok(None);
        };
        let mut mark = self.mark.lock();
        // It may have been put there, and fired, since the scan.
        let row = key::due(self.group, found.0, found.1);
        if mark.rows != Rows::Whole || mark.at_ms <= found.0 || self.kv.get(Table::Due, &row)?.is_none() {
            return Ok(None);
        }
        self.kv.commit(vec![self.low_water_write(found.0)])?;
        mark.at_ms = found.0;
        Ok(Some(found))
    }

    /// Whether the rows are those of one moment, neither being replaced by a snapshot's nor about to be removed.
    pub fn is_whole(&self) -> bool {
        self.mark.lock().rows == Rows::Whole
    }

    /// Nothing but a removal of the rows is done through this value any more.
    pub fn close(&self) {
        self.mark.lock().rows = Rows::Closed;
    }

    /// From here on the rows are being replaced, also for a process that comes after this one; the mark is at 0 and stays
    /// there. One batch, under the lock of everybody who writes rows or the mark.
    pub(super) fn begin_replacing(&self) -> Result<(), StoreError> {
        let mut mark = self.whole("a snapshot is installed")?;
        self.kv
            .commit(vec![self.low_water_write(0), self.installing_write(Some(Vec::new()))])?;
        *mark = Mark {
            at_ms: 0,
            rows: Rows::Replaced,
        };
        Ok(())
    }

    /// The rows are whole again, at the position in `meta`.
    pub(super) fn end_replacing(&self, meta: &GroupMeta) -> Result<(), StoreError> {
        let mut mark = self.mark.lock();
        let mut writes = self.meta_writes(meta).to_vec();
        writes.extend([self.low_water_write(0), self.installing_write(None)]);
        self.kv.commit(writes)?;
        mark.rows = Rows::Whole;
        Ok(())
    }

    /// The mark, locked, of rows that may be written; `what` is wanted.
    fn whole(&self, what: &str) -> Result<MutexGuard<'_, Mark>, StoreError> {
        let mark = self.mark.lock();
        match mark.rows {
            Rows::Whole => Ok(mark),
            Rows::Replaced | Rows::Closed => Err(StoreError::Torn {
                group: self.group,
                what: format!("{what} while the rows are being replaced or removed"),
            }),
        }
    }

    fn installing_write(&self, value: Option<Vec<u8>>) -> Write {
        Write {
            table: Table::State,
            key: key::fact(Fact::Installing, self.group).to_vec(),
            value,
        }
    }

    pub(super) fn meta_writes(&self, meta: &GroupMeta) -> [Write; 3] {
        let key = key::fact(Fact::Applied, self.group).to_vec();
        let row = |table, value: Vec<u8>| Write {
            table,
            key: key.clone(),
            value: Some(value),
        };
        [
            row(Table::Spec, meta.applied.clone()),
            row(Table::State, record::versioned(META_V1, meta)),
            row(Table::Due, meta.applied.clone()),
        ]
    }

    fn low_water_write(&self, at_ms: u64) -> Write {
        let key = key::fact(Fact::LowWater, self.group).to_vec();
        Write {
            table: Table::Due,
            key,
            value: Some(at_ms.to_be_bytes().to_vec()),
        }
    }

    fn decoded<T>(&self, result: Result<T, RecordError>) -> Result<T, StoreError> {
        result.map_err(|error| StoreError::Record {
            group: self.group,
            error,
        })
    }
}

impl View for GroupStore {
    type Error = StoreError;

    fn state(&self, key: TaskKey) -> Result<Option<TaskState>, StoreError> {
        let bytes = self.kv.get(Table::State, &key::task(key))?;
        bytes
            .map(|bytes| self.decoded(record::decode_state(&bytes)))
            .transpose()
    }

    fn spec(&self, key: TaskKey) -> Result<Option<TaskSpec>, StoreError> {
        let bytes = self.kv.get(Table::Spec, &key::task(key))?;
        bytes.map(|bytes| self.decoded(record::decode_spec(&bytes))).transpose()
    }
}

/// Reads the group's position from every table, by point read and by scan: a damaged journal can leave tables at
/// different positions, and a lost one makes scans hide rows that point reads still see.
fn load_meta(kv: &dyn Kv, group: GroupId) -> Result<GroupMeta, StoreError> {
    let torn = |what: String| StoreError::Torn { group, what };
    let key = key::fact(Fact::Applied, group);
    let mut rows = Vec::new();
    for table in Table::ALL {
        let row = kv.get(table, &key)?;
        let end = [&key[..], &[0]].concat();
        let scanned = kv.scan(table, &key, &end, 1)?.pop().map(|(_, value)| value);
        if row != scanned {
            return Err(torn(format!("table {} hides rows that it holds", table.name())));
        }
        rows.push(row);
    }
    if kv.get(Table::State, &key::fact(Fact::Installing, group))?.is_some() {
        return Err(torn("the installation of a snapshot was cut short".into()));
    }
    let meta = match &rows[Table::State as usize] {
        None => GroupMeta::default(),
        Some(bytes) => {
            record::decode("group meta", META_V1, bytes).map_err(|error| StoreError::Record { group, error })?
        }
    };
    let wanted = rows[Table::State as usize].is_some().then_some(&meta.applied[..]);
    for table in [Table::Spec, Table::Due] {
        if rows[table as usize].as_deref() != wanted {
            let what = format!("table {} is at another log position than table state", table.name());
            return Err(torn(what));
        }
    }
    Ok(meta)
}

#[cfg(test)]
mod tests;
