//! Lets a copy go that the group does without: ends its replica and removes its rows, its log, and its spool.
//!
//! A node must not forget its promises with its copy: some other node may still count on a vote of it, because it has not
//! heard of a change of members. So the last vote, and where the log ended, are kept: a copy that the group begins here again
//! votes for nobody for whom the former would not have voted. What cannot be finished is finished at the next start.

use std::time::Duration;

use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::type_config::alias::{LogIdOf, VoteOf};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::core::record;
use crate::id::{GroupId, NodeId};
use crate::net::Service;
use crate::raft::groups::{Groups, Parts, StartError, refused};
use crate::raft::log::GroupLog;
use crate::raft::types::TypeConfig;
use crate::raft::wire::{self, Answer, Request};
use crate::store::{StoreError, departure};

const PROMISED_V1: u8 = 1;
/// How long a leader may take to say whether it needs the copy.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// How often a snapshot that is being installed is looked at.
const INSTALL_LOOK: Duration = Duration::from_millis(50);

/// What a copy that was let go had promised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Promised {
    vote: Option<VoteOf<TypeConfig>>,
    last: Option<LogIdOf<TypeConfig>>,
}

impl Groups {
    /// Lets this node's copy of the group go, if `leader` leads the group and its members are committed to be without this
    /// node. `false` if not, or if the leader did not say so.
    pub async fn let_go(&self, id: GroupId, leader: NodeId) -> Result<bool, StartError> {
        let Some(group) = self.get(id) else { return Ok(false) };
        if !self.is_dismissed(id, leader).await {
            return Ok(false);
        }
        {
            let mut leaving = self.0.starting.lock().await;
            if self.get(id).is_none() || !leaving.insert(id) {
                return Ok(false);
            }
            *self.0.slots[usize::from(id.0)].write() = None;
        }
        group.end().await;
        // The leader may have made this node a member again meanwhile. From here on the copy confirms nothing, so what it
        // says now is true until the copy is gone.
        let is_dismissed = self.is_dismissed(id, leader).await;
        while self.inbox().is_installing(id) {
            tokio::time::sleep(INSTALL_LOOK).await;
        }
        group.machine().close();
        let done = if is_dismissed {
            self.inbox().forget(id);
            begin(&self.0.parts, id).await
        } else {
            Ok(())
        };
        let mut leaving = self.0.starting.lock().await;
        leaving.remove(&id);
        if !is_dismissed {
            self.host_now(id).await?;
        }
        if let Err(error) = &done {
            self.0.parts.failure.report(error.to_string());
        }
        done.map(|()| is_dismissed)
    }

    async fn is_dismissed(&self, id: GroupId, leader: NodeId) -> bool {
        let request = wire::encode_request(id, &Request::Dismissed);
        let call = &self.0.parts.call;
        let Ok(answer) = call.call(leader, Service::Raft, request, ASK_DEADLINE).await else {
            return false;
        };
        matches!(wire::decode_answer(&answer), Ok(Answer::Dismissed(true)))
    }
}

/// Notes what the copy has promised, and removes it.
async fn begin(parts: &Parts, id: GroupId) -> Result<(), StartError> {
    let before = promised(parts, id)?.unwrap_or_default();
    let mut log = GroupLog::new(parts.wal.clone(), id, parts.blocking.clone());
    let vote = log.read_vote().await.map_err(refused(id))?;
    let state = log.get_log_state().await.map_err(refused(id))?;
    let promised = Promised {
        // A copy begins with the vote of the one before it: its own is no earlier.
        vote: vote.or(before.vote),
        last: state.last_log_id.max(before.last),
    };
    let departure = departure::Departure {
        is_done: false,
        promised: record::versioned(PROMISED_V1, &promised),
    };
    departure::keep(parts.kv.as_ref(), id, &departure).await?;
    finish(parts, id).await
}

/// Removes what is left of a copy that is being let go, if one is.
pub(super) async fn finish(parts: &Parts, id: GroupId) -> Result<(), StartError> {
    let departure = departure::load(parts.kv.as_ref(), id)?;
    let Some(mut departure) = departure.filter(|departure| !departure.is_done) else {
        return Ok(());
    };
    departure::remove(&parts.kv, parts.count, id, &parts.blocking).await?;
    let spools = parts.spools.clone();
    let removed = parts.blocking.run(move || spools.remove(id)).await;
    removed.map_err(refused(id))?;
    // Rows without a log are damage, and so is a log without rows: only now neither is looked for.
    let (done, dropped) = oneshot::channel();
    parts
        .wal
        .drop_group(id.0, Box::new(move |result| drop(done.send(result))));
    match dropped.await {
        Ok(result) => result.map_err(refused(id))?,
        Err(_) => return Err(refused(id)("the log has stopped")),
    }
    departure.is_done = true;
    departure::keep(parts.kv.as_ref(), id, &departure).await?;
    tracing::debug!(group = id.0, "the copy of a group that does without it is removed");
    Ok(())
}

/// Takes up what an earlier copy of the group had promised: its vote, unless a later one is known, and the end of its log.
pub(super) async fn before(parts: &Parts, id: GroupId) -> Result<Option<LogIdOf<TypeConfig>>, StartError> {
    let Some(promised) = promised(parts, id)? else {
        return Ok(None);
    };
    let mut log = GroupLog::new(parts.wal.clone(), id, parts.blocking.clone());
    if let Some(vote) = promised.vote
        && log.read_vote().await.map_err(refused(id))?.is_none()
    {
        log.save_vote(&vote).await.map_err(refused(id))?;
    }
    Ok(promised.last)
}

fn promised(parts: &Parts, id: GroupId) -> Result<Option<Promised>, StartError> {
    let Some(departure) = departure::load(parts.kv.as_ref(), id)? else {
        return Ok(None);
    };
    let promised = record::decode("departure", PROMISED_V1, &departure.promised);
    Ok(Some(promised.map_err(|error| StoreError::Record { group: id, error })?))
}
