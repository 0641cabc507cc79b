//! A client of the API that says exactly what it knows: answered, refused, or unknown. Never tries again by itself.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::PATIENCE;

/// Not stored, or not known whether.
const UNAVAILABLE: u64 = 1004;
/// No such task.
const NOT_FOUND: u64 = 1008;
/// Too many requests: certainly not done.
pub const TOO_MANY: u64 = 1009;

/// What became of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Done; the answer's `data`, `Null` if it has none.
    Done(Value),
    /// Not done, and never will be: the code.
    Refused(u64, String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

impl Told {
    /// The data of a call that must have succeeded.
    pub fn done(self) -> Value {
        match self {
            Self::Done(data) => data,
            other => panic!("the call was not done: {other:?}"),
        }
    }

    /// The code of a call that must have been refused.
    pub fn refused(self) -> u64 {
        match self {
            Self::Refused(code, _) => code,
            other => panic!("the call was not refused: {other:?}"),
        }
    }
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: StatusCode,
    /// All of the body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection at a time to one node; a new one when the old one is gone.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// The header of that name, for the next request.
    if_match: Option<String>,
    /// How far the request is that is being made: what to tell if it never ends.
    stage: &'static str,
}

impl Client {
    /// Connects at the first call.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connection: None,
            if_match: None,
            stage: "nothing was asked",
        }
    }

    /// One request; an error is the reason why there is no answer.
    pub async fn request(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Reply, String> {
        let body = body.into();
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                self.connection = None;
                Err(error)
            }
            Err(elapsed) => panic!(
                "{path} of {}: no answer and no end within {PATIENCE:?} ({}): {elapsed}",
                self.address, self.stage
            ),
        }
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply, String> {
        self.connect().await.map_err(|error| format!("connect: {error}"))?;
        let connection = self.connection.as_mut().expect("connected");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "127.0.0.1")
            .header(CONTENT_TYPE, "application/json");
        if let Some(tag) = &self.if_match {
            request = request.header(IF_MATCH, tag);
        }
        let request = request
            .body(Full::new(body))
            .expect("the parts of the request are valid");
        self.stage = "the answer is waited for";
        let answer = connection
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status();
        self.stage = "the answer's body is waited for";
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(Reply {
            status,
            body: body.to_bytes(),
        })
    }

    async fn connect(&mut self) -> std::io::Result<()> {
        self.stage = "the connection of the last request is waited for";
        let is_usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !is_usable {
            self.stage = "connecting";
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            tokio::spawn(driver);
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// A call of `/xcron/*`.
    async fn call(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Told {
        let reply = match self.request(method, path, body).await {
            Ok(reply) => reply,
            Err(error) => return Told::Unknown(error),
        };
        let envelope: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|error| panic!("{path}: {error} in the answer {}", reply.text()));
        match envelope["code"].as_u64() {
            Some(0) => Told::Done(envelope["data"].clone()),
            Some(UNAVAILABLE) => Told::Unknown(envelope["message"].to_string()),
            Some(code) => Told::Refused(code, envelope["message"].to_string()),
            None => panic!("{path}: an answer without a code: {}", reply.text()),
        }
    }

    /// `createTask` with this body.
    pub async fn create(&mut self, task: impl Into<Bytes>) -> Told {
        self.call(Method::POST, "/xcron/createTask", task).await
    }

    /// `PUT /v1/tasks/{id}`, of the revision, where one is said. Refused with the code that the same has under `/xcron/`, or
    /// with the status.
    pub async fn update(&mut self, id: &str, replaces: Option<u64>, change: impl Into<Bytes>) -> Told {
        self.if_match = replaces.map(|revision| format!("\"{revision}\""));
        let told = self.call_v1(Method::PUT, id, change).await;
        self.if_match = None;
        told
    }

    /// `GET /v1/tasks/{id}`.
    pub async fn show(&mut self, id: &str) -> Told {
        self.call_v1(Method::GET, id, Bytes::new()).await
    }

    async fn call_v1(&mut self, method: Method, id: &str, body: impl Into<Bytes>) -> Told {
        let path = format!("/v1/tasks/{id}");
        let reply = match self.request(method, &path, body).await {
            Ok(reply) => reply,
            Err(error) => return Told::Unknown(error),
        };
        match reply.status {
            StatusCode::OK => {
                let json = serde_json::from_slice(&reply.body);
                Told::Done(json.unwrap_or_else(|error| panic!("{path}: {error} in the answer {}", reply.text())))
            }
            StatusCode::NOT_FOUND => Told::Refused(NOT_FOUND, reply.text()),
            StatusCode::SERVICE_UNAVAILABLE => Told::Unknown(reply.text()),
            StatusCode::TOO_MANY_REQUESTS => Told::Refused(TOO_MANY, reply.text()),
            status => Told::Refused(u64::from(status.as_u16()), reply.text()),
        }
    }

    /// `deleteTask`.
    pub async fn delete(&mut self, id: &str) -> Told {
        let body = json!({ "task_id": id }).to_string();
        self.call(Method::POST, "/xcron/deleteTask", body).await
    }

    /// `queryTask`.
    pub async fn query(&mut self, id: &str) -> Told {
        let path = format!("/xcron/queryTask?task_id={id}");
        self.call(Method::GET, &path, Bytes::new()).await
    }

    /// Number of successful deliveries of a task that must be there.
    pub async fn run_count(&mut self, id: &str) -> u64 {
        let data = self.query(id).await.done();
        data["run_count"].as_u64().expect("run_count is a number")
    }

    /// The value of a metric without labels that counts.
    pub async fn count(&mut self, name: &str) -> u64 {
        let page = self.request(Method::GET, "/metrics", Bytes::new()).await;
        let page = page.expect("the node answers").text();
        count(&page, name).unwrap_or_else(|| panic!("{name} is not among the metrics:\n{page}"))
    }
}

/// The value of one series that counts, on a page of metrics.
pub fn count(page: &str, series: &str) -> Option<u64> {
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value?.trim().parse().ok()
}

/// The body of a `createTask` of a one-shot; `body` is taken as it is.
pub fn one_shot(id: &str, due_secs: u64, url: &str, body: &str) -> String {
    format!(r#"{{"task_id":"{id}","type":2,"format":"{due_secs}","callback":{{"url":"{url}","body":{body}}}}}"#)
}

/// The body of a `createTask` of a periodic task.
pub fn periodic(id: &str, line: &str, url: &str, body: &str) -> String {
    format!(r#"{{"task_id":"{id}","type":1,"format":"{line}","callback":{{"url":"{url}","body":{body}}}}}"#)
}
