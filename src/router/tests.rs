//! The search for a leader, over replicas in one process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cluster::{LeaderHints, Parts, Router};
use super::*;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::id::{GroupId, NodeId};
use crate::net::{Handle, Service};
use crate::raft::Groups;
use crate::raft::testing::{Cluster, Endpoint, GROUP, create, eventually, has};

/// What gossip says.
#[derive(Default)]
struct Hints(Mutex<Option<NodeId>>);

impl LeaderHints for Arc<Hints> {
    fn leader(&self, _: GroupId) -> Option<NodeId> {
        *self.0.lock()
    }

    fn live(&self) -> Vec<NodeId> {
        vec![1, 2, 3, 4]
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

fn replicas(groups: &Groups) -> Replicas {
    Replicas::new(groups.clone(), Duration::from_secs(2))
}

/// Lets all nodes serve, and gives a router at `node` and what it hears by gossip.
fn router(cluster: &Cluster, node: NodeId) -> (Router, Arc<Hints>) {
    for (node, groups) in &cluster.groups {
        let both = Both(groups.clone(), replicas(groups));
        cluster.net.serve(*node, Arc::new(both));
    }
    let hints = Arc::<Hints>::default();
    let router = Router::new(Parts {
        node,
        replicas: replicas(&cluster.groups[&node]),
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
        .set_voters([1, 2, 3].into())
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
    assert!(!router.is_led(GROUP), "what a copy has on its disk is no leader");
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
