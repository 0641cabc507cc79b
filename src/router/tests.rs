//! The search for a leader, over replicas in one process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cluster::{LeaderHints, Parts, Router};
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::core::command::{AttemptResult, COMMANDS, Op, Reply, Settle, Skipped};
use crate::core::reason::Reason;
use crate::core::task::Delivery;
use crate::entropy::SystemEntropy;
use crate::id::{GroupId, NodeId};
use crate::net::{Handle, Service};
use crate::raft::Groups;
use crate::raft::testing::{Cluster, Endpoint, GROUP, any_change, create, eventually, has};
use crate::space::Space;

/// What gossip says: who leads, and what the oldest node reads.
struct Hints(Mutex<Option<NodeId>>, Mutex<u16>);

impl Default for Hints {
    fn default() -> Self {
        Self(Mutex::default(), Mutex::new(COMMANDS))
    }
}

impl LeaderHints for Arc<Hints> {
    fn leader(&self, _: GroupId) -> Option<NodeId> {
        *self.0.lock()
    }

    fn live(&self) -> Vec<NodeId> {
        vec![1, 2, 3, 4]
    }

    fn commands(&self) -> u16 {
        *self.1.lock()
    }
}

struct Both(Groups, Replicas);

impl Handle for Both {
    fn handle(&self, from: NodeId, service: Service, request: Bytes) -> futures_util::future::BoxFuture<'_, Bytes> {
        Box::pin(async move {
            match service {
                Service::Router => self.1.answer(&request).await,
                _ => self.0.answer(from, &request).await,
            }
        })
    }
}

fn replicas(groups: &Groups, hints: &Arc<Hints>) -> Replicas {
    let clock = Arc::new(SystemClock::default());
    Replicas::new(
        groups.clone(),
        Duration::from_secs(2),
        Arc::new(hints.clone()),
        clock,
        Space::default(),
    )
}

/// Lets all nodes serve, and gives a router at `node` and what it hears by gossip.
fn router(cluster: &Cluster, node: NodeId) -> (Router, Arc<Hints>) {
    let hints = Arc::<Hints>::default();
    for (node, groups) in &cluster.groups {
        let both = Both(groups.clone(), replicas(groups, &hints));
        cluster.net.serve(*node, Arc::new(both));
    }
    let router = Router::new(Parts {
        node,
        replicas: replicas(&cluster.groups[&node], &hints),
        call: Arc::new(Endpoint(cluster.net.clone(), node)),
        hints: Arc::new(hints.clone()),
        clock: Arc::new(SystemClock::default()),
        entropy: Arc::new(SystemEntropy::default()),
        retention_ms: 1_000,
    });
    (router, hints)
}

fn id(text: &str) -> TaskId {
    TaskId::parse(text).expect("valid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_calls_any_more_is_not_asked_who_leads() {
    let mut cluster = Cluster::start(4, 4).await;
    let (router, hints) = router(&cluster, 4);
    assert!(create(&cluster.copy(1), "t").await);
    // Node 4 hears no replica from here on: it takes node 1 for the leader, for good.
    cluster.net.only(|_, to, request| to != 4 || request.is_none());
    cluster
        .copy(1)
        .set_voters([1, 2, 3].into(), &any_change())
        .await
        .expect("a majority is there");
    cluster.copy(1).remove_learners([4].into()).await.expect("it leads");
    cluster.net.lose(1);
    cluster.groups.remove(&1).expect("it was there").shutdown().await;
    let leader = cluster.leader().await;
    *hints.0.lock() = Some(leader);
    for _ in 0..3 {
        let found = Tasks::query(&router, id("t")).await;
        assert_eq!(found.map(|task| task.spec.id), Ok(id("t")));
    }
    assert!(router.is_led(GROUP));
    *hints.0.lock() = None;
    // What the copy has heard last counts for a moment; what it has on its disk is no leader.
    let unled = || (!router.is_led(GROUP)).then_some(());
    eventually("the leader that nobody names is forgotten", unled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_read_needs_a_copy_and_no_leader() {
    let cluster = Cluster::start(4, 3).await;
    let (with_copy, _) = router(&cluster, 3);
    let (without, _) = router(&cluster, 4);
    assert!(create(&cluster.copy(1), "t").await);
    eventually("every copy has it", || {
        let has = |node| cluster.copy(node).is_readable().is_ok_and(|is| is) && has(&cluster.copy(node), "t");
        (has(2) && has(3)).then_some(())
    })
    .await;
    // No replica hears another: nobody may lead for long.
    cluster.net.only(|_, _, request| request.is_none());
    let gone = async || Tasks::query(&with_copy, id("t")).await.is_err();
    while !gone().await {}
    for router in [&with_copy, &without] {
        let found = Tasks::query_stale(router, id("t")).await;
        assert_eq!(found.map(|task| task.spec.id), Ok(id("t")));
        let none = Tasks::query_stale(router, id("other")).await;
        assert_eq!(none, Err(QueryError::NotFound));
    }
    cluster.net.only(|_, _, _| false);
    let refused = Tasks::query_stale(&without, id("t")).await;
    assert!(matches!(refused, Err(QueryError::Unavailable(_))), "{refused:?}");
}

fn task(delivery: Delivery) -> NewTask {
    NewTask {
        id: Some(id("t")),
        schedule: Schedule::Once { at_ms: 1 << 41 },
        first_due_ms: 1 << 41,
        url: "http://x/".into(),
        body: b"{}".to_vec(),
        delivery,
    }
}

fn change(url: &str) -> Change {
    Change {
        id: id("t"),
        replaces: None,
        schedule: Schedule::Once { at_ms: 1 << 41 },
        first_due_ms: 1 << 41,
        url: url.into(),
        body: b"{}".to_vec(),
        delivery: Delivery::AtLeastOnce,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_is_asked_of_a_cluster_with_a_node_that_cannot_read_it() {
    let cluster = Cluster::start(3, 3).await;
    let (router, hints) = router(&cluster, 2);
    *hints.1.lock() = 1;
    let refused = Tasks::create(&router, task(Delivery::AtMostOnce)).await;
    assert!(
        matches!(&refused, Err(CreateError::Unavailable(why)) if why.contains("older release")),
        "{refused:?}"
    );
    assert_eq!(Tasks::create(&router, task(Delivery::AtLeastOnce)).await, Ok(id("t")));
    let refused = Tasks::update(&router, change("http://y/")).await;
    assert!(
        matches!(&refused, Err(UpdateError::Unavailable(why)) if why.contains("older release")),
        "{refused:?}"
    );
    *hints.1.lock() = COMMANDS;
    assert_eq!(Tasks::update(&router, change("http://y/")).await, Ok(2));
    assert_eq!(
        Tasks::query(&router, id("t")).await.map(|task| task.spec.url),
        Ok("http://y/".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_late_undoes_nothing() {
    let cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let other = if leader == 2 { 3 } else { 2 };
    let (router, _) = router(&cluster, other);
    assert!(create(&cluster.copy(leader), "t").await);
    assert_eq!(Tasks::update(&router, change("http://y/")).await, Ok(2));
    assert_eq!(Tasks::update(&router, change("http://z/")).await, Ok(3));
    let late = Change {
        replaces: Some(1),
        ..change("http://y/")
    };
    assert_eq!(
        Tasks::update(&router, late).await,
        Err(UpdateError::Outdated { revision: 3 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_begins_after_the_leader_s_now_and_after_what_was_fired() {
    let cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let other = if leader == 2 { 3 } else { 2 };
    let (router, _) = router(&cluster, other);
    assert!(create(&cluster.copy(leader), "t").await);
    let hourly = |first_due_ms| Change {
        schedule: Schedule::Cron {
            expression: "@hourly".into(),
            timezone: "UTC".into(),
        },
        first_due_ms,
        ..change("http://y/")
    };
    // Accepted by a node whose clock is behind.
    let now_ms = SystemClock::default().wall_ms();
    assert_eq!(
        Tasks::update(&router, hourly(now_ms / 3_600_000 * 3_600_000)).await,
        Ok(2)
    );
    let due_ms = Tasks::query(&router, id("t")).await.expect("there").state.next_due_ms;
    assert_eq!(due_ms, Some((now_ms / 3_600_000 + 1) * 3_600_000));
    // Fired by a leader before this one, whose clock was ahead.
    let group = cluster.copy(leader);
    let settle = Settle {
        key: id("t").key(),
        generation: group.leads().expect("it leads").generation,
        revision: 2,
        due_ms: due_ms.expect("hourly"),
        expected_ms: due_ms.expect("hourly"),
        skipped: Skipped::default(),
        attempt: 1,
        result: AttemptResult::Delivered,
        reason: Reason::Http(200),
        is_sent: true,
        at_ms: now_ms,
        next_due_ms: due_ms.map(|due_ms| due_ms + 3_600_000),
        expire_ms: 0,
    };
    let done = group.proposer().propose(&Op::Settle(settle)).await;
    assert_eq!(done, Ok(Reply::Done));
    let again = Change {
        body: br#"{"n":1}"#.to_vec(),
        ..hourly(due_ms.expect("hourly"))
    };
    assert_eq!(Tasks::update(&router, again).await, Ok(3));
    let next_ms = Tasks::query(&router, id("t")).await.expect("there").state.next_due_ms;
    assert_eq!(next_ms, due_ms.map(|due_ms| due_ms + 3_600_000));
}
