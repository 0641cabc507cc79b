//! A node whose wall clock is wrong, as a process: a library before the C library (`clock/shim.c`) moves the wall clock, and leaves the
//! clocks that measure durations alone. Judged by the machine's clock, which is right.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode};

use crate::harness::client::{Client, one_shot, periodic};
use crate::harness::node::{Launch, Place};
use crate::harness::sink::Sink;
use crate::harness::{eventually, namespace, shim, wall_secs};

const DAY_SECS: i64 = 86_400;

/// A wall clock for one process.
struct WrongClock {
    shim: PathBuf,
    file: PathBuf,
}

impl WrongClock {
    /// One that is right at first; `None`, said aloud, where there is no C compiler.
    fn new(place: &Place, test: &str) -> Option<Self> {
        let (directory, file) = (place.path("clock"), place.path("wrong-ms"));
        fs::create_dir(&directory).expect("a fresh directory");
        let Some(shim) = shim::build("clock/shim.c", &directory) else {
            namespace::not_run(&format!("clock::{test}"), "needs a C compiler (cc)");
            return None;
        };
        let clock = Self { shim, file };
        clock.set(0);
        Some(clock)
    }

    /// From now on it is ahead by so much, or back.
    fn set(&self, wrong_secs: i64) {
        let bytes = (wrong_secs * 1_000).to_ne_bytes();
        // In place: the process has mapped the file.
        let options = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file);
        std::io::Write::write_all(&mut options.expect("the file can be opened"), &bytes).expect("and written");
    }

    fn before(&self, launch: Launch) -> Launch {
        launch.before(&format!(
            "export LD_PRELOAD={} CLOCK_FILE={}",
            self.shim.display(),
            self.file.display()
        ))
    }
}

async fn accept(client: &mut Client) -> StatusCode {
    let reply = client.request(Method::POST, "/v1/clock/accept", Bytes::new()).await;
    reply.expect("the node answers").status
}

async fn becomes_ready(client: &mut Client) {
    eventually("the node is ready", async || {
        let reply = client.request(Method::GET, "/readyz", Bytes::new()).await.ok()?;
        (reply.status == StatusCode::OK).then_some(())
    })
    .await;
}

/// Waits until readiness says that the clock is held.
async fn is_held(client: &mut Client) {
    eventually("the clock is held", async || {
        let reply = client.request(Method::GET, "/readyz", Bytes::new()).await.ok()?;
        (reply.status == StatusCode::SERVICE_UNAVAILABLE && reply.text().contains("clock has jumped")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_whose_clock_jumps_a_month_ahead_fires_nothing_early() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let test = "a_lone_node_whose_clock_jumps_a_month_ahead_fires_nothing_early";
    let Some(clock) = WrongClock::new(&place, test) else {
        return;
    };
    let node = clock.before(place.node()).start().await;
    let mut client = node.client();
    becomes_ready(&mut client).await;
    let (soon, later) = (wall_secs() + 3, wall_secs() + 20 * DAY_SECS.unsigned_abs());
    client
        .create(one_shot("soon", soon, &sink.url("/ok"), "{}"))
        .await
        .done();
    client
        .create(one_shot("later", later, &sink.url("/ok"), "{}"))
        .await
        .done();
    clock.set(30 * DAY_SECS);
    is_held(&mut client).await;
    // Two seconds were once enough.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sink.of("later").len(), 0, "it is due in twenty days");
    // It was a mistake, and somebody sets the clock right.
    clock.set(0);
    becomes_ready(&mut client).await;
    sink.wait_for("soon", 1).await;
    assert_eq!(sink.count(), 1);
    assert_eq!(
        accept(&mut client).await,
        StatusCode::CONFLICT,
        "nothing is held any more"
    );
    // It was none, and somebody says so.
    clock.set(30 * DAY_SECS);
    is_held(&mut client).await;
    assert_eq!(accept(&mut client).await, StatusCode::OK);
    sink.wait_for("later", 1).await;
    becomes_ready(&mut client).await;
    assert_eq!(sink.count(), 2, "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn dues_that_a_wrong_clock_has_computed_are_moved_back() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let test = "dues_that_a_wrong_clock_has_computed_are_moved_back";
    let Some(clock) = WrongClock::new(&place, test) else {
        return;
    };
    clock.set(40 * DAY_SECS);
    let node = clock.before(place.node()).start().await;
    let (address, mut client) = (node.address(), node.client());
    becomes_ready(&mut client).await;
    for n in 0..200 {
        let task = periodic(&format!("daily{n}"), "0 3 * * *", &sink.url("/ok"), "{}");
        client.create(task).await.done();
    }
    assert!(next_due_days(&mut client, "daily0").await >= 39);
    assert!(node.terminate().await.status.success());
    // The clock was set right while the node was away: to it that is a jump back.
    clock.set(0);
    // It says where it serves only when it is ready: here it is told.
    let node = clock.before(place.node()).listen(address).spawn();
    let mut client = Client::new(address);
    is_held(&mut client).await;
    assert_eq!(accept(&mut client).await, StatusCode::OK);
    becomes_ready(&mut client).await;
    eventually("all dues to be corrected", async || {
        (client.count("xcron_dues_corrected_total").await == 200).then_some(())
    })
    .await;
    for n in [0, 77, 199] {
        let days = next_due_days(&mut client, &format!("daily{n}")).await;
        assert!((0..=1).contains(&days), "{days} days");
    }
    assert_eq!(sink.count(), 0);
    assert!(node.terminate().await.status.success());
}

/// In how many days a task is due next, by the machine's clock.
async fn next_due_days(client: &mut Client, id: &str) -> i64 {
    let shown = client.show(id).await.done();
    let due: jiff::Timestamp = shown["next_due_at"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("an instant: {shown}"));
    let now = i64::try_from(wall_secs()).expect("this century");
    (due.as_second() - now) / DAY_SECS
}
