//! A cluster is founded once, by the word of an operator, and never beside one that lives.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::{FAR_SECS, NODES};
use crate::harness::client::{Reply, Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::eventually;

async fn get(cluster: &Cluster, index: usize, path: &str) -> Option<Reply> {
    cluster
        .client(index)
        .request(Method::GET, path, Bytes::new())
        .await
        .ok()
}

/// Waits until the node says that it waits for a cluster; what it says.
async fn waits(cluster: &Cluster, index: usize) -> String {
    eventually(&format!("node {index} says that it waits"), async || {
        let reply = get(cluster, index, "/readyz").await?;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
        let text = reply.text();
        text.contains("waiting for a cluster").then_some(text)
    })
    .await
}

fn problem(reply: &Reply) -> String {
    let body: Value = serde_json::from_slice(&reply.body).expect("a problem document");
    body["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_wait_and_say_so_until_one_is_told_to_found_their_cluster() {
    let mut cluster = Cluster::waiting(2).await;
    for index in 0..2 {
        let reason = waits(&cluster, index).await;
        let command = format!("xcron cluster init --api http://{}", cluster.apis()[index]);
        assert!(reason.contains(&command), "{reason}");
        let alive = get(&cluster, index, "/healthz").await.expect("it answers");
        assert_eq!(alive.status, StatusCode::OK);
        let metrics = get(&cluster, index, "/metrics").await.expect("it answers");
        assert!(metrics.text().contains("xcron_ready 0"), "{}", metrics.text());
        let task = one_shot("early", FAR_SECS, "http://127.0.0.1:9/", "{}");
        match cluster.client(index).create(task).await {
            Told::Unknown(said) => assert!(said.contains("nothing was done"), "{said}"),
            told => panic!("a node without a cluster takes tasks: {told:?}"),
        }
        let v1 = get(&cluster, index, "/v1/tasks/early").await.expect("it answers");
        assert_eq!(
            (v1.status, problem(&v1).as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        );
    }
    cluster.found(0).await;
    for index in 0..2 {
        cluster.ready(index).await;
    }
    cluster.at_rest().await;
    for index in 0..2 {
        let again = cluster.init(index).await.expect("it answers");
        assert_eq!(
            (again.status, problem(&again).as_str()),
            (StatusCode::CONFLICT, "already_member")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_are_told_at_once_found_one_cluster() {
    let mut cluster = Cluster::waiting(NODES).await;
    for index in 0..NODES {
        waits(&cluster, index).await;
    }
    let (first, second) = tokio::join!(cluster.init(0), cluster.init(1));
    let answers = [first.expect("it answers"), second.expect("it answers")];
    let founded = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let refused: Vec<String> = answers
        .iter()
        .filter(|answer| answer.status != StatusCode::OK)
        .map(problem)
        .collect();
    println!("{founded} founded, refused: {refused:?}");
    assert!(founded <= 1, "{refused:?}");
    let why = ["cluster_exists", "init_elsewhere", "already_member"];
    assert!(refused.iter().all(|code| why.contains(&code.as_str())), "{refused:?}");
    if founded == 0 {
        cluster.found(0).await;
    }
    for index in 0..NODES {
        cluster.ready(index).await;
    }
    // Every node is in the same one.
    cluster.at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_lost_its_disk_waits_for_the_living_cluster_and_joins_it() {
    let mut cluster = Cluster::start(NODES).await;
    let before = cluster.view(1).await.expect("it serves");
    cluster.kill(0);
    cluster.wipe(0);
    // The start line names nobody: that of a node that was the first.
    cluster.spawn_alone(0);
    let init = eventually("the node answers", async || cluster.init(0).await).await;
    assert_ne!(
        init.status,
        StatusCode::OK,
        "a second cluster beside the living one: {}",
        init.text()
    );
    cluster.ready(0).await;
    let view = cluster.view(0).await.expect("it serves");
    assert_eq!(view.cluster, before.cluster);
    let task = one_shot("after", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(0).create(task).await.done();
    assert_eq!(cluster.client(1).query("after").await.done()["task_id"], "after");
}
