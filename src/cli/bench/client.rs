//! One slot of load: a keep-alive connection to a node that is opened again when it breaks.
//!
//! Tells apart what decides whether a create counts: a request that surely never left this machine is sent again, one
//! that may have arrived is not. Used by the creates, the queries and the sink's probe.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::args::Node;
use super::interrupt::Interrupt;
use crate::limits::ANSWER_BYTES_MAX;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect, and how many a request makes: a restart of a node takes less than these 10 s.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECTS_MAX: usize = 100;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It never left this machine.
    #[error("no node took a connection in {max} attempts: {0}", max = RECONNECTS_MAX)]
    NotSent(String),
    /// It left; whether it arrived is not known.
    #[error("{0}")]
    Lost(String),
}

/// The numbers of the requests of one phase, given out in order to all slots until they are used up.
#[derive(Debug, Clone)]
pub struct Turns {
    next: Rc<Cell<u32>>,
    end: u32,
    interrupt: Interrupt,
}

impl Turns {
    /// From 0 to below `end`, or until the interrupt.
    pub fn new(end: u32, interrupt: Interrupt) -> Self {
        Self {
            next: Rc::new(Cell::new(0)),
            end,
            interrupt,
        }
    }

    /// The next number, if there is one.
    pub fn take(&self) -> Option<u32> {
        let turn = self.next.get();
        if turn >= self.end || self.interrupt.happened() {
            return None;
        }
        self.next.set(turn + 1);
        Some(turn)
    }
}

/// A connection and the nodes it may be opened to.
#[derive(Debug)]
pub struct Slot {
    nodes: Rc<[Node]>,
    /// The node in use.
    at: usize,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Slot {
    /// The slot with this number: slots go round the nodes.
    pub fn new(nodes: Rc<[Node]>, number: usize) -> Self {
        Self {
            at: number % nodes.len(),
            nodes,
            sender: None,
        }
    }

    /// Sends what `request` builds for a node, and reads the whole answer whatever its status. Must run in a
    /// `LocalSet`. `request` is asked again if the first could not be sent.
    pub async fn call(&mut self, mut request: impl FnMut(&Node) -> Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        let mut failure = String::new();
        for attempt in 0..RECONNECTS_MAX {
            let Some(sender) = &mut self.sender else {
                match open(&self.nodes[self.at]).await {
                    Ok(sender) => self.sender = Some(sender),
                    Err(error) => {
                        failure = error;
                        self.at = (self.at + 1) % self.nodes.len();
                        sleep(RECONNECT_PAUSE).await;
                    }
                }
                continue;
            };
            let answer = timeout(ANSWER_TIMEOUT, exchange(sender, request(&self.nodes[self.at]))).await;
            let error = match answer {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => CallError::Lost(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
            };
            self.sender = None;
            match error {
                CallError::NotSent(error) => {
                    failure = error;
                    // An idle connection that was closed is normal once; a new one closed at once is not.
                    if attempt > 0 {
                        sleep(RECONNECT_PAUSE).await;
                    }
                }
                lost @ CallError::Lost(_) => return Err(lost),
            }
        }
        Err(CallError::NotSent(failure))
    }
}

/// Checks that something listens at `node`.
pub async fn reach(node: &Node) -> Result<(), String> {
    open(node).await.map(drop)
}

async fn open(node: &Node) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(&node.authority)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())),
    };
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its error reaches the request in flight as well, which is where it is counted.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
    sender
        .ready()
        .await
        .map_err(|error| CallError::NotSent(error.to_string()))?;
    let response = sender.try_send_request(request).await.map_err(|mut error| {
        let never_left = error.take_message().is_some();
        let error = error.into_error().to_string();
        if never_left {
            CallError::NotSent(error)
        } else {
            CallError::Lost(error)
        }
    })?;
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(answer.map_err(|error| CallError::Lost(error.to_string()))?.to_bytes())
}
