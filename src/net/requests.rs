//! The requests on one accepted connection: how many are being done, and the answers that wait to be sent. Owns the bounds:
//! beyond them a request is answered busy, and beyond that the connection is read no further.
//!
//! `server.rs` begins requests and sends what [`Requests::take`] gives. Knows no socket.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::frame::{Frame, Kind, Stamp};
use crate::limits::PEER_MESSAGE_BYTES_MAX;

/// Requests of one connection that are being done or wait with their answers.
const REQUESTS_MAX: usize = 2_048;
/// Bytes of the requests of one connection that are being done.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Bytes of answers waiting to be sent on one connection, beyond which no request is begun.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Frames waiting to be sent on one connection, beyond which nothing is read from it.
const ANSWERS_MAX: usize = 2 * REQUESTS_MAX;
/// Bytes taken for sending at once.
const BATCH_BYTES: usize = 256 << 10;

// Whatever may be sent at all is taken by who does nothing else.
const _: () = assert!(PEER_MESSAGE_BYTES_MAX <= REQUEST_BYTES_MAX);

#[derive(Debug, Default)]
pub(super) struct Requests {
    inner: Mutex<Inner>,
    /// Told of each new answer.
    answered: Notify,
    /// Told when answers were taken.
    taken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Requests begun whose answers were not taken yet.
    open: usize,
    running_bytes: usize,
    answers: VecDeque<Frame>,
    answer_bytes: usize,
}

impl Requests {
    /// Begins a request of so many bytes; `None` if there are too many, which is answered.
    pub(super) fn begin(self: &Arc<Self>, id: u64, bytes: usize) -> Option<Running> {
        let mut inner = self.inner.lock();
        if inner.open >= REQUESTS_MAX
            || inner.running_bytes + bytes > REQUEST_BYTES_MAX
            || inner.answer_bytes > ANSWER_BYTES_MAX
        {
            drop(inner);
            self.answer(Frame::bare(Kind::Busy, id));
            return None;
        }
        inner.open += 1;
        inner.running_bytes += bytes;
        Some(Running {
            requests: self.clone(),
            id,
            bytes,
            answer: Frame::bare(Kind::Failed, id),
        })
    }

    /// Queues what needs no work.
    pub(super) fn answer(&self, frame: Frame) {
        let mut inner = self.inner.lock();
        inner.answer_bytes += frame.bytes();
        if frame.kind == Kind::Pong {
            // First, for the sake of the clock's offset.
            inner.answers.push_front(frame);
        } else {
            inner.answers.push_back(frame);
        }
        drop(inner);
        self.answered.notify_one();
    }

    /// Completes when there is room for further answers. Only one may wait.
    pub(super) async fn room(&self) {
        while self.inner.lock().answers.len() >= ANSWERS_MAX {
            self.taken.notified().await;
        }
    }

    /// Completes when there is an answer to send. Only one may wait.
    pub(super) async fn ready(&self) {
        while self.inner.lock().answers.is_empty() {
            self.answered.notified().await;
        }
    }

    /// Moves answers into `frames`, up to a bound, with the sender's time and log.
    pub(super) fn take(&self, stamp: Stamp, frames: &mut Vec<Frame>) {
        let mut inner = self.inner.lock();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(frame) = inner.answers.pop_front()
        {
            bytes += frame.bytes();
            inner.open -= usize::from(matches!(frame.kind, Kind::Response | Kind::Failed));
            frames.push(frame.stamped(stamp));
        }
        inner.answer_bytes -= bytes;
        drop(inner);
        self.taken.notify_one();
    }
}

/// A request that is being done. Answered when dropped, at the latest: a caller is told also of a panic.
#[derive(Debug)]
pub(super) struct Running {
    requests: Arc<Requests>,
    id: u64,
    bytes: usize,
    answer: Frame,
}

impl Running {
    /// Ends the request. An answer too long to be sent is none.
    pub(super) fn end(mut self, body: Bytes) {
        if body.len() <= PEER_MESSAGE_BYTES_MAX {
            self.answer = Frame {
                body,
                ..Frame::bare(Kind::Response, self.id)
            };
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.requests.inner.lock().running_bytes -= self.bytes;
        let answer = Frame::bare(Kind::Failed, self.id);
        self.requests.answer(std::mem::replace(&mut self.answer, answer));
    }
}
