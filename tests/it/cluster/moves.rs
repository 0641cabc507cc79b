//! Nodes that go in good order, and nodes that hold copies no more: nobody waits for them, and nobody asks them in vain.

use std::time::Duration;

use crate::harness::client::{Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::sink::Sink;
use crate::harness::{eventually, random, wall_ms, wall_secs};

use super::load::Load;
use super::{FAR_SECS, NODES};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_hands_over_before_it_falls_silent() {
    const HANGING: usize = 48;
    let mut cluster = Cluster::start(NODES).await;
    let sink = Sink::start().await;
    let busiest = cluster.busiest().await;
    // Callbacks in flight in most groups, that end by their own timeout alone.
    let due = wall_secs() + 6;
    for number in 0..HANGING {
        let task = one_shot(&format!("hanging-{number}"), due, &sink.url("/hang"), "{}");
        cluster.client(number % NODES).create(task).await.done();
    }
    let load = Load::start(cluster.apis(), &mut random(45)).await;
    sink.wait_for_count(HANGING).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let from_ms = wall_ms();
    cluster.stop(busiest).await;
    println!("the node ended after {} ms", wall_ms() - from_ms);
    let next = (busiest + 1) % NODES;
    let view = cluster.view(next).await.expect("the node answers");
    assert!(view.groups.iter().all(|group| group.leader.is_some()), "{view:?}");
    let gone = view.node_at(cluster.apis()[busiest]).is_none_or(|node| !node.alive);
    assert!(gone, "the others need not wait for its silence: {view:?}");
    cluster.restart(busiest).await;
    sink.release();
    let verdict = load.finish("told to stop", &cluster).await;
    assert!(verdict.acked > 100, "too few to say anything: {verdict:?}");
    assert!(verdict.silence_ms_max < 4_000, "{verdict:?}");
    cluster.at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_serves_every_group_after_one_of_five_is_gone_for_good() {
    const NODES: usize = 5;
    const TASKS: usize = 48;
    let mut cluster = Cluster::start(NODES).await;
    for number in 0..TASKS {
        let task = one_shot(&format!("kept-{number}"), FAR_SECS, "http://127.0.0.1:9/", "{}");
        cluster.client(number % NODES).create(task).await.done();
    }
    // The first node held everything once; of what moved away nothing is left.
    eventually("copies that are needed no more are removed", async || {
        let log = cluster.log_of(0);
        log.contains("the copy of a group that does without it is removed")
            .then_some(())
    })
    .await;
    let gone = cluster.busiest().await;
    cluster.kill(gone);
    for index in (0..NODES).filter(|index| *index != gone) {
        let mut client = cluster.client(index);
        for number in 0..TASKS {
            let id = format!("kept-{number}");
            eventually(&format!("node {index} shows {id}"), async || {
                match client.query(&id).await {
                    Told::Done(_) => Some(()),
                    Told::Refused(code, message) => panic!("{id} is lost: {code} {message}"),
                    Told::Unknown(_) => None,
                }
            })
            .await;
        }
        // Every group has a leader by now: no call has to be repeated.
        for number in 0..TASKS {
            client.query(&format!("kept-{number}")).await.done();
        }
    }
}
