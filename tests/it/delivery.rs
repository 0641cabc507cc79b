//! What a callback's connection can do to it: targets that accept late, that close or reset connections that were kept, that are not
//! there yet, and a node that has no file left. Targets here speak TCP by hand: the sink of the harness is too well behaved.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::client::{Client, count, one_shot};
use crate::harness::node::{Node, Place};
use crate::harness::{PATIENCE, eventually, wall_secs};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The first byte of a connection that begins with TLS.
const TLS_HANDSHAKE: u8 = 22;

/// Attempts whose request has come; by task.
type Seen = Arc<Mutex<Vec<String>>>;

fn at_most_once(id: &str, due: u64, url: &str) -> String {
    let task = one_shot(id, due, url, "{}");
    task.replacen('{', r#"{"delivery":"at_most_once","#, 1)
}

/// One request; `None` if the connection ended before it was whole, or is none of HTTP.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n{}") {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        if bytes[0] == TLS_HANDSHAKE {
            return None;
        }
    }
    let text = String::from_utf8(bytes).expect("a request of text");
    let id = text.lines().find_map(|line| line.strip_prefix("xcron-task-id: "));
    Some(id.expect("the header of the task").to_owned())
}

/// A listener whose backlog is full: who connects waits until [`Full::open`].
struct Full {
    listener: TcpListener,
    fillers: Vec<(SocketAddr, TcpStream)>,
}

impl Full {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let listener = socket.listen(0).expect("it listens");
        let address = listener.local_addr().expect("bound");
        let mut fillers = Vec::new();
        // Each that connects takes a place; the first that does not is given up, and then the backlog is full.
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            let stream = connected.expect("it is accepted or waits");
            fillers.push((stream.local_addr().expect("connected"), stream));
            assert!(fillers.len() < 64, "a backlog of none takes so many");
        }
        Self { listener, fillers }
    }

    fn url(&self) -> String {
        format!("http://{}/late", self.listener.local_addr().expect("bound"))
    }

    /// Accepts from now on, and answers every request with 200. Gives what comes of each connection that is not a filler: the task
    /// of its request, or `None` for one that ended without a byte.
    fn open(self) -> Arc<Mutex<Vec<Option<String>>>> {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let (listener, shared) = (self.listener, Arc::clone(&ended));
        let fillers: Vec<_> = self.fillers.into_iter().map(|(address, _)| address).collect();
        tokio::spawn(async move {
            while let Ok((mut stream, peer)) = listener.accept().await {
                if fillers.contains(&peer) {
                    continue;
                }
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let request = read_request(&mut stream).await;
                    if request.is_some() {
                        // How the client's connection ends after this is nobody's business here.
                        let _ = stream.write_all(OK).await;
                    }
                    shared.lock().push(request);
                });
            }
        });
        ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_of_a_task_that_was_deleted_or_replaced_while_its_fire_was_connecting() {
    let place = Place::new();
    let node = place
        .node()
        .set("fire.timeout_ms", 90_000)
        .set("fire.connect_timeout_ms", 80_000)
        .start()
        .await;
    let mut client = node.client();
    let (full, elsewhere) = (Full::new().await, Full::new().await);
    let (url, other) = (full.url(), elsewhere.url());
    let due = wall_secs() + 1;
    for id in ["deleted", "replaced", "kept"] {
        client.create(one_shot(id, due, &url, "{}")).await.done();
    }
    client.create(at_most_once("deleted-once", due, &url)).await.done();
    eventually("all four to be connecting", async || {
        (client.count("xcron_fires_in_flight").await == 4).then_some(())
    })
    .await;
    client.delete("deleted").await.done();
    client.delete("deleted-once").await.done();
    let change = serde_json::json!({
        "schedule": {"at": "2099-01-01T00:00:00Z"}, "callback": {"url": other, "body": {}},
    });
    client.update("replaced", None, change.to_string()).await.done();
    // Only now any of them can connect; the kernel goes on trying for them.
    let ended = full.open();
    eventually("an end of all four connections", async || {
        (ended.lock().len() == 4).then_some(())
    })
    .await;
    let mut requests: Vec<_> = ended.lock().iter().flatten().cloned().collect();
    requests.sort();
    assert_eq!(requests, ["kept"]);
    eventually("its delivery", async || {
        (client.run_count("kept").await == 1).then_some(())
    })
    .await;
}

/// Answers the first request of each connection, and resets the connection at the second.
async fn target_that_resets_the_second() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&shared);
            tokio::spawn(async move {
                let Some(first) = read_request(&mut stream).await else {
                    return;
                };
                seen.lock().push(first);
                if stream.write_all(OK).await.is_err() {
                    return;
                }
                if let Some(second) = read_request(&mut stream).await {
                    seen.lock().push(second);
                    stream.set_zero_linger().expect("a TCP socket");
                }
            });
        }
    });
    (url, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_lost_never_meets_a_connection_that_is_being_closed() {
    let place = Place::new();
    let node = place.node().set("retry.first_delay_ms", 100).start().await;
    let mut client = node.client();
    let (url, seen) = target_that_resets_the_second().await;
    let due = wall_secs() + 2;
    let ids = |prefix: &str| (0..30).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    let (once, usual) = (ids("once"), ids("usual"));
    for (n, id) in (0_u64..).zip(&once) {
        client.create(at_most_once(id, due + n % 3, &url)).await.done();
    }
    for (n, id) in (0_u64..).zip(&usual) {
        client.create(one_shot(id, due + n % 3, &url, "{}")).await.done();
    }
    for id in &once {
        assert_eq!(ended(&mut client, id).await["verdict"], "delivered", "{id}");
    }
    for id in &usual {
        let outcome = ended(&mut client, id).await;
        // The first attempt may go over a kept connection and be reset; its retry does not.
        assert_eq!(outcome["verdict"], "delivered", "{id}");
        assert!(outcome["attempts"].as_u64() <= Some(2), "{id}: {outcome}");
    }
    let seen = seen.lock();
    for id in &once {
        assert_eq!(seen.iter().filter(|seen| *seen == id).count(), 1, "{id}");
    }
}

/// The outcome of a one-shot, once it has one.
async fn ended(client: &mut Client, id: &str) -> Value {
    eventually(&format!("the outcome of {id}"), async || {
        let shown = client.show(id).await.done();
        shown["outcomes"].get(0).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_connects_again_until_its_first_byte_and_not_after() {
    let place = Place::new();
    let node = place
        .node()
        .set("retry.first_delay_ms", 200)
        .set("retry.attempts_max", 1_000)
        .set("retry.delay_max_ms", 500)
        .start()
        .await;
    let mut client = node.client();
    // Nobody listens yet, and nobody else can take the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let url = format!("http://{}/", socket.local_addr().expect("bound"));
    let due = wall_secs() + 1;
    for id in ["answered", "cut"] {
        client.create(at_most_once(id, due, &url)).await.done();
    }
    for id in ["answered", "cut"] {
        let waiting = eventually("a second try", async || {
            let shown = client.show(id).await.done();
            let waiting = shown["retrying"].get(0).cloned()?;
            (waiting["attempts"].as_u64() >= Some(2)).then_some(waiting)
        })
        .await;
        assert_eq!(
            (&waiting["reason"], &waiting["sent"]),
            (&Value::from("refused"), &Value::from(false)),
            "{waiting}"
        );
    }
    let listener = socket.listen(16).expect("it listens");
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(id) = read_request(&mut stream).await else {
                continue;
            };
            shared.lock().push(id.clone());
            if id == "answered" {
                let _ = stream.write_all(OK).await;
            }
        }
    });
    let answered = ended(&mut client, "answered").await;
    assert_eq!(
        (&answered["verdict"], &answered["reason"]),
        (&Value::from("delivered"), &Value::from("http_200"))
    );
    let cut = ended(&mut client, "cut").await;
    assert_eq!(
        (&cut["verdict"], &cut["reason"], &cut["sent"]),
        (&Value::from("failed"), &Value::from("reset"), &Value::from(true)),
        "{cut}"
    );
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut requests = seen.lock().clone();
    requests.sort();
    assert_eq!(requests, ["answered", "cut"], "one request each");
}

/// Does with each connection what the path of its request says.
async fn odd_target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Some(id) = read_request(&mut stream).await else {
                    return;
                };
                // No connection is used again: each takes one request.
                let answer: &[u8] = match id.as_str() {
                    "http_503" => b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                    "gone" => b"HTTP/1.1 410 Gone\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                    "bad_answer" => b"220 mail.example ESMTP\r\n",
                    "timeout" => return tokio::time::sleep(PATIENCE).await,
                    // And what is to be reset.
                    _ => return,
                };
                let _ = stream.write_all(answer).await;
                // Whoever waits for the whole answer has it before the connection ends.
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failed_fire_says_why_in_the_api_the_metrics_and_the_log() {
    let place = Place::new();
    let node = place
        .node()
        .set("retry.attempts_max", 1)
        .set("fire.timeout_ms", 1_500)
        .set("fire.connect_timeout_ms", 1_000)
        .start()
        .await;
    let mut client = node.client();
    let target = odd_target().await;
    let absent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let nobody = absent.local_addr().expect("bound");
    drop(absent);
    let full = Full::new().await;
    let due = wall_secs() + 1;
    let cases = [
        ("http_503", format!("http://{target}/"), true),
        ("gone", format!("http://{target}/"), true),
        ("bad_answer", format!("http://{target}/"), true),
        ("timeout", format!("http://{target}/"), true),
        ("reset", format!("http://{target}/"), true),
        ("refused", format!("http://{nobody}/"), false),
        ("tls", format!("https://{target}/"), false),
        ("connect_timeout", full.url(), false),
    ];
    for (id, url, _) in &cases {
        client.create(one_shot(id, due, url, "{}")).await.done();
    }
    for (id, _, is_sent) in &cases {
        let outcome = ended(&mut client, id).await;
        let told = (&outcome["verdict"], &outcome["reason"], &outcome["sent"]);
        let expected = (&Value::from("failed"), &Value::from(*id), &Value::from(*is_sent));
        assert_eq!(told, expected, "{id}: {outcome}");
    }
    let page = client.request(Method::GET, "/metrics", Bytes::new()).await;
    let page = page.expect("the node answers").text();
    for (id, ..) in &cases {
        let series = format!("xcron_attempt_failures_total{{reason=\"{id}\"}}");
        assert_eq!(count(&page, &series), Some(1), "{series} in\n{page}");
    }
    let log = node.stderr();
    let lines = |target: SocketAddr| {
        let of_target = |line: &&str| line.contains("a fire has failed") && line.contains(&target.to_string());
        log.lines().filter(of_target).count()
    };
    assert_eq!(lines(nobody), 1, "{log}");
    // Five fires of http and one of https: one line for each of these two targets.
    assert_eq!(lines(target), 2, "{log}");
}

/// Lets the process open no further file, or as many as it could at its start.
fn limit_files(node: &Node, soft: Option<usize>) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.id())).expect("the process is there");
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let hard = line
        .and_then(|line| line.split_whitespace().nth(4))
        .expect("a hard limit");
    let soft = soft.map_or_else(|| hard.to_owned(), |soft| soft.to_string());
    let set = Command::new("prlimit")
        .args([&format!("--pid={}", node.id()), &format!("--nofile={soft}:{hard}")])
        .status()
        .expect("util-linux is there");
    assert!(set.success(), "the limit cannot be set");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_free_file_makes_no_attempt_and_counts_none() {
    let place = Place::new();
    let node = place.node().start().await;
    let mut client = node.client();
    let (url, seen) = target_that_resets_the_second().await;
    let due = wall_secs() + 3;
    client.create(at_most_once("once", due, &url)).await.done();
    client.create(one_shot("usual", due, &url, "{}")).await.done();
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id())).expect("it is ours");
    let open = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<usize>().ok());
    let open: BTreeSet<usize> = open.collect();
    limit_files(&node, (0..=open.len()).find(|number| !open.contains(number)));
    let lacking = r#"xcron_attempts_not_tried_total{lacks="files"}"#;
    eventually("both to be put off, more than once", async || {
        let page = client.request(Method::GET, "/metrics", Bytes::new()).await;
        let page = page.expect("the connection is open already").text();
        (count(&page, lacking)? >= 4).then_some(())
    })
    .await;
    assert_eq!(seen.lock().len(), 0);
    limit_files(&node, None);
    for id in ["once", "usual"] {
        let outcome = ended(&mut client, id).await;
        assert_eq!(
            (&outcome["verdict"], &outcome["attempts"]),
            (&Value::from("delivered"), &Value::from(1)),
            "{id}: {outcome}"
        );
    }
    assert!(
        node.stderr().contains("no means to make a callback"),
        "{}",
        node.stderr()
    );
}
