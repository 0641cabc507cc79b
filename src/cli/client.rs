//! One request to a node's API, for commands that make few of them.
//!
//! Called by `cluster.rs` and `dev/`; `bench` has its own client, which counts what was lost on the way.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderMap, LINK};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Longest time an answer may take: a node that is asked for the cluster waits a second for each silent one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer that is not a node's is shown.
const SHOWN_CHARS_MAX: usize = 200;
/// Largest answer that is read: thousands of nodes and groups.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Sends a request without a body.
pub(super) async fn call(url: &str, method: Method) -> anyhow::Result<Bytes> {
    send(url, method, Bytes::new()).await
}

/// Reads one of several answers, and the path of the next, as the header `Link` names it.
pub(super) async fn page(url: &str) -> anyhow::Result<(Bytes, Option<String>)> {
    let (body, headers) = exchange(url, Method::GET, Bytes::new()).await?;
    let link = headers.get(LINK).and_then(|link| link.to_str().ok());
    let next = link.and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""));
    Ok((body, next.map(str::to_owned)))
}

/// Sends a request and reads the answer, which must be a success.
pub(super) async fn send(url: &str, method: Method, body: Bytes) -> anyhow::Result<Bytes> {
    exchange(url, method, body).await.map(|(body, _)| body)
}

async fn exchange(url: &str, method: Method, body: Bytes) -> anyhow::Result<(Bytes, HeaderMap)> {
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Full::new(body))
        .with_context(|| format!("{url} is no URL of a node's API, such as http://127.0.0.1:8000"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        anyhow::Ok((
            status,
            headers,
            body.map_err(|error| anyhow::anyhow!(error))?.to_bytes(),
        ))
    };
    let (status, headers, body) = tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("{url} did not answer within {} s", PATIENCE.as_secs()))?
        .with_context(|| format!("cannot reach {url} (no node listens there; the API of another one: --api)"))?;
    match status {
        StatusCode::OK | StatusCode::ACCEPTED => Ok((body, headers)),
        _ => bail!("{url} answered {status}: {}", told(&body)),
    }
}

/// The base of an API's URLs, whose scheme may be left out.
pub(super) fn base(text: &str) -> String {
    let text = text.trim_end_matches('/');
    if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    }
}

/// What an answer says is wrong: the words of a problem document or an envelope; of anything else its first line.
fn told(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["detail", "message", "reason"]
        .iter()
        .find_map(|field| json[*field].as_str());
    if let Some(words) = words {
        return words.to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let line: String = text
        .trim()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(SHOWN_CHARS_MAX)
        .collect();
    format!("{line:?}. Is that the API of a node?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_left_out() {
        for (text, url) in [
            ("127.0.0.1:8001", "http://127.0.0.1:8001"),
            ("http://a:1/", "http://a:1"),
            ("[::1]:8000", "http://[::1]:8000"),
        ] {
            assert_eq!(base(text), url);
        }
    }

    #[test]
    fn an_answer_is_told_in_its_own_words_or_in_few() {
        assert_eq!(
            told(br#"{"title":"t","detail":"nobody can take over"}"#),
            "nobody can take over"
        );
        assert_eq!(told(br#"{"code":404,"message":"no such path"}"#), "no such path");
        let page = format!("<html>{}\n<p>", "x".repeat(5_000));
        let shown = told(page.as_bytes());
        assert!(shown.len() < 300 && shown.ends_with("the API of a node?"), "{shown}");
    }
}
