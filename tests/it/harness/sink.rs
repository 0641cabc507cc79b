//! A target for callbacks that writes down every attempt and behaves as the path says.
//!
//! Paths: `/ok/..` 200; `/flaky/..` 500 to the first attempt, then 200; `/fail/..` 500; `/gone/..` 410; `/redirect/..` 302 to
//! `/ok/redirected`; `/close/..` ends the connection without an answer; `/hang/..` answers when released.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::LOCATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{eventually, wall_ms};

/// One attempt as the target saw it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The path that was called.
    pub path: String,
    /// `xcron-task-id`.
    pub task: String,
    /// `webhook-id`.
    pub fire: String,
    /// `xcron-due`, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// `xcron-attempt`.
    pub attempt: u64,
    /// `xcron-generation`.
    pub generation: u64,
    /// When the head of the request was here, by this process's reading of the clock: never before it really was.
    pub at_ms: u64,
    /// All headers.
    pub headers: HeaderMap,
    /// The bytes of the body.
    pub body: Bytes,
}

#[derive(Debug, Default)]
struct State {
    arrivals: Mutex<Vec<Arrival>>,
    released: watch::Sender<bool>,
}

/// A running target; it stops when dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    state: Arc<State>,
    accept: JoinHandle<()>,
}

impl Sink {
    /// Listens on a free port.
    pub async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    /// Listens on a free port of every address of 127.0.0.0/8, and of all others: many targets in one.
    pub async fn start_as_many() -> Self {
        Self::start_on("0.0.0.0:0").await
    }

    async fn start_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let state = Arc::new(State::default());
        let accept = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, accept }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The URL of a path at one of the addresses it listens on.
    pub fn url_at(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.address.port())
    }

    /// All attempts so far, in the order of their arrival.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state.arrivals.lock().clone()
    }

    /// The attempts of one task so far.
    pub fn of(&self, task: &str) -> Vec<Arrival> {
        let arrivals = self.state.arrivals.lock();
        arrivals
            .iter()
            .filter(|arrival| arrival.task == task)
            .cloned()
            .collect()
    }

    /// How many attempts there were so far.
    pub fn count(&self) -> usize {
        self.state.arrivals.lock().len()
    }

    /// Waits for so many attempts of one task.
    pub async fn wait_for(&self, task: &str, attempts: usize) -> Vec<Arrival> {
        eventually(&format!("{attempts} attempts of {task}"), async || {
            let arrivals = self.of(task);
            (arrivals.len() >= attempts).then_some(arrivals)
        })
        .await
    }

    /// Waits for so many attempts in all.
    pub async fn wait_for_count(&self, attempts: usize) {
        eventually(&format!("{attempts} attempts in all"), async || {
            (self.count() >= attempts).then_some(())
        })
        .await;
    }

    /// Answers all calls of `/hang`, those to come as well.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&state)))),
            // Out of file descriptors, most likely: the loss would show as a missing callback.
            Err(error) => println!("the sink cannot accept: {error}"),
        }
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| receive(request, &state));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A broken connection is the caller's to notice.
    drop(connection.await);
}

/// Writes the attempt down before it is answered: an attempt that is answered has been written.
async fn receive(request: Request<Incoming>, state: &State) -> Result<Response<Full<Bytes>>, &'static str> {
    let at_ms = wall_ms();
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map_err(|_| "the body is cut")?.to_bytes();
    let attempt = number(&head.headers, "xcron-attempt");
    let due: Option<jiff::Timestamp> = text(&head.headers, "xcron-due").parse().ok();
    let due_ms = due.and_then(|due| u64::try_from(due.as_millisecond()).ok());
    state.arrivals.lock().push(Arrival {
        task: text(&head.headers, "xcron-task-id"),
        fire: text(&head.headers, "webhook-id"),
        // Absent counts as not yet due, which no arrival may be.
        due_ms: due_ms.unwrap_or(u64::MAX),
        attempt,
        generation: number(&head.headers, "xcron-generation"),
        at_ms,
        path: path.clone(),
        headers: head.headers,
        body,
    });
    let (status, location) = match path.split('/').nth(1).unwrap_or_default() {
        "ok" => (200, None),
        "flaky" => (if attempt <= 1 { 500 } else { 200 }, None),
        "fail" => (500, None),
        "gone" => (410, None),
        "redirect" => (302, Some("/ok/redirected")),
        "close" => return Err("closed, as the path says"),
        "hang" => {
            let mut released = state.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
            (200, None)
        }
        _ => (404, None),
    };
    let mut response = Response::builder().status(status);
    if let Some(location) = location {
        response = response.header(LOCATION, location);
    }
    Ok(response.body(Full::default()).expect("a valid answer"))
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn number(headers: &HeaderMap, name: &str) -> u64 {
    text(headers, name).parse().unwrap_or_default()
}
