//! The loop over real replicas in one process, with gossip as a test wants it.

use std::net::SocketAddr;

use super::*;
use crate::clock::SystemClock;
use crate::membership::{Facts, Member};
use crate::raft::testing::{Cluster, GROUP, eventually};
use crate::steady::Steady;

fn member(node: NodeId) -> Member {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let facts = Facts {
        node,
        peer: address,
        api: address,
        zone: String::new(),
        commands: 2,
        version: String::new(),
        cluster: Some(1),
        groups: None,
        draining: false,
        ready: true,
        led: Vec::new(),
        clock_offset_ms: 0,
        replicas: 3,
    };
    Member {
        facts,
        incarnation: 1,
        is_alive: true,
        has_left: false,
        since_ms: 0,
        known_since_ms: 0,
    }
}

/// What gossip shows to `me`: all nodes live and have done so for long.
fn view(me: NodeId, nodes: impl Iterator<Item = NodeId>) -> ClusterView {
    ClusterView {
        me,
        members: nodes.map(|node| (node, member(node))).collect(),
        twin: None,
    }
}

/// The clocks of a node that has been running for an hour.
#[derive(Debug, Default)]
struct LongUp(SystemClock);

impl Clock for LongUp {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_hours(1)
    }
}

/// Runs the loop of a node until it is dropped.
fn placement(cluster: &Cluster, view: ClusterView) -> JoinSet<()> {
    placement_that(cluster, view, false)
}

fn placement_that(cluster: &Cluster, view: ClusterView, is_stopping: bool) -> JoinSet<()> {
    let clock = Arc::new(LongUp::default());
    let parts = Parts {
        node: view.me,
        groups: cluster.groups[&view.me].clone(),
        view: watch::channel(Arc::new(view)).1,
        steady: Steady::new(clock.clone(), false, Duration::ZERO, None, |_| ()),
        clock,
        replace_after_ms: 300_000,
        callback: Duration::from_secs(2),
        stopping: Arc::new(AtomicBool::new(is_stopping)),
    };
    let mut running = JoinSet::new();
    running.spawn(Placement::new(parts).run());
    running
}

/// Three voters, led by a node that is not the first of the plan.
async fn led_elsewhere() -> (Cluster, NodeId, NodeId) {
    let cluster = Cluster::start(3, 3).await;
    let plan = current_plan(&view(1, 1..=3), &cluster.groups[&1], 1 << 40, 300_000);
    let first = plan.replicas(GROUP)[0];
    let leader = if first == 1 { 2 } else { 1 };
    if leader == 2 {
        let handed_over = cluster.copy(1).hand_over(2, QUIET, Urgency::Ordered).await;
        assert_eq!(handed_over, Ok(()));
    }
    assert_eq!(cluster.leader().await, leader);
    (cluster, leader, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_does_not_keep_its_group_silent() {
    let (cluster, leader, first) = led_elsewhere().await;
    let group = cluster.copy(leader);
    let fire = group.begin_fire();
    let _running = placement(&cluster, view(leader, 1..=3));
    let (mut quiet, mut looks) = (0, 0);
    while looks < 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        looks += 1;
        quiet += u32::from(!group.may_fire());
    }
    assert!(quiet > 0, "it has tried");
    assert!(quiet < 300, "quiet for {quiet} of {looks} looks");
    assert_eq!(cluster.leader().await, leader);
    drop(fire);
    assert_ne!(leader, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_to_go_hands_over_also_with_callbacks_in_flight() {
    let (cluster, leader, _) = led_elsewhere().await;
    let _fire = cluster.copy(leader).begin_fire();
    let mut view = view(leader, 1..=3);
    view.members.get_mut(&leader).expect("itself").facts.draining = true;
    let _running = placement(&cluster, view);
    eventually("it leads no more", || {
        cluster.copy(leader).leads().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_hands_over() {
    let (cluster, other, first) = led_elsewhere().await;
    let handed_over = cluster.copy(other).hand_over(first, QUIET, Urgency::Ordered).await;
    assert_eq!((handed_over, cluster.leader().await), (Ok(()), first));
    let _fire = cluster.copy(first).begin_fire();
    let mut view = view(first, 1..=3);
    let facts = &mut view.members.get_mut(&first).expect("itself").facts;
    facts.clock_offset_ms = 500;
    let right = placement(&cluster, view.clone());
    tokio::time::sleep(4 * PASS).await;
    assert!(cluster.copy(first).leads().is_some(), "500 ms are allowed");
    drop(right);
    view.members.get_mut(&first).expect("itself").facts.clock_offset_ms = -501;
    let _running = placement(&cluster, view);
    eventually("another node leads", || {
        cluster.copy(first).leads().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_leaves_no_group_that_nobody_else_votes_in() {
    let cluster = Cluster::start(3, 1).await;
    cluster.join(1, 2).await;
    // Two voters would survive no more than one: it is not waited for.
    assert!(!cluster.copy(1).members().hangs_on(1));
    cluster.join(1, 3).await;
    assert!(cluster.copy(1).members().hangs_on(1));
    let _running = placement_that(&cluster, view(1, 1..=3), true);
    going::settle_members(&cluster.groups[&1], Duration::from_mins(1)).await;
    assert_eq!(cluster.copy(1).members().voters(), (1..=3).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_led_here_names_no_node_to_plan_with() {
    let cluster = Cluster::start(3, 3).await;
    let planned = |me| {
        let view = view(me, 2..=3);
        let plan = current_plan(&view, &cluster.groups[&me], 1 << 40, 300_000);
        plan.replicas(GROUP).to_vec()
    };
    assert!(
        !planned(2).contains(&1),
        "what it knows of the members may be years old"
    );
}
