//! This node's knowledge of its cluster: where the others are, who leads what, what the whole looks like; and the wish to
//! leave it.
//!
//! Gossip's view as the other parts need it: addresses for `net`, leaders for `router`, the picture for `api`. Decides
//! nothing about groups: that is `placement.rs`. Put together by `node.rs`.

mod clocks;
mod comings;
pub mod init;
pub mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::command::COMMANDS;
use crate::id::{GroupId, NodeId};
use crate::membership::{ClusterView, Facts, Membership, Twin};
use crate::metrics::Metrics;
use crate::net::{AddressBook, Peers, Service};
use crate::peer::{BoxFuture, Call};
use crate::placement;
use crate::raft::Groups;
use crate::router::LeaderHints;
use crate::steady::Steady;

pub use comings::tell_of_nodes;
use status::{Answer, ClusterStatus, Report, Request};

/// How long a node may take to report.
const REPORT_DEADLINE: Duration = Duration::from_secs(1);
/// How often led groups are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a node that was asked to leave asks whether it may.
const DRAINED_LOOK: Duration = Duration::from_millis(500);

/// The nodes as gossip shows them: where they are, and what they say that they lead.
#[derive(Clone, Debug)]
pub struct Nodes(pub watch::Receiver<Arc<ClusterView>>);

impl AddressBook for Nodes {
    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let view = self.0.borrow();
        view.members.get(&node).map(|member| member.facts.peer)
    }
}

/// What the cluster is seen with.
#[derive(Clone)]
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: u128,
    /// The nodes as gossip shows them.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// Where this node's own facts are told; `None` for a node alone.
    pub gossip: Option<Membership>,
    /// The groups of this node.
    pub groups: Groups,
    /// The way to the other nodes.
    pub call: Arc<dyn Call>,
    /// Where the peers' clocks are compared; `None` for a node alone.
    pub peers: Option<Peers>,
    /// Where the clock's offset and the live nodes are shown.
    pub metrics: Arc<Metrics>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Told how far it is off.
    pub steady: Steady,
    /// How long a node is dead before its copies are made elsewhere, in milliseconds.
    pub replace_after_ms: u64,
    /// This node stops: no further change of members begins here.
    pub stopping: Arc<AtomicBool>,
}

/// This node's knowledge of its cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Parts>);

/// Why a node was not asked to leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// No such node.
    #[error("no node {0} is in this cluster; GET /v1/cluster lists them")]
    NotFound(String),
    /// There is no other node that stays.
    #[error("it is the only live node that is not leaving: there is nobody to take its tasks over. Add a node first")]
    Alone,
    /// It does not answer.
    #[error("node {node} does not answer: {what}")]
    NoAnswer {
        /// The node.
        node: String,
        /// Why.
        what: String,
    },
}

/// What the API asks of the cluster.
pub trait ClusterCalls: Send + Sync + 'static {
    /// Which cluster it is.
    fn id(&self) -> u128;

    /// What the cluster looks like from here.
    fn status(&self) -> BoxFuture<'_, ClusterStatus>;

    /// The operator says that this node's clock is right: how far it had moved, in milliseconds; `None` if nothing is held.
    fn accept_clock(&self) -> Option<i64>;

    /// Asks a node, named by its id's hexadecimal digits, to hand everything over and to end.
    fn drain(&self, node: String) -> BoxFuture<'_, Result<(), DrainError>>;
}

impl ClusterCalls for Cluster {
    fn id(&self) -> u128 {
        self.0.cluster
    }

    fn status(&self) -> BoxFuture<'_, ClusterStatus> {
        Box::pin(self.status())
    }

    fn accept_clock(&self) -> Option<i64> {
        self.0.steady.accept()
    }

    fn drain(&self, node: String) -> BoxFuture<'_, Result<(), DrainError>> {
        Box::pin(self.drain(node))
    }
}

impl Cluster {
    /// The cluster as seen through `parts`.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Asks every live node for its part, and puts the picture together.
    async fn status(&self) -> ClusterStatus {
        let parts = &self.0;
        let view = parts.view.borrow().clone();
        let others = view.members.values().filter(|member| member.is_alive);
        let others = others
            .map(|member| member.facts.node)
            .filter(|node| *node != parts.node);
        let asked = others.map(async |node| {
            let request = status::encode(&Request::Report);
            let answer = parts.call.call(node, Service::Cluster, request, REPORT_DEADLINE).await;
            match status::decode(&answer.ok()?).ok()? {
                Answer::Report(report) => Some((node, report)),
                Answer::Draining => None,
            }
        });
        let mut reports: BTreeMap<NodeId, Report> = join_all(asked).await.into_iter().flatten().collect();
        reports.insert(parts.node, Report::of(&parts.groups));
        let now_ms = parts.clock.monotonic_ms();
        let plan = placement::current_plan(&view, &parts.groups, now_ms, parts.replace_after_ms);
        // A node alone has nobody to give a copy to.
        let copies = if parts.gossip.is_some() {
            view.own().facts.replicas.into()
        } else {
            1
        };
        let count = parts.groups.count();
        status::picture(parts.cluster, count, &view, &plan, &reports, copies, now_ms)
    }

    /// Asks a node to hand everything over and to end.
    async fn drain(&self, node: String) -> Result<(), DrainError> {
        let view = self.0.view.borrow().clone();
        let known = u64::from_str_radix(&node, 16).ok();
        let Some(id) = known.filter(|id| view.members.contains_key(id)) else {
            return Err(DrainError::NotFound(node));
        };
        if !view
            .members
            .values()
            .any(|member| member.is_alive && !member.facts.draining && member.facts.node != id)
        {
            return Err(DrainError::Alone);
        }
        if id == self.0.node {
            self.begin_drain();
            return Ok(());
        }
        let request = status::encode(&Request::Drain);
        let answer = self.0.call.call(id, Service::Cluster, request, REPORT_DEADLINE).await;
        answer.map(drop).map_err(|error| DrainError::NoAnswer {
            node,
            what: error.to_string(),
        })
    }

    /// Answers another node.
    pub fn answer(&self, request: &[u8]) -> Bytes {
        match status::decode(request) {
            Ok(Request::Drain) => {
                self.begin_drain();
                status::encode(&Answer::Draining)
            }
            Ok(Request::Report) => status::encode(&Answer::Report(Report::of(&self.0.groups))),
            // The asking node cannot read an empty answer, and says so.
            Err(_) => Bytes::new(),
        }
    }

    /// Tells the others which groups this node leads, as that changes. Runs until it is dropped.
    pub async fn publish(self) {
        let mut told = Vec::new();
        loop {
            let led: Vec<(GroupId, u64)> = self
                .0
                .groups
                .iter()
                .filter_map(|group| Some((group.id(), group.leads()?.generation)))
                .collect();
            if led != told {
                told.clone_from(&led);
                self.tell(|facts| facts.led = led);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Completes when this node was asked to leave and no group counts on it any more. The leaders are asked: a copy that was
    /// taken from this node may never hear of it.
    pub async fn drained(&self) {
        let is_draining = |view: &Arc<ClusterView>| view.own().facts.draining;
        let mut view = self.0.view.clone();
        if view.wait_for(is_draining).await.is_err() {
            // Nobody gossips here, or not any more: nobody asks.
            std::future::pending::<()>().await;
        }
        while !self.status().await.does_without(self.0.node) {
            tokio::time::sleep(DRAINED_LOOK).await;
        }
    }

    /// Completes when another process is alive under this node's id that has started before it: a copied data directory,
    /// that could not hear of the original when it started.
    pub async fn twin(&self) -> Twin {
        let first = |view: &Arc<ClusterView>| view.twin.filter(|twin| twin.was_first(self.0.clock.monotonic_ms()));
        let mut view = self.0.view.clone();
        let seen = view.wait_for(|view| first(view).is_some()).await;
        if let Some(twin) = seen.ok().and_then(|view| view.twin) {
            return twin;
        }
        // There is no gossip, or not any more.
        std::future::pending().await
    }

    /// Whether this node stops.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.0.stopping.clone()
    }

    /// From now on no change of members begins here, and what has begun is finished: a group must not be left half way, where it
    /// needs this node. Called before an ordered stop ends anything; takes `longest` at most.
    pub async fn settle_members(&self, longest: Duration) {
        self.0.stopping.store(true, Ordering::SeqCst);
        placement::settle_members(&self.0.groups, longest).await;
    }

    /// Hands everything that this node leads to others, within `longest`; what cannot be handed over stays.
    pub async fn hand_everything_over(&self, longest: Duration) {
        placement::hand_everything_over(&self.0.groups, &self.0.view, longest).await;
    }

    /// Tells the others that this node is going, so that they need not wait for its silence.
    pub async fn say_goodbye(&self) {
        if let Some(gossip) = &self.0.gossip {
            gossip.clone().leave().await;
        }
    }

    fn begin_drain(&self) {
        tracing::info!("this node was asked to leave: its groups move to other nodes");
        self.tell(|facts| facts.draining = true);
    }

    fn tell(&self, change: impl FnOnce(&mut Facts)) {
        if let Some(gossip) = &self.0.gossip {
            gossip.publish(change);
        }
    }
}

impl LeaderHints for Nodes {
    fn leader(&self, group: GroupId) -> Option<NodeId> {
        let view = self.0.borrow();
        let led = view
            .members
            .values()
            .filter(|member| member.is_alive)
            .flat_map(|member| {
                let led = member.facts.led.iter().filter(|(led, _)| *led == group);
                led.map(|(_, generation)| (*generation, member.facts.node))
            });
        led.max().map(|(_, node)| node)
    }

    fn live(&self) -> Vec<NodeId> {
        self.0.borrow().live().map(|member| member.facts.node).collect()
    }

    fn commands(&self) -> u16 {
        let view = self.0.borrow();
        // Also those that are silent: they may come back as they were.
        let read = view.members.values().map(|member| member.facts.commands);
        read.min().unwrap_or(COMMANDS)
    }
}
