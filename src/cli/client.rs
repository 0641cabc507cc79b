//! One request to a node's API, for commands that make few of them.
//!
//! Called by `cluster.rs` and `dev/`; `bench` has its own client, which counts what was lost on the way.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Longest time an answer may take: a node that is asked for the cluster waits a second for each silent one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read: thousands of nodes and groups.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Sends a request without a body.
pub(super) async fn call(url: &str, method: Method) -> anyhow::Result<Bytes> {
    send(url, method, Bytes::new()).await
}

/// Sends a request and reads the answer, which must be a success.
pub(super) async fn send(url: &str, method: Method, body: Bytes) -> anyhow::Result<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Full::new(body))
        .with_context(|| format!("{url} is not a URL such as http://127.0.0.1:8000"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        anyhow::Ok((status, body.map_err(|error| anyhow::anyhow!(error))?.to_bytes()))
    };
    let (status, body) = tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{url} did not answer within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("cannot reach {url}; is a node listening there?"))?;
    match status {
        StatusCode::OK | StatusCode::ACCEPTED => Ok(body),
        _ => bail!("{url} answered {status}: {}", String::from_utf8_lossy(&body)),
    }
}
