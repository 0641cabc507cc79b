//! Peers that hold on to what they were given, and bytes that are hardly HTTP.

use super::*;
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};
use crate::id::TaskId;
use crate::limits::BODY_BYTES_MAX;
use crate::router::TaskView;

/// A task whose query has the longest answer.
fn large() -> FakeTasks {
    let mut body = b"{\"x\":\"".to_vec();
    body.resize(BODY_BYTES_MAX - 2, b'y');
    body.extend_from_slice(b"\"}");
    let spec = TaskSpec {
        id: TaskId::parse("t").expect("valid"),
        schedule: Schedule::Once { at_ms: 0 },
        url: "http://h/".to_owned(),
        body,
        created_ms: 0,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    };
    let state = TaskState::new(0, Target([0; 16]));
    FakeTasks {
        view: Some(TaskView { spec, state }),
        ..FakeTasks::default()
    }
}

/// Asks and asks, and never reads an answer.
async fn ask_without_reading(stream: &mut TcpStream) {
    let requests = "GET /xcron/queryTask?task_id=t HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    while stream.write_all(requests.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_place() {
    let limits = ServeLimits {
        connections_max: 1,
        request_timeout: Duration::from_millis(200),
        ..LIMITS
    };
    let server = start(limits, large()).await;
    let mut deaf = server.connect().await;
    let asking = timeout(PATIENCE, ask_without_reading(&mut deaf)).await;
    assert!(asking.is_ok(), "the server ends the connection");
    assert!(server.exchange(GET_LAST.as_bytes()).await.contains("not ready"));
}

#[tokio::test]
async fn a_peer_that_reads_slowly_keeps_its_place() {
    let server = start(LIMITS, large()).await;
    let mut slow = server.connect().await;
    let requests = "GET /xcron/queryTask?task_id=t HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    slow.write_all((requests + GET_LAST).as_bytes()).await.expect("sent");
    let answer = read_to_end(&mut slow).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 200);
    assert_eq!(answer.matches("HTTP/1.1 503").count(), 1, "the last one, of /readyz");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = ServeLimits {
        header_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.expect("sent");
    read_until(&mut stream, r#""status":"ok""#).await;
    // The time of a head is none of an idle connection's; that of a head that has begun is.
    sleep(Duration::from_millis(300)).await;
    stream.write_all(GET.as_bytes()).await.expect("still open");
    read_until(&mut stream, r#""status":"ok""#).await;
    stream.write_all(b"GET /healthz").await.expect("still open");
    assert_eq!(read_to_end(&mut stream).await, "");
    let limits = ServeLimits {
        keep_alive: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let answer = server.exchange(GET.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test]
async fn what_is_hardly_http_ends_its_connection_alone() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let fits = format!("GET /healthz HTTP/1.0\r\nx: {}\r\n\r\n", "y".repeat(15 << 10));
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(1 << 20));
    for (bytes, status) in [
        ("\0\0\0\0\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "nothing"),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "400"),
        ("POST /xcron/createTask HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "400"),
        (
            "POST /xcron/createTask HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
            "400",
        ),
        ("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: x\r\nconnection: close\r\n\r\n",
            "400",
        ),
        (
            "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
            "501",
        ),
        (
            "GET /v1/cluster HTTP/1.1\r\nhost: x\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n",
            "403",
        ),
        (many.as_str(), "431"),
        (long.as_str(), "431"),
        (path.as_str(), "431"),
    ] {
        let mut stream = server.connect().await;
        // The server may have refused before all of it was sent.
        drop(stream.write_all(bytes.as_bytes()).await);
        let mut answer = Vec::new();
        drop(
            timeout(PATIENCE, stream.read_to_end(&mut answer))
                .await
                .expect("closed"),
        );
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let shown = &bytes[..bytes.len().min(60)];
        let got = answer.split_whitespace().nth(1).unwrap_or("nothing");
        assert_eq!(got, status, "{shown}: {answer}");
    }
    for (bytes, status) in [
        ("CONNECT x:1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        ("OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
        (
            "GET http://other/healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "200",
        ),
        ("GET /healthz HTTP/1.0\r\n\r\n", "200"),
        (fits.as_str(), "200"),
        ("GET //healthz HTTP/1.0\r\n\r\n", "404"),
        ("GET /%2e%2e/healthz HTTP/1.0\r\n\r\n", "404"),
    ] {
        let answer = server.exchange(bytes.as_bytes()).await;
        assert!(answer[.."HTTP/1.1 200".len()].ends_with(status), "{bytes}: {answer}");
    }
}

#[tokio::test]
async fn a_slow_body_that_is_too_large_is_told_so() {
    let limits = ServeLimits {
        request_timeout: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start(limits, FakeTasks::default()).await;
    let length = REQUEST_BYTES_MAX + 1;
    let request = format!("POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{{");
    let answer = server.exchange(request.as_bytes()).await;
    assert!(answer.contains(r#""code":1007"#), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_that_breaks_off_is_not_taken() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let body = good().to_string();
    let head = "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}{:x}\r\n{body}\r\nzz\r\n", body.len());
    let answer = server.exchange(request.as_bytes()).await;
    assert!(answer.contains(r#""code":1000"#), "{answer}");
    let cut = format!("{head}{:x}\r\n{body}\r\n", body.len());
    let mut stream = server.connect().await;
    stream.write_all(cut.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("the end is sent");
    read_to_end(&mut stream).await;
    assert!(
        server.seen.created.lock().is_empty(),
        "a request that is not whole is not done"
    );
}

/// Fails as a listener can, then gives one end of a pipe.
struct Faulty {
    errors: Vec<io::ErrorKind>,
    pipe: Option<tokio::io::DuplexStream>,
}

impl Listen for Faulty {
    type Io = tokio::io::DuplexStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
        if let Some(kind) = self.errors.pop() {
            return Err(kind.into());
        }
        match self.pipe.take() {
            Some(pipe) => Ok((pipe, SocketAddr::from(([127, 0, 0, 1], 1)))),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_fails_is_asked_again() {
    let (mut near, far) = tokio::io::duplex(1_024);
    let listener = Faulty {
        errors: vec![io::ErrorKind::ConnectionAborted, io::ErrorKind::Other],
        pipe: Some(far),
    };
    let (app, _) = app_with(FakeTasks::default());
    let seen = Arc::new(Seen::default());
    let server = tokio::spawn(serve(listener, parts(app, LIMITS, seen), std::future::pending()));
    near.write_all(GET_LAST.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains("not ready"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_gets_its_answer() {
    let server = start(LIMITS, FakeTasks::default()).await;
    let mut stream = server.connect().await;
    let request = post("", &good().to_string());
    let (head, rest) = request.split_at(request.len() - 5);
    stream.write_all(head.as_bytes()).await.expect("sent");
    sleep(Duration::from_millis(50)).await;
    stream.write_all(rest.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("the end is sent");
    assert!(read_to_end(&mut stream).await.contains(r#""task_id":"made""#));
    // The same while the answer is still being waited for.
    let slow = FakeTasks {
        silent: true,
        ..FakeTasks::default()
    };
    let limits = ServeLimits {
        request_timeout: Duration::from_millis(200),
        ..LIMITS
    };
    let server = start(limits, slow).await;
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.expect("sent");
    sleep(Duration::from_millis(50)).await;
    stream.shutdown().await.expect("the end is sent");
    assert!(read_to_end(&mut stream).await.contains(r#""code":1004"#));
}

#[tokio::test]
async fn a_client_that_sends_far_too_much_finds_its_answer() {
    let server = start(LIMITS, FakeTasks::default()).await;
    // More than is read before the answer, and more than the system's buffers hold.
    let length = 32 << 20;
    let head = format!("POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = server.connect().await;
    let sending = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b'x'; length]).await
    };
    // It reads only when it has sent everything, as simple clients do.
    timeout(PATIENCE, sending)
        .await
        .expect("taken in time")
        .expect("no reset");
    let answer = read_to_end(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""code":1007"#),
        "{answer}"
    );
}

#[tokio::test]
async fn stalled_uploads_make_room_for_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (app, _) = app_with(FakeTasks::default());
    let clock = Arc::new(SystemClock::default());
    let parts = Parts {
        bodies: Bodies::with_room(clock, 64 << 10),
        ..parts(app, LIMITS, Arc::new(Seen::default()))
    };
    let server = tokio::spawn(serve(listener, parts, std::future::pending()));
    let head = "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n";
    let mut stalled = TcpStream::connect(address).await.expect("a connection");
    stalled.write_all(head.as_bytes()).await.expect("sent");
    stalled.write_all(&vec![b' '; 40_000]).await.expect("sent");
    sleep(Duration::from_millis(100)).await;
    let upload = |padding: usize| post("connection: close\r\n", &format!("{}{}", good(), " ".repeat(padding)));
    let exchange = async |request: String| {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("sent");
        read_to_end(&mut stream).await
    };
    let refused = exchange(upload(40_000)).await;
    assert!(refused.contains(r#""code":1009"#), "nothing has stalled yet: {refused}");
    assert!(refused.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{refused}");
    assert!(
        exchange(upload(0)).await.contains(r#""task_id":"made""#),
        "a small one fits"
    );
    sleep(Duration::from_millis(1_200)).await;
    let taken = exchange(upload(40_000)).await;
    assert!(taken.contains(r#""task_id":"made""#), "{taken}");
    assert!(read_until(&mut stalled, "}").await.contains("stalled"));
    server.abort();
}
