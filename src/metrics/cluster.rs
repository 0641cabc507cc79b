//! Metrics of a node's part in its cluster: peers, gossip, leaderships. Part of `Metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Metrics, gauge, register};

/// Labels of what was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Labels of accepted jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AcceptedLabels {
    by: &'static str,
}

/// How the groups stand, as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// Groups of the cluster.
    pub groups: usize,
    /// Groups that this node leads.
    pub led: usize,
    /// Groups of which no leader is known that could act.
    pub without_leader: usize,
    /// Groups led here with fewer live, caught-up copies than wanted.
    pub under_replicated: usize,
    /// Entries that the slowest copy of a group led here lacks.
    pub lag_entries: u64,
}

#[derive(Debug)]
pub(super) struct Cluster {
    connections: Gauge,
    refusals: Family<ReasonLabels, Counter>,
    datagrams: Family<ReasonLabels, Counter>,
    snapshots: Counter,
    snapshot_bytes: Counter,
    alive: Gauge,
    groups: Gauge,
    led: Gauge,
    unled: Gauge,
    under: Gauge,
    lag: Gauge,
    elections: Counter,
    leaderships: Counter,
    clock_offset_ms: Gauge,
    unsafe_changes: Counter,
    clock_held: Gauge,
    clock_accepted: Family<AcceptedLabels, Counter>,
    dues_corrected: Counter,
}

impl Cluster {
    pub(super) fn new(r: &mut Registry) -> Self {
        let refusals = "Peer connections and messages refused or dropped, by reason";
        let datagrams = "Gossip datagrams dropped before they were read, by reason";
        let held = "1 while a large jump of the wall clock is held that nobody has confirmed";
        let corrected = "Next dues that were not what their schedules say, and were moved there";
        let accepted = "Large jumps of the wall clock that were accepted, by who confirmed them";
        let offset = "This node's wall clock against the median of its peers, in milliseconds";
        let unled = "Groups of which this node knows no leader that could act: their tasks do not fire";
        let under = "Groups led here of which fewer live and caught-up copies exist than wanted";
        let lag = "Log entries that the slowest copy of a group led here lacks";
        let elections = "Terms that have begun in the groups of which this node has a copy";
        Self {
            connections: register(
                r,
                "peer_connections",
                "Open connections between nodes",
                Gauge::default(),
            ),
            refusals: register(r, "peer_refusals", refusals, Family::default()),
            datagrams: register(r, "gossip_dropped", datagrams, Family::default()),
            snapshots: register(
                r,
                "snapshots_sent",
                "Snapshots of groups that another node has installed",
                Counter::default(),
            ),
            snapshot_bytes: register(
                r,
                "snapshot_sent_bytes",
                "Bytes of snapshots sent to other nodes",
                Counter::default(),
            ),
            alive: register(
                r,
                "nodes_alive",
                "Nodes that gossip hears of, this one included",
                Gauge::default(),
            ),
            groups: register(r, "groups", "Groups of the cluster", Gauge::default()),
            led: register(r, "groups_led", "Groups that this node leads", Gauge::default()),
            unled: register(r, "groups_without_leader", unled, Gauge::default()),
            under: register(r, "groups_under_replicated", under, Gauge::default()),
            lag: register(r, "replication_lag_entries", lag, Gauge::default()),
            elections: register(r, "elections", elections, Counter::default()),
            leaderships: register(
                r,
                "leaderships",
                "Leaderships that this node has begun",
                Counter::default(),
            ),
            clock_offset_ms: register(r, "clock_offset_ms", offset, Gauge::default()),
            unsafe_changes: register(
                r,
                "unsafe_changes_refused",
                "Changes of voters that would have lowered a group's safety, and were refused",
                Counter::default(),
            ),
            clock_held: register(r, "clock_held", held, Gauge::default()),
            clock_accepted: register(r, "clock_jumps_accepted", accepted, Family::default()),
            dues_corrected: register(r, "dues_corrected", corrected, Counter::default()),
        }
    }

    pub(super) fn count_corrected(&self, dues: u64) {
        self.dues_corrected.inc_by(dues);
    }
}

impl Metrics {
    /// A connection to or from a peer was opened (1) or has ended (-1).
    pub fn add_peer_connections(&self, change: i64) {
        self.cluster.connections.inc_by(change);
    }

    /// A peer, its connection or its message was refused.
    pub fn inc_peer_refusal(&self, reason: &'static str) {
        self.cluster.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A datagram of gossip was dropped unread.
    pub fn inc_gossip_dropped(&self, reason: &'static str) {
        self.cluster.datagrams.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A part of a snapshot was sent to another node.
    pub fn add_snapshot_sent_bytes(&self, bytes: usize) {
        self.cluster.snapshot_bytes.inc_by(bytes as u64);
    }

    /// Another node has installed a snapshot of this one.
    pub fn inc_snapshots_sent(&self) {
        self.cluster.snapshots.inc();
    }

    /// Nodes that gossip hears of.
    pub fn set_nodes_alive(&self, nodes: usize) {
        self.cluster.alive.set(gauge(nodes));
    }

    /// How the groups stand.
    pub fn set_groups(&self, figures: GroupFigures) {
        let GroupFigures {
            groups,
            led,
            without_leader,
            under_replicated,
            lag_entries,
        } = figures;
        self.cluster.groups.set(gauge(groups));
        self.cluster.led.set(gauge(led));
        self.cluster.unled.set(gauge(without_leader));
        self.cluster.under.set(gauge(under_replicated));
        self.cluster.lag.set(i64::try_from(lag_entries).unwrap_or(i64::MAX));
    }

    /// So many terms of a group have begun since the last call.
    pub fn add_elections(&self, terms: u64) {
        self.cluster.elections.inc_by(terms);
    }

    /// This node has begun to lead a group.
    pub fn inc_leaderships(&self) {
        self.cluster.leaderships.inc();
    }

    /// Whether a large jump of the wall clock is held.
    pub fn set_clock_held(&self, is_held: bool) {
        self.cluster.clock_held.set(is_held.into());
    }

    /// A large jump of the wall clock was accepted.
    pub fn inc_clock_accepted(&self, by: &'static str) {
        self.cluster.clock_accepted.get_or_create(&AcceptedLabels { by }).inc();
    }

    /// A change of voters was refused that would have lowered safety.
    pub fn inc_unsafe_change(&self) {
        self.cluster.unsafe_changes.inc();
    }

    /// This node's wall clock against its peers'.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) {
        self.cluster.clock_offset_ms.set(offset_ms);
    }
}
