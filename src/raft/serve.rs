//! Answers the other replicas: hands each request to its group, and begins to host a group when one of its replicas calls.
//!
//! Owns nothing: snapshots on their way are the store's. Called by the peers' server through `node.rs`.

use bytes::Bytes;
use openraft::raft::AppendEntriesResponse;

use crate::id::{GroupId, NodeId};
use crate::raft::group::Group;
use crate::raft::groups::{Groups, StartError};
use crate::raft::install::Wanted;
use crate::raft::wire::{self, Answer, Request};

impl Groups {
    /// Answers one request of another node.
    pub async fn answer(&self, from: NodeId, request: &[u8]) -> Bytes {
        let answer = match wire::decode_request(request) {
            Err(error) => Answer::Failed(error.to_string()),
            Ok((group, _)) if group.0 >= self.count().get() => {
                Answer::Failed(format!("this cluster has no group {group}"))
            }
            Ok((group, request)) => match self.copy_for(group, &request).await {
                Ok(Some(group)) => self.answer_in(&group, from, request).await,
                Ok(None) => Answer::Failed(format!("this node has no copy of group {group}")),
                Err(error) => {
                    if !matches!(error, StartError::Leaving(_)) {
                        tracing::error!(%error, "a replica cannot be opened");
                    }
                    Answer::Failed(error.to_string())
                }
            },
        };
        wire::encode_answer(&answer)
    }

    /// The copy that is asked. A leader that sends something begins one; who asks for a vote does not: an empty copy would
    /// vote for anybody.
    async fn copy_for(&self, group: GroupId, request: &Request) -> Result<Option<Group>, StartError> {
        match request {
            Request::Append(_) | Request::Chunk(_) | Request::Install { .. } => self.host(group).await.map(Some),
            Request::Vote(_) | Request::PreVote(_) | Request::Transfer(_) | Request::Dismissed => Ok(self.get(group)),
        }
    }

    async fn answer_in(&self, group: &Group, from: NodeId, request: Request) -> Answer {
        let raft = group.raft();
        match request {
            Request::Append(request) => {
                let term = request.vote.leader_id.term;
                let response = raft.append_entries(request).await;
                if !matches!(response, Ok(AppendEntriesResponse::HigherVote(_)) | Err(_)) {
                    group.hear(term);
                }
                answered(response, Answer::Append)
            }
            Request::Vote(request) | Request::PreVote(request) if group.is_bound(&request) => {
                Answer::Failed("this copy is bound by what it promised before".into())
            }
            Request::Vote(request) => answered(raft.vote(request).await, Answer::Vote),
            Request::PreVote(request) => answered(raft.pre_vote(request).await, Answer::Vote),
            Request::Dismissed => Answer::Dismissed(group.has_dismissed(from)),
            Request::Transfer(request) => answered(raft.handle_transfer_leader(request).await, Answer::Transfer),
            Request::Chunk(chunk) => {
                let (inbox, id) = (self.inbox().clone(), group.id());
                let taken = self.0.parts.blocking.run(move || inbox.take(id, from, &chunk.0)).await;
                answered(taken, |()| Answer::Stored)
            }
            Request::Install { vote, last, membership } => {
                let wanted = Wanted {
                    from,
                    vote,
                    last,
                    membership,
                };
                self.install(group, wanted).await
            }
        }
    }
}

fn answered<T, E: ToString>(result: Result<T, E>, answer: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(|error| Answer::Failed(error.to_string()), answer)
}
