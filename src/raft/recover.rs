//! Makes this node the only voter of every group that it holds, offline, after the majority of the others was lost for good.
//!
//! Breaks consensus on purpose: what the others acknowledged and this node has not is lost. So it is only done on a directory that
//! belongs to a new cluster already (`node/recover.rs`): the others can never meet what comes of it.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use openraft::alias::LeaderIdOf;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use openraft::vote::{RaftLeaderIdExt, RaftVote};
use openraft::{EntryPayload, Membership};
use tokio::sync::oneshot;

use crate::blocking::{Blocking, Job};
use crate::id::{GroupCount, GroupId, NodeId};
use crate::raft::StartError;
use crate::raft::groups::refused;
use crate::raft::log::GroupLog;
use crate::raft::machine::position_of;
use crate::raft::types::{Entry, TypeConfig, encode_entry};
use crate::store::{GroupStore, Kv, StoreError};
use crate::wal::{Wal, WalError};

/// A group as it is found on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The group.
    pub group: GroupId,
    /// Its voters, as far as this node knows.
    pub voters: BTreeSet<NodeId>,
    /// Last entry of its log here.
    pub last: u64,
    /// Entries of the log that the state does not hold yet.
    pub behind: u64,
    last_term: u64,
    vote_term: u64,
}

/// Nothing else runs meanwhile: work that blocks is done where it is asked for.
#[derive(Debug)]
struct Here;

impl Blocking for Here {
    fn offload(&self, job: Job) {
        job();
    }
}

fn storage(group: GroupId) -> impl Fn(io::Error) -> StartError {
    move |error| refused(group)(error)
}

/// Every group on this disk that has ever had members.
pub async fn held(wal: &Wal, kv: &Arc<dyn Kv>, count: GroupCount) -> Result<Vec<Held>, StartError> {
    let mut held = Vec::new();
    let on_disk: BTreeSet<u16> = wal.groups().into_iter().collect();
    for group in count.iter().filter(|group| on_disk.contains(&group.0)) {
        held.extend(look(wal, kv, count, group).await?);
    }
    Ok(held)
}

async fn look(wal: &Wal, kv: &Arc<dyn Kv>, count: GroupCount, group: GroupId) -> Result<Option<Held>, StartError> {
    let (_, meta) = GroupStore::open(kv.clone(), count, group)?;
    let mut log = GroupLog::new(wal.clone(), group, Arc::new(Here));
    let (mut applied, mut voters) = (None, BTreeSet::new());
    if !meta.applied.is_empty() {
        let position = position_of(&meta).map_err(|error| StoreError::Record { group, error })?;
        applied = position.0;
        voters = position.1.voter_ids().collect();
    }
    let state = log.get_log_state().await.map_err(storage(group))?;
    let last: Option<LogIdOf<TypeConfig>> = state.last_log_id.max(applied);
    let Some(last) = last else { return Ok(None) };
    let from = applied.map_or(0, |applied| applied.index + 1);
    let entries = log
        .try_get_log_entries(from..=last.index)
        .await
        .map_err(storage(group))?;
    for entry in entries {
        if let EntryPayload::Membership(membership) = entry.payload {
            voters = membership.voter_ids().collect();
        }
    }
    let vote = log.read_vote().await.map_err(storage(group))?;
    Ok(Some(Held {
        group,
        voters,
        last: last.index,
        behind: last.index - applied.map_or(0, |applied| applied.index.min(last.index)),
        last_term: last.leader_id.term,
        vote_term: vote.map_or(0, |vote| vote.leader_id().term),
    }))
}

/// Makes `node` the only voter of these groups: on disk when it returns. What their logs hold is kept, acknowledged or not.
pub async fn make_sole_voter(wal: &Wal, held: &[Held], node: NodeId) -> Result<(), StartError> {
    for held in held {
        let group = held.group;
        let leader = LeaderIdOf::<TypeConfig>::new_committed(held.last_term.max(held.vote_term) + 1, node);
        let mut log = GroupLog::new(wal.clone(), group, Arc::new(Here));
        let vote = VoteOf::<TypeConfig>::from_leader_id(leader, false);
        log.save_vote(&vote).await.map_err(storage(group))?;
        let members = Membership::new_with_defaults(vec![BTreeSet::from([node])], []);
        let id = LogIdOf::<TypeConfig>::new(leader, held.last + 1);
        let entry = Entry::new(id, EntryPayload::Membership(members));
        let (done, synced) = oneshot::channel();
        let told = Box::new(move |result| drop(done.send(result)));
        wal.append(group.0, id.index, vec![encode_entry(&entry)], told);
        let synced = synced.await.unwrap_or(Err(WalError::Stopped));
        synced.map_err(|error| refused(group)(error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
