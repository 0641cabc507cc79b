//! Tells the log which nodes come, are lost, come back and leave: one line each, whoever had which connection.
//!
//! Follows gossip's view. Started by `node.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::id::{NodeHex, NodeId};
use crate::membership::{ClusterView, Member};

/// How a node was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Alive,
    Lost,
    Left,
}

/// What has become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    New,
    Back,
    Lost,
    Left,
}

/// Follows the view for as long as there is one.
pub async fn tell_of_nodes(mut view: watch::Receiver<Arc<ClusterView>>) {
    let mut seen = BTreeMap::new();
    loop {
        let now = view.borrow_and_update().clone();
        for (node, peer, change) in changes(&mut seen, &now) {
            let node = NodeHex(node);
            match change {
                Change::New => tracing::info!(%node, %peer, "a node is in this cluster"),
                Change::Back => tracing::info!(%node, %peer, "a node is back"),
                Change::Left => tracing::info!(%node, %peer, "a node has left in order"),
                Change::Lost => tracing::warn!(%node, %peer, "a node is lost: nothing is heard of it"),
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// What has changed against `seen`, which then holds how it is.
fn changes(seen: &mut BTreeMap<NodeId, Seen>, view: &ClusterView) -> Vec<(NodeId, SocketAddr, Change)> {
    let others = view.members.values().filter(|member| member.facts.node != view.me);
    let changed = others.filter_map(|member| {
        let (node, now) = (member.facts.node, state(member));
        if now != Seen::Alive && !seen.contains_key(&node) {
            // It is only known from others, or was just learned of: nothing has changed for this node.
            return None;
        }
        let change = match (seen.insert(node, now), now) {
            (before, now) if before == Some(now) => return None,
            (None, _) => Change::New,
            (_, Seen::Alive) => Change::Back,
            (_, Seen::Left) => Change::Left,
            (_, Seen::Lost) => Change::Lost,
        };
        Some((node, member.facts.peer, change))
    });
    let changed = changed.collect();
    // What gossip has forgotten.
    seen.retain(|node, _| view.members.contains_key(node));
    changed
}

fn state(member: &Member) -> Seen {
    match (member.is_alive, member.has_left) {
        (true, _) => Seen::Alive,
        (false, true) => Seen::Left,
        (false, false) => Seen::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Facts;

    fn facts(node: NodeId) -> Facts {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Facts {
            node,
            peer: address,
            api: address,
            zone: String::new(),
            version: String::new(),
            commands: 1,
            replicas: 3,
            cluster: Some(1),
            groups: None,
            draining: false,
            led: Vec::new(),
            ready: false,
            clock_offset_ms: 0,
        }
    }

    fn told(seen: &mut BTreeMap<NodeId, Seen>, others: &[(NodeId, Seen)]) -> Vec<(NodeId, Change)> {
        let mut view = ClusterView::alone(facts(1));
        for (node, state) in others {
            let mut member = view.own().clone();
            member.facts = facts(*node);
            member.is_alive = *state == Seen::Alive;
            member.has_left = *state == Seen::Left;
            view.members.insert(*node, member);
        }
        let changed = changes(seen, &view).into_iter();
        changed.map(|(node, _, change)| (node, change)).collect()
    }

    #[test]
    fn each_coming_and_going_is_told_once() {
        let mut seen = BTreeMap::new();
        let mut told = |others: &[(NodeId, Seen)]| told(&mut seen, others);
        assert_eq!(told(&[(2, Seen::Alive), (3, Seen::Lost)]), [(2, Change::New)]);
        assert_eq!(told(&[(2, Seen::Alive), (3, Seen::Lost)]), []);
        assert_eq!(
            told(&[(2, Seen::Lost), (3, Seen::Alive)]),
            [(2, Change::Lost), (3, Change::New)]
        );
        assert_eq!(
            told(&[(2, Seen::Alive), (3, Seen::Left)]),
            [(2, Change::Back), (3, Change::Left)]
        );
        assert_eq!(told(&[(2, Seen::Alive)]), [], "forgotten");
        assert_eq!(told(&[(3, Seen::Alive)]), [(3, Change::New)]);
    }
}
