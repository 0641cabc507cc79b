//! Small ends of the node: what its parts tell the metrics, and who answers its peers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::memory::Memory;
use crate::api;
use crate::cluster::Cluster;
use crate::id::NodeId;
use crate::membership::{self, Dropped};
use crate::metrics::Metrics;
use crate::net::{self, Breach, NetObserve, Refusal, Service, Side};
use crate::raft::Groups;
use crate::router::Replicas;
use crate::wal;

/// The log stream's figures, and how far it is for the peers.
#[derive(Debug)]
pub(super) struct LogMetrics(pub Arc<Metrics>, pub Option<Memory>);

impl wal::Observe for LogMetrics {
    fn synced(&self, lsn: u64, jobs: usize, bytes: usize, duration: Duration) {
        if let Some(memory) = &self.1 {
            memory.log_is_at(lsn);
        }
        self.0.observe_log_sync(jobs, bytes, duration);
    }
}

/// The API's figures.
pub(super) struct ApiMetrics(pub Arc<Metrics>);

impl api::ApiObserve for ApiMetrics {
    fn answered(&self, call: api::Call, code: u16, duration: Duration) {
        self.0.observe_api_answer(call.name(), code, duration);
    }

    fn connections(&self, open: bool) {
        if open {
            self.0.inc_api_connections();
        } else {
            self.0.dec_api_connections();
        }
    }
}

/// The peer connections' figures.
#[derive(Debug)]
pub(super) struct PeerMetrics(pub Arc<Metrics>);

impl NetObserve for PeerMetrics {
    fn connection(&self, _: Side, is_open: bool) {
        self.0.add_peer_connections(if is_open { 1 } else { -1 });
    }

    fn refused(&self, _: Side, refusal: &Refusal) {
        self.0.inc_peer_refusal(refusal.name());
    }

    fn broken(&self, _: Side, breach: Breach) {
        self.0.inc_peer_refusal(breach.name());
    }

    fn late(&self) {
        self.0.inc_peer_refusal("late_answer");
    }

    fn busy(&self) {
        self.0.inc_peer_refusal("busy");
    }
}

/// Gossip's figures.
#[derive(Debug)]
pub(super) struct GossipMetrics(pub Arc<Metrics>);

impl membership::Observer for GossipMetrics {
    fn sent(&self, _bytes: usize) {}

    fn received(&self, _bytes: usize) {}

    fn dropped(&self, why: Dropped) {
        self.0.inc_gossip_dropped(why.label());
    }

    fn unreadable(&self) {
        self.0.inc_gossip_dropped("unreadable");
    }

    fn reopened(&self) {
        self.0.inc_gossip_dropped("reopened");
    }
}

/// Answers the peers.
pub(super) struct Answers {
    pub groups: Groups,
    pub replicas: Replicas,
    pub cluster: Cluster,
}

impl net::Handle for Answers {
    fn handle(&self, from: NodeId, service: Service, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(async move {
            match service {
                Service::Raft => self.groups.answer(from, &request).await,
                Service::Router => self.replicas.answer(&request).await,
                Service::Cluster => self.cluster.answer(&request),
            }
        })
    }
}
