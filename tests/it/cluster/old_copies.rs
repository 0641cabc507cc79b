//! Directories that are not what they were: restored from an older copy, given up although healthy; and nodes that find each
//! other again without the one that their start lines name.

use crate::harness::client::{Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::eventually;
use crate::harness::node::Place;

use super::{FAR_SECS, NODES};

fn task(id: &str) -> String {
    one_shot(id, FAR_SECS, "http://127.0.0.1:9/", "{}")
}

/// The node on the restored directory is refused, now and at its next start, until it gives the directory up.
async fn expect_refusal(cluster: &mut Cluster, index: usize, id: &str) {
    for what in ["restored", "superseded"] {
        cluster.spawn(index);
        let ended = cluster.ended(index).await;
        assert_eq!(ended.status.code(), Some(1), "{what}: {ended}");
        for part in ["an older copy of this node's directory", "--rejoin"] {
            assert!(ended.stderr.contains(part), "{what}: {}", ended.stderr);
        }
    }
    let before = cluster.view(1).await.expect("it serves").ids();
    let rejoin = cluster.launch_again(index).argument("--rejoin");
    cluster.spawn_as(index, &rejoin);
    cluster.ready(index).await;
    eventually("the node is another one", async || {
        let ids = cluster.view(index).await?.ids();
        ids.iter().any(|id| !before.contains(id)).then_some(())
    })
    .await;
    assert_eq!(cluster.client(index).query(id).await.done()["task_id"], id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_restored_from_the_copy_of_a_stopped_one_is_refused() {
    let mut cluster = Cluster::start(NODES).await;
    cluster.stop(0).await;
    cluster.back_up(0);
    cluster.restart(0).await;
    cluster.at_rest().await;
    // Only nodes 0 and 1 confirm it.
    cluster.kill(2);
    eventually("a task is acknowledged by two of three", async || {
        matches!(cluster.client(1).create(task("acked")).await, Told::Done(_)).then_some(())
    })
    .await;
    cluster.kill(0);
    cluster.kill(1);
    cluster.restore(0);
    // Without node 1 nobody has the task: the two others must not agree that there is none.
    cluster.spawn(2);
    cluster.spawn(0);
    let ended = cluster.ended(0).await;
    assert!(
        ended.stderr.contains("an older copy of this node's directory"),
        "{ended}"
    );
    match cluster.client(2).query("acked").await {
        Told::Unknown(_) => {}
        told => panic!("a minority says what is there: {told:?}"),
    }
    cluster.spawn(1);
    cluster.ready(1).await;
    cluster.ready(2).await;
    assert_eq!(cluster.client(2).query("acked").await.done()["task_id"], "acked");
    expect_refusal(&mut cluster, 0, "acked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_restored_from_a_snapshot_of_the_running_one_is_refused() {
    let mut cluster = Cluster::start(NODES).await;
    // As a snapshot of its disk is taken: between two instructions. Its count of starts is that of the running process.
    cluster.pause(0);
    cluster.back_up(0);
    cluster.resume(0);
    cluster.at_rest().await;
    for number in 0..20 {
        cluster.client(1).create(task(&format!("acked-{number}"))).await.done();
    }
    cluster.at_rest().await;
    cluster.kill(0);
    cluster.restore(0);
    expect_refusal(&mut cluster, 0, "acked-7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_majority_finds_itself_without_the_node_that_its_start_lines_name() {
    let mut cluster = Cluster::waiting(1).await;
    cluster.found(0).await;
    cluster.ready(0).await;
    for _ in 1..NODES {
        let index = cluster.enlist();
        let launch = cluster.launch_naming(index, &[0]);
        cluster.spawn_as(index, &launch);
    }
    for index in 1..NODES {
        cluster.ready(index).await;
    }
    cluster.at_rest().await;
    cluster.client(0).create(task("kept")).await.done();
    cluster.kill_all();
    for index in 1..NODES {
        let launch = cluster.launch_naming(index, &[0]);
        cluster.spawn_as(index, &launch);
    }
    for index in 1..NODES {
        cluster.ready(index).await;
        assert_eq!(cluster.client(index).query("kept").await.done()["task_id"], "kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_directory_is_not_given_up() {
    let place = Place::new();
    let node = place.node().set("groups", 4).start().await;
    node.client().create(task("keep")).await.done();
    node.terminate().await;
    let Err(ended) = place.node().argument("--rejoin").try_start().await else {
        panic!("a healthy directory is set aside");
    };
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("has found it damaged"), "{}", ended.stderr);
    let node = place.node().start().await;
    assert_eq!(node.client().query("keep").await.done()["task_id"], "keep");
}
