//! Answers the other replicas: hands each request to its group, and begins to host a group when one of its replicas calls.
//!
//! Owns nothing: snapshots on their way are the store's. Called by the peers' server through `node.rs`.

use bytes::Bytes;
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};

use crate::id::NodeId;
use crate::raft::group::Group;
use crate::raft::groups::Groups;
use crate::raft::types::TypeConfig;
use crate::raft::wire::{self, Answer, Request};
use crate::store::Snapshot;

impl Groups {
    /// Answers one request of another node.
    pub async fn answer(&self, from: NodeId, request: &[u8]) -> Bytes {
        let answer = match wire::decode_request(request) {
            Err(error) => Answer::Failed(error.to_string()),
            Ok((group, _)) if group.0 >= self.count().get() => {
                Answer::Failed(format!("this cluster has no group {group}"))
            }
            Ok((group, request)) => match self.host(group).await {
                Ok(group) => self.answer_in(&group, from, request).await,
                Err(error) => {
                    tracing::error!(%error, "a replica cannot be opened");
                    Answer::Failed(error.to_string())
                }
            },
        };
        wire::encode_answer(&answer)
    }

    async fn answer_in(&self, group: &Group, from: NodeId, request: Request) -> Answer {
        let raft = group.raft();
        match request {
            Request::Append(request) => answered(raft.append_entries(request).await, Answer::Append),
            Request::Vote(request) => answered(raft.vote(request).await, Answer::Vote),
            Request::PreVote(request) => answered(raft.pre_vote(request).await, Answer::Vote),
            Request::Transfer(request) => answered(raft.handle_transfer_leader(request).await, Answer::Transfer),
            Request::Chunk(chunk) => answered(self.inbox().take(group.id(), from, &chunk.0), |()| Answer::Stored),
            Request::Install { vote, last, membership } => {
                let snapshot = match self.inbox().finish(group.id(), from) {
                    Ok(snapshot) => snapshot,
                    Err(error) => return Answer::Failed(error.to_string()),
                };
                let meta = SnapshotMetaOf::<TypeConfig> {
                    last_log_id: last,
                    last_membership: membership,
                };
                let snapshot: SnapshotOf<TypeConfig, Snapshot> = openraft::storage::Snapshot { meta, snapshot };
                answered(raft.install_full_snapshot(vote, snapshot).await, Answer::Installed)
            }
        }
    }
}

fn answered<T, E: ToString>(result: Result<T, E>, answer: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Failed(error.to_string()), answer)
}
