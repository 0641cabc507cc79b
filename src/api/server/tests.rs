//! The server on loopback, spoken to byte by byte.

use std::fmt::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::tests::{FakeTasks, Seen, app_with, good};
use super::*;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::limits::REQUEST_BYTES_MAX;

mod hostile;

const LIMITS: ServeLimits = ServeLimits {
    connections_max: 4,
    header_timeout: Duration::from_secs(20),
    keep_alive: Duration::from_secs(20),
    request_timeout: Duration::from_secs(20),
};
/// Ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(limits: ServeLimits, tasks: FakeTasks) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = tasks.seen.clone();
    let (app, _) = app_with(tasks);
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let task = tokio::spawn(serve(listener, parts(app, limits, seen.clone()), shutdown));
    Server {
        address,
        seen,
        stop,
        task,
    }
}

/// A server that takes any name.
fn parts(app: Router, limits: ServeLimits, seen: Arc<Seen>) -> Parts {
    Parts {
        app,
        guard: Guard {
            is_loopback: false,
            hosts: Arc::default(),
            entropy: Arc::new(SystemEntropy::default()),
        },
        bodies: Bodies::new(Arc::new(SystemClock::default())),
        limits,
        observe: seen,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    /// Sends `bytes` on a connection of its own and reads until the server closes it.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("sent");
        read_to_end(&mut stream).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes in time").expect("an orderly end");
    String::from_utf8(answer).expect("UTF-8")
}

/// Reads until `marker` has come.
async fn read_until(stream: &mut TcpStream, marker: &str) -> String {
    let mut answer = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&answer).contains(marker) {
            assert_ne!(
                stream.read_buf(&mut answer).await.expect("readable"),
                0,
                "closed before {marker}"
            );
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8(answer).expect("UTF-8")
}

fn post(extra: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /xcron/createTask HTTP/1.1\r\nhost: x\r\n{extra}content-length: {length}\r\n\r\n{body}")
}

const GET: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
const GET_LAST: &str = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let requests = post("", &good().to_string()) + GET + &post("", "x") + GET_LAST;
    let answer = server.exchange(requests.as_bytes()).await;
    let at = |text: &str| {
        answer
            .find(text)
            .unwrap_or_else(|| panic!("{text} is missing in {answer}"))
    };
    let order = [
        at(r#""task_id":"made""#),
        at(r#""status":"ok""#),
        at(r#""code":1000"#),
        at(r#""status":"not ready""#),
    ];
    assert!(order.is_sorted(), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 4);
    assert_eq!(server.seen.opened.lock()[..1], [true]);
}

#[tokio::test]
async fn a_slow_header_is_cut() {
    let limits = ServeLimits {
        header_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let answer = server.exchange(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    let answer = server.exchange(b"").await;
    assert_eq!(answer, "", "a connection that says nothing is closed as well");
}

#[tokio::test]
async fn a_slow_body_is_refused() {
    let limits = ServeLimits {
        request_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let request = "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    let answer = server.exchange(request.as_bytes()).await;
    assert!(
        answer.contains(r#""code":1000"#) && answer.contains("100 ms"),
        "{answer}"
    );
    let request = "PUT /v1/tasks/t HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    let answer = server.exchange(request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains(r#""code":"request_timeout""#),
        "{answer}"
    );
}

#[tokio::test]
async fn slow_tasks_end_as_not_known() {
    let limits = ServeLimits {
        request_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(
        limits,
        FakeTasks {
            silent: true,
            ..FakeTasks::default()
        },
    )
    .await;
    let mut stream = server.connect().await;
    stream
        .write_all(post("", &good().to_string()).as_bytes())
        .await
        .expect("sent");
    let answer = read_until(&mut stream, "}").await;
    assert!(
        answer.contains(r#""code":1004"#) && answer.contains("not known"),
        "{answer}"
    );
    stream.write_all(GET.as_bytes()).await.expect("the connection goes on");
    read_until(&mut stream, r#""status":"ok""#).await;
}

#[tokio::test]
async fn oversize_bodies_are_refused_and_the_answer_arrives() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let length = post("connection: close\r\n", &"x".repeat(REQUEST_BYTES_MAX + 1));
    let mut chunked =
        b"POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            .to_vec();
    for _ in 0..=REQUEST_BYTES_MAX / 4_096 {
        chunked.extend_from_slice(b"1000\r\n");
        chunked.extend_from_slice(&[b'x'; 4_096]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for request in [length.as_bytes(), &chunked] {
        let answer = server.exchange(request).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(r#""code":1007"#),
            "{answer}"
        );
    }
    // One that asks first is told before it sends.
    let head =
        "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 999999999\r\n\r\n";
    let answer = server.exchange(head.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""code":1007"#),
        "{answer}"
    );
}

#[tokio::test]
async fn a_chunked_body_is_put_together() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let mut request =
        "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            .to_owned();
    for piece in good().to_string().as_bytes().chunks(7) {
        let text = std::str::from_utf8(piece).expect("ASCII");
        write!(request, "{:x}\r\n{text}\r\n", piece.len()).expect("a String takes all");
    }
    let answer = server.exchange((request + "0\r\n\r\n").as_bytes()).await;
    assert!(answer.contains(r#""task_id":"made""#), "{answer}");
    assert_eq!(server.seen.created.lock()[0].body, br#"{"n":1}"#);
}

#[tokio::test]
async fn a_panic_ends_its_connection_alone() {
    let server = start(
        LIMITS,
        FakeTasks {
            broken: true,
            ..FakeTasks::default()
        },
    )
    .await;
    let mut other = server.connect().await;
    other.write_all(GET.as_bytes()).await.expect("sent");
    read_until(&mut other, r#""status":"ok""#).await;
    assert_eq!(server.exchange(post("", &good().to_string()).as_bytes()).await, "");
    other
        .write_all(GET.as_bytes())
        .await
        .expect("the other connection lives");
    read_until(&mut other, r#""status":"ok""#).await;
    // All places but one are taken by connections that panicked, if they keep them.
    for _ in 0..LIMITS.connections_max {
        assert_eq!(server.exchange(post("", &good().to_string()).as_bytes()).await, "");
    }
}

#[tokio::test]
async fn at_the_bound_the_longest_idle_connection_goes() {
    let limits = ServeLimits {
        connections_max: 2,
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let [mut first, mut second] = [server.connect().await, server.connect().await];
    for stream in [&mut first, &mut second] {
        stream.write_all(GET.as_bytes()).await.expect("sent");
        read_until(stream, r#""status":"ok""#).await;
    }
    first.write_all(GET.as_bytes()).await.expect("sent");
    read_until(&mut first, r#""status":"ok""#).await;
    assert!(server.exchange(GET_LAST.as_bytes()).await.contains("not ready"));
    assert_eq!(read_to_end(&mut second).await, "", "it was used before the first");
    first.write_all(GET.as_bytes()).await.expect("still open");
    read_until(&mut first, r#""status":"ok""#).await;
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_while_all_are_at_work() {
    let limits = ServeLimits {
        connections_max: 1,
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let mut first = server.connect().await;
    let request = post("", &good().to_string());
    let (head, rest) = request.split_at(request.len() - 5);
    first.write_all(format!("{GET}{head}").as_bytes()).await.expect("sent");
    read_until(&mut first, r#""status":"ok""#).await;
    // Its second request is begun by now, or as soon as the server is asked anything.
    sleep(Duration::from_millis(50)).await;
    let mut second = server.connect().await;
    second
        .write_all(GET_LAST.as_bytes())
        .await
        .expect("sent to the backlog");
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), second.read(&mut byte)).await;
    assert!(early.is_err(), "the second is answered only when the first is idle");
    assert_eq!(*server.seen.opened.lock(), [true]);
    first.write_all(rest.as_bytes()).await.expect("sent");
    read_until(&mut first, r#""task_id":"made""#).await;
    assert!(read_to_end(&mut second).await.contains(r#""status":"not ready""#));
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_and_lets_requests_end() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(GET.as_bytes()).await.expect("sent");
    read_until(&mut idle, r#""status":"ok""#).await;
    let mut busy = server.connect().await;
    let request = post("", &good().to_string());
    let (head, rest) = request.split_at(request.len() - 5);
    busy.write_all(format!("{GET}{head}").as_bytes()).await.expect("sent");
    read_until(&mut busy, r#""status":"ok""#).await;
    server.stop.send(()).expect("the server runs");
    assert_eq!(read_to_end(&mut idle).await, "");
    busy.write_all(rest.as_bytes()).await.expect("sent");
    assert!(read_to_end(&mut busy).await.contains(r#""task_id":"made""#));
    timeout(PATIENCE, server.task)
        .await
        .expect("the server ends")
        .expect("no panic");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nothing listens any more"
    );
    assert_eq!(server.seen.opened.lock().iter().filter(|open| !**open).count(), 2);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let limits = ServeLimits {
        request_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(format!("{GET}GET /healthz HTTP/1.1\r\nx-slow: ").as_bytes())
        .await
        .expect("sent");
    read_until(&mut stuck, r#""status":"ok""#).await;
    server.stop.send(()).expect("the server runs");
    timeout(PATIENCE, server.task)
        .await
        .expect("the server ends")
        .expect("no panic");
    assert_eq!(*server.seen.opened.lock(), [true, false]);
}
