//! The connection to one peer: made when somebody calls, kept alive by pings, made again after it broke, but not at once and
//! not by everybody together. Owns the backoff, in which calls fail at once, so that a dead peer costs nobody any time.
//!
//! Each connection has its own [`Calls`] and one task; however the task ends, its calls are ended too. `client.rs` keeps a
//! link per peer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::calls::Calls;
use super::client::Parts;
use super::frame::{Breach, Kind};
use super::hello::{HANDSHAKE, Refusal};
use super::observe::{Open, PeerLog, Side, Who};
use super::offset::{Offset, Offsets};
use super::session::{Session, initiate};
use super::wire::{End, FrameReader, FrameWriter, SILENCE};
use super::{CallError, Local, LogMark, Stream};
use crate::id::{NodeHex, NodeId};

/// Longest wait for a connection, before the handshake.
const DIAL: Duration = Duration::from_secs(1);
/// Pause after the first failure; each further one doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Time between two pings of a connection.
const PING: Duration = Duration::from_secs(2);

const _: () = assert!(SILENCE.as_millis() > 3 * PING.as_millis());

/// What links share.
#[derive(Debug)]
pub(super) struct Way {
    pub parts: Parts,
    pub log: PeerLog,
}

/// The connection to one peer, if there is one.
#[derive(Debug)]
pub(super) struct Link {
    node: NodeId,
    state: Mutex<State>,
    offsets: Mutex<Offsets>,
}

#[derive(Debug, Default)]
struct State {
    active: Option<Active>,
    /// Attempts since something was last heard of the peer.
    failures: u32,
    /// Before this, by the monotonic clock, no attempt is made at `tried`.
    retry_at: Duration,
    tried: Option<SocketAddr>,
    /// Why the last connection ended.
    why: String,
}

#[derive(Debug)]
struct Active {
    calls: Arc<Calls>,
    /// Missing only while the task is being started.
    task: Option<AbortHandle>,
}

impl Link {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            state: Mutex::default(),
            offsets: Mutex::default(),
        }
    }

    /// The calls of the current connection, or of a new one to `address`.
    pub(super) fn calls(self: Arc<Self>, way: &Arc<Way>, address: SocketAddr) -> Result<Arc<Calls>, CallError> {
        let local = &way.parts.local;
        let mut state = self.state.lock();
        if let Some(active) = &state.active {
            return Ok(active.calls.clone());
        }
        let wait = state.retry_at.saturating_sub(local.clock.monotonic());
        // Somewhere else it may be up: that is why it moved.
        if state.tried == Some(address) && !wait.is_zero() {
            let why = format!("{}; not tried again for {} ms", state.why, wait.as_millis());
            return Err(CallError::NotSent(why));
        }
        state.tried = Some(address);
        let calls = Arc::new(Calls::default());
        let ending = Ending {
            way: way.clone(),
            link: self.clone(),
            calls: calls.clone(),
            is_heard: false,
            why: "this node is stopping".into(),
        };
        state.active = Some(Active {
            calls: calls.clone(),
            task: None,
        });
        drop(state);
        // Not under the lock: a runtime that is stopping drops the task, and with it the ending, here.
        let task = tokio::spawn(run(ending, address)).abort_handle();
        if let Some(active) = &mut self.state.lock().active {
            active.task = Some(task);
        }
        Ok(calls)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.lock().active.is_some()
    }

    pub(super) fn offset(&self, now: Duration) -> Option<Offset> {
        self.offsets.lock().best(now)
    }

    pub(super) fn close(&self) {
        let task = self.state.lock().active.as_ref().and_then(|active| active.task.clone());
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Ends the connection's calls and begins the backoff when dropped, whatever ended the task.
struct Ending {
    way: Arc<Way>,
    link: Arc<Link>,
    calls: Arc<Calls>,
    /// Whether the peer ever sent anything on this connection.
    is_heard: bool,
    why: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let local = &self.way.parts.local;
        let mut state = self.link.state.lock();
        state.active = None;
        state.failures = if self.is_heard {
            1
        } else {
            state.failures.saturating_add(1)
        };
        state.retry_at = local.clock.monotonic() + backoff(state.failures, local.entropy.next_u64());
        state.why.clone_from(&self.why);
        drop(state);
        self.calls.close(&self.why);
    }
}

/// How long to wait after so many failures: doubled each time up to a bound, then between half and all of it.
fn backoff(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(BACKOFF_MAX.as_millis().ilog2());
    let longest = (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX);
    let half_us = u64::try_from(longest.as_micros() / 2).expect("BACKOFF_MAX is small");
    Duration::from_micros(half_us + random % (half_us + 1))
}

/// One connection, from dialing to its end.
async fn run(mut ending: Ending, address: SocketAddr) {
    let (way, node) = (ending.way.clone(), ending.link.node);
    let local = &way.parts.local;
    let (who, shown) = (Who::Node(node), NodeHex(node));
    let why = match connect(&way, node, address).await {
        Ok((stream, session)) => {
            debug!(node = %shown, %address, version = session.version, "connected to a peer");
            let _open = Open::new(local.observe.clone(), Side::Dialed);
            let end = speak(&mut ending, stream, session).await;
            if let End::Breach(breach) = end {
                local.observe.broken(Side::Dialed, breach);
            }
            debug!(node = %shown, %address, %end, "the connection to a peer ended");
            end.to_string()
        }
        Err(refusal) => {
            local.refused(Side::Dialed, &refusal);
            if let Some(unlogged) = way.log.line((who, refusal.name()), local.clock.monotonic()) {
                warn!(node = %shown, %address, %refusal, unlogged, "no connection to a peer");
            }
            refusal.to_string()
        }
    };
    ending.why = format!("node {shown} at {address}: {why}");
}

async fn connect(way: &Way, node: NodeId, address: SocketAddr) -> Result<(Box<dyn Stream>, Session), Refusal> {
    let dialed = timeout(DIAL, way.parts.dialer.dial(address)).await;
    let mut stream = match dialed {
        Err(_) => {
            return Err(Refusal::Unreachable(format!(
                "no answer within {} ms",
                DIAL.as_millis()
            )));
        }
        Ok(Err(error)) => return Err(Refusal::Unreachable(error.to_string())),
        Ok(Ok(stream)) => stream,
    };
    let local = &way.parts.local;
    let handshake = async {
        let (own, key) = (local.hello(node), &local.secret.peer_keys()[0]);
        let session = initiate(&mut stream, &own, key, local.entropy.clone()).await?;
        let mark = local.met(session.peer).await?;
        Ok(Session { mark, ..session })
    };
    let session = timeout(HANDSHAKE, handshake).await.unwrap_or(Err(Refusal::Deadline))?;
    Ok((stream, session))
}

/// Sends calls and takes answers until the connection ends.
async fn speak(ending: &mut Ending, stream: Box<dyn Stream>, session: Session) -> End {
    let (reading, writing) = split(stream);
    let Session {
        opener, sealer, mark, ..
    } = session;
    let reader = FrameReader::new(reading, opener);
    let writer = FrameWriter::new(writing, sealer);
    let (local, link, calls) = (&ending.way.parts.local, &ending.link, &ending.calls);
    // Each half on its own: a peer that does not take what it is sent may still be answering. Sending yields after each
    // write, receiving only when nothing is left to read: the other way round, the one could starve the other.
    let ended = tokio::select! {
        biased;
        ended = send(writer, local, calls) => ended,
        ended = receive(reader, local, link, calls, &mark, &mut ending.is_heard) => ended,
        ended = ping(local, calls) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// What never completes but by an error.
type Endless = Result<Infallible, End>;

async fn receive<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    local: &Local,
    link: &Link,
    calls: &Calls,
    mark: &LogMark,
    is_heard: &mut bool,
) -> Endless {
    loop {
        let frame = reader.next().await?;
        *is_heard = true;
        if matches!(frame.kind, Kind::Request | Kind::Ping) {
            return Err(Breach::Garbage.into());
        }
        let wall_ms = frame.wall_ms;
        mark.raise(frame.log);
        match calls.answer(frame) {
            Some(asked) => link.offsets.lock().add(asked, local.now(), wall_ms),
            None => local.observe.late(),
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(mut writer: FrameWriter<W>, local: &Local, calls: &Calls) -> Endless {
    let mut frames = Vec::new();
    loop {
        calls.ready().await;
        // Whoever else is ready to call does so first: many calls in one write cost little more than one.
        yield_now().await;
        calls.take(local.stamp(), &mut frames);
        writer.send(&frames).await?;
        frames.clear();
    }
}

/// At once, since the peer believes in the connection only after the first sealed message; then from time to time, so
/// that a dead peer is noticed and the offset of its clock stays known.
async fn ping(local: &Local, calls: &Calls) -> Endless {
    loop {
        calls.ping_unwatched(local.now());
        sleep(PING).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_to_its_bound_and_is_spread() {
        let bounds = |failures| (backoff(failures, 0), backoff(failures, 25_000));
        assert_eq!(bounds(1), (BACKOFF_MIN / 2, BACKOFF_MIN));
        assert_eq!(backoff(2, 0), BACKOFF_MIN);
        assert_eq!(backoff(4, 0), BACKOFF_MIN * 4);
        for failures in [6, 40, u32::MAX] {
            assert_eq!(backoff(failures, 0), BACKOFF_MAX / 2);
            assert_eq!(backoff(failures, 500_000), BACKOFF_MAX);
        }
    }
}
