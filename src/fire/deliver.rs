//! Sends one attempt and says what came back. The only user of the HTTP client.
//!
//! Owns the client and its traps: timeouts, redirects, proxies, idle connections, the size of an answer. Does not judge an
//! answer (`core::retry`), choose what to send when (`queues`), or check whether a target may be called.
//! The dispatcher calls it through [`Deliver`], behind which a simulator puts its own targets.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Certificate, Client, ClientBuilder, Method, Request, redirect, retry};
use serde::{Deserialize, Serialize};
use url::Url;

use self::answer::{no_answer, read_and_drop, summary};
use self::headers::callback_headers;
use crate::core::retry::{Answer, NoAnswer};
use crate::core::target::is_callable;
use crate::id::{FireId, TaskId};
use crate::limits::{ATTEMPT_TIMEOUT_MS_MAX, IDLE_PER_TARGET_MAX};

mod answer;
mod headers;

/// How long an unused connection is kept. Servers close theirs after 5 s and more; a POST that meets the closing is lost, and
/// it cannot be repeated within the attempt, since the target may have acted on it.
const IDLE_MS: u64 = 4_000;
const USER_AGENT: &str = concat!("xcron/", env!("CARGO_PKG_VERSION"));

/// One HTTP request to make.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Where it goes.
    pub url: Arc<str>,
    /// What it carries: the client's JSON, byte for byte.
    pub body: Bytes,
    /// The task's name.
    pub task_id: TaskId,
    /// The fire's name, the same for each of its attempts.
    pub fire_id: FireId,
    /// The fire's due instant.
    pub due_ms: u64,
    /// Number of this attempt in the fire, from 1.
    pub attempt: u16,
    /// Number of this due in the task, from 1.
    pub run: u64,
    /// Generation of the shard's ownership under which this is sent.
    pub generation: u64,
    /// The wall clock at the time of sending, in milliseconds.
    pub now_ms: u64,
}

/// What [`Deliver::deliver`] gives: a future that ends with an answer, within the attempt's time.
pub type Delivery = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The way attempts leave the node.
pub trait Deliver: Debug + Send + Sync {
    /// Makes exactly one attempt. Dropping the future gives it up; the target may have acted on it already.
    fn deliver(&self, attempt: Attempt) -> Delivery;
}

/// Settings of [`HttpDeliver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliverOptions {
    /// Longest time for a connection, in milliseconds: name lookup, TCP and TLS. 1 to `timeout_ms`.
    pub connect_timeout_ms: u64,
    /// Longest time for an attempt in all, in milliseconds, from its start to the end of the answer's body.
    /// 1 to [`ATTEMPT_TIMEOUT_MS_MAX`].
    pub timeout_ms: u64,
    /// Most idle connections kept to one target: 0 to [`IDLE_PER_TARGET_MAX`].
    pub idle_per_target: usize,
    /// Certificates in PEM that https targets may be signed by, besides those the machine trusts.
    #[serde(skip)]
    pub extra_roots_pem: Option<Vec<u8>>,
}

impl Default for DeliverOptions {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            timeout_ms: 10_000,
            idle_per_target: 64,
            extra_roots_pem: None,
        }
    }
}

/// Why an [`HttpDeliver`] could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeliverBuildError {
    /// `timeout_ms` is out of bounds.
    #[error("timeout_ms is {0}: set 1 to {ATTEMPT_TIMEOUT_MS_MAX}")]
    Timeout(u64),
    /// `connect_timeout_ms` is out of bounds.
    #[error("connect_timeout_ms is {0}: set 1 up to timeout_ms")]
    ConnectTimeout(u64),
    /// `idle_per_target` is out of bounds.
    #[error("idle_per_target is {0}: set 0 to {IDLE_PER_TARGET_MAX}")]
    Idle(usize),
    /// `extra_roots_pem` holds no certificate, or one that cannot be read.
    #[error("the extra root certificates cannot be used: give certificates in PEM")]
    ExtraRoots(#[source] Option<reqwest::Error>),
    /// The HTTP client refused to be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
}

impl DeliverOptions {
    fn validate(&self) -> Result<(), DeliverBuildError> {
        if !(1..=ATTEMPT_TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(DeliverBuildError::Timeout(self.timeout_ms));
        }
        if !(1..=self.timeout_ms).contains(&self.connect_timeout_ms) {
            return Err(DeliverBuildError::ConnectTimeout(self.connect_timeout_ms));
        }
        if self.idle_per_target > IDLE_PER_TARGET_MAX {
            return Err(DeliverBuildError::Idle(self.idle_per_target));
        }
        Ok(())
    }

    fn extra_roots(&self) -> Result<Vec<Certificate>, DeliverBuildError> {
        let Some(pem) = &self.extra_roots_pem else {
            return Ok(Vec::new());
        };
        let roots = Certificate::from_pem_bundle(pem).map_err(|e| DeliverBuildError::ExtraRoots(Some(e)))?;
        if roots.is_empty() {
            return Err(DeliverBuildError::ExtraRoots(None));
        }
        Ok(roots)
    }

    /// A client with every default that is wrong for callbacks replaced.
    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(Duration::from_millis(self.connect_timeout_ms))
            .timeout(Duration::from_millis(self.timeout_ms))
            .pool_idle_timeout(Duration::from_millis(IDLE_MS))
            .pool_max_idle_per_host(self.idle_per_target)
            // A followed redirect turns the POST into a GET without a body, whose 200 says nothing.
            .redirect(redirect::Policy::none())
            // Retries are the policy's alone: one attempt is one request.
            .retry(retry::never())
            // Otherwise HTTP_PROXY of whoever started the node takes every callback, also those to loopback.
            .no_proxy()
            .http1_only()
    }
}

/// Sends attempts over HTTP/1.1, with TLS where the URL says https. One is made per node: it holds all idle connections.
#[derive(Clone, Debug)]
pub struct HttpDeliver {
    client: Client,
}

impl HttpDeliver {
    /// Builds the client; this reads the machine's root certificates and takes some milliseconds.
    ///
    /// A machine without root certificates is warned about, not refused: its http targets work, and its https targets fail
    /// unless `extra_roots_pem` covers them.
    pub fn new(options: &DeliverOptions) -> Result<Self, DeliverBuildError> {
        options.validate()?;
        let roots = options.extra_roots()?;
        // An error means that the process has a provider already, and then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let with_machine_roots = options.builder().tls_certs_merge(roots.clone()).build();
        let client = match with_machine_roots {
            Ok(client) => client,
            Err(error) => {
                let client = options.builder().tls_certs_only(roots).build();
                let client = client.map_err(|error| match options.extra_roots_pem {
                    Some(_) => DeliverBuildError::ExtraRoots(Some(error)),
                    None => DeliverBuildError::Client(error),
                })?;
                tracing::warn!(
                    error = %chain(&error),
                    "no root certificates on this machine: callbacks to https fail; install ca-certificates or set SSL_CERT_FILE"
                );
                client
            }
        };
        Ok(Self { client })
    }
}

impl Deliver for HttpDeliver {
    fn deliver(&self, attempt: Attempt) -> Delivery {
        Box::pin(send(self.client.clone(), attempt))
    }
}

async fn send(client: Client, attempt: Attempt) -> Answer {
    let now_ms = attempt.now_ms;
    let fire_id = attempt.fire_id;
    let Some(request) = request(attempt) else {
        let kind = NoAnswer::BadUrl;
        return Answer::None { kind };
    };
    match client.execute(request).await {
        Ok(response) => {
            let answer = summary(&response, now_ms);
            // The target has spoken: whatever becomes of the body, this is its answer.
            read_and_drop(response).await;
            answer
        }
        Err(error) => {
            let kind = no_answer(&error);
            tracing::debug!(%fire_id, ?kind, error = %chain(&error.without_url()), "an attempt had no answer");
            Answer::None { kind }
        }
    }
}

/// `None` if the URL cannot be called.
fn request(attempt: Attempt) -> Option<Request> {
    let url = Url::parse(&attempt.url).ok()?;
    if !is_callable(&url) {
        return None;
    }
    let mut request = Request::new(Method::POST, url);
    *request.headers_mut() = callback_headers(&attempt);
    *request.body_mut() = Some(attempt.body.into());
    Some(request)
}

/// An error with all its causes: the outermost one alone says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod hostile_target;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
