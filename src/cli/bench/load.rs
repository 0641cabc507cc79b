//! The first phase: creates tasks as fast as told, and records what became of each create.
//!
//! Owns the wire of `/xcron/createTask`. Answers go to the ledger (per task) and to a tally (sums).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::{Request, Uri, header};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::answer::Envelope;
use super::args::{Node, Settings};
use super::client::{CallError, Slot, Turns};
use super::figures::{Refusal, new_histogram};
use super::interrupt::Interrupt;
use super::ledger::{Answer, Ledger};
use super::progress::Progress;
use super::wall::wall_us;
use crate::clock::Clock;

/// The one code that does not say that the task was not stored.
const CODE_MAY_BE_STORED: i64 = 1004;
/// Most ids kept for the queries.
const IDS_MAX: u32 = 100_000;

/// What became of all creates.
#[derive(Debug)]
pub struct Tally {
    /// Answered with code 0.
    pub acked: u64,
    /// Answered with another code.
    pub refused: BTreeMap<i64, Refusal>,
    /// Sent, without an answer that can be read.
    pub unknown: u64,
    /// Why the first of them has none.
    pub unknown_example: Option<String>,
    /// Why a slot gave up, if one did.
    pub gave_up: Option<String>,
    /// Of all answered creates, in microseconds.
    pub latency_us: Histogram<u64>,
    /// From the start to the last answer.
    pub took: Duration,
    /// The last due of an acknowledged create, in seconds since the epoch.
    pub last_due_s: u64,
    /// Ids of tasks created, evenly taken from all of them.
    pub ids: Vec<String>,
}

struct Load {
    settings: Settings,
    callback_base: String,
    callback_body: String,
    path: Uri,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    start: Duration,
    start_us: u64,
    turns: Turns,
    tally: RefCell<Tally>,
}

/// Creates the tasks of `settings`, whose callbacks are to go to `callback_base` followed by the task's number.
/// Returns when all are answered or given up, or at the interrupt. Must run in a `LocalSet`.
pub async fn run(
    settings: &Settings,
    callback_base: String,
    ledger: &Arc<Ledger>,
    clock: &Arc<dyn Clock>,
    interrupt: &Interrupt,
) -> Tally {
    let load = Rc::new(Load {
        settings: settings.clone(),
        callback_base,
        callback_body: body_of(settings.body_bytes),
        path: Uri::from_static("/xcron/createTask"),
        ledger: Arc::clone(ledger),
        clock: Arc::clone(clock),
        start: clock.monotonic(),
        start_us: wall_us(),
        turns: Turns::new(settings.tasks, interrupt.clone()),
        tally: RefCell::new(Tally::new()),
    });
    let nodes: Rc<[Node]> = settings.nodes.clone().into();
    let mut slots = JoinSet::new();
    for number in 0..usize::from(settings.concurrency) {
        let (load, slot) = (Rc::clone(&load), Slot::new(Rc::clone(&nodes), number));
        slots.spawn_local(async move { load.work(slot).await });
    }
    let mut progress = Progress::new("creates", u64::from(settings.tasks), clock);
    loop {
        tokio::select! {
            joined = slots.join_next() => if joined.is_none() { break },
            () = sleep(Progress::TICK) => {
                let tally = load.tally.borrow();
                progress.show(tally.settled(), &tally.trouble());
            }
            () = interrupt.wait() => break,
        }
    }
    progress.finish(load.tally.borrow().settled());
    // A create still in flight at the interrupt stays unknown in the ledger.
    slots.shutdown().await;
    load.tally.replace(Tally::new())
}

impl Load {
    /// The life of one slot.
    async fn work(&self, mut slot: Slot) {
        while let Some(index) = self.turns.take() {
            let started = self.planned_start(index).await;
            let mut due_s = 0;
            let answer = slot.call(|node| {
                due_s = self
                    .settings
                    .dues
                    .due_s(self.start_us, wall_us(), index, self.settings.tasks);
                self.ledger.sent(index, due_s);
                self.request(node, index, due_s)
            });
            match answer.await {
                Ok(answer) => self.answered(index, due_s, started, &answer),
                Err(CallError::Lost(error)) => self.tally.borrow_mut().unknown(|| error),
                Err(error @ CallError::NotSent(_)) => {
                    self.tally.borrow_mut().gave_up = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// Waits until the create is to be sent, and returns the moment its latency counts from: the planned one if
    /// all slots were busy then, so that waiting for a slow node is part of the latency.
    async fn planned_start(&self, index: u32) -> Duration {
        let now = self.clock.monotonic();
        let Some(rate) = self.settings.rate else {
            return now;
        };
        let planned = self.start + Duration::from_secs_f64(f64::from(index) / rate);
        if planned <= now {
            return planned;
        }
        sleep(planned.saturating_sub(now)).await;
        self.clock.monotonic()
    }

    fn request(&self, node: &Node, index: u32, due_s: u64) -> Request<Full<Bytes>> {
        let mut json = Vec::with_capacity(128 + self.callback_base.len() + self.callback_body.len());
        let (base, body) = (&self.callback_base, &self.callback_body);
        let delivery = if self.settings.is_at_most_once {
            r#""delivery":"at_most_once","#
        } else {
            ""
        };
        write!(
            json,
            r#"{{"type":2,"format":"{due_s}",{delivery}"callback":{{"url":"{base}{index}","body":{body}}}}}"#
        )
        .expect("writing to a Vec does not fail");
        let mut request = Request::new(Full::new(Bytes::from(json)));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(header::HOST, node.host.clone());
        let content_type = header::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
        request
    }

    fn answered(&self, index: u32, due_s: u64, started: Duration, answer: &[u8]) {
        let now = self.clock.monotonic();
        let mut tally = self.tally.borrow_mut();
        let envelope = match Envelope::parse(answer) {
            Ok(envelope) => envelope,
            Err(error) => return tally.unknown(|| error),
        };
        tally.latency_us.saturating_record(micros(now.saturating_sub(started)));
        tally.took = now.saturating_sub(self.start);
        if envelope.code != 0 {
            let may_be_stored = envelope.code == CODE_MAY_BE_STORED;
            self.ledger.answered(
                index,
                if may_be_stored {
                    Answer::Unknown
                } else {
                    Answer::Refused
                },
            );
            let message = envelope.message.unwrap_or_default();
            return Refusal::count(&mut tally.refused, envelope.code, &message);
        }
        self.ledger.answered(index, Answer::Acked);
        tally.acked += 1;
        tally.last_due_s = tally.last_due_s.max(due_s);
        if self.settings.queries > 0 && index.is_multiple_of(self.settings.tasks.div_ceil(IDS_MAX)) {
            tally
                .ids
                .extend(envelope.data.and_then(|data| data.task_id).map(Into::into));
        }
    }
}

impl Tally {
    fn new() -> Self {
        Self {
            acked: 0,
            refused: BTreeMap::new(),
            unknown: 0,
            unknown_example: None,
            gave_up: None,
            latency_us: new_histogram(),
            took: Duration::ZERO,
            last_due_s: 0,
            ids: Vec::new(),
        }
    }

    fn unknown(&mut self, why: impl FnOnce() -> String) {
        self.unknown += 1;
        self.unknown_example.get_or_insert_with(why);
    }

    /// Creates answered with any code.
    pub fn answered(&self) -> u64 {
        self.acked + self.refused.values().map(|refusal| refusal.count).sum::<u64>()
    }

    fn settled(&self) -> u64 {
        self.answered() + self.unknown
    }

    fn trouble(&self) -> String {
        match self.settled() - self.acked {
            0 => String::new(),
            others => format!("{others} refused or unknown"),
        }
    }
}

/// A JSON object of `bytes` bytes, or the empty one if that is too few for a member.
pub fn body_of(bytes: usize) -> String {
    const FRAME: usize = r#"{"pad":""}"#.len();
    match bytes.checked_sub(FRAME) {
        Some(pad) => format!(r#"{{"pad":"{}"}}"#, "x".repeat(pad)),
        None => "{}".to_owned(),
    }
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_objects_of_the_size_asked_for() {
        for bytes in [10, 11, 64, 5_000] {
            let body = body_of(bytes);
            assert_eq!(body.len(), bytes);
            assert!(
                serde_json::from_str::<BTreeMap<String, String>>(&body).is_ok(),
                "{body}"
            );
        }
        assert_eq!(body_of(9), "{}");
    }
}
