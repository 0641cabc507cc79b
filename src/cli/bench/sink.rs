//! The HTTP server that receives callbacks: stamps each, tells the ledger, answers 200 at once.
//!
//! Runs on a thread of its own, so that a busy load delays no stamp. Owns the callbacks' URL: `/cb/<task number>`.
//! `/probe` takes the same path through the server and counts nowhere.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use super::ledger::Ledger;
use super::wall::wall_us;
use crate::cli::callback::Callback;

/// Connections waiting to be accepted: a burst opens many at once, and a dropped one is retried after a second.
const BACKLOG: u32 = 4_096;
/// Connections open at once; further ones wait in the backlog.
const CONNECTIONS_MAX: usize = 8_192;

/// A running sink; it stops when dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens at `address` and records into `ledger`. Must be called inside a runtime; it then runs on its own.
    pub fn start(address: SocketAddr, ledger: Arc<Ledger>) -> anyhow::Result<Self> {
        let listener = listen(address).with_context(|| format!("--sink: cannot listen at {address}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, ledger) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("bench-sink".to_owned()).spawn(serve)?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of callbacks, up to the task's number.
    pub fn callback_base(&self) -> String {
        format!("http://{}/cb/", self.address)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; there is nobody left to tell.
            drop(thread.join());
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

async fn accept(listener: std::net::TcpListener, ledger: Arc<Ledger>) {
    let listener = TcpListener::from_std(listener).expect("it came out of a tokio listener");
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: give connections time to close.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            serve(stream, &ledger).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, ledger: &Ledger) {
    // Without it answers wait for the peer's delayed acknowledgements.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| receive(request, ledger));
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    // A broken connection is the caller's to notice: its callback is either stamped or missing.
    drop(connection.await);
}

async fn receive(request: Request<Incoming>, ledger: &Ledger) -> Result<Response<Empty<Bytes>>, Infallible> {
    let arrival_us = wall_us();
    let callback = Callback::from_headers(request.headers());
    let path = request.uri().path();
    let known = match path.strip_prefix("/cb/").map(str::parse) {
        Some(Ok(index)) if request.method() == Method::POST => {
            ledger.called(index, &callback, arrival_us);
            true
        }
        _ if path == "/probe" => true,
        _ => {
            ledger.strange(|| format!("{} {path} at the sink", request.method()));
            false
        }
    };
    // Left unread, a body would cost the connection.
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let mut response = Response::new(Empty::new());
    if !known {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}
