//! openraft's way to the other replicas: each call is one message over the peers' connections.
//!
//! Owns deadlines, what a missing answer means to openraft, and the sending of snapshots; the messages are `wire.rs`, who
//! answers them is `serve.rs`.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

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
/// How long the other replica may take to install a complete snapshot.
const INSTALL_DEADLINE: Duration = Duration::from_mins(2);

/// The connections to the peers, shared by all groups.
#[derive(Clone, Debug)]
pub struct Peers {
    call: Arc<dyn Call>,
    metrics: Arc<Metrics>,
}

impl Peers {
    /// The replicas that `call` reaches.
    pub fn new(call: Arc<dyn Call>, metrics: Arc<Metrics>) -> Self {
        Self { call, metrics }
    }

    async fn ask(
        &self,
        target: NodeId,
        group: GroupId,
        request: &Request,
        deadline: Duration,
    ) -> Result<Answer, RPCError<TypeConfig>> {
        let request = wire::encode_request(group, request);
        let answer = self.call.call(target, Service::Raft, request, deadline).await;
        let answer = answer.map_err(|error| match error {
            CallError::NotSent(_) => RPCError::from(unreachable(&error)),
            CallError::Unknown(_) => network(&error).into(),
        })?;
        match wire::decode_answer(&answer) {
            // It could not do it now: openraft is to wait a little.
            Ok(Answer::Failed(what)) => Err(unreachable(&io::Error::other(what)).into()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(network(&error).into()),
        }
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
        while let Some(chunk) = chunks.next_chunk().map_err(|error| unreadable(&error))? {
            let bytes = chunk.len();
            let request = Request::Chunk(Payload(chunk));
            match self
                .ask(target, group, &request, CHUNK_DEADLINE)
                .await
                .map_err(streaming)?
            {
                Answer::Stored => self.metrics.add_snapshot_sent_bytes(bytes),
                answer => return Err(strange(&answer).into()),
            }
        }
        let request = Request::Install {
            vote,
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
        };
        let answer = self.ask(target, group, &request, INSTALL_DEADLINE).await;
        match answer.map_err(streaming)? {
            Answer::Installed(response) => {
                self.metrics.inc_snapshots_sent();
                Ok(response)
            }
            answer => Err(strange(&answer).into()),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = GroupNetworkAdapter<TypeConfig, GroupId, Peers>;

    async fn new_client(&mut self, target: NodeId, _node: &openraft::EmptyNode) -> Self::Network {
        GroupNetworkAdapter::new(self.0.factory.clone(), target, self.0.group_id)
    }
}
