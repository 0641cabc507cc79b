//! Ends a connection whose peer lets it wait for too long: for the head of a request, for a next request, or for taking an
//! answer. Used by `server.rs` alone; how long a body may take is the handlers'.
//!
//! Without this such a connection would hold its place for ever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::places::Place;

/// How long a peer may let the connection wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the rest of a request's head; for the first byte of a new connection.
    pub(super) head: Duration,
    /// For the first byte of another request.
    pub(super) idle: Duration,
    /// For any progress in taking an answer.
    pub(super) write: Duration,
}

/// What is waited for while nothing is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The first byte of a new connection.
    Fresh,
    /// The rest of a head.
    Head,
    /// Another request.
    Kept,
}

/// A connection that fails when its peer lets it wait for too long.
#[derive(Debug)]
pub(super) struct Stalling<Io> {
    io: Io,
    place: Arc<Place>,
    limits: Limits,
    wait: Wait,
    /// Requests that have begun so far.
    requests: u64,
    /// Runs while a read waits for the peer.
    read_deadline: Option<Pin<Box<Sleep>>>,
    /// Runs while a write waits for the peer.
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl<Io> Stalling<Io> {
    pub(super) fn new(io: Io, place: Arc<Place>, limits: Limits) -> Self {
        Self {
            io,
            place,
            limits,
            wait: Wait::Fresh,
            requests: 0,
            read_deadline: None,
            write_deadline: None,
        }
    }

    /// Waits for `wait` from now on; a wait that has begun goes on.
    fn wait_for(&mut self, wait: Wait) {
        if self.wait != wait {
            self.wait = wait;
            self.read_deadline = None;
        }
    }

    /// Nothing has come: an error when that has taken too long.
    fn read_bound(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.place.is_busy() {
            // Its body is the handler's to wait for.
            return Poll::Pending;
        }
        let limit = match self.wait {
            Wait::Fresh | Wait::Head => self.limits.head,
            Wait::Kept => self.limits.idle,
        };
        let deadline = self.read_deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer sends no request",
        )))
    }

    /// `written`, or an error when the peer has been waited for too long.
    fn write_bound<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_deadline = None;
            return written;
        }
        let limit = self.limits.write;
        let deadline = self.write_deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer does not read its answers",
        )))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Stalling<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let requests = self.place.requests();
        if requests != self.requests {
            // The head has come whole; what follows is another one.
            self.requests = requests;
            self.wait = Wait::Kept;
            self.read_deadline = None;
        }
        let before = into.filled().len();
        match Pin::new(&mut self.io).poll_read(cx, into) {
            Poll::Pending => self.read_bound(cx),
            Poll::Ready(read) => {
                if into.filled().len() > before && !self.place.is_busy() {
                    self.wait_for(Wait::Head);
                }
                Poll::Ready(read)
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Stalling<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.write_bound(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.write_bound(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.write_bound(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.io).poll_shutdown(cx);
        self.write_bound(cx, ended)
    }
}
