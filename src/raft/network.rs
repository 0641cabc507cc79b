//! openraft's way to the other replicas: each call is one message over the peers' connections.
//!
//! Owns deadlines, what a missing answer means to openraft, and the sending of snapshots; the messages are `wire.rs`, who
//! answers them is `serve.rs`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use openraft::RaftNetworkFactory;
use openraft::StorageError;
use openraft::errors::{ErrorSource, NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{ErrorSourceOf, SnapshotOf, VoteOf};
use openraft_multi::{GroupNetworkAdapter, GroupNetworkFactory, GroupRouter};

use crate::blocking::Blocking;
use crate::id::{GroupId, NodeId};
use crate::metrics::Metrics;
use crate::net::{CallError, Service};
use crate::peer::Call;
use crate::raft::types::{Payload, TypeConfig};
use crate::raft::wire::{self, Answer, Request};
use crate::store::{Snapshot, StoreError};

/// How long entries may take to be on the other replica's disk. Longer than a stall of a disk: sending them again into it
/// would only make it longer. Heartbeats have openraft's own deadline.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);
/// How long one chunk of a snapshot may take.
const CHUNK_DEADLINE: Duration = Duration::from_secs(10);
/// How often a chunk is sent that was not answered: a disk may stand still for longer than that.
const CHUNK_TRIES: u32 = 3;
/// How long the other replica may take to say how far it is with the install of a complete snapshot.
const REPORT_DEADLINE: Duration = Duration::from_secs(10);
/// Pause before it is asked again, if it did not say.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// How often in a row it may not say, or say that it is no further, before the snapshot is sent again: each takes a second at
/// least.
const REPORTS_WITHOUT_PROGRESS_MAX: u32 = 120;

/// The connections to the peers, shared by all groups.
#[derive(Clone, Debug)]
pub struct Peers {
    call: Arc<dyn Call>,
    metrics: Arc<Metrics>,
    blocking: Arc<dyn Blocking>,
}

impl Peers {
    /// The replicas that `call` reaches.
    pub fn new(call: Arc<dyn Call>, metrics: Arc<Metrics>, blocking: Arc<dyn Blocking>) -> Self {
        Self {
            call,
            metrics,
            blocking,
        }
    }

    async fn ask(
        &self,
        target: NodeId,
        group: GroupId,
        request: &Request,
        deadline: Duration,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let answer = self.call(target, group, request, deadline).await;
        let answer = answer.map_err(|error| match error {
            CallError::NotSent(_) => RPCError::from(unreachable(&error)),
            CallError::Unknown(_) => network(&error).into(),
        })?;
        match answer {
            // It could not do it now: openraft is to wait a little.
            Answer::Failed(what) => Err(unreachable(&io::Error::other(what)).into()),
            answer => Ok(answer),
        }
    }

    async fn call(
        &self,
        target: NodeId,
        group: GroupId,
        request: &Request,
        deadline: Duration,
    ) -> Result<Answer, CallError> {
        let request = wire::encode_request(group, request);
        let answer = self.call.call(target, Service::Raft, request, deadline).await?;
        wire::decode_answer(&answer).map_err(|error| CallError::Unknown(error.to_string()))
    }
}

/// openraft's network of one group.
#[derive(Clone)]
pub struct GroupNetwork(GroupNetworkFactory<Peers, GroupId>);

impl GroupNetwork {
    /// The network of `group` over `peers`.
    pub fn new(peers: Peers, group: GroupId) -> Self {
        Self(GroupNetworkFactory::new(peers, group))
    }
}

fn unreachable(error: &(impl std::error::Error + 'static)) -> Unreachable<TypeConfig> {
    Unreachable::new(error)
}

fn network(error: &(impl std::error::Error + 'static)) -> NetworkError<TypeConfig> {
    NetworkError::new(error)
}

/// An answer to another question is a fault of the other end.
fn strange(answer: &Answer) -> NetworkError<TypeConfig> {
    network(&io::Error::other(format!("an answer to another question: {answer:?}")))
}

fn streaming(error: RPCError<TypeConfig>) -> StreamingError<TypeConfig> {
    match error {
        RPCError::Timeout(error) => error.into(),
        RPCError::Unreachable(error) => error.into(),
        RPCError::Network(error) => error.into(),
        RPCError::RemoteError(error) => network(&error).into(),
    }
}

fn unreadable(error: &StoreError) -> StreamingError<TypeConfig> {
    StorageError::read_snapshot(None, ErrorSourceOf::<TypeConfig>::from_error(error)).into()
}

impl GroupRouter<TypeConfig, GroupId> for Peers {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &self,
        target: NodeId,
        group: GroupId,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if request.entries.is_empty() {
            option.hard_ttl()
        } else {
            APPEND_DEADLINE
        };
        match self.ask(target, group, &Request::Append(request), deadline).await? {
            Answer::Append(response) => Ok(response),
            answer => Err(strange(&answer).into()),
        }
    }

    async fn vote(
        &self,
        target: NodeId,
        group: GroupId,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::Vote(request);
        match self.ask(target, group, &request, option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            answer => Err(strange(&answer).into()),
        }
    }

    async fn pre_vote(
        &self,
        target: NodeId,
        group: GroupId,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::PreVote(request);
        match self.ask(target, group, &request, option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            answer => Err(strange(&answer).into()),
        }
    }

    async fn full_snapshot(
        &self,
        target: NodeId,
        group: GroupId,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = Box::pin(self.send_snapshot(target, group, vote, snapshot));
        match select(send, Box::pin(cancel)).await {
            Either::Left((sent, _)) => sent,
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &self,
        target: NodeId,
        group: GroupId,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = Request::Transfer(request);
        match self.ask(target, group, &request, option.hard_ttl()).await? {
            Answer::Transfer(response) => Ok(response),
            answer => Err(strange(&answer).into()),
        }
    }
}

impl Peers {
    async fn send_snapshot(
        &self,
        target: NodeId,
        group: GroupId,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Snapshot>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut chunks = snapshot.snapshot.chunks();
        loop {
            let next = self.blocking.run(move || (chunks.next_chunk(), chunks)).await;
            let (chunk, rest) = next;
            chunks = rest;
            let Some(chunk) = chunk.map_err(|error| unreadable(&error))? else {
                break;
            };
            self.send_chunk(target, group, chunk).await?;
        }
        let request = Request::Install {
            vote,
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
        };
        let response = self.installed(target, group, &request).await?;
        self.metrics.inc_snapshots_sent();
        Ok(response)
    }

    /// Sends one chunk, again if it is not answered: the receiver takes the same one once.
    async fn send_chunk(&self, target: NodeId, group: GroupId, chunk: Bytes) -> Result<(), StreamingError<TypeConfig>> {
        let bytes = chunk.len();
        let request = Request::Chunk(Payload(chunk));
        let mut tries = 1;
        loop {
            match self.ask(target, group, &request, CHUNK_DEADLINE).await {
                Ok(Answer::Stored) => {
                    self.metrics.add_snapshot_sent_bytes(bytes);
                    return Ok(());
                }
                Ok(answer) => return Err(strange(&answer).into()),
                Err(RPCError::Network(_)) if tries < CHUNK_TRIES => tries += 1,
                Err(error) => return Err(streaming(error)),
            }
        }
    }

    /// Waits until the snapshot that was sent is installed, for as long as that goes on: sent again, it would take as long again.
    async fn installed(
        &self,
        target: NodeId,
        group: GroupId,
        request: &Request,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (mut done, mut without_progress) = (0, 0);
        loop {
            let error = match self.call(target, group, request, REPORT_DEADLINE).await {
                Ok(Answer::Installed(response)) => return Ok(response),
                Ok(Answer::Installing(now_done)) if now_done != done => {
                    tracing::debug!(
                        node = target,
                        group = group.0,
                        pieces = now_done,
                        "a snapshot is being installed"
                    );
                    (done, without_progress) = (now_done, 0);
                    continue;
                }
                Ok(Answer::Installing(_)) => CallError::Unknown("the install of a snapshot stands still".into()),
                Ok(Answer::Failed(what)) => return Err(unreachable(&io::Error::other(what)).into()),
                Ok(answer) => return Err(strange(&answer).into()),
                // It may be starting anew: then it finishes first what it had begun.
                Err(error) => {
                    tokio::time::sleep(REPORT_PAUSE).await;
                    error
                }
            };
            without_progress += 1;
            if without_progress >= REPORTS_WITHOUT_PROGRESS_MAX {
                return Err(network(&error).into());
            }
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = GroupNetworkAdapter<TypeConfig, GroupId, Peers>;

    async fn new_client(&mut self, target: NodeId, _node: &openraft::EmptyNode) -> Self::Network {
        GroupNetworkAdapter::new(self.0.factory.clone(), target, self.0.group_id)
    }
}
