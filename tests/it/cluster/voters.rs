//! A change of members never lowers safety (I25): with real processes, told to stop and started again as an operator does.

use std::time::Duration;

use crate::harness::client::{Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::eventually;

use super::{FAR_SECS, NODES};

/// Longer than a node looks around after its start before it changes anything.
const LOOKS_AROUND: Duration = Duration::from_secs(8);
/// How long, and how often, voters are counted after a node is back.
const COUNTED: u32 = 60;
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// Every group that is led has all its voters, as this node shows it.
async fn all_vote(cluster: &Cluster, through: usize, when: &str) {
    let Some(view) = cluster.view(through).await else {
        return;
    };
    for group in view.groups.iter().filter(|group| group.leader.is_some()) {
        assert_eq!(group.voters.len(), NODES, "{when}: {group:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_while_the_others_restarted_takes_no_votes_away() {
    let mut cluster = Cluster::start(NODES).await;
    let task = one_shot("kept", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(0).create(task).await.done();
    cluster.stop(2).await;
    for (restarted, other) in [(0, 1), (1, 0)] {
        cluster.stop(restarted).await;
        cluster.restart(restarted).await;
        all_vote(&cluster, other, "a node is restarted").await;
        // Both have forgotten the third one, and have looked around.
        tokio::time::sleep(LOOKS_AROUND).await;
        all_vote(&cluster, other, "both have looked around").await;
    }
    cluster.spawn(2);
    for _ in 0..COUNTED {
        all_vote(&cluster, 0, "the third is back").await;
        tokio::time::sleep(COUNT_EVERY).await;
    }
    cluster.ready(2).await;
    cluster.at_rest().await;
    // With three votes any one node may be lost.
    cluster.kill(0);
    eventually("the task is shown by the others", async || {
        match cluster.client(2).query("kept").await {
            Told::Done(_) => Some(()),
            Told::Refused(code, message) => panic!("an acknowledged task is lost: {code} {message}"),
            Told::Unknown(_) => None,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_depends_on_the_second_node_of_two_until_the_first_is_drained() {
    const TASKS: usize = 32;
    let mut cluster = Cluster::start(2).await;
    let view = cluster.view(0).await.expect("the node answers");
    let first = view.node_at(cluster.apis()[0]).expect("it knows itself").id.clone();
    for group in &view.groups {
        assert_eq!(group.leader.as_ref(), Some(&first), "{group:?}");
        assert!(group.voters.iter().eq([&first]), "{group:?}");
    }
    cluster.kill(1);
    // At once, and in every group: nobody has to notice that it is gone.
    for number in 0..TASKS {
        let task = one_shot(&format!("alone-{number}"), FAR_SECS, "http://127.0.0.1:9/", "{}");
        cluster.client(0).create(task).await.done();
    }
    cluster.restart(1).await;
    cluster.at_rest().await;
    cluster.drain(0, 1).await;
    for number in 0..TASKS {
        cluster.client(1).query(&format!("alone-{number}")).await.done();
    }
    let view = cluster.view(1).await.expect("the node answers");
    assert!(
        view.groups
            .iter()
            .all(|group| group.leader.is_some() && group.voters.len() == 1),
        "{view:?}"
    );
}
