//! A target for tests that does, per path, whatever targets do to a client; it keeps every request it was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request, as its bytes came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) request_line: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} was sent twice");
        value
    }
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    body_bytes: AtomicUsize,
}

/// Listens on a free port of loopback until dropped.
#[derive(Debug)]
pub(super) struct HostileTarget {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl HostileTarget {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            accepting,
        }
    }

    pub(super) fn url(&self, path: &str) -> Arc<str> {
        format!("http://{}{path}", self.address).into()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of endless bodies that went out.
    pub(super) fn body_bytes(&self) -> usize {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for HostileTarget {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&shared);
        // How a connection ends is the client's business here.
        tokio::spawn(async move { serve(stream, &shared).await.unwrap_or_default() });
    }
}

/// Serves requests until the connection ends.
async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    while let Some(request) = read_request(&mut stream).await? {
        let path = request
            .request_line
            .split([' ', '?'])
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        shared.seen.lock().push(request);
        if !respond(&mut stream, &path, shared).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.trim_end().split("\r\n");
    let request_line = lines.next().unwrap_or_default().to_owned();
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = pairs
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut seen = Seen {
        request_line,
        headers,
        body: Vec::new(),
    };
    let length = seen.header("content-length").and_then(|text| text.parse().ok());
    seen.body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut seen.body).await?;
    Ok(Some(seen))
}

/// Behaves as the path says; false ends the connection.
async fn respond(stream: &mut TcpStream, path: &str, shared: &Shared) -> io::Result<bool> {
    if let Some(status) = path.strip_prefix("/status/") {
        let answer = format!("HTTP/1.1 {status} Text\r\ncontent-length: 5\r\n\r\nhello");
        stream.write_all(answer.as_bytes()).await?;
        return Ok(true);
    }
    let plain: &[u8] = match path {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
        "/redirect" => b"HTTP/1.1 301 Moved\r\nlocation: /status/200\r\ncontent-length: 0\r\n\r\n",
        "/redirect-307" => b"HTTP/1.1 307 Moved\r\nlocation: /status/200\r\ncontent-length: 0\r\n\r\n",
        "/429" => b"HTTP/1.1 429 Slow\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
        "/503" => b"HTTP/1.1 503 Out\r\nretry-after: Sun, 01 Mar 2026 00:01:00 GMT\r\ncontent-length: 0\r\n\r\n",
        "/continue" => b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        "/folded" => b"HTTP/1.1 200 OK\r\nx-long: one\r\n  two\r\n\tthree\r\ncontent-length: 0\r\n\r\n",
        "/bad-headers" => b"HTTP/1.1 201 Made\r\nspace : x\r\nno colon\r\nx\x01y: z\r\ncontent-length: 0\r\n\r\n",
        "/bad-chunks" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n",
        "/reset-body" => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
                .await?;
            // The head has been read when the reset comes: what a kernel has not handed over by then it drops.
            tokio::time::sleep(Duration::from_millis(200)).await;
            return stream.set_zero_linger().map(|()| false);
        }
        "/200-headers" => return many_headers(stream, 200).await,
        "/not-http" => b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "/reset" => return stream.set_zero_linger().map(|()| false),
        "/half-close" => return half_close(stream, b"").await,
        "/half-head" => return half_close(stream, b"HTTP/1.1 200 OK\r\ncontent-le").await,
        "/half-body" => return half_close(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await,
        "/hang" => return std::future::pending().await,
        "/late-body" => return late_body(stream).await,
        "/drip-head" => return drip(stream, b"HTTP/1.1 200 OK\r\nx: ", shared).await,
        "/drip-body" => return drip(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", shared).await,
        "/huge" => return flood(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", shared).await,
        "/endless" => return flood(stream, b"HTTP/1.1 200 OK\r\n\r\n", shared).await,
        "/headers" => return many_headers(stream, 100_000).await,
        other => panic!("no behaviour for {other}"),
    };
    stream.write_all(plain).await?;
    Ok(true)
}

/// Says `text` and no more, but goes on listening.
async fn half_close(stream: &mut TcpStream, text: &[u8]) -> io::Result<bool> {
    stream.write_all(text).await?;
    stream.shutdown().await?;
    std::future::pending().await
}

/// A good answer, whose body comes a little after its head.
async fn late_body(stream: &mut TcpStream) -> io::Result<bool> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        .await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"hello").await?;
    Ok(true)
}

async fn drip(stream: &mut TcpStream, head: &[u8], shared: &Shared) -> io::Result<bool> {
    stream.write_all(head).await?;
    loop {
        stream.write_all(b"x").await?;
        shared.body_bytes.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn flood(stream: &mut TcpStream, head: &[u8], shared: &Shared) -> io::Result<bool> {
    stream.write_all(head).await?;
    let chunk = vec![b'x'; 64 << 10];
    for _ in 0..(1 << 30) / chunk.len() {
        stream.write_all(&chunk).await?;
        shared.body_bytes.fetch_add(chunk.len(), Ordering::SeqCst);
    }
    Ok(false)
}

async fn many_headers(stream: &mut TcpStream, count: usize) -> io::Result<bool> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
    for n in 0..count {
        stream.write_all(format!("x-{n}: y\r\n").as_bytes()).await?;
    }
    stream.write_all(b"content-length: 0\r\n\r\n").await?;
    Ok(true)
}
