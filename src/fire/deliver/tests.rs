//! The client against a target that misbehaves in every known way.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::id::TaskId;

/// Answers each connection by the first path segment of its request, and reports the requests it saw.
async fn evil_target() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream, seen.clone()));
        }
    });
    (address, requests)
}

async fn misbehave(mut stream: TcpStream, seen: mpsc::UnboundedSender<String>) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut chunk = [0; 4_096];
        let Ok(n @ 1..) = stream.read(&mut chunk).await else {
            return;
        };
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let head = text[..end].to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.parse().ok());
            break (text[..end].to_owned(), end + 4 + length.unwrap_or(0));
        }
    };
    while bytes.len() < length {
        let mut chunk = [0; 4_096];
        let Ok(n @ 1..) = stream.read(&mut chunk).await else {
            return;
        };
        bytes.extend_from_slice(&chunk[..n]);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    drop(seen.send(String::from_utf8_lossy(&bytes).into_owned()));
    let answer = match path.as_str() {
        "/ok" => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        "/empty" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/moved" => "HTTP/1.1 302 Found\r\nlocation: /ok\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/gone" => "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/busy" => "HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/broken" => "HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/half" => "HTTP/1.1 200 O".to_owned(),
        "/headers" => format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(100_000)),
        "/huge" => format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n{}",
            "x".repeat(1 << 20)
        ),
        "/drip" => "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx".to_owned(),
        "/garbage" => "\0\x01\x02 not http at all\r\n\r\n".to_owned(),
        _ => String::new(),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    if matches!(path.as_str(), "/hang" | "/drip" | "/huge") {
        std::future::pending::<()>().await;
    }
}

fn attempt(url: String) -> Attempt {
    let key = TaskId::parse("order-1").expect("valid").key();
    Attempt {
        url,
        body: Bytes::from_static(b"{\"n\": 9007199254740993,  \"a\":1}"),
        task_id: "order-1".into(),
        fire_id: FireId::new(key, 1, 1_772_323_200_000),
        due_ms: 1_772_323_200_000,
        attempt: 2,
        run: 7,
        generation: 3,
        now_ms: 1_772_323_200_123,
    }
}

fn client() -> HttpDeliver {
    let options = DeliverOptions {
        timeout_ms: 700,
        connect_timeout_ms: 500,
        idle_per_target_max: 8,
    };
    HttpDeliver::new(options).expect("builds")
}

fn status(code: u16) -> Answer {
    Answer::Status {
        code,
        retry_after_ms: None,
    }
}

#[tokio::test]
async fn every_kind_of_answer_is_told_apart() {
    let (address, _requests) = evil_target().await;
    let client = client();
    for (path, wanted) in [
        ("ok", status(200)),
        ("empty", status(204)),
        ("moved", status(302)),
        ("gone", status(410)),
        (
            "busy",
            Answer::Status {
                code: 429,
                retry_after_ms: Some(7_000),
            },
        ),
        ("broken", status(500)),
        ("half", Answer::None { kind: NoAnswer::Reset }),
        ("close", Answer::None { kind: NoAnswer::Reset }),
        ("headers", Answer::None { kind: NoAnswer::Reset }),
        ("garbage", Answer::None { kind: NoAnswer::Reset }),
        (
            "hang",
            Answer::None {
                kind: NoAnswer::Timeout,
            },
        ),
        ("drip", status(200)),
        ("huge", status(200)),
    ] {
        let answer = client.deliver(attempt(format!("http://{address}/{path}"))).await;
        assert_eq!(answer, wanted, "{path}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_and_urls_that_are_none() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port")
        .local_addr()
        .expect("bound");
    let client = client();
    let answer = client.deliver(attempt(format!("http://{free}/"))).await;
    assert_eq!(
        answer,
        Answer::None {
            kind: NoAnswer::Connect
        }
    );
    for url in ["ftp://127.0.0.1/", "not a url", ""] {
        let answer = client.deliver(attempt(url.into())).await;
        assert_eq!(answer, Answer::None { kind: NoAnswer::BadUrl }, "{url}");
    }
}

#[tokio::test]
async fn the_request_says_what_the_wire_says() {
    let (address, mut requests) = evil_target().await;
    client().deliver(attempt(format!("http://{address}/ok"))).await;
    let request = requests.recv().await.expect("one request");
    let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
    assert_eq!(body, "{\"n\": 9007199254740993,  \"a\":1}");
    let fire = attempt(String::new()).fire_id;
    let mut lines: Vec<_> = head.lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "POST /ok HTTP/1.1");
    lines.sort();
    let mut wanted = vec![
        "accept: */*".to_owned(),
        "content-length: 31".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: {address}"),
        format!("traceparent: 00-{fire}-0000000000030002-01"),
        format!("user-agent: xcron/{}", env!("CARGO_PKG_VERSION")),
        format!("webhook-id: {fire}"),
        "webhook-timestamp: 1772323200".to_owned(),
        "xcron-attempt: 2".to_owned(),
        "xcron-due: 2026-03-01T00:00:00.000Z".to_owned(),
        "xcron-generation: 3".to_owned(),
        "xcron-run: 7".to_owned(),
        "xcron-task-id: order-1".to_owned(),
    ];
    wanted.sort();
    assert_eq!(lines, wanted);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (address, mut requests) = evil_target().await;
    client().deliver(attempt(format!("http://{address}/moved"))).await;
    assert!(requests.recv().await.expect("one request").starts_with("POST /moved"));
    assert!(requests.try_recv().is_err(), "and no second one");
}
