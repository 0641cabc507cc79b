//! `kill -9` at random moments, under load, again and again on the same data: nothing acknowledged is lost, nothing is
//! early, and only what was on its way to the target when the node died arrives twice.
//!
//! `XCRON_TEST_KILL_ROUNDS` sets the number of rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::client::{Client, Told, one_shot, periodic};
use crate::harness::node::{Node, Place};
use crate::harness::oracle::Oracle;
use crate::harness::sink::{Arrival, Sink};
use crate::harness::{eventually, random, setting, wall_ms, wall_secs};

/// Rounds that the gate runs: the number the promise is stated with.
const ROUNDS: u64 = 20;
const CONNECTIONS: u64 = 16;
/// Crontab tasks that live through all rounds.
const PERIODIC: [&str; 3] = ["cron-0", "cron-1", "cron-2"];
const MINUTE_MS: u64 = 60_000;
/// How long before a kill an answered attempt may still be unrecorded, and so be repeated. An outcome is on its way for two
/// fsyncs, milliseconds; this is far beyond the slowest disk, and short enough to tell one that was never recorded.
const UNRECORDED_MS_MAX: u64 = 30_000;

/// What the clients of one test share.
struct Load {
    sink: Sink,
    oracle: Oracle,
    is_over: AtomicBool,
    created: AtomicU64,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_a_node_keeps_its_promises() {
    let rounds = setting("XCRON_TEST_KILL_ROUNDS", ROUNDS);
    let mut random = random(2);
    let place = Place::new();
    let load = Arc::new(Load {
        sink: Sink::start().await,
        oracle: Oracle::default(),
        is_over: AtomicBool::new(false),
        created: AtomicU64::new(0),
    });
    let mut node = place.node().start().await;
    let cron_acked_ms = create_periodic(&mut node.client(), &load.sink).await;
    for round in 0..rounds {
        create_again(&mut node.client(), &load).await;
        round_of_load(node, &load, &mut random).await;
        if round % 4 == 3 {
            // Again while it recovers.
            let from_ms = wall_ms();
            let recovering = place.node().spawn();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
            recovering.kill();
            load.oracle.killed(from_ms, wall_ms());
        }
        node = place.node().start().await;
    }
    let last_start_ms = wall_ms();
    settle(&node, &load, cron_acked_ms..last_start_ms).await;
    let ended = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
    let (periodic, arrivals): (Vec<Arrival>, Vec<Arrival>) = load
        .sink
        .arrivals()
        .into_iter()
        .partition(|arrival| PERIODIC.contains(&arrival.task.as_str()));
    let verdict = load.oracle.judge(&arrivals);
    let of_crontab = load.oracle.judge_periodic(&periodic);
    println!(
        "{rounds} rounds: {} acknowledged ({} of them deleted), {} unknown, {} arrivals, {} repeats (of attempts that \
         arrived up to {} ms before the kill), {} of crontab tasks ({} repeats)",
        verdict.acked,
        verdict.deletes,
        verdict.unknown,
        arrivals.len(),
        verdict.repeats,
        verdict.unrecorded_ms_max,
        periodic.len(),
        of_crontab.repeats,
    );
    for verdict in [&verdict, &of_crontab] {
        assert_eq!(verdict.violations, Vec::<String>::new());
        assert_eq!(
            verdict.quiet_repeats, 0,
            "a node alone changes its owner by a restart only"
        );
        assert!(
            verdict.unrecorded_ms_max <= UNRECORDED_MS_MAX,
            "answered {} ms before a kill, and not recorded",
            verdict.unrecorded_ms_max
        );
    }
    assert!(
        verdict.acked as u64 > rounds * 20,
        "too few were acknowledged to say anything: {verdict:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_comes_back_at_its_address() {
    let place = Place::new();
    let node = place.node().start().await;
    let (address, mut client) = (node.address(), node.client());
    let due = wall_secs() + 1_000;
    client
        .create(one_shot("kept", due, "http://127.0.0.1:9/", "{}"))
        .await
        .done();
    // With a connection open: what is left of it must not keep the port.
    node.kill();
    let node = place.node().listen(address).start().await;
    assert_eq!(node.address(), address);
    assert_eq!(client.query("kept").await.done()["task_id"], "kept");
}

/// Creates from many connections, deletes and queries between, and kills the node in the middle of it.
async fn round_of_load(node: Node, load: &Arc<Load>, random: &mut StdRng) {
    load.is_over.store(false, Ordering::SeqCst);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let random = StdRng::seed_from_u64(random.random());
            tokio::spawn(use_node(node.client(), Arc::clone(load), random))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(random.random_range(100..2_000))).await;
    let from_ms = wall_ms();
    node.kill();
    load.oracle.killed(from_ms, wall_ms());
    load.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no client of the node panics");
    }
}

/// One connection's calls, until the node is gone.
async fn use_node(mut client: Client, load: Arc<Load>, mut random: StdRng) {
    let mut own = Vec::new();
    while !load.is_over.load(Ordering::SeqCst) {
        let told = match random.random_range(0..10) {
            0..7 => {
                let id = format!("kill-{}", load.created.fetch_add(1, Ordering::SeqCst));
                let due = wall_secs() + random.random_range(1..=4);
                let body = format!(r#"{{"of":"{id}"}}"#);
                load.oracle.creating(&id, due * 1_000, "/ok", &body);
                let told = client.create(one_shot(&id, due, &load.sink.url("/ok"), &body)).await;
                load.oracle.created(&id, &told);
                own.push(id);
                told
            }
            7 if !own.is_empty() => {
                let id = own.swap_remove(random.random_range(0..own.len()));
                load.oracle.deleting(&id);
                let told = client.delete(&id).await;
                load.oracle.deleted(&id, &told);
                told
            }
            _ if !own.is_empty() => {
                let id = &own[random.random_range(0..own.len())];
                let told = client.query(id).await;
                if let Told::Done(data) = &told
                    && data["run_count"] == 1
                {
                    load.oracle.settled(id);
                }
                told
            }
            _ => continue,
        };
        if matches!(told, Told::Unknown(_)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
}

/// A client whose create was cut tries it again with the same id, which must be safe.
async fn create_again(client: &mut Client, load: &Load) {
    // Only with a second to spare: after its due a one-shot is refused, and it stays unknown whether the first try counted.
    for id in load.oracle.unknown_due_after(wall_ms() + 1_000) {
        let (due_ms, body) = load.oracle.task(&id);
        let told = client
            .create(one_shot(&id, due_ms / 1_000, &load.sink.url("/ok"), &body))
            .await;
        if matches!(told, Told::Done(_)) {
            load.oracle.created(&id, &told);
        } else {
            assert!(wall_ms() >= due_ms, "{id}: the retry was not taken: {told:?}");
        }
    }
}

/// Creates the crontab tasks; returns when the last one was acknowledged.
async fn create_periodic(client: &mut Client, sink: &Sink) -> u64 {
    for id in PERIODIC {
        let task = periodic(id, "* * * * *", &sink.url("/ok"), "{}");
        client.create(task).await.done();
    }
    wall_ms()
}

/// Waits for all that must arrive, and until the node has nothing left to do.
async fn settle(node: &Node, load: &Load, crontab: std::ops::Range<u64>) {
    // The node is never down for a minute, so each missed minute is the latest missed one, and is made good.
    let minutes = crontab.start / MINUTE_MS + 1..=crontab.end / MINUTE_MS;
    eventually("every acknowledged task arrives", async || {
        let arrivals = load.sink.arrivals();
        let has = |id: &str, minute: u64| {
            let mut own = arrivals.iter().filter(|arrival| arrival.task == id);
            own.any(|arrival| arrival.due_ms == minute * MINUTE_MS)
        };
        let crontab_is_done = minutes.clone().all(|minute| PERIODIC.iter().all(|id| has(id, minute)));
        let mut missing = load.oracle.missing(&arrivals);
        missing.truncate(10);
        let is_done = crontab_is_done && missing.is_empty();
        assert!(
            is_done || wall_ms() <= crontab.end + 100_000,
            "crontab done: {crontab_is_done}; missing, among others: {missing:?}"
        );
        is_done.then_some(())
    })
    .await;
    let mut client = node.client();
    eventually("the node has nothing left but its crontab tasks", async || {
        let pending = client.count("xcron_tasks_pending").await;
        let in_flight = client.count("xcron_fires_in_flight").await;
        (pending == PERIODIC.len() as u64 && in_flight == 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
}
