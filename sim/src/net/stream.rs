//! Connections: bytes in order or not at all. A loss is a delay, a partition a long one; a process that is gone resets its
//! connections, a machine without power just falls silent.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use xcron::api;
use xcron::net::{Dial, Listen, Stream};

use super::{Host, Inner, Net, RESEND_US, Travel, Waiting, What, host_at};

/// Bytes of one direction that are on their way or not read yet; beyond that a writer waits.
const UNREAD_BYTES_MAX: usize = 256 << 10;

/// Connections that were made and not accepted yet.
pub(super) type Queue = Waiting<(u64, SocketAddr)>;

/// An attempt to connect, until it has its answer.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) from: Host,
    is_open: Option<bool>,
    waker: Option<Waker>,
}

/// What goes over a connection.
#[derive(Debug)]
pub(super) enum Parcel {
    Bytes(Bytes),
    /// No more bytes will come.
    End,
    /// The other side is gone.
    Reset,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Way {
    travelling: VecDeque<Parcel>,
    arrived: VecDeque<Bytes>,
    unread: usize,
    /// When the last parcel arrives: none overtakes.
    last_us: u64,
    is_ended: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Ends {
    /// Who made it, and who was called; `None` once that side is gone.
    hosts: [Option<Host>; 2],
    places: [Host; 2],
    /// From the caller, and to it.
    ways: [Way; 2],
}

/// One side of a connection.
#[derive(Debug)]
pub struct SimStream {
    net: Net,
    connection: u64,
    is_caller: bool,
}

/// Takes connections at an address.
#[derive(Debug)]
pub struct SimListener {
    net: Net,
    address: SocketAddr,
}

impl Net {
    /// Takes connections at `address` from now on.
    pub fn listen(&self, address: SocketAddr) -> SimListener {
        self.live(|inner| drop(inner.listeners.insert(address, Queue::default())));
        SimListener {
            net: self.clone(),
            address,
        }
    }

    /// Connects. Dropping the future gives it up.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let begun = self.live(|inner| {
            let there = host_at(to)?;
            let connection = inner.fresh_id();
            let connecting = Connecting {
                from: self.host,
                is_open: None,
                waker: None,
            };
            inner.connecting.insert(connection, connecting);
            let after_us = inner.latency_us(self.host, there);
            let what = What::Knock { connection, to };
            inner.send(
                after_us,
                Travel {
                    from: self.host,
                    to: there,
                    what,
                },
            );
            Some(connection)
        });
        let connection = begun.flatten().ok_or(io::ErrorKind::NetworkUnreachable)?;
        let knocking = Knocking {
            net: self.clone(),
            connection,
        };
        let is_open = std::future::poll_fn(|context| knocking.poll(context)).await;
        if !is_open {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(SimStream {
            net: self.clone(),
            connection,
            is_caller: true,
        })
    }
}

/// Gives an attempt to connect up when it is dropped.
struct Knocking {
    net: Net,
    connection: u64,
}

impl Knocking {
    fn poll(&self, context: &mut Context<'_>) -> Poll<bool> {
        let answer = self.net.live(|inner| {
            let connecting = inner.connecting.get_mut(&self.connection)?;
            connecting.waker = Some(context.waker().clone());
            connecting.is_open
        });
        match answer {
            None => Poll::Ready(false),
            Some(None) => Poll::Pending,
            Some(Some(is_open)) => Poll::Ready(is_open),
        }
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.net.change(|inner| drop(inner.connecting.remove(&self.connection)));
    }
}

/// An attempt to connect has come to `to`.
pub(super) fn knock(inner: &mut Inner, connection: u64, from: Host, to: SocketAddr) {
    let there = host_at(to).expect("it was sent to a host");
    let is_open = inner.listeners.contains_key(&to) && inner.connecting.contains_key(&connection);
    if is_open {
        let ends = Ends {
            hosts: [Some(from), Some(there)],
            places: [from, there],
            ways: Default::default(),
        };
        inner.connections.insert(connection, ends);
        let caller = super::address(from, 0);
        if let Some(queue) = inner.listeners.get_mut(&to) {
            queue.push((connection, caller), &mut inner.wake);
        }
    }
    let after_us = inner.latency_us(there, from);
    let what = What::Answer { connection, is_open };
    inner.send(
        after_us,
        Travel {
            from: there,
            to: from,
            what,
        },
    );
}

/// The answer to an attempt to connect is back.
pub(super) fn answer(inner: &mut Inner, connection: u64, is_open: bool) {
    match inner.connecting.get_mut(&connection) {
        Some(connecting) => {
            connecting.is_open = Some(is_open);
            inner.wake.extend(connecting.waker.take());
        }
        // It was given up: the other side hears of it as of any caller that is gone.
        None if is_open => close(inner, connection, true, true),
        None => {}
    }
}

/// Sends a parcel after those before it.
pub(super) fn put(inner: &mut Inner, connection: u64, is_forth: bool, parcel: Parcel) {
    let Some(ends) = inner.connections.get(&connection) else {
        return;
    };
    let way = usize::from(!is_forth);
    let (from, to) = (ends.places[way], ends.places[1 - way]);
    let mut after_us = inner.latency_us(from, to);
    while inner.is_lost(from, to) {
        after_us += RESEND_US;
    }
    let now_us = inner.now_us;
    let Some(ends) = inner.connections.get_mut(&connection) else {
        return;
    };
    let way = &mut ends.ways[way];
    way.last_us = way.last_us.max(now_us + after_us);
    let after_us = way.last_us - now_us;
    way.travelling.push_back(parcel);
    let what = What::Parcel { connection, is_forth };
    inner.send(after_us, Travel { from, to, what });
}

/// The next parcel of one direction has come.
pub(super) fn arrive(inner: &mut Inner, connection: u64, is_forth: bool) {
    let Some(ends) = inner.connections.get_mut(&connection) else {
        return;
    };
    let index = usize::from(!is_forth);
    let (place, is_there) = (ends.places[1 - index], ends.hosts[1 - index].is_some());
    let way = &mut ends.ways[index];
    let Some(parcel) = way.travelling.pop_front() else {
        return;
    };
    if !is_there {
        let is_bytes = matches!(parcel, Parcel::Bytes(_));
        // Whoever sends to a process that is gone is told so, unless the machine is gone as well.
        if is_bytes && !inner.is_dark(place) {
            inner.parcel(connection, !is_forth, Parcel::Reset);
        }
        return;
    }
    match parcel {
        Parcel::Bytes(bytes) => {
            inner.trace.0.update(&bytes);
            way.arrived.push_back(bytes);
        }
        Parcel::End => way.is_ended = true,
        Parcel::Reset => {
            way.is_reset = true;
            let back = &mut ends.ways[1 - index];
            back.is_reset = true;
            inner.wake.extend(back.writer.take());
        }
    }
    let way = &mut inner.connections.get_mut(&connection).expect("it was there").ways[index];
    let reader = way.reader.take();
    inner.wake.extend(reader);
}

/// One side is gone; the other one is told. With `is_reset` it may have lost something.
fn close(inner: &mut Inner, connection: u64, is_caller: bool, is_reset: bool) {
    let Some(ends) = inner.connections.get_mut(&connection) else {
        return;
    };
    if ends.hosts[usize::from(!is_caller)].take().is_none() {
        return;
    }
    if ends.hosts.iter().all(Option::is_none) {
        inner.connections.remove(&connection);
        return;
    }
    let parcel = if is_reset { Parcel::Reset } else { Parcel::End };
    put(inner, connection, is_caller, parcel);
}

/// The process on a host is gone, with all its connections.
pub(super) fn abandon(inner: &mut Inner, host: Host, is_dark: bool) {
    let ids: Vec<u64> = inner.connections.keys().copied().collect();
    for connection in ids {
        for is_caller in [true, false] {
            let side = usize::from(!is_caller);
            let Some(ends) = inner.connections.get_mut(&connection) else {
                break;
            };
            if ends.hosts[side] != Some(host) {
                continue;
            }
            if is_dark {
                ends.hosts[side] = None;
                if ends.hosts.iter().all(Option::is_none) {
                    inner.connections.remove(&connection);
                }
            } else {
                close(inner, connection, is_caller, true);
            }
        }
    }
}

/// Ends every connection between two hosts at once.
pub(super) fn reset(inner: &mut Inner, one: Host, other: Host) {
    for ends in inner.connections.values_mut() {
        if ends.places != [one, other] && ends.places != [other, one] {
            continue;
        }
        for way in &mut ends.ways {
            way.is_reset = true;
            inner.wake.extend(way.reader.take());
            inner.wake.extend(way.writer.take());
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.net.live(|inner| {
            let unread = inner.connections.get(&self.connection).is_some_and(|ends| {
                let way = &ends.ways[usize::from(self.is_caller)];
                !way.arrived.is_empty()
            });
            close(inner, self.connection, self.is_caller, unread);
        });
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.net.live(|inner| {
            let Some(ends) = inner.connections.get_mut(&self.connection) else {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            };
            let way = &mut ends.ways[usize::from(self.is_caller)];
            let Some(first) = way.arrived.front_mut() else {
                if way.is_reset {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                if way.is_ended {
                    return Poll::Ready(Ok(()));
                }
                way.reader = Some(context.waker().clone());
                return Poll::Pending;
            };
            let count = first.len().min(into.remaining());
            into.put_slice(&first[..count]);
            first.advance(count);
            if first.is_empty() {
                way.arrived.pop_front();
            }
            way.unread -= count;
            inner.wake.extend(way.writer.take());
            Poll::Ready(Ok(()))
        });
        read.unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NetworkDown.into())))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.net.live(|inner| {
            let Some(ends) = inner.connections.get_mut(&self.connection) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let way = &mut ends.ways[usize::from(!self.is_caller)];
            if way.is_reset {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = bytes.len().min(UNREAD_BYTES_MAX.saturating_sub(way.unread));
            if count == 0 && !bytes.is_empty() {
                way.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            way.unread += count;
            inner.bytes += count as u64;
            let parcel = Parcel::Bytes(Bytes::copy_from_slice(&bytes[..count]));
            put(inner, self.connection, self.is_caller, parcel);
            Poll::Ready(Ok(count))
        });
        written.unwrap_or_else(|| Poll::Ready(Err(io::ErrorKind::NetworkDown.into())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net
            .live(|inner| put(inner, self.connection, self.is_caller, Parcel::End));
        Poll::Ready(Ok(()))
    }
}

impl SimListener {
    async fn next(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        let accepted = std::future::poll_fn(|context| {
            let first = self.net.live(|inner| {
                let queue = inner.listeners.get_mut(&self.address)?;
                let first = queue.items.pop_front();
                if first.is_none() {
                    queue.reader = Some(context.waker().clone());
                }
                first
            });
            // A process that is gone accepts nothing more: it waits for its end.
            first.flatten().map_or(Poll::Pending, Poll::Ready)
        });
        let (connection, caller) = accepted.await;
        let stream = SimStream {
            net: self.net.clone(),
            connection,
            is_caller: false,
        };
        Ok((stream, caller))
    }
}

impl Listen for SimListener {
    type Io = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        self.next().await
    }
}

impl api::Listen for SimListener {
    type Io = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        self.next().await
    }
}

impl Dial for Net {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move { Ok(Box::new(self.connect(address).await?) as Box<dyn Stream>) })
    }
}
