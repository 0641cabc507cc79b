//! Who is no member, or not any more: strangers at the peer port, and a node that comes back without its disk.

use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{FAR_SECS, NODES};
use crate::harness::client::one_shot;
use crate::harness::cluster::Cluster;
use crate::harness::eventually;

/// Connections that are made and then only held.
const IDLE: usize = 10_000;
/// As many are held at the same time where the limit on open files allows no more.
const HELD_LEAST: usize = 400;
/// Longest time that one connection may take; a refused or dropped one is as good.
const CONNECT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_that_say_nothing_stop_nothing() {
    let cluster = Cluster::start(2).await;
    let peer = cluster.peer(0);
    let (mut held, mut made) = (Vec::new(), 0);
    while made < IDLE {
        match timeout(CONNECT, TcpStream::connect(peer)).await {
            Ok(Ok(mut stream)) => {
                made += 1;
                // Some say a little, and some half of it all.
                if made % 3 == 0 {
                    drop(stream.write_all(b"xcron, or not").await);
                }
                if made % 1_000 == 0 {
                    drop(stream.into_std().map(|stream| stream.shutdown(Shutdown::Write)));
                } else {
                    held.push(stream);
                }
            }
            // No more open files here: those that were held longest go.
            Ok(Err(_)) => drop(held.drain(..held.len().min(HELD_LEAST))),
            Err(error) => panic!("the peer port takes no connections any more, after {made}: {error}"),
        }
        if made % 2_000 == 0 {
            let task = one_shot(&format!("among-{made}"), FAR_SECS, "http://127.0.0.1:9/", "{}");
            cluster.client(1).create(task).await.done();
        }
    }
    println!("{made} connections, {} held at the end", held.len());
    assert!(held.len() >= HELD_LEAST, "{} connections are not many", held.len());
    // The peers are not kept out: new links are made, and calls through either node reach the other.
    cluster.at_rest().await;
    for index in 0..2 {
        let task = one_shot(&format!("after-{index}"), FAR_SECS, "http://127.0.0.1:9/", "{}");
        cluster.client(index).create(task).await.done();
    }
    let page = cluster.client(0).request(Method::GET, "/metrics", Bytes::new()).await;
    let page = page.expect("the node answers").text();
    let refusals = page
        .lines()
        .filter(|line| line.starts_with("xcron_peer_refusals_total{"));
    assert!(refusals.count() > 0, "strangers are counted:\n{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_comes_back_as_another() {
    let mut cluster = Cluster::start(NODES).await;
    let task = one_shot("kept", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(0).create(task).await.done();
    let before = cluster.view(0).await.expect("it serves").ids();
    cluster.kill(2);
    cluster.wipe(2);
    cluster.spawn(2);
    cluster.ready(2).await;
    eventually("the node is another one", async || {
        let ids = cluster.view(2).await?.ids();
        ids.iter().any(|id| !before.contains(id)).then_some(())
    })
    .await;
    assert_eq!(cluster.client(2).query("kept").await.done()["task_id"], "kept");
    let task = one_shot("new", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(2).create(task).await.done();
}
