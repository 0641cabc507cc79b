//! The optional second phase: asks for tasks that the first has created.
//!
//! Owns the wire of `/xcron/queryTask`. The tasks are taken from all over the run, in an order without a pattern.

use std::cell::RefCell;
use std::collections::BTreeMap;
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
use super::load::micros;
use super::progress::Progress;
use crate::clock::Clock;

/// What became of all queries.
#[derive(Debug)]
pub struct QueryTally {
    /// Answered with code 0 and the id asked for.
    pub found: u64,
    /// Answered with another code.
    pub refused: BTreeMap<i64, Refusal>,
    /// Without an answer that can be read, or with another task's.
    pub failed: u64,
    /// Why the first of them failed.
    pub failed_example: Option<String>,
    /// Of all answered, in microseconds.
    pub latency_us: Histogram<u64>,
    /// From the start to the end.
    pub took: Duration,
}

/// Sends `settings.queries` queries for tasks of `ids`. Must run in a `LocalSet`.
pub async fn run(settings: &Settings, ids: Vec<String>, clock: &Arc<dyn Clock>, interrupt: &Interrupt) -> QueryTally {
    let tally = Rc::new(RefCell::new(QueryTally {
        found: 0,
        refused: BTreeMap::new(),
        failed: 0,
        failed_example: None,
        latency_us: new_histogram(),
        took: Duration::ZERO,
    }));
    let start = clock.monotonic();
    let queries = if ids.is_empty() { 0 } else { settings.queries };
    let turns = Turns::new(queries, interrupt.clone());
    let (ids, nodes): (Rc<[String]>, Rc<[Node]>) = (ids.into(), settings.nodes.clone().into());
    let mut slots = JoinSet::new();
    for number in 0..usize::from(settings.concurrency) {
        let slot = Slot::new(Rc::clone(&nodes), number);
        let (turns, ids, tally, clock) = (turns.clone(), Rc::clone(&ids), Rc::clone(&tally), Arc::clone(clock));
        slots.spawn_local(async move { work(slot, turns, &ids, &tally, &*clock).await });
    }
    let mut progress = Progress::new("queries", u64::from(queries), clock);
    loop {
        tokio::select! {
            joined = slots.join_next() => if joined.is_none() { break },
            () = sleep(Progress::TICK) => progress.show(tally.borrow().done(), ""),
            () = interrupt.wait() => break,
        }
    }
    slots.shutdown().await;
    progress.finish(tally.borrow().done());
    let mut tally = Rc::into_inner(tally).expect("the slots have ended").into_inner();
    tally.took = clock.monotonic().saturating_sub(start);
    tally
}

async fn work(mut slot: Slot, turns: Turns, ids: &[String], tally: &RefCell<QueryTally>, clock: &dyn Clock) {
    while let Some(turn) = turns.take() {
        let id = &ids[scattered(turn, ids.len())];
        let started = clock.monotonic();
        let answer = slot.call(|node| request(node, id)).await;
        let gave_up = matches!(answer, Err(CallError::NotSent(_)));
        let took = clock.monotonic().saturating_sub(started);
        tally.borrow_mut().count(id, took, answer);
        if gave_up {
            return;
        }
    }
}

/// A place below `len` for every turn: the golden ratio's multiples are spread evenly and look random.
fn scattered(turn: u32, len: usize) -> usize {
    let place = (u64::from(turn.wrapping_mul(0x9E37_79B1)) * len as u64) >> 32;
    usize::try_from(place).unwrap_or(0)
}

fn request(node: &Node, id: &str) -> Request<Full<Bytes>> {
    let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let mut request = Request::new(Full::default());
    *request.uri_mut() =
        Uri::try_from(format!("/xcron/queryTask?task_id={id}")).expect("a form-encoded id is valid in a URI");
    request.headers_mut().insert(header::HOST, node.host.clone());
    request
}

impl QueryTally {
    fn count(&mut self, id: &str, took: Duration, answer: Result<Bytes, CallError>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.fail(error.to_string()),
        };
        let envelope = match Envelope::parse(&answer) {
            Ok(envelope) => envelope,
            Err(error) => return self.fail(error),
        };
        self.latency_us.saturating_record(micros(took));
        if envelope.code != 0 {
            return Refusal::count(&mut self.refused, envelope.code, &envelope.message.unwrap_or_default());
        }
        match envelope.data.and_then(|data| data.task_id) {
            Some(found) if found == id => self.found += 1,
            other => self.fail(format!("asked for task {id}, answered with {other:?}")),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.failed_example.get_or_insert(why);
    }

    fn done(&self) -> u64 {
        self.found + self.failed + self.refused.values().map(|refusal| refusal.count).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn queries_are_spread_over_all_tasks() {
        let places: BTreeSet<_> = (0..1_000).map(|turn| scattered(turn, 1_000)).collect();
        assert!(places.len() > 600, "{}", places.len());
        assert!(places.iter().all(|&place| place < 1_000));
    }
}
