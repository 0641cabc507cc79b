//! Connections: accepts them, bounds them in number and time, speaks HTTP/1.1 on them, and ends them in order.
//!
//! Knows nothing of what is asked: that is the router's. Where connections come from is a [`Listen`], so that a
//! simulation can give its own.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::{ApiObserve, Bodies, Guard};
use places::{Place, Places};
use stall::{Limits, Stalling};

mod places;
mod stall;

/// Most bytes a connection buffers, and with that the largest header: beyond it the answer is 431.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// Pause after an accept that failed for want of something, usually file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that has to go may take to close in order while it has no request.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long, and how far, a client that is still sending is read on after its last answer: closed at once, its
/// connection would be reset, and the answer lost.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 64 << 20;

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
    /// Connections open at the same time. For a further one the longest idle one is closed; without one it waits.
    pub connections_max: u32,
    /// Time a request's header may take to arrive, and a new connection to send something.
    pub header_timeout: Duration,
    /// Time a connection may stay idle after an answer.
    pub keep_alive: Duration,
    /// Time that a request's body may take to arrive, and then its work to be done; longest pause of a peer in taking an
    /// answer; and time that open requests have to end after the shutdown.
    pub request_timeout: Duration,
}

/// What the server works with.
#[derive(Clone)]
pub struct Parts {
    /// The routes.
    pub app: Router,
    /// Which requests get there.
    pub guard: Guard,
    /// The memory of all bodies.
    pub bodies: Bodies,
    /// Bounds on connections.
    pub limits: ServeLimits,
    /// Told of connections.
    pub observe: Arc<dyn ApiObserve>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Put into each request by the server, for the handlers to keep: only they know what an overrun means.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTimeout(pub Duration);

/// Serves the routes on the connections of `listener` until `shutdown` completes. Then accepts no more, closes idle
/// connections, and returns once the open requests have their answers or the request timeout has passed. Dropping the
/// future closes every connection at once.
pub async fn serve<L: Listen>(mut listener: L, parts: Parts, shutdown: impl Future<Output = ()> + Send) {
    let limits = parts.limits;
    let places = Places::new(usize::try_from(limits.connections_max).unwrap_or(usize::MAX));
    let (stop, stopping) = watch::channel(());
    let (mut connections, mut held) = (JoinSet::new(), None);
    let mut shutdown = pin!(shutdown);
    loop {
        let io = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            io = next(&mut listener, &places, &mut held) => io,
        };
        let open = Open::new(parts.observe.clone());
        let work = connection(io, parts.clone(), Arc::new(places.enter()), stopping.clone());
        connections.spawn(async move {
            work.await;
            drop(open);
        });
    }
    drop((listener, held));
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

/// The next connection, once there is room for it. `held` is the one that waits for room, whenever this is dropped.
async fn next<L: Listen>(listener: &mut L, places: &Places, held: &mut Option<L::Io>) -> L::Io {
    loop {
        if held.is_some() {
            places.room().await;
        }
        if let Some(io) = held.take() {
            return io;
        }
        match listener.accept().await {
            Ok((io, _)) => *held = Some(io),
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
async fn connection<Io>(io: Io, parts: Parts, place: Arc<Place>, mut stopping: watch::Receiver<()>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = parts.limits;
    let io = Stalling::new(
        io,
        place.clone(),
        Limits {
            head: limits.header_timeout,
            idle: limits.keep_alive,
            write: limits.request_timeout,
        },
    );
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        // `io` bounds what it waits for itself: the library knows one time for a head and for being idle.
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service_fn(service(parts, place.clone())));
    let ended = tokio::select! {
        biased;
        result = poll_fn(|context| http.poll_without_shutdown(context)) => Some(result),
        () = place.told_to_leave() => None,
        _ = stopping.changed() => None,
    };
    let is_told = ended.is_none();
    let result = if let Some(result) = ended {
        result
    } else {
        Pin::new(&mut http).graceful_shutdown();
        loop {
            let answered = poll_fn(|context| http.poll_without_shutdown(context));
            match timeout(LEAVE_TIMEOUT, answered).await {
                Ok(result) => break result,
                // Its answer is still waited for.
                Err(_) if place.is_busy() => {}
                Err(_) => return,
            }
        }
    };
    let is_answered = match result {
        Ok(()) => true,
        Err(error) => {
            debug!(%error, "a connection broke");
            error.is_parse()
        }
    };
    if is_answered && !is_told {
        let io = http.into_parts().io.into_inner();
        tokio::select! {
            () = linger(io) => {}
            () = place.told_to_leave() => {}
            _ = stopping.changed() => {}
        }
    }
}

/// What becomes of each request of a connection.
fn service(
    parts: Parts,
    place: Arc<Place>,
) -> impl Fn(Request<Incoming>) -> BoxFuture<'static, Result<Response, Infallible>> {
    let Parts {
        app,
        guard,
        bodies,
        limits,
        ..
    } = parts;
    move |mut request| {
        place.set_busy();
        let (place, refused) = (place.clone(), guard.refuse(&request));
        let extensions = request.extensions_mut();
        extensions.insert(RequestTimeout(limits.request_timeout));
        extensions.insert(bodies.clone());
        let mut app = app.clone();
        Box::pin(async move {
            let answer = match refused {
                Some(refused) => Ok(refused),
                None => app.call(request.map(Body::new)).await,
            };
            place.set_idle();
            answer
        })
    }
}

/// Reads on, and drops, what a client still sends after the last answer on its connection, so that it finds the answer.
async fn linger<Io: AsyncRead + AsyncWrite + Unpin>(mut io: Io) {
    let rest = async {
        // Nothing more is said. A client that is gone already ends the reading too.
        drop(io.shutdown().await);
        let mut dropped = vec![0; 16 << 10];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(read @ 1..) = io.read(&mut dropped).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    drop(timeout(LINGER, rest).await);
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
}

impl Open {
    fn new(observe: Arc<dyn ApiObserve>) -> Self {
        observe.connections(true);
        Self { observe }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observe.connections(false);
    }
}

#[cfg(test)]
mod tests;
