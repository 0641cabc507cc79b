//! Connections: accepts them, bounds them in number and time, speaks HTTP/1.1 on them, and ends them in order.
//!
//! Knows nothing of what is asked: that is the router's. Where connections come from is a [`Listen`], so that a
//! simulation can give its own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::ApiObserve;
use stall::Stalling;

mod stall;

/// Most bytes a connection buffers, and with that the largest header: beyond it the answer is 431.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pause after an accept that failed for want of something, usually file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where connections come from.
pub trait Listen: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and its peer. It may be dropped before it completes, and no connection may be lost by that.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Listen for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Answers are small: waiting to fill a packet would only delay them. A peer that is gone already ends itself.
        drop(stream.set_nodelay(true));
        Ok((stream, peer))
    }
}

/// Bounds on connections; the settings of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections open at the same time. Further ones wait in the listener's backlog.
    pub connections_max: u32,
    /// Time a request's header may take to arrive; as long may a kept-alive connection stay idle.
    pub header_timeout: Duration,
    /// Time that a request's body may take to arrive, and then its work to be done; longest pause of a peer in taking an
    /// answer; and time that open requests have to end after the shutdown.
    pub request_timeout: Duration,
}

/// Put into each request by the server, for the handlers to keep: only they know what an overrun means.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTimeout(pub Duration);

/// Serves `app` on the connections of `listener` until `shutdown` completes. Then accepts no more, closes idle
/// connections, and returns once the open requests have their answers or the request timeout has passed. Dropping the
/// future closes every connection at once.
pub async fn serve<L: Listen>(
    mut listener: L,
    app: Router,
    limits: ServeLimits,
    observe: Arc<dyn ApiObserve>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let slots = usize::try_from(limits.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS)));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (io, slot) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = accept(&mut listener, &slots) => accepted,
        };
        let open = Open::new(observe.clone(), slot);
        let work = connection(io, app.clone(), limits, stopping.clone());
        connections.spawn(async move {
            work.await;
            drop(open);
        });
    }
    drop(listener);
    drop(stop);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(limits.request_timeout, drained).await.is_err() {
        warn!(
            connections = connections.len(),
            "requests did not end in time: their connections are closed"
        );
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for one.
async fn accept<L: Listen>(listener: &mut L, slots: &Arc<Semaphore>) -> (L::Io, OwnedSemaphorePermit) {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((io, _)) => return (io, slot),
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection ended before it was accepted"),
            Err(error) => {
                warn!(%error, "no connection can be accepted; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Speaks HTTP on one connection until either side ends it. `stopping` loses its sender when the server stops.
async fn connection<Io>(io: Io, app: Router, limits: ServeLimits, mut stopping: watch::Receiver<()>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(RequestTimeout(limits.request_timeout));
        app.clone().call(request.map(Body::new))
    });
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Stalling::new(io, limits.request_timeout)), service);
    let mut http = pin!(http);
    let result = tokio::select! {
        biased;
        result = http.as_mut() => result,
        _ = stopping.changed() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a connection broke");
    }
}

/// A panic in a handler has ended its connection alone; the panic hook has told where.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a connection was ended by a fault in its handler");
    }
}

/// An open connection, counted until dropped, however it ends.
struct Open {
    observe: Arc<dyn ApiObserve>,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(observe: Arc<dyn ApiObserve>, slot: OwnedSemaphorePermit) -> Self {
        observe.connections(true);
        Self { observe, _slot: slot }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observe.connections(false);
    }
}

#[cfg(test)]
mod tests;
