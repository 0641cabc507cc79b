//! One attempt over HTTP: the callback request and the classification of its answer. The only user of reqwest.
//!
//! A client that is left at its defaults waits for ever, follows redirects (and loses the body), obeys proxy variables and
//! reuses connections that the target is just closing; all four are closed here. What an answer means is `core/retry.rs`.

use std::error::Error as _;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};

use crate::core::instant::rfc3339;
use crate::core::retry::{Answer, NoAnswer};
use crate::id::FireId;
use crate::limits::ANSWER_BYTES_MAX;

/// Idle connections are dropped before a common server would: Node's default keep-alive is 5 s.
const IDLE: Duration = Duration::from_secs(4);
/// Most headers in an answer.
const ANSWER_HEADERS_MAX: usize = 100;

/// Everything that one request says.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where to.
    pub url: String,
    /// The task's bytes, as the client sent them.
    pub body: Bytes,
    /// The task.
    pub task_id: String,
    /// The same for every attempt of a fire.
    pub fire_id: FireId,
    /// The due instant.
    pub due_ms: u64,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// Number of the due in the task, from 1.
    pub run: u64,
    /// Fencing token of the leader that fires.
    pub generation: u64,
    /// When the attempt starts.
    pub now_ms: u64,
}

/// The way to the targets. A simulation has its own.
pub trait Deliver: Debug + Send + Sync + 'static {
    /// Makes one request and waits for its answer; always completes.
    fn deliver(&self, attempt: Attempt) -> Pin<Box<dyn Future<Output = Answer> + Send>>;
}

/// Settings of the HTTP client.
#[derive(Clone, Copy, Debug)]
pub struct DeliverOptions {
    /// For the whole attempt, connecting included, in milliseconds.
    pub timeout_ms: u64,
    /// For connecting, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Idle connections kept for one target.
    pub idle_per_target_max: usize,
}

/// The HTTP client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for callbacks cannot be built: {0}")]
pub struct DeliverBuildError(String);

/// Callbacks over HTTP/1.1, with TLS for `https`.
#[derive(Clone, Debug)]
pub struct HttpDeliver(Client);

impl HttpDeliver {
    /// Builds the client, once: it holds the connections.
    pub fn new(options: DeliverOptions) -> Result<Self, DeliverBuildError> {
        // An error only says that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("xcron/", env!("CARGO_PKG_VERSION")))
            .timeout(Duration::from_millis(options.timeout_ms))
            .connect_timeout(Duration::from_millis(options.connect_timeout_ms))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .http1_max_headers(ANSWER_HEADERS_MAX)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.idle_per_target_max)
            .build()
            .map_err(|error| DeliverBuildError(describe(&error)))?;
        Ok(Self(client))
    }
}

impl Deliver for HttpDeliver {
    fn deliver(&self, attempt: Attempt) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let headers = headers(&attempt);
        let request = self.0.post(&attempt.url).headers(headers).body(attempt.body);
        Box::pin(async move {
            match request.send().await {
                Ok(response) => answer(response).await,
                Err(error) => {
                    tracing::debug!(
                        task = attempt.task_id,
                        error = describe(&error),
                        "a callback had no answer"
                    );
                    Answer::None { kind: classify(&error) }
                }
            }
        })
    }
}

fn headers(attempt: &Attempt) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(10);
    let fire_id = attempt.fire_id.to_string();
    let ascii = |text: &str| HeaderValue::from_str(text).expect("ids and numbers are visible ASCII");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("webhook-id", ascii(&fire_id));
    headers.insert("webhook-timestamp", HeaderValue::from(attempt.now_ms / 1_000));
    headers.insert("xcron-task-id", ascii(&attempt.task_id));
    headers.insert("xcron-due", ascii(&rfc3339(attempt.due_ms)));
    headers.insert("xcron-attempt", HeaderValue::from(attempt.attempt));
    headers.insert("xcron-run", HeaderValue::from(attempt.run));
    headers.insert("xcron-generation", HeaderValue::from(attempt.generation));
    // The fire is the trace, so that all its attempts are found together; the span tells them apart.
    let span = (attempt.generation << 16 | u64::from(attempt.attempt)).max(1);
    headers.insert("traceparent", ascii(&format!("00-{fire_id}-{span:016x}-01")));
    headers
}

/// Reads what was answered. The status counts also if the rest of the answer is slow, broken or too long: the target has
/// the request then.
async fn answer(mut response: Response) -> Answer {
    let code = response.status().as_u16();
    let retry_after_ms = response.headers().get(RETRY_AFTER).and_then(retry_after_ms);
    let mut left = ANSWER_BYTES_MAX;
    // A connection whose answer was read to its end is used again; any other is closed.
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    Answer::Status { code, retry_after_ms }
}

/// The seconds of a `Retry-After`. Its date form is not understood and counts as absent.
fn retry_after_ms(value: &HeaderValue) -> Option<u64> {
    let seconds: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}

fn classify(error: &reqwest::Error) -> NoAnswer {
    if error.is_builder() {
        NoAnswer::BadUrl
    } else if error.is_connect() {
        NoAnswer::Connect
    } else if error.is_timeout() {
        NoAnswer::Timeout
    } else if error.is_request() {
        NoAnswer::Reset
    } else {
        NoAnswer::Other
    }
}

/// The error with its causes: reqwest's own text leaves them out.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
