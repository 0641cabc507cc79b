//! What every call does, whatever its form: reads its body within bounds of size and time, and waits no longer than it may.
//!
//! Used by `compat.rs` and `v1.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Extensions;
use hyper::header::EXPECT;
use tokio::time::timeout;

use super::bodies::Bodies;
use super::body::{self, BodyError, Whole};
use super::envelope::{LATE, MALFORMED, Refusal, TOO_LARGE, TOO_MANY, UNAVAILABLE};
use super::server::RequestTimeout;
use crate::clock::SystemClock;

/// Whether a query string is content with any copy of the task.
pub(super) fn is_stale(query: &str) -> Result<bool, Refusal> {
    let mut pairs = ::url::form_urlencoded::parse(query.as_bytes());
    match pairs.find(|(name, _)| name == "consistency") {
        None => Ok(false),
        Some((_, value)) if value == "linearizable" => Ok(false),
        Some((_, value)) if value == "stale" => Ok(true),
        Some(_) => Err(Refusal::new(
            MALFORMED,
            "`consistency` must be \"stale\" or \"linearizable\" (the default)",
        )),
    }
}

/// The whole body, and its room, which is to be kept until the request is answered.
pub(super) async fn read(request: Request, limit: Option<Duration>) -> Result<Whole, Refusal> {
    let waits = request.headers().contains_key(EXPECT);
    let is_too_large = body::is_announced_too_large(request.body());
    let bodies = request.extensions().get::<Bodies>().cloned();
    // Without a server, as in tests, there is nobody to share with.
    let bodies = bodies.unwrap_or_else(|| Bodies::new(Arc::new(SystemClock::default())));
    let whole = match within(limit, body::read(request.into_body(), waits, bodies.begin())).await {
        Some(whole) => whole,
        // What is still to come would not have been taken.
        None if is_too_large => Err(BodyError::TooLarge),
        None => {
            let within_ms = limit.unwrap_or_default().as_millis();
            let message = format!("the request's body did not arrive within {within_ms} ms; nothing was done");
            return Err(Refusal::new(LATE, message));
        }
    };
    whole.map_err(|error| {
        let message = error.to_string();
        match error {
            BodyError::TooLarge => Refusal::new(TOO_LARGE, message),
            BodyError::NoRoom | BodyError::Stalled => Refusal {
                code: TOO_MANY,
                message,
                retry_after_ms: Some(body::RETRY_AFTER_MS),
                is_disk_reserve: false,
            },
            BodyError::Broken(_) => Refusal::new(MALFORMED, message),
        }
    })
}

/// The server's bound on the time of each step of a request; none when there is no server, as in tests.
pub(super) fn time_limit(extensions: &Extensions) -> Option<Duration> {
    extensions.get::<RequestTimeout>().map(|limit| limit.0)
}

/// `None`: it took longer.
pub(super) async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// The refusal of what took longer.
pub(super) fn late(limit: Option<Duration>, what: &str, retry: &str) -> Refusal {
    let within_ms = limit.unwrap_or_default().as_millis();
    Refusal::new(
        UNAVAILABLE,
        format!("{what}: no outcome within {within_ms} ms; {retry}"),
    )
}
