//! The target of the demo's callbacks: answers each with 200 and prints it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::super::print;
use super::tally::{Arrival, Tally};
use crate::cli::callback::Callback;
use crate::clock::Clock;
use crate::core::instant::rfc3339_ms;
use crate::limits::BODY_BYTES_MAX;

/// Bytes of a body that are printed.
const SHOWN_BYTES_MAX: usize = 200;
/// Pause after an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What a callback needs.
#[derive(Clone)]
pub struct Receiver {
    /// Which callbacks are owed.
    pub tally: Arc<Mutex<Tally>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

impl Receiver {
    /// Listens on a free port of loopback and serves until the runtime ends. Returns where.
    pub async fn start(self) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen for callbacks")?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let receiver = self.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| receiver.receive(request));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A broken connection is the caller's to notice.
                    drop(connection.await);
                });
            }
        });
        Ok(address)
    }

    async fn receive(&self, request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
        let now_ms = self.clock.wall_ms();
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_or(Bytes::new(), http_body_util::Collected::to_bytes);
        let line = self.line(&head.headers, &body, now_ms);
        // Who closes its output does not want to see it.
        drop(print(&line));
        Ok(Response::new(Empty::new()))
    }

    fn line(&self, headers: &HeaderMap, body: &[u8], now_ms: u64) -> String {
        let callback = Callback::from_headers(headers);
        let id = String::from_utf8_lossy(callback.task_id.unwrap_or(b"?")).into_owned();
        let arrival = self.tally.lock().arrived(&id, now_ms);
        let time = rfc3339_ms(now_ms);
        let generation = headers.get("xcron-generation").and_then(|value| value.to_str().ok());
        let lateness = match callback.due_ms {
            Some(due_ms) if due_ms > now_ms => format!("{} ms EARLY", due_ms - now_ms),
            Some(due_ms) => format!("+{} ms", now_ms - due_ms),
            None => "no due".to_owned(),
        };
        let what = match arrival {
            Arrival::First => String::new(),
            Arrival::Again => "  AGAIN".to_owned(),
            Arrival::Foreign => format!("  {}", shown(body)),
        };
        let generation = generation.unwrap_or("?");
        format!(
            "{} {lateness:>9}  {id}  (generation {generation}){what}\n",
            &time[11..23]
        )
    }
}

/// The beginning of a body, without line ends.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
    let rest = if body.len() > SHOWN_BYTES_MAX { "..." } else { "" };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text + rest
}
