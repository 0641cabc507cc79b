//! Accepts the peers' connections and answers what they ask. Owns the tasks of connections and requests; who may stay is
//! the door's (`door.rs`), how much is done at once is `requests.rs`, what an answer is the handler's.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, split};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::door::{Door, DoorLimits, Guest};
use super::frame::{Breach, Frame, Kind};
use super::hello::{HANDSHAKE, Refusal};
use super::observe::{Open, PeerLog, Side, Who};
use super::requests::{Requests, Running};
use super::session::respond;
use super::wire::{End, FrameReader, FrameWriter};
use super::{Handle, Listen, Local, LogMark, Service, Stream};
use crate::id::{NodeHex, NodeId};
use crate::log_limit::LogLimit;

/// Pause after an accept that failed for want of something, usually file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections share.
struct Shared {
    local: Arc<Local>,
    handler: Arc<dyn Handle>,
    log: PeerLog,
}

/// Serves the peers that `listener` gives until `shutdown` completes; then ends their connections, and with them the requests
/// that are being done, and returns. Dropping the future does the same.
pub async fn serve<L: Listen>(
    mut listener: L,
    local: Arc<Local>,
    handler: Arc<dyn Handle>,
    limits: DoorLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let shared = Arc::new(Shared {
        local,
        handler,
        log: PeerLog::default(),
    });
    let door = Door::new(limits);
    let refused = LogLimit::default();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            // A panic in a connection has ended it alone; the panic hook has told where.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, address)) => {
                connections.spawn(connection(io, address, shared.clone(), door.enter()));
            }
            Err(error) if is_of_one_connection(&error) => debug!(%error, "a connection ended before it was accepted"),
            Err(error) => {
                let now = shared.local.clock.monotonic();
                if let Some(unlogged) = refused.line("accept", now) {
                    warn!(%error, unlogged, "no peer connection can be accepted; trying again");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One connection, from a stranger's to its end.
async fn connection<S: Stream>(stream: S, address: SocketAddr, shared: Arc<Shared>, mut guest: Guest) {
    let local = &shared.local;
    let sent_away = guest.sent_away();
    let welcome = tokio::select! {
        biased;
        () = sent_away => Err(Refusal::Crowded),
        welcome = timeout(HANDSHAKE, welcome(stream, local)) => welcome.unwrap_or(Err(Refusal::Deadline)),
    };
    let proved = welcome.and_then(|welcome| guest.prove(welcome.node).map(|()| welcome));
    let welcome = match proved {
        Ok(welcome) => welcome,
        Err(refusal) => {
            local.refused(Side::Accepted, &refusal);
            let who = Who::Address(address.ip());
            if let Some(unlogged) = shared.log.line((who, refusal.name()), local.clock.monotonic()) {
                warn!(%address, %refusal, unlogged, "a connection was refused");
            }
            return;
        }
    };
    let node = welcome.node;
    let shown = NodeHex(node);
    debug!(node = %shown, %address, version = welcome.version, "a peer connected");
    let _open = Open::new(local.observe.clone(), Side::Accepted);
    let end = tokio::select! {
        biased;
        () = guest.sent_away() => {
            debug!(node = %shown, %address, "a peer connected anew");
            return;
        }
        end = speak(welcome, &shared) => end,
    };
    if let End::Breach(breach) = end {
        local.observe.broken(Side::Accepted, breach);
    }
    debug!(node = %shown, %address, %end, "a peer's connection ended");
}

/// A connection that has proved to be a peer's.
struct Welcome<S> {
    node: NodeId,
    version: u16,
    mark: LogMark,
    /// The proof: nobody else could have sealed it.
    first: Frame,
    reader: FrameReader<ReadHalf<S>>,
    writer: FrameWriter<tokio::io::WriteHalf<S>>,
}

async fn welcome<S: Stream>(mut stream: S, local: &Local) -> Result<Welcome<S>, Refusal> {
    let (keys, random) = (local.secret.peer_keys(), &local.entropy);
    let own = |node| local.hello(node);
    let session = respond(&mut stream, keys, random, own, |peer| local.met(peer)).await?;
    let (reading, writing) = split(stream);
    let mut reader = FrameReader::new(reading, session.opener);
    let first = reader.next().await.map_err(|end| Refusal::Broken(end.to_string()))?;
    Ok(Welcome {
        node: session.peer.node,
        version: session.version,
        mark: session.mark,
        first,
        reader,
        writer: FrameWriter::new(writing, session.sealer),
    })
}

/// Takes requests and sends answers until the connection ends.
async fn speak<S: Stream>(welcome: Welcome<S>, shared: &Shared) -> End {
    let requests = Arc::new(Requests::default());
    let Welcome {
        node,
        mark,
        first,
        reader,
        writer,
        ..
    } = welcome;
    // Sending yields after each write, receiving only when nothing is left to read: in this order neither starves.
    let ended = tokio::select! {
        biased;
        ended = send(writer, &shared.local, &requests) => ended,
        ended = receive((node, mark), first, reader, shared, &requests) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn receive<R: AsyncRead + Unpin>(
    (from, mark): (NodeId, LogMark),
    first: Frame,
    mut reader: FrameReader<R>,
    shared: &Shared,
    requests: &Arc<Requests>,
) -> Result<Infallible, End> {
    // Dropped with the connection: nobody waits for their answers then.
    let mut running = JoinSet::new();
    let mut frame = first;
    loop {
        mark.raise(frame.log);
        match frame.kind {
            Kind::Ping => requests.answer(Frame::bare(Kind::Pong, frame.id)),
            Kind::Request => {
                if let Some(work) = begin(from, frame, shared, requests) {
                    running.spawn(work);
                }
            }
            _ => return Err(Breach::Garbage.into()),
        }
        while running.try_join_next().is_some() {}
        requests.room().await;
        frame = reader.next().await?;
    }
}

/// What a request takes to be done, unless it is answered already.
fn begin(
    from: NodeId,
    frame: Frame,
    shared: &Shared,
    requests: &Arc<Requests>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let Some(service) = Service::from_byte(frame.service) else {
        requests.answer(Frame::bare(Kind::Unserved, frame.id));
        return None;
    };
    let Some(running) = requests.begin(frame.id, frame.body.len()) else {
        shared.local.observe.busy();
        return None;
    };
    let handler = shared.handler.clone();
    Some(work(handler, from, service, frame, running))
}

async fn work(handler: Arc<dyn Handle>, from: NodeId, service: Service, frame: Frame, running: Running) {
    let deadline = Duration::from_millis(frame.deadline_ms.into());
    // Beyond the deadline nobody waits: a handler that hangs must not hold its place for ever.
    if let Ok(answer) = timeout(deadline, handler.handle(from, service, frame.body)).await {
        running.end(answer);
    }
}

async fn send<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    local: &Local,
    requests: &Requests,
) -> Result<Infallible, End> {
    let mut frames = Vec::new();
    loop {
        requests.ready().await;
        // Whoever else is ready to answer does so first: many answers in one write cost little more than one.
        yield_now().await;
        requests.take(local.stamp(), &mut frames);
        writer.send(&frames).await?;
        frames.clear();
    }
}
