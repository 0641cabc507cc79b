//! One target's trouble is nobody else's: backlogs larger than the windows, many targets that hang, tasks that move away from
//! one. Judged by what arrives while nothing of the others has ended, never by time.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::UdpSocket;

use crate::harness::client::{Told, one_shot};
use crate::harness::node::{Node, Place};
use crate::harness::sink::Sink;
use crate::harness::{eventually, namespace, wall_ms, wall_secs};

/// Clients that create at the same time.
const CLIENTS: usize = 16;
/// No attempt ends by itself while a test runs.
const FOR_EVER_MS: u64 = 600_000;

/// Creates one-shots, each with its id and URL, each due so many seconds later.
async fn create_all(node: &Node, after_secs: u64, tasks: Vec<(String, String)>) {
    let clients = (0..CLIENTS).map(|number| {
        let (tasks, mut client) = (&tasks, node.client());
        async move {
            for (id, url) in tasks.iter().skip(number).step_by(CLIENTS) {
                client
                    .create(one_shot(id, wall_secs() + after_secs, url, "{}"))
                    .await
                    .done();
            }
        }
    });
    join_all(clients).await;
}

fn tasks(prefix: &str, number: usize, url: &str) -> Vec<(String, String)> {
    (0..number).map(|n| (format!("{prefix}-{n}"), url.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_larger_than_every_window_leaves_the_windows_to_others() {
    let (place, hung, quick) = (Place::new(), Sink::start().await, Sink::start().await);
    // Each of the 32 groups holds 64 entries in memory, and gets twice as many of the target that hangs.
    let node = place
        .node()
        .set("fire.window_tasks_max", 2_048)
        .set("fire.timeout_ms", FOR_EVER_MS);
    let node = node.start().await;
    create_all(&node, 1, tasks("hung", 4_096, &hung.url("/hang"))).await;
    create_all(&node, 2, tasks("quick", 400, &quick.url("/ok"))).await;
    quick.wait_for_count(400).await;
    let begun = hung.count();
    assert!((1..=256).contains(&begun), "{begun} calls hang, 256 are allowed");
    hung.release();
    hung.wait_for_count(4_096).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        (hung.count(), quick.count()),
        (4_096, 400),
        "once each, and none is lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_targets_that_hang_leave_places_to_others() {
    let place = Place::new();
    let hung = join_all((0..12).map(|_| Sink::start())).await;
    let quick = join_all((0..3).map(|_| Sink::start())).await;
    let node = place
        .node()
        .set("fire.in_flight_max", 64)
        .set("fire.in_flight_per_target_max", 64)
        .set("fire.timeout_ms", FOR_EVER_MS);
    let node = node.start().await;
    for (n, sink) in hung.iter().enumerate() {
        create_all(&node, 1, tasks(&format!("hung{n}"), 64, &sink.url("/hang"))).await;
    }
    for sink in &hung {
        sink.wait_for_count(1).await;
    }
    for (n, sink) in quick.iter().enumerate() {
        create_all(&node, 2, tasks(&format!("quick{n}"), 50, &sink.url("/ok"))).await;
    }
    for sink in &quick {
        sink.wait_for_count(50).await;
    }
    let begun: usize = hung.iter().map(Sink::count).sum();
    assert!(begun <= 64, "{begun} calls hang, 64 are allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_updated_leaves_the_queue_of_its_old_target() {
    let (place, hung, quick) = (Place::new(), Sink::start().await, Sink::start().await);
    let node = place
        .node()
        .set("fire.in_flight_per_target_max", 2)
        .set("fire.timeout_ms", FOR_EVER_MS);
    let node = node.start().await;
    create_all(&node, 1, tasks("moved", 100, &hung.url("/hang"))).await;
    hung.wait_for_count(2).await;
    let mut client = node.client();
    let mut moved = 0;
    for n in 0..100 {
        let id = format!("moved-{n}");
        if !hung.of(&id).is_empty() {
            continue;
        }
        let at = Timestamp::from_millisecond(i64::try_from(wall_ms()).expect("this century") + 500).expect("a time");
        let change = json!({ "schedule": { "at": at.to_string() }, "callback": { "url": quick.url("/ok") } });
        let told = client.update(&id, None, change.to_string()).await;
        assert!(matches!(told, Told::Done(_)), "{told:?}");
        moved += 1;
    }
    assert!(moved >= 90, "{moved} waited");
    quick.wait_for_count(moved).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(quick.count(), moved, "once each");
    assert!(
        hung.count() <= 2 + (100 - moved),
        "nothing that was moved went to the old target"
    );
}

/// A name server at the usual port of this network namespace: names that begin with `quick` are this machine's, and nobody
/// answers for others.
async fn name_server() {
    let socket = UdpSocket::bind("127.0.0.1:53")
        .await
        .expect("the port is free in a namespace");
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut question).await {
            // One question, whose name is followed by a zero, its kind and its class.
            let end = 12
                + question[12..length]
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("a name ends")
                + 5;
            if !question[13..].starts_with(b"quick") {
                continue;
            }
            let count = u8::from(question[end - 3] == 1);
            let mut answer = vec![question[0], question[1], 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
            answer.extend_from_slice(&question[12..end]);
            if count == 1 {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            // A client that is gone wants no answer.
            let _ = socket.send_to(&answer, client).await;
        }
    });
}

/// Whether the test is in namespaces of its own, with a loopback that is up, and with this test's name server.
fn has_own_name_server(test: &str) -> bool {
    let needs = "needs user, mount and network namespaces (unshare -rmn)";
    if !namespace::is_inside(&["--map-root-user", "--mount", "--net"], test, needs) {
        return false;
    }
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
    };
    run("ip", &["link", "set", "lo", "up"]);
    let place = Place::new();
    let file = place.path("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\n").expect("the file can be written");
    // What is bound stays when its name is gone.
    run("mount", &["--bind", file.to_str().expect("text"), "/etc/resolv.conf"]);
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_answers_for_hold_nobody_else() {
    if !has_own_name_server("targets::names_that_nobody_answers_for_hold_nobody_else") {
        return;
    }
    name_server().await;
    let (place, quick) = (Place::new(), Sink::start().await);
    let node = place
        .node()
        .set("fire.connect_timeout_ms", FOR_EVER_MS)
        .set("fire.timeout_ms", FOR_EVER_MS);
    let node = node.start().await;
    let dead = (0..600)
        .map(|n| (format!("dead{n}"), format!("http://dead{n}.test/")))
        .collect();
    create_all(&node, 1, dead).await;
    let mut client = node.client();
    eventually("lookups that hang", async || {
        (client.count("xcron_fires_in_flight").await >= 200).then_some(())
    })
    .await;
    let names = (0..40).map(|n| (format!("quick{n}"), quick.url_at(&format!("quick{n}.test"), "/ok")));
    create_all(&node, 1, names.collect()).await;
    quick.wait_for_count(40).await;
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.id()))
        .expect("it runs")
        .count();
    assert!(threads < 64, "{threads} threads: a lookup takes none");
    assert_eq!(quick.count(), 40, "once each");
    eventually("the reason of an attempt that failed", async || {
        let told = client.show("dead0").await.done();
        (told["retrying"][0]["reason"] == "dns").then_some(())
    })
    .await;
}
