//! Reads a request's body: bounded in size, whole or not at all, and all of them together bounded in memory
//! (`bodies.rs`). Called by `call.rs`.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::bodies::{Full, Room};
use crate::limits::REQUEST_BYTES_MAX;

/// How much of a body that is too large is still read, and dropped, before the answer. A client that is still sending
/// would find its connection reset and miss the answer; one that sends more than this has to.
const DRAIN_BYTES_MAX: usize = 8 * REQUEST_BYTES_MAX;

/// First piece of memory for a body that does not come at once.
const STEP_BYTES_MIN: usize = 16 << 10;
/// When a request that found no room should come back.
pub(super) const RETRY_AFTER_MS: u64 = 1_000;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("the request must have at most {REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    /// The bodies of all requests take all the memory that they may.
    #[error(
        "too many requests: request_bodies_bytes is reached; nothing was done, try again after {RETRY_AFTER_MS} ms"
    )]
    NoRoom,
    /// The same, and this one had stalled: others needed its room.
    #[error(
        "the request's body had stalled while request_bodies_bytes was reached: it was given up, and nothing was done; try \
         again after {RETRY_AFTER_MS} ms"
    )]
    Stalled,
    /// The connection or the encoding broke.
    #[error("the request's body did not arrive whole: {0}")]
    Broken(axum::Error),
}

/// Whether the client has announced more than is taken.
pub(super) fn is_announced_too_large(body: &Body) -> bool {
    body.size_hint().lower() > REQUEST_BYTES_MAX as u64
}

/// A body that has come whole, and the room that it takes.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
}

/// Reads `body` to its end, into `room`. `waits` says that the client sends it only when asked to (`Expect: 100-continue`).
pub(super) async fn read(mut body: Body, waits: bool, mut room: Room) -> Result<Whole, BodyError> {
    if is_announced_too_large(&body) {
        if !waits {
            drain(body, 0).await;
        }
        return Err(BodyError::TooLarge);
    }
    let Some(first) = next(&mut body).await? else {
        let bytes = Bytes::new();
        return Ok(Whole { bytes, room });
    };
    if first.len() > REQUEST_BYTES_MAX {
        drain(body, first.len()).await;
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        room.grow(first.len()).map_err(|Full| BodyError::NoRoom)?;
        return Ok(Whole { bytes: first, room });
    }
    match collect(&mut body, first, &mut room).await {
        Ok(bytes) => {
            room.set_whole();
            Ok(Whole { bytes, room })
        }
        Err(error) => {
            // Nothing is held while the rest of it is dropped.
            drop(room);
            if matches!(error, BodyError::TooLarge | BodyError::NoRoom) {
                drain(body, REQUEST_BYTES_MAX).await;
            }
            Err(error)
        }
    }
}

/// Puts the pieces together. Each is copied, so that an upload that stalls holds what it is charged for, and no buffer of the
/// connection.
async fn collect(body: &mut Body, first: Bytes, room: &mut Room) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().upper().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let bytes_max = first.len().saturating_add(announced).min(REQUEST_BYTES_MAX);
    let mut whole = Vec::new();
    let mut chunk = first;
    loop {
        let needed = whole.len() + chunk.len();
        if needed > bytes_max {
            return Err(BodyError::TooLarge);
        }
        if needed > whole.capacity() {
            let capacity = needed.max(2 * whole.capacity()).max(STEP_BYTES_MIN).min(bytes_max);
            room.grow(capacity - whole.capacity())
                .map_err(|Full| BodyError::NoRoom)?;
            whole.reserve_exact(capacity - whole.len());
        }
        whole.extend_from_slice(&chunk);
        drop(chunk);
        room.wait();
        let given_up = room.given_up();
        chunk = tokio::select! {
            biased;
            chunk = next(body) => match chunk? {
                Some(chunk) => chunk,
                None => return Ok(whole.into()),
            },
            () = given_up => return Err(BodyError::Stalled),
        };
    }
}

/// The next bytes of `body`.
async fn next(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        // Trailers carry nothing of ours.
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn drain(mut body: Body, mut read: usize) {
    while read < DRAIN_BYTES_MAX {
        let Ok(Some(chunk)) = next(&mut body).await else {
            return;
        };
        read += chunk.len();
    }
}
