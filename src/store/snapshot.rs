//! A consistent copy of one group's rows, read and installed in chunks: never whole in memory.
//!
//! Building one costs nothing: the state is durable already, a snapshot is a view of it. Called by `raft/machine.rs`.

use std::fmt;
use std::sync::Arc;

use crate::id::{GroupCount, GroupId};
use crate::store::group::{GroupMeta, GroupStore, StoreError};
use crate::store::key::{self, Fact, Table};
use crate::store::kv::{ReadKv, Row, Write};

/// Rows read or written at a time.
const CHUNK_ROWS: usize = 1_024;

/// A view of one group's rows at the moment it was taken.
pub struct Snapshot {
    view: Arc<dyn ReadKv>,
    groups: GroupCount,
    group: GroupId,
    /// The group's position and replicated facts in the view.
    pub meta: GroupMeta,
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
            view: store.kv().view(),
            groups: store.groups(),
            group: store.group(),
            meta,
        }
    }

    /// The next rows of `table` from `from` on; empty at the end.
    fn chunk(&self, table: Table, from: &[u8]) -> Result<Vec<Row>, StoreError> {
        let (first, end) = range(self.groups, self.group, table);
        Ok(self.view.scan(table, from.max(&first), &end, CHUNK_ROWS)?)
    }
}

impl GroupStore {
    /// Replaces the group's rows by the snapshot's. Should the node die half way, the next open says so.
    pub fn install(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let installing = key::fact(Fact::Installing, self.group()).to_vec();
        let mark = |value| Write {
            table: Table::State,
            key: installing.clone(),
            value,
        };
        self.kv().commit(vec![mark(Some(Vec::new()))])?;
        self.reset_low_water()?;
        for table in Table::ALL {
            self.remove_rows(table)?;
            let mut from = Vec::new();
            loop {
                let rows = snapshot.chunk(table, &from)?;
                let Some((last, _)) = rows.last() else { break };
                from = [last, &[0][..]].concat();
                let put = |(key, value): Row| Write {
                    table,
                    key: key.to_vec(),
                    value: Some(value.to_vec()),
                };
                self.kv().commit(rows.into_iter().map(put).collect())?;
            }
        }
        let mut writes = self.meta_writes(&snapshot.meta).to_vec();
        writes.push(mark(None));
        Ok(self.kv().commit(writes)?)
    }

    fn remove_rows(&self, table: Table) -> Result<(), StoreError> {
        let (first, end) = range(self.groups(), self.group(), table);
        let mut from = first;
        loop {
            let rows = self.kv().scan(table, &from, &end, CHUNK_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = [last, &[0][..]].concat();
            let remove = |(key, _): Row| Write {
                table,
                key: key.to_vec(),
                value: None,
            };
            self.kv().commit(rows.into_iter().map(remove).collect())?;
        }
    }
}

/// First key of the group's rows in a table, and the first beyond them.
fn range(groups: GroupCount, group: GroupId, table: Table) -> (Vec<u8>, Vec<u8>) {
    let range = match table {
        Table::Spec | Table::State => groups.shards_of(group),
        Table::Due => group.0..group.0 + 1,
    };
    (key::shard(range.start).to_vec(), key::shard(range.end).to_vec())
}
