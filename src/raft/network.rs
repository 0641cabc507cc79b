//! The way to the other replicas of a group. A node alone has no peers: every group has one voter, and whatever openraft
//! might want to send is unreachable.

use std::future::Future;
use std::io;

use openraft::RaftNetworkFactory;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft_multi::{GroupNetworkAdapter, GroupNetworkFactory, GroupRouter};

use crate::id::{GroupId, NodeId};
use crate::raft::types::TypeConfig;
use crate::store::Snapshot;

/// The connections to the peers, shared by all groups.
#[derive(Clone, Debug, Default)]
pub struct Peers;

/// openraft's network of one group.
#[derive(Clone)]
pub struct GroupNetwork(GroupNetworkFactory<Peers, GroupId>);

impl GroupNetwork {
    /// The network of `group` over `peers`.
    pub fn new(peers: Peers, group: GroupId) -> Self {
        Self(GroupNetworkFactory::new(peers, group))
    }
}

fn unreachable(target: NodeId) -> Unreachable<TypeConfig> {
    Unreachable::new(&io::Error::new(
        io::ErrorKind::NotConnected,
        format!("node {target} is not known here"),
    ))
}

impl GroupRouter<TypeConfig, GroupId> for Peers {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &self,
        target: NodeId,
        _group: GroupId,
        _request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable(target).into())
    }

    async fn vote(
        &self,
        target: NodeId,
        _group: GroupId,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable(target).into())
    }

    async fn pre_vote(
        &self,
        target: NodeId,
        _group: GroupId,
        _request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable(target).into())
    }

    async fn full_snapshot(
        &self,
        target: NodeId,
        _group: GroupId,
        _vote: VoteOf<TypeConfig>,
        _snapshot: SnapshotOf<TypeConfig, Snapshot>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(unreachable(target).into())
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetwork {
    type Network = GroupNetworkAdapter<TypeConfig, GroupId, Peers>;

    async fn new_client(&mut self, target: NodeId, _node: &openraft::EmptyNode) -> Self::Network {
        GroupNetworkAdapter::new(self.0.factory.clone(), target, self.0.group_id)
    }
}
