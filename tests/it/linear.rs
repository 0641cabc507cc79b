//! Clients on all nodes create, update, delete and query few tasks at the same time while nodes are killed, restarted and paused:
//! for each task some order of its calls explains every answer that any client got (`harness/checker.rs`).
//!
//! `XCRON_TEST_LINEAR_SECS` sets the length.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::checker::{Call, Content, Histories, Outcome, Revision};
use crate::harness::client::{Client, TOO_MANY, Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::{eventually, random, setting};

/// Length that the gate runs.
const SECS: u64 = 20;
const NODES: usize = 3;
const CLIENTS: u64 = 8;
/// Tasks that the clients use at the same time. When these are used up, all go on to the next ones.
const TASKS: usize = 4;
/// Calls of one task: enough to meet a fault, few enough to be judged.
const CALLS: usize = 60;
/// Contents that several clients create with, so that equal creates meet; every other content is used once.
const SHARED_CONTENTS: Content = 2;
/// Due of all tasks: nothing fires here.
const FAR_SECS: u64 = 4_000_000_000;
/// The same as an instant of `/v1`.
const FAR: &str = "2096-10-02T07:06:40Z";

/// What all clients share.
struct Shared {
    apis: Vec<SocketAddr>,
    histories: Histories,
    contents: AtomicU64,
    is_over: AtomicBool,
}

/// The tasks in use.
struct Round {
    number: u64,
    /// Calls made of each.
    calls: [AtomicUsize; TASKS],
    /// Longest pause of a client between two calls.
    pause_ms_max: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_s_history_can_be_explained() {
    let secs = setting("XCRON_TEST_LINEAR_SECS", SECS);
    let mut random = random(45);
    let mut cluster = Cluster::start(NODES).await;
    let shared = Arc::new(Shared {
        apis: cluster.apis(),
        histories: Histories::default(),
        contents: AtomicU64::new(SHARED_CONTENTS),
        is_over: AtomicBool::new(false),
    });
    let clients = tokio::spawn(rounds(Arc::clone(&shared), StdRng::seed_from_u64(random.random())));
    let mut faults = Faults::default();
    // Cut wherever it is; what it has broken is healed.
    let cut = tokio::time::timeout(Duration::from_secs(secs), faults.happen(&mut cluster, &mut random)).await;
    assert!(cut.is_err(), "faults end only with the time");
    shared.is_over.store(true, Ordering::SeqCst);
    cluster.heal().await;
    let rounds = clients.await.expect("no client panics");
    look_once_more(&shared).await;
    let (operations, open) = shared.histories.counts();
    println!(
        "{secs} s, {faults:?}: {rounds} rounds of {TASKS} tasks, {operations} operations, {open} of unknown outcome"
    );
    let violations = shared.histories.violations();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(
        operations - open > usize::try_from(secs).expect("few") * 10,
        "too few calls were answered to say anything"
    );
}

/// What was done to the nodes.
#[derive(Debug, Default)]
struct Faults {
    kills: usize,
    pauses: usize,
    power_cuts: usize,
}

impl Faults {
    /// One fault after the other, for ever.
    async fn happen(&mut self, cluster: &mut Cluster, random: &mut StdRng) {
        let millis = |random: &mut StdRng, range| Duration::from_millis(random.random_range(range));
        loop {
            tokio::time::sleep(millis(random, 200..2_000)).await;
            let node = if random.random() {
                cluster.busiest().await
            } else {
                random.random_range(0..NODES)
            };
            match random.random_range(0..10) {
                0..5 => {
                    self.kills += 1;
                    cluster.kill(node);
                    tokio::time::sleep(millis(random, 0..2_500)).await;
                    cluster.restart(node).await;
                }
                5..9 => {
                    self.pauses += 1;
                    cluster.pause(node);
                    tokio::time::sleep(millis(random, 100..4_000)).await;
                    cluster.resume(node);
                }
                _ => {
                    self.power_cuts += 1;
                    cluster.kill_all();
                    cluster.heal().await;
                }
            }
        }
    }
}

/// Rounds until the time is over; gives their number.
async fn rounds(shared: Arc<Shared>, mut random: StdRng) -> u64 {
    let mut number = 0;
    while !shared.is_over.load(Ordering::SeqCst) {
        let round = Arc::new(Round {
            number,
            calls: [const { AtomicUsize::new(0) }; TASKS],
            pause_ms_max: [2, 20, 100][random.random_range(0..3)],
        });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let random = StdRng::seed_from_u64(random.random());
            clients.spawn(use_tasks(client, Arc::clone(&round), Arc::clone(&shared), random));
        }
        clients.join_all().await;
        number += 1;
    }
    number
}

/// One client's calls of one round.
async fn use_tasks(number: u64, round: Arc<Round>, shared: Arc<Shared>, mut random: StdRng) {
    let mut at = usize::try_from(number).expect("few clients") % shared.apis.len();
    let mut client = Client::new(shared.apis[at]);
    // The revisions that this client has seen last.
    let mut revisions = [None; TASKS];
    while !shared.is_over.load(Ordering::SeqCst) {
        let mut left = (0..TASKS).filter(|&task| round.calls[task].load(Ordering::SeqCst) < CALLS);
        let Some(first) = left.next() else { return };
        let task = left.filter(|_| random.random()).last().unwrap_or(first);
        if round.calls[task].fetch_add(1, Ordering::SeqCst) >= CALLS {
            continue;
        }
        // A deleted id stays deleted: the delete must be rare for much to happen before it.
        let call = match random.random_range(0..24) {
            0..7 => Call::Create(shared.content(&mut random)),
            7 => Call::Delete,
            8..10 => Call::Update(shared.content(&mut random), None),
            10..13 => Call::Update(shared.content(&mut random), revisions[task]),
            13..17 => Call::Show,
            _ => Call::Query,
        };
        let id = task_id(round.number, task);
        let outcome = make(&mut client, number, &id, call, &shared.histories).await;
        if let Outcome::Seen(_, revision) = outcome {
            revisions[task] = Some(revision);
        }
        if outcome == Outcome::Unknown {
            // This node is in trouble; its other clients may wait for it, every second one goes elsewhere.
            at = (at + usize::from(random.random::<bool>())) % shared.apis.len();
            client = Client::new(shared.apis[at]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..round.pause_ms_max))).await;
    }
}

fn task_id(round: u64, task: usize) -> String {
    format!("linear-{round}-{task}")
}

impl Shared {
    fn content(&self, random: &mut StdRng) -> Content {
        if random.random() {
            random.random_range(0..SHARED_CONTENTS)
        } else {
            self.contents.fetch_add(1, Ordering::SeqCst)
        }
    }
}

/// Makes a call and enters it.
async fn make(client: &mut Client, number: u64, id: &str, call: Call, histories: &Histories) -> Outcome {
    let from = histories.begin();
    let told = match call {
        Call::Create(content) => {
            let body = format!(r#"{{"content":{content}}}"#);
            client
                .create(one_shot(id, FAR_SECS, "http://127.0.0.1:9/", &body))
                .await
        }
        Call::Update(content, replaces) => {
            let callback = format!(r#"{{"url":"http://127.0.0.1:9/","body":{{"content":{content}}}}}"#);
            let change = format!(r#"{{"schedule":{{"at":"{FAR}"}},"callback":{callback}}}"#);
            client.update(id, replaces, change).await
        }
        Call::Delete => client.delete(id).await,
        Call::Query => client.query(id).await,
        Call::Show => client.show(id).await,
    };
    let outcome = match (call, &told) {
        (_, Told::Unknown(_)) => Outcome::Unknown,
        (_, Told::Refused(code, _)) => Outcome::Refused(*code),
        (Call::Query, Told::Done(data)) => Outcome::Shown(content_of(data)),
        (Call::Show, Told::Done(data)) => Outcome::Seen(content_of(data), revision_of(data)),
        (_, Told::Done(_)) => Outcome::Done,
    };
    if outcome != Outcome::Refused(TOO_MANY) {
        histories.end(id, number, call, outcome, from);
    }
    outcome
}

fn content_of(data: &Value) -> Content {
    let content = data["callback"]["body"]["content"].as_u64();
    content.unwrap_or_else(|| panic!("a task of this test without its content: {data}"))
}

fn revision_of(data: &Value) -> Revision {
    let revision = data["revision"].as_u64();
    revision.unwrap_or_else(|| panic!("a task without a revision: {data}"))
}

/// One last query of every task: what was acknowledged under faults is there after them.
async fn look_once_more(shared: &Shared) {
    for (number, id) in shared.histories.tasks().into_iter().enumerate() {
        let mut client = Client::new(shared.apis[number % shared.apis.len()]);
        eventually(&format!("an answer about {id} after the faults"), async || {
            let outcome = make(&mut client, CLIENTS, &id, Call::Query, &shared.histories).await;
            (outcome != Outcome::Unknown).then_some(())
        })
        .await;
    }
}
