//! Memory stays bounded however many tasks are due in one second, and all of them arrive once; and however many clients
//! send bodies that they do not end.
//!
//! `XCRON_TEST_DUE_AT_ONCE` sets the number of tasks.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::client::{TOO_MANY, Told, one_shot};
use crate::harness::node::{Node, Place};
use crate::harness::oracle::Oracle;
use crate::harness::sink::Sink;
use crate::harness::{eventually, setting, wall_ms, wall_secs};

/// Uploads that stall just before their end; each of them would take a quarter of a megabyte, or the double of it.
const UPLOADS: usize = 1_000;
const UPLOAD_BYTES: usize = 250_000;
/// Most memory that they may take together: 64 MiB for bodies, twice 16 KiB for the buffers of each connection, and some.
const UPLOADS_BYTES_MAX: u64 = 192 << 20;
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

/// Sends most of a body, and then nothing more, until dropped.
async fn stall(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /xcron/createTask HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        UPLOAD_BYTES + 1
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // One that is refused is read on, but not for ever.
    let _ = stream.write_all(&vec![b' '; UPLOAD_BYTES]).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_take_bounded_memory_and_keep_nobody_out() {
    let place = Place::new();
    let node = place.node().start().await;
    let before_bytes = node.peak_memory_bytes();
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..UPLOADS {
        uploads.spawn(stall(node.address()));
    }
    let mut held = Vec::new();
    while let Some(stream) = uploads.join_next().await {
        held.push(stream.expect("no panic"));
    }
    let mut client = node.client();
    let task = one_shot("t", FAR_SECS, "http://127.0.0.1:9/", "{}");
    eventually("a client is served among them", async || {
        match client.create(task.clone()).await {
            Told::Refused(TOO_MANY, _) => None,
            told => Some(told.done()),
        }
    })
    .await;
    let taken_bytes = node.peak_memory_bytes() - before_bytes;
    println!(
        "{} uploads of {UPLOAD_BYTES} bytes took {} MB",
        held.len(),
        taken_bytes >> 20
    );
    assert!(taken_bytes < UPLOADS_BYTES_MAX, "{} MB", taken_bytes >> 20);
}
