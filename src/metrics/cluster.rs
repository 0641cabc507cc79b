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

#[derive(Debug)]
pub(super) struct Cluster {
    connections: Gauge,
    refusals: Family<ReasonLabels, Counter>,
    datagrams: Family<ReasonLabels, Counter>,
    snapshots: Counter,
    snapshot_bytes: Counter,
    alive: Gauge,
    led: Gauge,
    clock_offset_ms: Gauge,
    unsafe_changes: Counter,
}

impl Cluster {
    pub(super) fn new(r: &mut Registry) -> Self {
        let refusals = "Peer connections and messages refused or dropped, by reason";
        let datagrams = "Gossip datagrams dropped before they were read, by reason";
        let offset = "This node's wall clock against the median of its peers, in milliseconds";
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
            led: register(r, "groups_led", "Groups that this node leads", Gauge::default()),
            clock_offset_ms: register(r, "clock_offset_ms", offset, Gauge::default()),
            unsafe_changes: register(
                r,
                "unsafe_changes_refused",
                "Changes of voters that would have lowered a group's safety, and were refused",
                Counter::default(),
            ),
        }
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

    /// Groups that this node leads.
    pub fn set_groups_led(&self, groups: usize) {
        self.cluster.led.set(gauge(groups));
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
