//! The last look: whether an attempt may still be made is asked directly before its first byte, after name lookup, TCP and TLS.
//!
//! An HTTP/1 request goes out in one piece: hyper puts its head into the write buffer, asks the body for its first frame, and
//! writes to the socket, all in one poll of the connection, whether that is a new one or one that was kept. So the look is the
//! request's body: it is asked once, right before the write, and where the answer is no, it fails, and hyper closes the
//! connection with the head unsent. Used by `deliver.rs` alone; what is looked at is the dispatcher's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::MaySend;

/// Nobody has asked yet: no byte has left.
const NOT_ASKED: u8 = 0;
/// The request may have left.
const ALLOWED: u8 = 1;
/// No byte leaves.
const REFUSED: u8 = 2;

/// What became of the last look of one attempt; shared with the connection that makes it.
#[derive(Clone)]
pub(super) struct LastLook(Arc<Look>);

struct Look {
    may_send: MaySend,
    seen: AtomicU8,
}

impl LastLook {
    pub(super) fn new(may_send: MaySend) -> Self {
        Self(Arc::new(Look {
            may_send,
            seen: AtomicU8::new(NOT_ASKED),
        }))
    }

    /// Asks, and keeps the answer.
    pub(super) fn ask(&self) -> bool {
        let is_allowed = (self.0.may_send)();
        let seen = if is_allowed { ALLOWED } else { REFUSED };
        self.0.seen.store(seen, Ordering::SeqCst);
        is_allowed
    }

    /// Whether a byte of the request may have left.
    pub(super) fn is_sent(&self) -> bool {
        self.0.seen.load(Ordering::SeqCst) == ALLOWED
    }

    /// Whether the attempt was given up at the last look.
    pub(super) fn is_refused(&self) -> bool {
        self.0.seen.load(Ordering::SeqCst) == REFUSED
    }
}

/// A request's body, which is sent only if the last look allows it.
pub(super) struct LookedAt {
    bytes: Option<Bytes>,
    look: LastLook,
}

/// The last look has refused the attempt.
#[derive(Debug, thiserror::Error)]
#[error("the attempt was withdrawn before its first byte")]
pub(super) struct Withdrawn;

impl LookedAt {
    /// `bytes` must not be empty: an empty body is never asked for.
    pub(super) fn new(bytes: Bytes, look: LastLook) -> Self {
        Self {
            bytes: Some(bytes),
            look,
        }
    }
}

impl Body for LookedAt {
    type Data = Bytes;
    type Error = Withdrawn;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withdrawn>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        let frame = if self.look.ask() {
            Ok(Frame::data(bytes))
        } else {
            Err(Withdrawn)
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.bytes.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(left as u64)
    }
}
