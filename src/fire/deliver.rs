//! Sends one attempt and says what came back. The only user of the HTTP client.
//!
//! Owns the client and its traps: timeouts, redirects, proxies, idle connections, the size of an answer. Does not judge an
//! answer (`core::retry`), choose what to send when (`queues`), or check whether a target may be called.
//! The dispatcher calls it through [`Deliver`], behind which a simulator puts its own targets.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONNECTION, HeaderValue};
use reqwest::{Body, Method, Request};
use serde::{Deserialize, Serialize};
use url::Url;

use self::answer::{failure, read_and_drop, summary};
use self::clients::Clients;
use self::headers::callback_headers;
use self::last_look::{LastLook, LookedAt};
use crate::clock::Clock;
use crate::core::reason::NoAnswer;
use crate::core::retry::Answer;
use crate::core::target::is_callable;
use crate::entropy::Entropy;
use crate::id::{FireId, TaskId};
use crate::limits::{ATTEMPT_TIMEOUT_MS_MAX, IDLE_PER_TARGET_MAX};

mod answer;
mod clients;
mod headers;
mod kept;
mod last_look;
mod names;

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
    /// The wall clock when the attempt was decided on, in milliseconds.
    pub now_ms: u64,
    /// It goes over a connection of its own: a kept one may be closed by the target just then, and the request be lost.
    pub needs_own_connection: bool,
}

/// Whether an attempt may still be made; asked after name lookup, TCP and TLS, directly before its first byte.
///
/// It looks at locks for a moment and never waits.
pub type MaySend = Box<dyn Fn() -> bool + Send + Sync>;

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It has ended.
    Ended {
        /// With this.
        answer: Answer,
        /// Whether a byte of the request may have left. If not, the target has not seen it.
        is_sent: bool,
    },
    /// [`MaySend`] said no: nothing was sent.
    Withdrawn,
    /// This node had no means to make it: nothing was sent, and the target has no part in it.
    NotTried(LocalLimit),
}

/// What a node may lack for an attempt. None of them says anything about the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalLimit {
    /// File descriptors, of the process or of the machine.
    Files,
    /// Memory for a socket.
    Memory,
    /// A free local port towards this target.
    Ports,
    /// A route: the machine has no network, or none that leads there.
    Route,
    /// A place among the lookups of names.
    Lookups,
}

impl LocalLimit {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Files, Self::Memory, Self::Ports, Self::Route, Self::Lookups];

    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Ports => "ports",
            Self::Route => "route",
            Self::Lookups => "lookups",
        }
    }
}

/// What [`Deliver::deliver`] gives: a future that ends within the attempt's time.
pub type Delivery = Pin<Box<dyn Future<Output = Delivered> + Send>>;

/// The way attempts leave the node.
pub trait Deliver: Debug + Send + Sync {
    /// Makes at most one attempt, and none unless `may_send` allows it at the last moment. Dropping the future gives it up; the
    /// target may have acted on it already.
    fn deliver(&self, attempt: Attempt, may_send: MaySend) -> Delivery;
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
    /// Most connections kept to all targets together; an attempt that finds no place for its connection closes it.
    pub idle_total: usize,
    /// Most lookups of names at the same time: as many as attempts may be in flight, so that none waits for others'.
    pub lookups_max: usize,
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
            idle_total: usize::MAX,
            lookups_max: usize::MAX,
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
    ExtraRoots(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// The TLS library refused its own defaults.
    #[error("TLS to targets cannot be set up")]
    Tls(#[source] rustls::Error),
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
}

/// Sends attempts over HTTP/1.1, with TLS where the URL says https. One is made per node: it holds all idle connections.
#[derive(Clone, Debug)]
pub struct HttpDeliver {
    clients: Arc<Clients>,
}

impl HttpDeliver {
    /// Builds the clients; this reads the machine's root certificates and takes some milliseconds.
    ///
    /// A machine without root certificates is warned about, not refused: its http targets work, and its https targets fail
    /// unless `extra_roots_pem` covers them.
    pub fn new(
        options: &DeliverOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, DeliverBuildError> {
        options.validate()?;
        let clients = Arc::new(Clients::new(options, clock, entropy)?);
        Ok(Self { clients })
    }
}

impl Deliver for HttpDeliver {
    fn deliver(&self, attempt: Attempt, may_send: MaySend) -> Delivery {
        Box::pin(send(Arc::clone(&self.clients), attempt, may_send))
    }
}

async fn send(clients: Arc<Clients>, attempt: Attempt, may_send: MaySend) -> Delivered {
    let now_ms = attempt.now_ms;
    let fire_id = attempt.fire_id;
    let look = LastLook::new(may_send);
    // A body without a byte is never asked for: this look is the last one then.
    if attempt.body.is_empty() && !look.ask() {
        return Delivered::Withdrawn;
    }
    let needs_own_connection = attempt.needs_own_connection;
    let Some(mut request) = request(attempt, look.clone()) else {
        return Delivered::Ended {
            answer: Answer::None { kind: NoAnswer::BadUrl },
            is_sent: false,
        };
    };
    // Held until the connection is idle again.
    let slot = (!needs_own_connection).then(|| clients.slot(request.url())).flatten();
    let client = if slot.is_some() {
        clients.kept()
    } else {
        let close = HeaderValue::from_static("close");
        request.headers_mut().insert(CONNECTION, close);
        clients.fresh()
    };
    match client.execute(request).await {
        Ok(response) => {
            let answer = summary(&response, now_ms);
            // The target has spoken: whatever becomes of the body, this is its answer.
            read_and_drop(response).await;
            Delivered::Ended { answer, is_sent: true }
        }
        Err(_) if look.is_refused() => Delivered::Withdrawn,
        Err(error) => {
            let failed = failure(&error, look.is_sent());
            tracing::debug!(%fire_id, ?failed, error = %chain(&error.without_url()), "an attempt had no answer");
            failed
        }
    }
}

/// `None` if the URL cannot be called.
fn request(attempt: Attempt, look: LastLook) -> Option<Request> {
    let url = Url::parse(&attempt.url).ok()?;
    if !is_callable(&url) {
        return None;
    }
    let mut request = Request::new(Method::POST, url);
    *request.headers_mut() = callback_headers(&attempt);
    *request.body_mut() = Some(Body::wrap(LookedAt::new(attempt.body, look)));
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
mod connection_tests;
#[cfg(test)]
mod hostile_target;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
