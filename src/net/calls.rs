//! The calls on one dialed connection: what waits to be sent, what waits for its answer, and what becomes of both when time
//! or the connection ends. Owns the difference between [`CallError::NotSent`] and [`CallError::Unknown`]: a call whose frame
//! was given to the connection may have been executed, any other was not.
//!
//! `client.rs` puts calls in, sends what [`Calls::take`] gives, and reports answers and the end. Knows no socket.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::frame::{Frame, HEADER_BYTES, Kind, Stamp};
use super::offset::Moment;
use super::{CallError, Service};
use crate::limits::PEER_MESSAGE_BYTES_MAX;

/// Calls of one connection that wait for their answers, sent or not.
const CALLS_MAX: usize = 4_096;
/// Bytes of one connection that wait to be sent.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Bytes taken for sending at once: calls beyond it can still be given up without having been sent, and small ones still pass
/// them.
const BATCH_BYTES: usize = 256 << 10;
/// A call of at most so many bytes is small: heartbeats and votes are, and go before what is larger. Leases hang on them.
const SMALL_BYTES: usize = 1 << 10;

// Whatever may be sent at all has room in an empty queue.
const _: () = assert!(PEER_MESSAGE_BYTES_MAX + HEADER_BYTES <= QUEUE_BYTES_MAX);
const _: () = assert!(SMALL_BYTES < BATCH_BYTES / 2);

type Answer = Result<Bytes, CallError>;

#[derive(Debug, Default)]
pub(super) struct Calls {
    inner: Mutex<Inner>,
    /// Told of each new call.
    added: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    last_id: u64,
    /// Ids to send, in this order: small calls, and others. Each is also in `waiting`.
    small: VecDeque<u64>,
    large: VecDeque<u64>,
    queued_bytes: usize,
    waiting: BTreeMap<u64, Waiting>,
    /// Why no call is taken any more.
    closed: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    /// Until it is taken for sending.
    frame: Option<Frame>,
    asked: Moment,
    /// A ping of the connection's own has none.
    answer: Option<oneshot::Sender<Answer>>,
}

impl Calls {
    /// Makes a call and waits for its end.
    pub(super) async fn call(&self, service: Service, body: Bytes, asked: Moment, deadline: Duration) -> Answer {
        let frame = Frame {
            service: service as u8,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            body,
            ..Frame::bare(Kind::Request, 0)
        };
        self.ask(frame, asked, deadline).await
    }

    /// Asks whether the peer is there, and waits for the answer.
    pub(super) async fn ping(&self, asked: Moment, deadline: Duration) -> Result<(), CallError> {
        self.ask(Frame::bare(Kind::Ping, 0), asked, deadline).await.map(drop)
    }

    /// Asks the same for the connection's own sake: nobody waits.
    pub(super) fn ping_unwatched(&self, asked: Moment) {
        // A full queue is not idle: what is in it does as well.
        drop(self.inner.lock().push(Frame::bare(Kind::Ping, 0), asked, None));
        self.added.notify_one();
    }

    async fn ask(&self, frame: Frame, asked: Moment, deadline: Duration) -> Answer {
        let (answer, mut answered) = oneshot::channel();
        let id = self.inner.lock().push(frame, asked, Some(answer))?;
        self.added.notify_one();
        let given_up = GiveUp { calls: self, id };
        if let Ok(Ok(answer)) = timeout(deadline, &mut answered).await {
            return answer;
        }
        let was_sent = self.inner.lock().remove(id).map(|waiting| waiting.frame.is_none());
        drop(given_up);
        match was_sent {
            Some(true) => Err(CallError::Unknown(format!(
                "no answer within {} ms",
                deadline.as_millis()
            ))),
            Some(false) => Err(CallError::NotSent(format!(
                "not sent within {} ms",
                deadline.as_millis()
            ))),
            // It was answered in the same moment.
            None => answered
                .try_recv()
                .unwrap_or_else(|_| Err(CallError::Unknown("the connection ended".into()))),
        }
    }

    /// Completes when there is something to send. Only one may wait.
    pub(super) async fn ready(&self) {
        while self.inner.lock().is_idle() {
            self.added.notified().await;
        }
    }

    /// Moves what is to be sent into `frames`, up to a bound, with the sender's time and log. From here on it counts as sent.
    pub(super) fn take(&self, stamp: Stamp, frames: &mut Vec<Frame>) {
        let mut inner = self.inner.lock();
        let mut bytes = 0;
        // Half of each batch is left to the large ones: they wait, and are not forgotten.
        while bytes < BATCH_BYTES {
            let small_first = bytes < BATCH_BYTES / 2;
            let Some(id) = inner.next_id(small_first) else { break };
            let waiting = inner.waiting.get_mut(&id).expect("what is queued is waiting");
            let frame = waiting.frame.take().expect("what is queued was not taken");
            bytes += frame.bytes();
            frames.push(frame.stamped(stamp));
        }
        inner.queued_bytes -= bytes;
    }

    /// Ends the call that `frame` answers; when it was asked, or `None` if nobody waits for it any more.
    pub(super) fn answer(&self, frame: Frame) -> Option<Moment> {
        let waiting = self.inner.lock().remove(frame.id)?;
        let answer = match frame.kind {
            Kind::Busy => Err(CallError::NotSent(
                "the peer is busy with as many requests as it takes".into(),
            )),
            Kind::Unserved => Err(CallError::NotSent(
                "the peer does not know this service: it runs an older release".into(),
            )),
            Kind::Failed => Err(CallError::Unknown("the peer took the request and has no answer".into())),
            Kind::Response | Kind::Pong | Kind::Request | Kind::Ping => Ok(frame.body),
        };
        if let Some(waiter) = waiting.answer {
            // Whoever waited may be gone in this very moment.
            drop(waiter.send(answer));
        }
        Some(waiting.asked)
    }

    /// Ends all calls, and refuses further ones.
    pub(super) fn close(&self, why: &str) {
        let waiting = {
            let mut inner = self.inner.lock();
            inner.closed.get_or_insert_with(|| why.to_owned());
            inner.small.clear();
            inner.large.clear();
            inner.queued_bytes = 0;
            std::mem::take(&mut inner.waiting)
        };
        for waiting in waiting.into_values() {
            let error = if waiting.frame.is_some() {
                CallError::NotSent(why.to_owned())
            } else {
                CallError::Unknown(why.to_owned())
            };
            if let Some(waiter) = waiting.answer {
                drop(waiter.send(Err(error)));
            }
        }
    }
}

impl Inner {
    fn push(&mut self, frame: Frame, asked: Moment, answer: Option<oneshot::Sender<Answer>>) -> Result<u64, CallError> {
        if let Some(why) = &self.closed {
            return Err(CallError::NotSent(why.clone()));
        }
        if frame.body.len() > PEER_MESSAGE_BYTES_MAX {
            return Err(CallError::NotSent(format!(
                "a request of {} bytes: at most {PEER_MESSAGE_BYTES_MAX} can be sent",
                frame.body.len()
            )));
        }
        if self.waiting.len() >= CALLS_MAX {
            return Err(CallError::NotSent(format!(
                "{CALLS_MAX} calls to the peer wait already"
            )));
        }
        if self.queued_bytes + frame.bytes() > QUEUE_BYTES_MAX {
            return Err(CallError::NotSent(format!(
                "{} bytes wait to be sent to the peer already",
                self.queued_bytes
            )));
        }
        self.last_id += 1;
        let id = self.last_id;
        if frame.kind == Kind::Ping {
            // First: the queue may be long, and it tells whether the peer is there.
            self.small.push_front(id);
        } else {
            self.queue_of(frame.body.len()).push_back(id);
        }
        self.queued_bytes += frame.bytes();
        let frame = Some(Frame { id, ..frame });
        self.waiting.insert(id, Waiting { frame, asked, answer });
        Ok(id)
    }

    /// Nothing is to be sent.
    fn is_idle(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    fn next_id(&mut self, small_first: bool) -> Option<u64> {
        let [first, second] = if small_first {
            [&mut self.small, &mut self.large]
        } else {
            [&mut self.large, &mut self.small]
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    fn queue_of(&mut self, body_bytes: usize) -> &mut VecDeque<u64> {
        if body_bytes <= SMALL_BYTES {
            &mut self.small
        } else {
            &mut self.large
        }
    }

    /// Takes a call out, wherever it is.
    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if let Some(frame) = &waiting.frame {
            self.queued_bytes -= frame.bytes();
            let frame_bytes = frame.body.len();
            self.queue_of(frame_bytes).retain(|queued| *queued != id);
        }
        Some(waiting)
    }
}

/// Takes the call out when its future is dropped: what was not sent is not sent any more.
struct GiveUp<'a> {
    calls: &'a Calls,
    id: u64,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.calls.inner.lock().remove(self.id);
    }
}

#[cfg(test)]
mod tests;
