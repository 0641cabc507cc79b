//! What this machine gives in this minute: synced appends a second of the disk, POSTs a second of the sink.
//!
//! The same two figures before and after a run make runs comparable on machines whose speed changes by the minute.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use tokio::task::JoinSet;

use super::args::{Node, Settings};
use super::client::Slot;
use super::figures::Probe;
use super::load::body_of;
use super::sink::Sink;
use crate::clock::Clock;

const APPEND_BYTES: usize = 256;
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Runs both probes, one after the other; about 2 seconds. Must run in a `LocalSet`.
pub async fn run(settings: &Settings, dir: &Path, sink: &Sink, clock: &Arc<dyn Clock>) -> anyhow::Result<Probe> {
    let (path, disk_clock) = (dir.to_owned(), Arc::clone(clock));
    let fdatasyncs_per_s = tokio::task::spawn_blocking(move || fdatasyncs_per_s(&path, &*disk_clock))
        .await
        .context("the disk probe stopped")??;
    Ok(Probe {
        fdatasyncs_per_s,
        sink_posts_per_s: posts_per_s(settings, sink, clock).await?,
    })
}

/// The probe's file; removed when dropped.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("xcron-bench-{}.probe", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("--probe-dir: cannot create {}", path.display()))?;
        Ok(Self { path, file })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Failing to remove it harms nothing but tidiness.
        drop(std::fs::remove_file(&self.path));
    }
}

fn fdatasyncs_per_s(dir: &Path, clock: &dyn Clock) -> anyhow::Result<f64> {
    let mut scratch = Scratch::create(dir)?;
    let start = clock.monotonic();
    let mut syncs = 0_u32;
    loop {
        let append = scratch.file.write_all(&[b'x'; APPEND_BYTES]);
        append
            .and_then(|()| scratch.file.sync_data())
            .context("--probe-dir: cannot write")?;
        syncs += 1;
        let took = clock.monotonic().saturating_sub(start);
        if took >= PROBE_TIME {
            return Ok(f64::from(syncs) / took.as_secs_f64());
        }
    }
}

/// POSTs of a callback's shape straight at the sink, on as many connections as the load has.
async fn posts_per_s(settings: &Settings, sink: &Sink, clock: &Arc<dyn Clock>) -> anyhow::Result<f64> {
    let authority = sink.address().to_string();
    let host = HeaderValue::from_str(&authority).context("the sink's address as a header")?;
    let nodes: Rc<[Node]> = [Node { authority, host }].into();
    let (headers, body) = (callback_headers(), Bytes::from(body_of(settings.body_bytes)));
    let (posts, start) = (Rc::new(Cell::new(0_u32)), clock.monotonic());
    let mut slots = JoinSet::new();
    for number in 0..usize::from(settings.concurrency) {
        let (mut slot, clock) = (Slot::new(Rc::clone(&nodes), number), Arc::clone(clock));
        let (headers, body, posts) = (headers.clone(), body.clone(), Rc::clone(&posts));
        slots.spawn_local(async move {
            while clock.monotonic().saturating_sub(start) < PROBE_TIME {
                slot.call(|node| probe_request(node, &headers, &body)).await?;
                posts.set(posts.get() + 1);
            }
            anyhow::Ok(())
        });
    }
    while let Some(slot) = slots.join_next().await {
        slot.context("the sink probe stopped")?
            .context("the sink does not answer")?;
    }
    Ok(f64::from(posts.get()) / clock.monotonic().saturating_sub(start).as_secs_f64())
}

fn callback_headers() -> HeaderMap {
    [
        (header::CONTENT_TYPE, "application/json"),
        (header::USER_AGENT, "xcron/probe"),
        (
            HeaderName::from_static("webhook-id"),
            "0190aaaa-0000-7000-8000-000000000000",
        ),
        (HeaderName::from_static("webhook-timestamp"), "1800000000"),
        (
            HeaderName::from_static("xcron-task-id"),
            "0190aaaa-0000-7000-8000-000000000000",
        ),
        (HeaderName::from_static("xcron-due"), "2027-01-15T08:00:00.000Z"),
        (HeaderName::from_static("xcron-attempt"), "1"),
        (HeaderName::from_static("xcron-run"), "1"),
        (HeaderName::from_static("xcron-generation"), "1"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .into_iter()
    .collect()
}

fn probe_request(node: &Node, headers: &HeaderMap, body: &Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/probe");
    request.headers_mut().clone_from(headers);
    request.headers_mut().insert(header::HOST, node.host.clone());
    request
}
