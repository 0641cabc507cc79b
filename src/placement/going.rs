//! What a node gives up: the copies that the groups do without, and, when it stops, everything that it leads.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::id::{GroupId, NodeId};
use crate::membership::ClusterView;
use crate::placement::is_clock_off;
use crate::raft::{Group, Groups, Urgency};

/// How often a node looks for copies that nobody leads it to keep.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that find a copy without a leader's call before its leader is asked: a failover is no reason.
const LOOKS_MIN: u32 = 3;
/// How often a node that stops looks whether what it waits for has come about.
const SETTLED_LOOK: Duration = Duration::from_millis(20);
/// How long a node that stops waits for the outcomes of callbacks in flight before it hands a leadership over.
const QUIET: Duration = Duration::from_secs(1);

/// Lets the copies go that their groups do without. Runs until it is dropped.
pub async fn let_lost_copies_go(groups: Groups, view: watch::Receiver<Arc<ClusterView>>) {
    let mut silent = vec![0_u32; usize::from(groups.count().get())];
    loop {
        tokio::time::sleep(LOOK).await;
        let now = view.borrow().clone();
        let mut removed = Vec::new();
        for group in groups.iter() {
            let looks = &mut silent[usize::from(group.id().0)];
            // A leader calls all its members several times a second.
            *looks = if group.leader().is_some() { 0 } else { *looks + 1 };
            let id = group.id();
            let leader = leader(&now, id).filter(|leader| *leader != now.me);
            let Some(leader) = leader.filter(|_| *looks >= LOOKS_MIN) else {
                continue;
            };
            drop(group);
            match groups.let_go(id, leader).await {
                Ok(true) => removed.push(id.0),
                Ok(false) => {}
                Err(error) => tracing::error!(group = id.0, %error, "a copy that is needed no more cannot be removed"),
            }
        }
        if !removed.is_empty() {
            tracing::info!(
                groups = removed.len(),
                numbers = ?removed,
                "this node's copies of these groups are needed no more, and are removed"
            );
        }
    }
}

/// The live node that said last that it leads the group.
fn leader(view: &ClusterView, group: GroupId) -> Option<NodeId> {
    let led = view.live().flat_map(|member| {
        let led = member.facts.led.iter().filter(|(led, _)| *led == group);
        led.map(|(_, generation)| (*generation, member.facts.node))
    });
    led.max().map(|(_, node)| node)
}

/// Waits, at most for `longest`, until no group in which this node votes is half way between two sets of voters, which might need this
/// node's vote to get out of that, and none hangs on this node alone although others have caught up.
pub async fn settle_members(groups: &Groups, longest: Duration) {
    let node = groups.node();
    let needs_it = |group: &Group| {
        let members = group.members();
        members.hangs_on(node) || members.is_half_way() && members.voters().contains(&node)
    };
    let settled = async {
        while groups.iter().any(|group| needs_it(&group)) {
            tokio::time::sleep(SETTLED_LOOK).await;
        }
    };
    if tokio::time::timeout(longest, settled).await.is_err() {
        let open = groups.iter().filter(needs_it).count();
        tracing::warn!(
            groups = open,
            "this node's vote is needed: these groups are changing their members, or nobody else votes yet. Without it their tasks may not \
             fire"
        );
    }
}

/// Hands everything that this node leads to other nodes, all at the same time, within `longest`. Where none could lead at once, but
/// one will soon, it is waited for.
pub async fn hand_everything_over(groups: &Groups, view: &watch::Receiver<Arc<ClusterView>>, longest: Duration) {
    let led = groups.iter().filter(|group| group.leads().is_some());
    let handed_over = led.filter_map(|group| {
        may_succeed(&group, &view.borrow()).then_some(async move {
            let to = loop {
                if let Some(to) = successor(&group, &view.borrow()) {
                    break to;
                }
                tokio::time::sleep(SETTLED_LOOK).await;
            };
            group.hand_over(to, QUIET, Urgency::Ordered).await.err()
        })
    });
    let Ok(ended) = tokio::time::timeout(longest, join_all(handed_over)).await else {
        tracing::warn!(
            "not every leadership was handed over in time: the others are taken over when this node is gone"
        );
        return;
    };
    let mut failed = ended.into_iter().flatten();
    if let Some(error) = failed.next() {
        let groups = 1 + failed.count();
        tracing::warn!(groups, %error, "leaderships were not handed over: others take over when this node is gone");
    }
}

/// Whether a node may lead instead of this one.
fn is_good(view: &ClusterView, node: NodeId) -> bool {
    let member = view
        .members
        .get(&node)
        .filter(|member| member.is_alive && node != view.me);
    member.is_some_and(|member| !member.facts.draining && !is_clock_off(member.facts.clock_offset_ms))
}

/// Whether another voter could lead the group, at once or when it has caught up.
fn may_succeed(group: &Group, view: &ClusterView) -> bool {
    group.members().voters().into_iter().any(|node| is_good(view, node))
}

/// A voter that could lead the group at once. Which of several depends on the group, so that not one node gets all.
fn successor(group: &Group, view: &ClusterView) -> Option<NodeId> {
    let members = group.members();
    let able = members
        .members
        .iter()
        .filter(|(node, member)| member.is_voter && member.is_caught_up() && is_good(view, **node));
    let able: Vec<NodeId> = able.map(|(node, _)| *node).collect();
    able.get(usize::from(group.id().0) % able.len().max(1)).copied()
}
