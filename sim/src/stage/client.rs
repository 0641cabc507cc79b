//! A client of the API: speaks HTTP to a node over the network, and writes down what it asked and what it was told.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::timeout;
use xcron::core::instant::{instant_ms, rfc3339_ms};

use super::Stage;
use crate::history::{Call, Op, Shown, Task, Told, When};
use crate::host::API_PORT;
use crate::net::{self, Net};
use crate::oracle::linear;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// Could not be stored: not done, or unknown. The message tells which, the code does not.
const UNAVAILABLE: u64 = 1004;
/// Hosts of clients come after those of nodes.
const FIRST_HOST: usize = 100;

/// A client, one call at a time.
pub struct Client {
    pub(super) stage: Stage,
    net: Net,
    number: usize,
    node: usize,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Stage {
    /// A client of node `node`; each number once.
    pub fn client(&self, number: usize, node: usize) -> Client {
        Client {
            stage: self.clone(),
            net: self.net.join(FIRST_HOST + number),
            number,
            node,
            connection: None,
        }
    }
}

impl Client {
    /// From now on it asks another node.
    pub fn turn_to(&mut self, node: usize) {
        if node != self.node {
            self.connection = None;
        }
        self.node = node;
    }

    /// Makes a call.
    pub async fn call(&mut self, call: Call) -> Told {
        let from_us = self.stage.now_us();
        let answer = timeout(PATIENCE, self.ask(&call)).await.unwrap_or_else(|_| {
            self.connection = None;
            None
        });
        let told = answer.map_or(Told::Unknown, |answer| read(&call, &answer));
        tracing::debug!(client = self.number, node = self.node, ?call, ?told, "call");
        self.stage.recorder.lock().ops.push(Op {
            client: self.number,
            node: self.node,
            call,
            from_us,
            to_us: self.stage.now_us(),
            told: told.clone(),
        });
        told
    }

    /// `POST /xcron/createTask`.
    pub async fn create(&mut self, task: Task) -> Told {
        self.call(Call::Create(task)).await
    }

    /// `PUT /v1/tasks/{id}`.
    pub async fn update(&mut self, task: Task, replaces: Option<u32>) -> Told {
        self.call(Call::Update { task, replaces }).await
    }

    /// `GET /v1/tasks/{id}`.
    pub async fn show(&mut self, id: &str) -> Told {
        self.call(Call::Show(id.to_owned())).await
    }

    /// `POST /xcron/deleteTask`.
    pub async fn delete(&mut self, id: &str) -> Told {
        self.call(Call::Delete(id.to_owned())).await
    }

    /// `GET /xcron/queryTask`.
    pub async fn query(&mut self, id: &str) -> Told {
        self.call(Call::Query(id.to_owned())).await
    }

    async fn ask(&mut self, call: &Call) -> Option<Value> {
        let (method, path, body) = request(call);
        let replaces = match call {
            Call::Update { replaces, .. } => *replaces,
            _ => None,
        };
        self.exchange(method, &path, body, replaces).await
    }

    /// Sends any request; the answer's JSON, if one came.
    pub async fn send(&mut self, method: Method, path: &str, body: String) -> Option<Value> {
        self.exchange(method, path, body, None).await
    }

    async fn exchange(&mut self, method: Method, path: &str, body: String, replaces: Option<u32>) -> Option<Value> {
        let address = net::address(self.node, API_PORT);
        let mut sender = match self.connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect(address).await?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string());
        if let Some(revision) = replaces {
            request = request.header("if-match", format!("\"{revision}\""));
        }
        let request = request.body(Full::from(body)).expect("a request of known parts");
        let response = sender.send_request(request).await.ok()?;
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        self.connection = Some(sender);
        serde_json::from_slice(&bytes).ok()
    }

    async fn connect(&self, address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
        let stream = self.net.connect(address).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // An error of the connection is an error of its request as well.
        tokio::spawn(async move { drop(connection.await) });
        Some(sender)
    }
}

fn request(call: &Call) -> (Method, String, String) {
    match call {
        Call::Create(task) => {
            let (kind, format, zone) = match &task.when {
                When::Once(second) => (2, second.to_string(), "UTC"),
                When::Cron { line, zone } => (1, line.clone(), zone.as_str()),
            };
            // The body by hand: its bytes must stay as they are.
            let body = format!(
                r#"{{"type":{kind},"format":{},"timezone":{},"task_id":{},"callback":{{"url":{},"body":{}}},"delivery":{}}}"#,
                json!(format),
                json!(zone),
                json!(task.id),
                json!(task.url),
                task.body,
                json!(delivery(task)),
            );
            (Method::POST, "/xcron/createTask".into(), body)
        }
        Call::Update { task, .. } => {
            let schedule = match &task.when {
                When::Once(second) => json!({ "at": rfc3339_ms(second * 1_000) }),
                When::Cron { line, zone } => json!({ "cron": line, "timezone": zone }),
            };
            let body = format!(
                r#"{{"schedule":{schedule},"callback":{{"url":{},"body":{}}},"delivery":{}}}"#,
                json!(task.url),
                task.body,
                json!(delivery(task)),
            );
            (Method::PUT, format!("/v1/tasks/{}", task.id), body)
        }
        Call::Show(id) => (Method::GET, format!("/v1/tasks/{id}"), String::new()),
        Call::Delete(id) => (
            Method::POST,
            "/xcron/deleteTask".into(),
            json!({ "task_id": id }).to_string(),
        ),
        Call::Query(id) => (Method::GET, format!("/xcron/queryTask?task_id={id}"), String::new()),
    }
}

fn delivery(task: &Task) -> &'static str {
    if task.at_most_once {
        "at_most_once"
    } else {
        "at_least_once"
    }
}

/// What an answer under `/v1` says.
fn read_v1(call: &Call, answer: &Value) -> Told {
    let Some(revision) = answer["revision"].as_u64() else {
        return match answer["code"].as_str() {
            Some("task_not_found") => Told::Refused(linear::NOT_FOUND),
            Some("outdated") => Told::Refused(linear::OUTDATED),
            Some("past") => Told::Refused(linear::PAST),
            Some("unavailable") | None => Told::Unknown,
            Some(_) => Told::Refused(0),
        };
    };
    let Call::Show(_) = call else {
        return Told::Done;
    };
    let schedule = &answer["schedule"];
    let at = schedule["at"]
        .as_str()
        .and_then(instant_ms)
        .map(|ms| (ms / 1_000).to_string());
    Told::Shown(Shown {
        format: at.unwrap_or_else(|| schedule["cron"].as_str().unwrap_or_default().to_owned()),
        url: answer["callback"]["url"].as_str().unwrap_or_default().to_owned(),
        body: answer["callback"]["body"].to_string(),
        run_count: answer["counts"]["delivered"].as_u64().unwrap_or(u64::MAX),
        revision: u32::try_from(revision).ok(),
    })
}

fn read(call: &Call, answer: &Value) -> Told {
    if let Call::Update { .. } | Call::Show(_) = call {
        return read_v1(call, answer);
    }
    match (answer["code"].as_u64(), call) {
        (Some(0), Call::Query(_)) => {
            let data = &answer["data"];
            Told::Shown(Shown {
                format: data["format"].as_str().unwrap_or_default().to_owned(),
                url: data["callback"]["url"].as_str().unwrap_or_default().to_owned(),
                body: data["callback"]["body"].to_string(),
                run_count: data["run_count"].as_u64().unwrap_or(u64::MAX),
                revision: None,
            })
        }
        (Some(0), _) => Told::Done,
        (Some(UNAVAILABLE) | None, _) => Told::Unknown,
        (Some(code), _) => Told::Refused(code),
    }
}
