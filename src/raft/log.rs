//! openraft's log storage on the node's shared log stream.
//!
//! Every group has one of these; all of them write through one writer and share its fsyncs. Votes are synced before
//! `save_vote` returns, entries before their callback; the committed position rides along unsynced.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::blocking::Blocking;
use crate::core::record;
use crate::id::GroupId;
use crate::limits::APPEND_BYTES_MAX;
use crate::raft::types::{Entry, TypeConfig, decode_entry, encode_entry};
use crate::wal::{Done, Wal, WalError};

/// Most bytes of entries that one read brings into memory, to be applied.
const READ_BYTES_MAX: usize = 4 << 20;
const MARK_V1: u8 = 1;

/// One group's log.
#[derive(Clone, Debug)]
pub struct GroupLog {
    wal: Wal,
    group: GroupId,
    blocking: Arc<dyn Blocking>,
}

impl GroupLog {
    /// The log of `group` in the stream.
    pub fn new(wal: Wal, group: GroupId, blocking: Arc<dyn Blocking>) -> Self {
        Self { wal, group, blocking }
    }

    /// Entries of `from..to`, in order: as many as `bytes_max` has room for, and at least one. What is not in memory any more is
    /// read away from the runtime's threads: a replica that lags would hold up everybody.
    async fn entries(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        if from >= to {
            return Ok(Vec::new());
        }
        let group = self.group.0;
        let read = if let Some(recent) = self.wal.recent(group, from, to, bytes_max) {
            recent
        } else {
            let wal = self.wal.clone();
            let read = self.blocking.run(move || wal.read(group, from, to, bytes_max)).await;
            read.map_err(io::Error::other)?
        };
        read.iter()
            .map(|bytes| decode_entry(bytes).map_err(io::Error::other))
            .collect()
    }

    /// The part of a range that the log has.
    fn part_of(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        let group = self.wal.group(self.group.0);
        match (group.first_index, group.last_index) {
            (Some(first), Some(last)) => from.max(first)..to.min(last + 1),
            _ => 0..0,
        }
    }

    /// Hands a job to the writer and waits until it is on disk.
    async fn synced(&self, submit: impl FnOnce(&Wal, Done)) -> Result<(), io::Error> {
        let (done, synced) = oneshot::channel();
        submit(&self.wal, Box::new(move |result| drop(done.send(result))));
        // The writer answers every job, also when it fails; a dropped answer means that its thread is gone.
        let result = synced.await.unwrap_or(Err(WalError::Stopped));
        result.map_err(io::Error::other)
    }
}

fn encode<T: Serialize>(mark: &T) -> Bytes {
    Bytes::from(record::versioned(MARK_V1, mark))
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, io::Error> {
    record::decode(what, MARK_V1, bytes).map_err(io::Error::other)
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let part = self.part_of(&range);
        self.entries(part.start, part.end, usize::MAX).await
    }

    /// Read in parts: what is to be applied after a long absence need not be in memory all at once.
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = Result<Entry, io::Error>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (log, part) = (self.clone(), self.part_of(&range));
        let parts = stream::try_unfold((log, part), |(log, part)| async move {
            let entries = log.entries(part.start, part.end, READ_BYTES_MAX).await?;
            let next = part.start + entries.len() as u64..part.end;
            Ok::<_, io::Error>((!entries.is_empty()).then_some((stream::iter(entries).map(Ok), (log, next))))
        });
        Box::pin(parts.try_flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        self.wal
            .group(self.group.0)
            .vote
            .map(|bytes| decode("vote", &bytes))
            .transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start, end, APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let group = self.wal.group(self.group.0);
        let last_purged_log_id = group.purged.map(|(_, mark)| decode("purge mark", &mark)).transpose()?;
        let last_log_id = match group.last_index {
            None => last_purged_log_id,
            Some(last) => {
                let entries = self.entries(last, last + 1, usize::MAX).await?;
                entries.first().map(RaftEntry::log_id)
            }
        };
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        let vote = encode(vote);
        self.synced(|wal, done| wal.save_vote(self.group.0, vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        self.wal.save_committed(self.group.0, encode(&committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        let committed = self.wal.group(self.group.0).committed;
        committed.map_or(Ok(None), |bytes| decode("committed position", &bytes))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut first = None;
        let mut encoded = Vec::new();
        for entry in entries {
            first.get_or_insert(entry.log_id().index);
            encoded.push(encode_entry(&entry));
        }
        let Some(first) = first else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let done: Done = Box::new(move |result| callback.io_completed(result.map_err(io::Error::other)));
        self.wal.append(self.group.0, first, encoded, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.synced(|wal, done| wal.truncate(self.group.0, from, done)).await
    }

    async fn purge(&mut self, id: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        let mark = encode(&id);
        self.synced(|wal, done| wal.purge(self.group.0, id.index, mark, done))
            .await
    }
}
