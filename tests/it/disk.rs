//! A disk that is full, and one that fails to sync: the node stops acknowledging at once, says why, and ends; after the
//! cause is gone a start finds everything that was acknowledged. One that is nearly full: nothing new is taken, and all else goes on.
//!
//! The full disk is a small tmpfs in a mount namespace of the test's own; where there may be none, these tests say that they
//! did not run. The failing sync is injected by strace; where that is not installed, the log's own fault tests (`src/wal/tests.rs`) are all there is.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hyper::Method;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::client::{Client, Told, one_shot};
use crate::harness::node::{Ended, Launch, Node, Place};
use crate::harness::sink::Sink;
use crate::harness::{eventually, namespace, wall_secs};

const FAR_SECS: u64 = 4_000_000_000;
const CONNECTIONS: u64 = 4;
/// Creates that a connection tries after the first one that was not acknowledged.
const TRIES_AFTER: u64 = 5;

/// A file system in memory, of a fixed size; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, megabytes: u64) -> Self {
        std::fs::create_dir(&path).expect("the directory can be made");
        mount(&format!("size={megabytes}m"), &path);
        Self(path)
    }

    fn resize(&self, megabytes: u64) {
        mount(&format!("remount,size={megabytes}m"), &self.0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node of a failing test may still be there.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            println!("{} is still mounted", self.0.display());
        }
    }
}

/// Names the source also of a remount: without it, options of the old mount are repeated, of which an owner may not be.
fn mount(options: &str, path: &Path) {
    let arguments = ["-t", "tmpfs", "-o", options, "xcron-test"];
    let output = Command::new("mount").args(arguments).arg(path).output();
    let output = output.expect("the program mount is there");
    assert!(
        output.status.success(),
        "a small tmpfs cannot be mounted, though in a namespace of its own. mount says: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether the caller may mount: inside a namespace, to which nothing outside belongs.
fn may_mount(test: &str) -> bool {
    let test = format!("disk::{test}");
    let needs = "needs user and mount namespaces (unshare -rm)";
    namespace::is_inside(&["--map-root-user", "--mount"], &test, needs)
}

/// What the clients of a node that fails have seen.
#[derive(Default)]
struct Seen {
    /// Body by task id.
    acked: Mutex<BTreeMap<String, String>>,
    /// A call was not acknowledged.
    has_failed: AtomicBool,
    next: AtomicU64,
    /// Acknowledgements and good readiness answers of calls that began after a failure was seen.
    after_failure: Mutex<Vec<String>>,
}

/// Creates tasks with bodies of this size until the node fails, and on for a while.
async fn create_until_it_fails(node: &Node, body_bytes: usize) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let clients = (0..CONNECTIONS).map(|number| {
        let random = StdRng::seed_from_u64(number);
        tokio::spawn(create_on(node.client(), Arc::clone(&seen), random, body_bytes))
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no client panics");
    }
    seen
}

async fn create_on(mut client: Client, seen: Arc<Seen>, mut random: StdRng, body_bytes: usize) {
    let mut tries = 0;
    while tries < TRIES_AFTER {
        let has_failed = seen.has_failed.load(Ordering::SeqCst);
        let id = format!("disk-{}", seen.next.fetch_add(1, Ordering::SeqCst));
        // Not to be compressed.
        let text: String = (0..body_bytes).map(|_| random.random_range('#'..='Z')).collect();
        let body = format!(r#"{{"text":"{text}"}}"#);
        let told = client
            .create(one_shot(&id, FAR_SECS, "http://127.0.0.1:9/", &body))
            .await;
        match told {
            Told::Done(_) => {
                seen.acked.lock().insert(id.clone(), body);
                if has_failed {
                    seen.after_failure.lock().push(id);
                }
            }
            Told::Unknown(_) => {
                seen.has_failed.store(true, Ordering::SeqCst);
                tries += 1;
            }
            Told::Refused(code, why) => panic!("{id}: a failing disk is no refusal: {code} {why}"),
        }
    }
}

/// The node must end by itself with the reason, not ready from its failure on, and must have acknowledged nothing after it.
async fn expect_failed(mut node: Node, seen: &Seen, reasons: &[&str]) -> Ended {
    let mut client = node.client();
    // From here on the node may only be not ready, or gone.
    let ready = client.request(Method::GET, "/readyz", "").await;
    if let Ok(reply) = ready {
        assert_eq!(
            reply.status,
            503,
            "a node that cannot write is not ready: {}",
            reply.text()
        );
    }
    let ended = node.ended().await;
    assert!(ended.status.code().is_some_and(|code| code != 0), "{ended}");
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    assert!(
        reasons.iter().any(|reason| ended.stderr.contains(reason)),
        "{reasons:?} is not in {ended}"
    );
    assert_eq!(
        *seen.after_failure.lock(),
        Vec::<String>::new(),
        "acknowledged after the failure"
    );
    assert!(
        !seen.acked.lock().is_empty(),
        "nothing was acknowledged before the failure: nothing can be said"
    );
    ended
}

/// A node on the same data must have all that was acknowledged, byte for byte, and take new tasks.
async fn expect_all_there(launch: &Launch, seen: &Seen) {
    let node = launch.start().await;
    let mut client = node.client();
    let acked = seen.acked.lock().clone();
    for (id, body) in &acked {
        let path = format!("/xcron/queryTask?task_id={id}");
        let reply = client.request(Method::GET, &path, "").await.expect("the node answers");
        assert!(reply.text().contains(body.as_str()), "{id}: {}", reply.text());
    }
    let fresh = one_shot("fresh", FAR_SECS, "http://127.0.0.1:9/", "{}");
    client.create(fresh).await.done();
    let ended = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
}

/// Fills the disk below a node, then gives it room. With a ballast, somebody else takes the room, more quickly than the node can
/// refuse what is new.
async fn fill_disk(launch: &Launch, disk: &SmallDisk, ballast: Option<&Path>, reasons: &[&str]) {
    let node = launch.start().await;
    if let Some(ballast) = ballast {
        let first = one_shot("before", FAR_SECS, "http://127.0.0.1:9/", "{}");
        node.client().create(first).await.done();
        leave_free(ballast, 0);
    }
    let seen = create_until_it_fails(&node, 60_000).await;
    if let Some(ballast) = ballast {
        seen.acked.lock().insert("before".into(), "{}".into());
        // Whatever it refuses by now: deletes go on, and need room.
        let mut client = node.client();
        for number in 0.. {
            let fresh = format!("gone-{number}");
            if !matches!(client.delete(&fresh).await, Told::Refused(..)) {
                break;
            }
        }
        std::fs::remove_file(ballast).expect("it is there");
    }
    let ended = expect_failed(node, &seen, reasons).await;
    println!("{} acknowledged; {ended}", seen.acked.lock().len());
    disk.resize(400);
    expect_all_there(launch, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_the_state_stops_the_node_and_loses_nothing() {
    if !may_mount("a_disk_without_room_for_the_state_stops_the_node_and_loses_nothing") {
        return;
    }
    let place = Place::new();
    let disk = SmallDisk::mount(place.path("disk"), 400);
    let launch = Launch::new(&disk.0.join("data"), &place.path("node.log"));
    let ballast = disk.0.join("ballast");
    fill_disk(
        &launch,
        &disk,
        Some(&ballast),
        &["No space left", "an earlier write failed"],
    )
    .await;
}

/// Takes room on the disk of `file` until only so many bytes are free.
fn leave_free(file: &Path, free_bytes: u64) {
    let mut ballast = std::fs::File::create(file).expect("the file can be made");
    loop {
        let found = rustix::fs::statvfs(file).expect("a file system");
        let free = found.f_bavail * found.f_frsize;
        if free <= free_bytes {
            return;
        }
        let part = usize::try_from((free - free_bytes).min(1 << 20)).expect("small");
        if let Err(error) = ballast.write_all(&vec![1; part]) {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            return;
        }
    }
}

/// What the node says that its disk has left.
async fn free_bytes(client: &mut Client) -> u64 {
    let page = client
        .request(Method::GET, "/metrics", "")
        .await
        .expect("it answers")
        .text();
    let free = page
        .lines()
        .find_map(|line| line.strip_prefix("xcron_disk_free_bytes "));
    free.and_then(|free| free.parse().ok()).expect("a gauge")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_takes_nothing_new_and_goes_on() {
    if !may_mount("a_disk_that_is_nearly_full_takes_nothing_new_and_goes_on") {
        return;
    }
    let place = Place::new();
    let disk = SmallDisk::mount(place.path("disk"), 400);
    let node = Launch::new(&disk.0.join("data"), &place.path("node.log")).start().await;
    let (mut client, sink) = (node.client(), Sink::start().await);
    for id in ["kept", "deleted"] {
        client
            .create(one_shot(id, FAR_SECS, "http://127.0.0.1:9/", "{}"))
            .await
            .done();
    }
    client
        .create(one_shot("due", wall_secs() + 6, &sink.url("/due"), "{}"))
        .await
        .done();
    // A fifth of the disk is kept: 80 MB.
    let ballast = disk.0.join("ballast");
    leave_free(&ballast, 60 << 20);
    eventually("what is new is refused", async || {
        let mut client = node.client();
        match client
            .create(one_shot("new", FAR_SECS, "http://127.0.0.1:9/", "{}"))
            .await
        {
            Told::Unknown(why) => {
                assert!(why.contains("was not stored") && why.contains("nearly full"), "{why}");
                Some(())
            }
            Told::Done(_) => None,
            told @ Told::Refused(..) => panic!("{told:?}"),
        }
    })
    .await;
    client.delete("deleted").await.done();
    sink.wait_for("due", 1).await;
    eventually("its outcome is recorded", async || {
        let reply = node
            .client()
            .request(Method::GET, "/v1/tasks/due", "")
            .await
            .expect("it answers");
        reply.text().contains("delivered").then_some(())
    })
    .await;
    assert!((1..=80 << 20).contains(&free_bytes(&mut client).await));
    std::fs::remove_file(&ballast).expect("it is there");
    eventually("what is new is taken again", async || {
        let mut client = node.client();
        let created = client
            .create(one_shot("again", FAR_SECS, "http://127.0.0.1:9/", "{}"))
            .await;
        matches!(created, Told::Done(_)).then_some(())
    })
    .await;
    let kept = client
        .request(Method::GET, "/v1/tasks/kept", "")
        .await
        .expect("it answers");
    assert_eq!(kept.status, 200, "{}", kept.text());
    let ended = node.terminate().await;
    assert_eq!(ended.status.code(), Some(0), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_room_for_the_log_stops_the_node_and_loses_nothing() {
    if !may_mount("a_disk_without_room_for_the_log_stops_the_node_and_loses_nothing") {
        return;
    }
    let place = Place::new();
    place.node().start().await.kill();
    // The log alone moves to a disk that has no room for a third segment.
    let (log, old) = (place.data().join("log"), place.path("old-log"));
    std::fs::rename(&log, &old).expect("one file system");
    let disk = SmallDisk::mount(log, 80);
    for file in std::fs::read_dir(&old).expect("it is there") {
        let file = file.expect("it can be read");
        let content = std::fs::read(file.path()).expect("it can be read");
        // Zeros as well: they are the space that the log has reserved.
        std::fs::write(disk.0.join(file.file_name()), content).expect("there is room for two");
    }
    fill_disk(&place.node(), &disk, None, &["segment-0000000003"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_from_the_start_is_a_clear_refusal() {
    if !may_mount("a_disk_that_is_full_from_the_start_is_a_clear_refusal") {
        return;
    }
    let place = Place::new();
    let disk = SmallDisk::mount(place.path("disk"), 8);
    let launch = Launch::new(&disk.0.join("data"), &place.path("node.log"));
    let ended = launch.try_start().await.expect_err("there is no room");
    assert!(ended.status.code().is_some_and(|code| code != 0), "{ended}");
    assert!(
        ended.stderr.contains("No space left") && ended.stderr.contains("segment-"),
        "{ended}"
    );
    assert!(!ended.stderr.contains("panicked"), "{ended}");
    disk.resize(400);
    let node = launch.start().await;
    node.kill();
    drop(disk);
}

/// A tracer that lets syncs of a running node fail; it ends with the node, or when dropped.
struct FailingSyncs(Child);

impl FailingSyncs {
    /// Attaches to the node: of the calls of `sync` that each of its threads makes from now on, those that strace's `when`
    /// names fail. `None`, said aloud, without strace.
    async fn attach(node: &Node, trace: &Path, sync: &str, when: &str) -> Option<Self> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("trace={sync}"), "-e"])
            .arg(format!("inject={sync}:error=EIO:when={when}"))
            .arg("-o")
            .arg(trace)
            .args(["-p", &node.id().to_string()])
            .spawn();
        let Ok(strace) = strace else {
            // Past the capture of the test's output: a test that did not run must be seen.
            let _ = writeln!(
                std::io::stderr(),
                "NOT RUN: strace is not installed, so no sync of a real node was made to fail; src/wal/tests.rs alone covers it"
            );
            return None;
        };
        let mut strace = Self(strace);
        eventually("the tracer has every thread", async || {
            let ended = strace.0.try_wait().expect("it is our child");
            assert!(
                ended.is_none(),
                "strace cannot trace the node (is it root's, or ours to trace?): {ended:?}"
            );
            node.has_every_thread_traced().then_some(())
        })
        .await;
        Some(strace)
    }
}

impl Drop for FailingSyncs {
    fn drop(&mut self) {
        // It has ended with the node, most likely.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn fail_sync(sync: &str, when: &str, body_bytes: usize, reasons: &[&str]) {
    let place = Place::new();
    let node = place.node().start().await;
    let trace = place.path("strace.log");
    let Some(_tracer) = FailingSyncs::attach(&node, &trace, sync, when).await else {
        return;
    };
    let seen = create_until_it_fails(&node, body_bytes).await;
    let ended = expect_failed(node, &seen, reasons).await;
    println!("{sync} {when}: {} acknowledged; {ended}", seen.acked.lock().len());
    expect_all_there(&place.node(), &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failed_sync_stops_the_node_and_loses_nothing() {
    // The next one would succeed: the kernel has forgotten the pages by then, so trying again would be a lie.
    fail_sync("fdatasync", "20", 100, &["sync segment-", "sync watermark"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_syncs_no_more_stops_the_node_and_loses_nothing() {
    fail_sync("fdatasync", "60+", 100, &["sync segment-", "sync watermark"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_or_segment_that_cannot_be_synced_stops_the_node_and_loses_nothing() {
    // fsync is what whole files are made durable with: tables and the journal of the state, new segments of the log.
    fail_sync("fsync", "1+", 60_000, &["state", "segment-"]).await;
}
