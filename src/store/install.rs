//! Puts a snapshot in the place of a group's rows, and finishes at the next start what a node that died had begun.
//!
//! Done only from a spool that is on disk. Many short pieces of work, each away from the runtime's threads: what else the node
//! has to do goes on between and beside them. Nothing is applied to the rows, and nothing moves their low-water mark, from the
//! first piece to the last. Called by `raft/`.

use std::sync::Arc;

use bytes::Bytes;

use crate::blocking::Blocking;
use crate::id::{GroupCount, GroupId};
use crate::store::group::{GroupStore, StoreError};
use crate::store::key::{self, Fact, Table};
use crate::store::kv::{Kv, Row, Write};
use crate::store::snapshot::{Chunk, ChunkError, Chunks, SCAN_ROWS, Snapshot, Source, range};
use crate::store::spool::{Pieces, Spools};

/// Commits of a removal that are one piece of work.
const REMOVALS_AT_ONCE: usize = 8;

/// Where an install's rows come from, one chunk at a time.
enum Feed {
    View(Chunks),
    Spool(Pieces),
}

impl GroupStore {
    /// Replaces the group's rows by the snapshot's. Should the node die half way, the next [`resume`] finishes it, if the
    /// snapshot came from another node.
    pub async fn install(
        self: &Arc<Self>,
        snapshot: &Snapshot,
        blocking: &Arc<dyn Blocking>,
    ) -> Result<(), StoreError> {
        let step = |work: fn(&Self, &Snapshot) -> Result<(), StoreError>| {
            // Held to the end of the work, whoever waits for it: nobody else may use the spool until then.
            let (store, snapshot) = (self.clone(), snapshot.clone());
            blocking.run(move || {
                let done = work(&store, &snapshot);
                snapshot.step();
                done
            })
        };
        step(|store, _| store.begin_replacing()).await?;
        for table in Table::ALL {
            let mut from = Some(Vec::new());
            while let Some(next) = from {
                let (store, snapshot) = (self.clone(), snapshot.clone());
                from = blocking
                    .run(move || {
                        snapshot.step();
                        store.remove_rows(table, next)
                    })
                    .await?;
            }
        }
        let mut feed = match &snapshot.source {
            Source::View(_) => Some(Feed::View(snapshot.chunks())),
            Source::Spool { spools, .. } => Some(Feed::Spool(self.pieces(spools.as_ref())?)),
        };
        while let Some(next) = feed {
            let (store, snapshot) = (self.clone(), snapshot.clone());
            feed = blocking
                .run(move || {
                    snapshot.step();
                    store.put_chunk(next)
                })
                .await?;
        }
        step(|store, snapshot| store.end_replacing(&snapshot.meta)).await?;
        // The log is cut up to the snapshot after this, and the spool is gone: both need the rows on disk.
        self.kv().persist().await?;
        step(|store, snapshot| match &snapshot.source {
            Source::View(_) => Ok(()),
            Source::Spool { spools, .. } => {
                let removed = spools.remove(store.group());
                removed.map_err(|error| store.spool_error(&error.to_string()))
            }
        })
        .await
    }

    /// Puts the rows of the next chunk; `None` after the last.
    fn put_chunk(&self, mut feed: Feed) -> Result<Option<Feed>, StoreError> {
        let chunk = match &mut feed {
            Feed::View(chunks) => chunks.next_chunk()?,
            Feed::Spool(pieces) => {
                let piece = pieces.next().transpose();
                piece.map_err(|error| self.spool_error(&error.to_string()))?
            }
        };
        let Some(bytes) = chunk else { return Ok(None) };
        let chunk = self.readable(Chunk::decode(&bytes))?;
        let table = Table::ALL[usize::from(chunk.table)];
        let put = |(key, value): Row| Write {
            table,
            key: key.to_vec(),
            value: Some(value.to_vec()),
        };
        self.kv().commit(chunk.rows.into_iter().map(put).collect())?;
        Ok(Some(feed))
    }

    /// Removes some of the group's rows in a table that are not before `from`; from where to go on, as what was removed is slow
    /// to scan again. `None` if there are no more.
    pub(super) fn remove_rows(&self, table: Table, mut from: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        let (first, end) = range(self.groups(), self.group(), table);
        for _ in 0..REMOVALS_AT_ONCE {
            let rows = self.kv().scan(table, from.as_slice().max(&first), &end, SCAN_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(None) };
            from = [last, &[0][..]].concat();
            let remove = |(key, _): Row| Write {
                table,
                key: key.to_vec(),
                value: None,
            };
            self.kv().commit(rows.into_iter().map(remove).collect())?;
        }
        Ok(Some(from))
    }

    /// The pieces of the group's spool.
    fn pieces(&self, spools: &dyn Spools) -> Result<Pieces, StoreError> {
        let pieces = spools
            .read(self.group())
            .map_err(|error| self.spool_error(&error.to_string()))?;
        pieces.ok_or_else(|| self.spool_error("it is missing"))
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
    blocking: &Arc<dyn Blocking>,
) -> Result<(), StoreError> {
    let store = Arc::new(GroupStore::unchecked(kv.clone(), groups, group));
    let (looking, spools) = (store.clone(), spools.clone());
    let cut_short = blocking.run(move || cut_short(&looking, spools)).await?;
    match cut_short {
        Some(snapshot) => store.install(&snapshot, blocking).await,
        None => Ok(()),
    }
}

/// The snapshot whose install was cut short, if one was.
fn cut_short(store: &GroupStore, spools: Arc<dyn Spools>) -> Result<Option<Snapshot>, StoreError> {
    let (groups, group) = (store.groups(), store.group());
    let installing = store.kv().get(Table::State, &key::fact(Fact::Installing, group))?;
    if installing.is_none() {
        let removed = spools.remove(group);
        removed.map_err(|error| store.spool_error(&error.to_string()))?;
        return Ok(None);
    }
    // All of it is read before any of it is used: a damaged end must not be found half way.
    let (mut next, mut complete) = (0, None);
    for piece in store.pieces(spools.as_ref())? {
        let piece: Bytes = piece.map_err(|error| store.spool_error(&error.to_string()))?;
        let chunk = store.readable(Chunk::decode(&piece))?;
        if chunk.group != group || chunk.groups != groups || chunk.number != next || complete.is_some() {
            return Err(store.spool_error("its chunks are not in order"));
        }
        next += 1;
        complete = chunk.is_last.then_some(chunk.meta);
    }
    let meta = complete.ok_or_else(|| store.spool_error("its end is missing"))?;
    Ok(Some(Snapshot::spooled(spools, None, (groups, group), meta)))
}

#[cfg(test)]
mod tests;
