//! The process of a node among small limits and hostile surroundings: open files, logs that cannot be written, umasks,
//! signals.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hyper::Method;
use tokio::net::TcpStream;

use crate::harness::client::{Client, Told, one_shot, periodic};
use crate::harness::node::{Node, Place};
use crate::harness::sink::Sink;
use crate::harness::{eventually, wall_secs};

/// A due that no test lives to see.
const FAR_SECS: u64 = 4_000_000_000;
/// As long as a callback may be given: nothing waits for it but what has no bound of its own.
const LONGEST_CALLBACK_MS: u64 = 600_000;

async fn is_alive(client: &mut Client) -> bool {
    let reply = client.request(Method::GET, "/healthz", "").await;
    reply.is_ok_and(|reply| reply.status.is_success())
}

/// Creates a task on a node that closes idle connections for new ones: a client that meets that sends its request again.
async fn create(node: &Node, client: &mut Client, task: String) {
    eventually("the task is created", async || {
        match client.create(task.clone()).await {
            Told::Unknown(_) => {
                *client = node.client();
                None
            }
            told => Some(told.done()),
        }
    })
    .await;
}

/// Creates tasks with large bodies, so that the store writes tables.
async fn fill(node: &Node, name: &str, count: u64) {
    let mut client = node.client();
    let body = format!(r#"{{"p":"{}"}}"#, "x".repeat(60_000));
    for number in 0..count {
        let task = one_shot(&format!("{name}-{number}"), FAR_SECS, "http://127.0.0.1:9/", &body);
        create(node, &mut client, task).await;
    }
}

/// Holds so many connections that say nothing, and opens new ones when they are closed, until dropped.
fn hold_idle(node: &Node, count: usize) -> tokio::task::JoinSet<()> {
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..count {
        let address = node.address();
        held.spawn(async move {
            loop {
                if let Ok(stream) = TcpStream::connect(address).await {
                    let _ = stream.readable().await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    held
}

async fn serves_with_few_files(files: u64, idle: usize) {
    let (place, sink) = (Place::new(), Sink::start_as_many().await);
    let node = place.node().before(&format!("ulimit -n {files}"));
    let mut node = node.start().await;
    let held = hold_idle(&node, idle);
    let mut client = node.client();
    let (targets, due) = (200, wall_secs() + 5);
    for number in 0..targets {
        let url = sink.url_at(&format!("127.1.{}.{}", number / 100, number % 100 + 1), "/ok");
        let task = one_shot(&format!("due-{number}"), due, &url, "{}");
        create(&node, &mut client, task).await;
    }
    fill(&node, "fill", 300).await;
    sink.wait_for_count(targets).await;
    fill(&node, "more", 100).await;
    for number in 0..targets {
        let of = sink.of(&format!("due-{number}"));
        assert_eq!(of.len(), 1, "one target that is up has one attempt");
        assert_eq!(of[0].attempt, 1, "no file for an attempt is no attempt");
    }
    assert!(node.stderr().contains("lowered"), "{}", node.stderr());
    drop(held);
    node.signal("TERM");
    assert_eq!(node.ended().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_with_256_open_files_among_idle_connections() {
    serves_with_few_files(256, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_with_1024_open_files_among_idle_connections() {
    serves_with_few_files(1_024, 700).await;
}

#[tokio::test]
async fn too_few_open_files_are_refused_with_what_to_do() {
    let place = Place::new();
    let ended = place
        .node()
        .before("ulimit -n 64")
        .try_start()
        .await
        .expect_err("refused");
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains("64 files") && ended.stderr.contains("LimitNOFILE"),
        "{ended}"
    );
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised() {
    let place = Place::new();
    let node = place.node().before("ulimit -Sn 64").start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.id())).expect("the process is there");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .expect("a limit");
    let mut numbers = line.split_whitespace().filter(|word| word.parse::<u64>().is_ok());
    assert_eq!(numbers.next(), numbers.next(), "{line}");
}

/// Everything that writes to the log a lot, and a stop.
async fn lives_without_a_log(node: Node, mut client: Client) {
    let mut node = node;
    eventually("the node serves", async || {
        let reply = client.request(Method::GET, "/readyz", "").await;
        reply.is_ok_and(|reply| reply.status.is_success()).then_some(())
    })
    .await;
    for number in 0..50 {
        let task = periodic(&format!("p-{number}"), "* * * * *", "http://127.0.0.1:9/", "{}");
        client.create(task).await.done();
    }
    node.signal("USR1");
    assert!(is_alive(&mut client).await);
    node.signal("TERM");
    let ended = node.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
}

/// A port that is free now.
fn free_port() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn a_full_log_device_and_a_full_stdout_end_nothing() {
    let (place, address) = (Place::new(), free_port());
    let launch = place
        .node()
        .listen(address)
        .set_text("log.filter", "trace")
        .before("exec >/dev/full 2>/dev/full");
    lives_without_a_log(launch.spawn(), Client::new(address)).await;
}

#[tokio::test]
async fn a_closed_log_pipe_ends_nothing() {
    let (place, address) = (Place::new(), free_port());
    let launch = place
        .node()
        .listen(address)
        .set_text("log.filter", "trace")
        .before("exec >&2");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    lives_without_a_log(launch.spawn_with_log(writer.into()), Client::new(address)).await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_makes_nobody_wait() {
    let (place, address) = (Place::new(), free_port());
    let launch = place.node().listen(address).set_text("log.filter", "trace");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    lives_without_a_log(launch.spawn_with_log(writer.into()), Client::new(address)).await;
    drop(reader);
}

fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    for entry in std::fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = std::fs::metadata(&path).expect("it is there");
        found.push((path.display().to_string(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes(&path, found);
        }
    }
}

/// Tells a node that waits to found its cluster, as one does that could be reached by others.
async fn found(client: &mut Client) {
    eventually("the cluster is founded", async || {
        let reply = client.request(Method::POST, "/v1/cluster/init", "").await;
        reply.is_ok_and(|reply| reply.status.is_success()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn files_are_their_user_s_alone_whatever_the_umask() {
    let (place, address) = (Place::new(), free_port());
    let peer = format!("--peer-listen={}", free_port());
    let launch = place.node().listen(address).before("umask 0").argument(&peer);
    let mut node = launch.spawn();
    // It has a secret, and so it waits to be told to found its cluster.
    let mut client = Client::new(address);
    found(&mut client).await;
    node.ready().await.expect("it serves");
    fill(&node, "fill", 300).await;
    let mut found = Vec::new();
    modes(&place.data(), &mut found);
    assert!(found.iter().any(|(path, _)| path.ends_with("/secret")), "{found:?}");
    assert!(found.len() > 10, "{found:?}");
    for (path, mode) in found {
        assert_eq!(mode & 0o077, 0, "{path} is {mode:o}");
    }
    node.signal("TERM");
    assert_eq!(node.ended().await.status.code(), Some(0));
}

/// Whether this process, and with it a node that it starts, was told to ignore a signal: by `nohup`, or by a shell that runs
/// it in the background.
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a hexadecimal mask");
    mask >> (number - 1) & 1 == 1
}

#[tokio::test]
async fn every_signal_is_defined() {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("QUIT", 3), ("HUP", 1)] {
        if matches!(signal, "QUIT" | "HUP") && is_ignored(number) {
            println!("SIG{signal} is ignored here, and so by every node that is started from here");
            continue;
        }
        let place = Place::new();
        let mut node = place.node().start().await;
        for unused in ["USR1", "USR2"] {
            node.signal(unused);
        }
        assert!(is_alive(&mut node.client()).await);
        node.signal(signal);
        // The same wish again.
        node.signal(signal);
        let ended = node.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{signal}: {ended}");
        assert!(
            ended.stderr.contains("stopping") && ended.stderr.contains("stopped"),
            "{ended}"
        );
        assert!(!ended.stderr.contains("stopped at once"), "{signal}: {ended}");
    }
}

#[tokio::test]
async fn a_hangup_that_was_ignored_stays_ignored() {
    let place = Place::new();
    let mut node = place.node().before("trap '' HUP").start().await;
    node.signal("HUP");
    assert!(is_alive(&mut node.client()).await);
    node.signal("TERM");
    let ended = node.ended().await;
    assert!(
        ended.stderr.contains("SIGTERM") && !ended.stderr.contains("SIGHUP"),
        "{ended}"
    );
}

/// A node with a callback on its way that is not answered.
async fn with_a_hung_callback(sink: &Sink, place: &Place, stop_timeout_ms: u64) -> Node {
    let launch = place
        .node()
        .set("fire.timeout_ms", LONGEST_CALLBACK_MS)
        .set("stop_timeout_ms", stop_timeout_ms);
    let node = launch.start().await;
    let url = sink.url("/hang");
    node.client()
        .create(one_shot("hung", wall_secs() + 1, &url, "{}"))
        .await
        .done();
    sink.wait_for("hung", 1).await;
    node
}

#[tokio::test]
async fn a_stop_waits_for_callbacks_no_longer_than_it_is_told() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let mut node = with_a_hung_callback(&sink, &place, 1_000).await;
    node.signal("TERM");
    assert_eq!(node.ended().await.status.code(), Some(0));
    sink.release();
    // What was cut is repeated as the same fire.
    let _node = place.node().start().await;
    let attempts = sink.wait_for("hung", 2).await;
    assert_eq!(attempts[0].fire, attempts[1].fire);
}

#[tokio::test]
async fn a_second_signal_a_second_later_stops_at_once() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let mut node = with_a_hung_callback(&sink, &place, LONGEST_CALLBACK_MS).await;
    node.signal("TERM");
    eventually("the stop has begun", async || {
        node.stderr().contains("stopping").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    node.signal("TERM");
    let ended = node.ended().await;
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.contains("stopped at once"), "{ended}");
}

#[tokio::test]
async fn peers_are_told_the_address_that_is_advertised() {
    let (place, address, peer) = (Place::new(), free_port(), free_port());
    let everywhere = format!("--peer-listen=0.0.0.0:{}", peer.port());
    let launch = place
        .node()
        .listen(address)
        .argument(&everywhere)
        .argument(&format!("--peer-advertise={peer}"));
    let mut node = launch.spawn();
    let mut client = Client::new(address);
    found(&mut client).await;
    node.ready().await.expect("it serves");
    let status = client
        .request(Method::GET, "/v1/cluster", "")
        .await
        .expect("an answer")
        .text();
    assert!(status.contains(&format!(r#""peer":"{peer}""#)), "{status}");
}
