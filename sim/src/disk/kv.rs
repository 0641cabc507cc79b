//! The twin of fjall: the same three tables, atomic batches and views, in memory; the same semantics after a crash: what was
//! committed survives the process, and a power cut leaves a prefix of the commits, at least all that was persisted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use xcron::store::KvError;
use xcron::store::key::Table;
use xcron::store::kv::{Kv, ReadKv, Row, Write};

use super::Mount;
use crate::dice::Dice;

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// The tables, and the commits that a power cut may take back.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    live: [Arc<Rows>; 3],
    durable: [Arc<Rows>; 3],
    unsynced: Vec<Vec<Write>>,
    /// Commits that were made durable so far.
    synced: usize,
}

fn apply(tables: &mut [Arc<Rows>; 3], writes: &[Write]) {
    for write in writes {
        let rows = Arc::make_mut(&mut tables[write.table as usize]);
        match &write.value {
            Some(value) => drop(rows.insert(write.key.clone(), Bytes::from(value.clone()))),
            None => drop(rows.remove(&write.key)),
        }
    }
}

impl Tables {
    pub(super) fn view(&self) -> Arc<View> {
        Arc::new(View(self.live.clone()))
    }

    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        let kept = dice.index(self.unsynced.len() + 1);
        self.synced += self.unsynced.len();
        for writes in &std::mem::take(&mut self.unsynced)[..kept] {
            apply(&mut self.durable, writes);
        }
        self.live = self.durable.clone();
    }
}

/// Told of every commit, after it, with the rows as they are then.
pub type OnCommit = Arc<dyn Fn(&[Write], &dyn ReadKv) + Send + Sync>;

/// The state of one run of a node's process.
#[derive(Clone)]
pub struct SimKv {
    mount: Mount,
    on_commit: OnCommit,
}

impl SimKv {
    /// The state on this disk; `on_commit` looks on.
    pub fn new(mount: Mount, on_commit: OnCommit) -> Self {
        Self { mount, on_commit }
    }
}

impl fmt::Debug for SimKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimKv").finish_non_exhaustive()
    }
}

/// A view that later commits do not change.
#[derive(Debug)]
pub(super) struct View([Arc<Rows>; 3]);

impl ReadKv for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.0[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let rows = self.0[table as usize].range::<[u8], _>(range).take(limit);
        Ok(rows
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }
}

impl SimKv {
    fn now(&self) -> Result<Arc<View>, KvError> {
        let inner = self.mount.disk.0.lock();
        let read = inner.read(self.mount.run);
        read.map_err(|error| Mount::kv_error(&error))?;
        Ok(inner.tables.view())
    }
}

impl ReadKv for SimKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.mount.reads(1);
        self.now()?.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Row>, KvError> {
        self.mount.reads(limit.min(64) as u64);
        self.now()?.scan(table, from, to, limit)
    }
}

impl Kv for SimKv {
    fn commit(&self, writes: Vec<Write>) -> Result<(), KvError> {
        let bytes = writes
            .iter()
            .map(|write| write.key.len() + write.value.as_ref().map_or(0, Vec::len));
        self.mount
            .writes(bytes.sum::<usize>() as u64 + 300 * writes.len() as u64);
        let rows = {
            let mut inner = self.mount.disk.0.lock();
            let failed = inner.operate(self.mount.run).and_then(|()| {
                let is_full = inner.faults.is_full;
                let full = || std::io::ErrorKind::StorageFull.into();
                (!is_full).then_some(()).ok_or_else(full)
            });
            failed.map_err(|error| Mount::kv_error(&error))?;
            if inner.is_cut && inner.dice.chance(500) {
                return Err(Mount::kv_error(&std::io::Error::other("the power is gone")));
            }
            apply(&mut inner.tables.live, &writes);
            inner.tables.unsynced.push(writes.clone());
            inner.tables.view()
        };
        (self.on_commit)(&writes, rows.as_ref());
        self.mount.wrote();
        Ok(())
    }

    fn persist(&self) -> Pin<Box<dyn Future<Output = Result<(), KvError>> + Send>> {
        let mount = self.mount.clone();
        let upto = {
            let inner = mount.disk.0.lock();
            inner.tables.synced + inner.tables.unsynced.len()
        };
        Box::pin(async move {
            tokio::time::sleep(mount.sync_time()).await;
            let mut inner = mount.disk.0.lock();
            let operated = inner.operate(mount.run);
            operated.map_err(|error| Mount::kv_error(&error))?;
            if inner.is_cut || inner.faults.syncs_fail {
                return Err(Mount::kv_error(&std::io::Error::other("injected: the sync failed")));
            }
            let tables = &mut inner.tables;
            // Another persist may have been quicker.
            let count = upto.saturating_sub(tables.synced);
            tables.synced += count;
            let synced: Vec<_> = tables.unsynced.drain(..count).collect();
            for writes in &synced {
                apply(&mut tables.durable, writes);
            }
            Ok(())
        })
    }

    fn check(&self) -> Result<(), KvError> {
        self.now().map(drop)
    }

    fn view(&self) -> Arc<dyn ReadKv> {
        self.mount.disk.0.lock().tables.view()
    }
}
