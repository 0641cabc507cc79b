//! Clients that use all nodes of a cluster at once, go on to another node when theirs fails, and tell the oracle all they
//! know; and the judgement when they are done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use crate::harness::client::{Client, Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::oracle::{Oracle, Verdict};
use crate::harness::sink::Sink;
use crate::harness::{eventually, wall_ms, wall_secs};

const CLIENTS: usize = 9;
/// Longest pause of a client between two calls.
const PAUSE_MS_MAX: u64 = 30;
/// Seconds from a create to its due.
const AHEAD_SECS: std::ops::RangeInclusive<u64> = 1..=4;
/// A create is repeated only with so much to spare: after its due a one-shot is refused, and it stays unknown whether
/// the first try counted.
const SPARE_MS: u64 = 1_000;
/// Time without any arrival after which none is expected.
const QUIET: Duration = Duration::from_secs(2);
/// Tasks whose record is looked at after the load.
const RECORDS: usize = 60;

/// What the clients of one test share.
struct Shared {
    sink: Sink,
    oracle: Oracle,
    is_over: AtomicBool,
    created: AtomicU64,
}

/// A load under way.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients of these nodes, each beginning at another.
    pub async fn start(apis: Vec<SocketAddr>, random: &mut StdRng) -> Self {
        let shared = Arc::new(Shared {
            sink: Sink::start().await,
            oracle: Oracle::default(),
            is_over: AtomicBool::new(false),
            created: AtomicU64::new(0),
        });
        let clients = (0..CLIENTS).map(|number| {
            let visitor = Visitor {
                client: Client::new(apis[number % apis.len()]),
                at: number % apis.len(),
                apis: apis.clone(),
                random: StdRng::seed_from_u64(random.random()),
                shared: Arc::clone(&shared),
            };
            tokio::spawn(visitor.work())
        });
        Self {
            clients: clients.collect(),
            shared,
        }
    }

    /// What the clients know, for entering faults.
    pub fn oracle(&self) -> &Oracle {
        &self.shared.oracle
    }

    /// Ends the load, waits for all that must arrive and until nothing more does, and judges. All nodes must run.
    pub async fn finish(self, what: &str, cluster: &Cluster) -> Verdict {
        let Shared { sink, oracle, .. } = self.shared.as_ref();
        self.shared.is_over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no client panics");
        }
        eventually("every acknowledged task arrives", async || {
            oracle.missing(&sink.arrivals()).is_empty().then_some(())
        })
        .await;
        // Creates of unknown outcome may still arrive.
        let last_due_ms = (wall_secs() + AHEAD_SECS.end()) * 1_000;
        eventually("the last due", async || (wall_ms() > last_due_ms).then_some(())).await;
        let mut before = usize::MAX;
        while before != sink.count() {
            before = sink.count();
            tokio::time::sleep(QUIET).await;
        }
        self.shared.every_delivery_is_recorded(cluster).await;
        let verdict = oracle.judge(&sink.arrivals());
        println!(
            "{what}: {} acknowledged ({} of them deleted), {} unknown, {} arrivals, {} repeats ({} in quiet times, {} held \
             back by a pause), longest silence {} ms",
            verdict.acked,
            verdict.deletes,
            verdict.unknown,
            sink.count(),
            verdict.repeats,
            verdict.quiet_repeats,
            verdict.thawed,
            verdict.silence_ms_max,
        );
        assert_eq!(verdict.violations, Vec::<String>::new());
        verdict
    }
}

impl Shared {
    /// Deliveries that the target has seen are in the tasks' records, on any node.
    async fn every_delivery_is_recorded(&self, cluster: &Cluster) {
        let arrivals = self.sink.arrivals();
        let step = arrivals.len().div_ceil(RECORDS).max(1);
        for (number, arrival) in arrivals.iter().step_by(step).enumerate() {
            let mut client = cluster.client(number % cluster.len());
            eventually(&format!("the delivery of {}", arrival.task), async || {
                match client.query(&arrival.task).await {
                    Told::Done(data) => (data["run_count"] == 1).then_some(()),
                    // Deleted after it had arrived.
                    Told::Refused(1008, _) if self.oracle.is_deleted(&arrival.task) => Some(()),
                    _ => None,
                }
            })
            .await;
        }
    }
}

/// One client.
struct Visitor {
    client: Client,
    /// The node in use.
    at: usize,
    apis: Vec<SocketAddr>,
    random: StdRng,
    shared: Arc<Shared>,
}

impl Visitor {
    async fn work(mut self) {
        let mut own = Vec::new();
        while !self.shared.is_over.load(Ordering::SeqCst) {
            match self.random.random_range(0..10) {
                0..7 => own.push(self.create().await),
                7 if !own.is_empty() => {
                    let id = own.swap_remove(self.random.random_range(0..own.len()));
                    self.shared.oracle.deleting(&id);
                    let told = self.client.delete(&id).await;
                    self.shared.oracle.deleted(&id, &told);
                    self.go_on_after(&told).await;
                }
                _ if !own.is_empty() => {
                    let id = &own[self.random.random_range(0..own.len())];
                    let told = self.client.query(id).await;
                    if let Told::Done(data) = &told
                        && data["run_count"] == 1
                    {
                        self.shared.oracle.settled(id);
                    }
                    self.go_on_after(&told).await;
                }
                _ => {}
            }
            let pause_ms = self.random.random_range(0..PAUSE_MS_MAX);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Creates a task; as long as nobody knows whether it is there, tries again with the same id, which must be safe.
    async fn create(&mut self) -> String {
        let shared = Arc::clone(&self.shared);
        let id = format!("load-{}", shared.created.fetch_add(1, Ordering::SeqCst));
        let due = wall_secs() + self.random.random_range(AHEAD_SECS);
        let body = format!(r#"{{"of":"{id}"}}"#);
        let task = one_shot(&id, due, &shared.sink.url("/ok"), &body);
        shared.oracle.creating(&id, due * 1_000, "/ok", &body);
        let told = self.client.create(task.clone()).await;
        shared.oracle.created(&id, &told);
        let mut is_open = matches!(told, Told::Unknown(_));
        self.go_on_after(&told).await;
        while is_open && wall_ms() + SPARE_MS < due * 1_000 {
            let told = self.client.create(task.clone()).await;
            match &told {
                Told::Done(_) => shared.oracle.created(&id, &told),
                Told::Refused(code, message) => {
                    // Nobody else gives this id, and nobody deletes it yet.
                    let is_late = wall_ms() >= due * 1_000;
                    assert!(
                        *code == 1009 || is_late,
                        "{id}: the retry was refused: {code} {message}"
                    );
                }
                Told::Unknown(_) => {}
            }
            is_open = !matches!(told, Told::Done(_));
            self.go_on_after(&told).await;
        }
        id
    }

    /// Goes to the next node if this one does not answer.
    async fn go_on_after(&mut self, told: &Told) {
        if matches!(told, Told::Unknown(_)) {
            self.at = (self.at + 1) % self.apis.len();
            self.client = Client::new(self.apis[self.at]);
            tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)).await;
        }
    }
}
