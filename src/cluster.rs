//! This node's knowledge of its cluster: where the others are, who leads what, what the whole looks like; and the wish to
//! leave it.
//!
//! Gossip's view as the other parts need it: addresses for `net`, leaders for `router`, the picture for `api`. Decides
//! nothing about groups: that is `placement.rs`. Put together by `node.rs`.

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
use crate::limits::CLOCK_OFFSET_MS_MAX;
use crate::log_limit::LogLimit;
use crate::membership::{ClusterView, Facts, Membership, Twin};
use crate::metrics::Metrics;
use crate::net::{AddressBook, Offset, Peers, Service};
use crate::peer::{BoxFuture, Call};
use crate::placement;
use crate::raft::Groups;
use crate::router::LeaderHints;
use crate::steady::{Doubt, Steady};

pub use comings::tell_of_nodes;
use status::{Answer, ClusterStatus, Report, Request};

/// How long a node may take to report.
const REPORT_DEADLINE: Duration = Duration::from_secs(1);
/// How often the clocks are compared.
const CLOCK_LOOK: Duration = Duration::from_secs(1);
/// How long a peer may take to tell its time.
const PING_DEADLINE: Duration = Duration::from_millis(500);
/// How long a node that has nobody to compare its clock with fires nothing after a jump.
const ALONE: Duration = Duration::from_secs(2);
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
        status::picture(parts.cluster, parts.groups.count(), &view, &plan, &reports)
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

    /// Compares this node's wall clock with its peers' and tells the others. Runs until it is dropped.
    pub async fn watch_clock(self) {
        let log = LogLimit::default();
        loop {
            self.compare_clocks(&log).await;
            tokio::select! {
                biased;
                () = self.0.steady.jumped() => {}
                () = tokio::time::sleep(CLOCK_LOOK) => {}
            }
        }
    }

    async fn compare_clocks(&self, log: &LogLimit<()>) {
        let doubt = self.0.steady.doubt();
        let since = doubt.map(|(since, _)| since);
        let Some(peers) = &self.0.peers else {
            if self.is_alone_for(ALONE, since) {
                self.0.steady.compared(since, 0);
            }
            return;
        };
        let view = self.0.view.borrow().clone();
        let alive: Vec<NodeId> = view.live().map(|member| member.facts.node).collect();
        self.0.metrics.set_nodes_alive(alive.len());
        let live = alive.into_iter().filter(|node| *node != self.0.node).count();
        // Also those that gossip believes dead: after a jump it hears of nobody. A peer that does not answer has no say.
        let others = view.members.keys().filter(|node| **node != self.0.node);
        join_all(others.map(|node| peers.ping(*node, PING_DEADLINE))).await;
        let offsets = peers.offsets();
        // What was measured before a jump says nothing about the clock as it is now.
        let is_fresh = |offset: &&Offset| since.is_none_or(|since| offset.measured >= since);
        let heard: Vec<i64> = offsets.values().filter(is_fresh).map(certain_ms).collect();
        let is_alone = live == 0 && self.is_alone_for(ALONE, since);
        let is_enough = is_alone || (!heard.is_empty() && heard.len() >= live.div_ceil(2));
        let offset_ms = match doubt {
            // The one who has jumped has no say.
            Some((_, Doubt::Jumped)) if is_enough => -middle(heard),
            Some((_, Doubt::Jumped)) => view.own().facts.clock_offset_ms,
            _ => own_offset_ms(heard),
        };
        if is_enough || doubt.is_none() {
            self.0.steady.compared(since, offset_ms);
        }
        let is_right = offset_ms.unsigned_abs() <= CLOCK_OFFSET_MS_MAX;
        let is_wrong = |offset: &Offset| is_right && certain_ms(offset).unsigned_abs() > CLOCK_OFFSET_MS_MAX;
        let wrong = offsets.iter().filter(|(_, offset)| is_wrong(offset));
        self.0.steady.found_wrong(wrong.map(|(node, _)| *node).collect());
        self.0.metrics.set_clock_offset_ms(offset_ms);
        if view.own().facts.clock_offset_ms != offset_ms {
            self.tell(|facts| facts.clock_offset_ms = offset_ms);
        }
        if !is_right {
            let now = self.0.clock.monotonic();
            if let Some(unlogged) = log.line((), now) {
                tracing::error!(
                    offset_ms,
                    unlogged,
                    "this node's clock is too far from its peers': it fires nothing, and its leaderships go to others until it is set right"
                );
            }
        }
    }

    /// A doubt has lasted for `longest`, or there is none.
    fn is_alone_for(&self, longest: Duration, since: Option<Duration>) -> bool {
        since.is_none_or(|since| self.0.clock.monotonic().saturating_sub(since) >= longest)
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

/// As much of an offset as is certain: a slow answer proves little.
fn certain_ms(offset: &Offset) -> i64 {
    let uncertainty = i64::try_from(offset.uncertainty_ms).unwrap_or(i64::MAX);
    match offset.offset_ms {
        ms if ms > uncertainty => ms - uncertainty,
        ms if ms < -uncertainty => ms + uncertainty,
        _ => 0,
    }
}

/// This node's clock against the median of all clocks, its own included; `peers` are theirs minus its own.
fn own_offset_ms(mut peers: Vec<i64>) -> i64 {
    peers.push(0);
    -middle(peers)
}

/// The median. Of an even number the one that is nearer to this node's clock: two nodes cannot tell who of them is wrong.
fn middle(mut offsets_ms: Vec<i64>) -> i64 {
    offsets_ms.sort_unstable();
    let count = offsets_ms.len();
    let (low, high) = match offsets_ms.get(count.saturating_sub(1) / 2..=count / 2) {
        Some([low, high]) => (*low, *high),
        Some([only]) => (*only, *only),
        _ => (0, 0),
    };
    if low.abs() < high.abs() { low } else { high }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_median() {
        assert_eq!(own_offset_ms(vec![]), 0);
        assert_eq!(own_offset_ms(vec![900]), 0, "two nodes cannot tell who is wrong");
        assert_eq!(own_offset_ms(vec![900, 1_000]), -900, "both others are ahead");
        assert_eq!(own_offset_ms(vec![900, 5]), -5, "one other is ahead");
        assert_eq!(own_offset_ms(vec![-700, -800, -900, 3]), 700);
    }

    #[test]
    fn only_the_certain_part_of_an_offset_counts() {
        let offset = |offset_ms, uncertainty_ms| Offset {
            offset_ms,
            uncertainty_ms,
            measured: Duration::ZERO,
        };
        assert_eq!(certain_ms(&offset(700, 100)), 600);
        assert_eq!(certain_ms(&offset(-700, 100)), -600);
        assert_eq!(certain_ms(&offset(70, 100)), 0);
    }
}
