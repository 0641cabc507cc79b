//! Reads a request's body: bounded in size, whole or not at all. Called by `compat.rs`.

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::limits::REQUEST_BYTES_MAX;

/// How much of a body that is too large is still read, and dropped, before the answer. A client that is still sending
/// would find its connection reset and miss the answer; one that sends more than this has to.
const DRAIN_BYTES_MAX: usize = 8 * REQUEST_BYTES_MAX;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// More than [`REQUEST_BYTES_MAX`].
    #[error("the request must have at most {REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    /// The connection or the encoding broke.
    #[error("the request's body did not arrive whole: {0}")]
    Broken(axum::Error),
}

/// Whether the client has announced more than is taken.
pub(super) fn is_announced_too_large(body: &Body) -> bool {
    body.size_hint().lower() > REQUEST_BYTES_MAX as u64
}

/// Reads `body` to its end. `waits` says that the client sends it only when asked to (`Expect: 100-continue`).
pub(super) async fn read(mut body: Body, waits: bool) -> Result<Bytes, BodyError> {
    if is_announced_too_large(&body) {
        if !waits {
            drain(body, 0).await;
        }
        return Err(BodyError::TooLarge);
    }
    let Some(first) = next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > REQUEST_BYTES_MAX {
        drain(body, first.len()).await;
        return Err(BodyError::TooLarge);
    }
    let Some(second) = next(&mut body).await? else {
        return Ok(first);
    };
    let mut whole = BytesMut::from(first);
    let mut chunk = second;
    loop {
        if whole.len() + chunk.len() > REQUEST_BYTES_MAX {
            let read = whole.len() + chunk.len();
            drop((whole, chunk));
            drain(body, read).await;
            return Err(BodyError::TooLarge);
        }
        whole.extend_from_slice(&chunk);
        chunk = match next(&mut body).await? {
            Some(chunk) => chunk,
            None => return Ok(whole.freeze()),
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
