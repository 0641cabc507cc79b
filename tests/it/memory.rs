//! Memory stays bounded however many tasks are due in one second, and all of them arrive once.
//!
//! `XCRON_TEST_DUE_AT_ONCE` sets the number of tasks.

use std::sync::Arc;

use crate::harness::client::{Told, one_shot};
use crate::harness::node::{Node, Place};
use crate::harness::oracle::Oracle;
use crate::harness::sink::Sink;
use crate::harness::{eventually, setting, wall_ms, wall_secs};

/// Tasks due in the same second that the gate runs.
const TASKS: u64 = 20_000;
const CONNECTIONS: u64 = 64;
/// Creates that show how fast this machine is.
const PROBES: u64 = 1_000;
/// Dues that the node may hold in memory: far fewer than there are, so that it must read on again and again.
const WINDOW_TASKS: u64 = 2_048;
/// Most memory that the node may ever hold: its caches, its write buffers, and a window that does not grow with the tasks.
const MEMORY_BYTES_MAX: u64 = 384 << 20;
const FAR_SECS: u64 = 4_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_of_one_second_arrive_once_each_in_bounded_memory() {
    let tasks = setting("XCRON_TEST_DUE_AT_ONCE", TASKS);
    let (place, sink) = (Place::new(), Sink::start().await);
    let oracle = Arc::new(Oracle::default());
    let node = place.node().set("fire.window_tasks_max", WINDOW_TASKS).start().await;
    let probes_ms = wall_ms();
    let url = sink.url("/ok");
    create(&node, &Arc::default(), "probe", PROBES, FAR_SECS, &url).await;
    let probes_ms = wall_ms() - probes_ms;
    // Half as long again as the probes say, because they are few.
    let due = wall_secs() + 4 + tasks * probes_ms * 3 / 2 / PROBES / 1_000;
    let acked = create(&node, &oracle, "due", tasks, due, &url).await;
    let created_secs = wall_secs();
    assert!(
        acked > tasks / 4,
        "the machine is too slow: {acked} of {tasks} created before their due, nothing can be said"
    );
    eventually("every task arrives", async || {
        (sink.count() as u64 >= acked).then_some(())
    })
    .await;
    let mut client = node.client();
    eventually("the node has nothing left to do", async || {
        let pending = client.count("xcron_tasks_pending").await;
        (pending == PROBES).then_some(())
    })
    .await;
    let verdict = oracle.judge(&sink.arrivals());
    let memory_bytes = node.peak_memory_bytes();
    println!(
        "{acked} of {tasks} tasks, the last created {} s before their due: peak memory {} MB, {} repeats",
        due.saturating_sub(created_secs),
        memory_bytes >> 20,
        verdict.repeats
    );
    let some: Vec<&String> = verdict.violations.iter().take(10).collect();
    assert!(
        some.is_empty(),
        "{} violations, among them {some:?}",
        verdict.violations.len()
    );
    assert_eq!(sink.count() as u64, acked);
    assert!(
        memory_bytes < MEMORY_BYTES_MAX,
        "{memory_bytes} bytes are more than {MEMORY_BYTES_MAX}"
    );
}

/// Creates tasks of one due over many connections, as long as the due is ahead; returns how many were acknowledged.
async fn create(node: &Node, oracle: &Arc<Oracle>, name: &'static str, tasks: u64, due: u64, url: &str) -> u64 {
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let (mut client, oracle, url) = (node.client(), Arc::clone(oracle), url.to_owned());
            let numbers = (connection..tasks).step_by(usize::try_from(CONNECTIONS).expect("a small number"));
            tokio::spawn(async move {
                let mut acked = 0;
                for number in numbers {
                    if wall_secs() + 1 >= due {
                        break;
                    }
                    let id = format!("{name}-{number}");
                    oracle.creating(&id, due * 1_000, "/ok", "{}");
                    let told = client.create(one_shot(&id, due, &url, "{}")).await;
                    oracle.created(&id, &told);
                    acked += u64::from(matches!(told, Told::Done(_)));
                }
                acked
            })
        })
        .collect();
    let mut acked = 0;
    for client in clients {
        acked += client.await.expect("no client panics");
    }
    acked
}
