//! When an attempt looks for the last time, which connections are used again, and what is no attempt at all.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::hostile_target::HostileTarget;
use super::tests::{attempt, deliver, delivered, made, patient, run_in_shell, sent, status};
use super::*;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::limits::{KEPT_CONNECTION_IDLE_MS, KEPT_CONNECTION_MS_MAX};

/// Counts how often it is asked, and answers with what it is told to.
#[derive(Default)]
struct Asked {
    count: AtomicUsize,
    is_over: AtomicBool,
}

impl Asked {
    fn may_send(self: &Arc<Self>) -> MaySend {
        let asked = Arc::clone(self);
        Box::new(move || {
            asked.count.fetch_add(1, Ordering::SeqCst);
            !asked.is_over.load(Ordering::SeqCst)
        })
    }
}

fn own(url: Arc<str>) -> Attempt {
    Attempt {
        needs_own_connection: true,
        ..attempt(url)
    }
}

#[tokio::test]
async fn the_last_look_comes_after_connecting_and_stops_the_first_byte() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    let asked = Arc::new(Asked::default());
    let url = || target.url("/status/200");
    for make in [attempt, own] {
        asked.is_over.store(false, Ordering::SeqCst);
        assert_eq!(
            deliver.deliver(make(url()), asked.may_send()).await,
            Delivered::Ended {
                answer: status(200),
                is_sent: true
            }
        );
        let (count, seen) = (asked.count.load(Ordering::SeqCst), target.seen().len());
        asked.is_over.store(true, Ordering::SeqCst);
        // Over the connection that was kept, or a new one; and then over a new one for certain.
        for _ in 0..2 {
            let withdrawn = deliver.deliver(make(url()), asked.may_send()).await;
            assert_eq!(withdrawn, Delivered::Withdrawn);
        }
        assert_eq!(asked.count.load(Ordering::SeqCst), count + 2, "each is asked once");
        // Whatever they had sent would have come before this.
        asked.is_over.store(false, Ordering::SeqCst);
        deliver.deliver(make(url()), asked.may_send()).await;
        assert_eq!(target.seen().len(), seen + 1);
    }
    assert_eq!(target.connections(), 3 + 4);
}

#[tokio::test]
async fn who_never_connects_is_never_asked_and_has_sent_nothing() {
    // It accepts, in the backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let asked = Arc::new(Asked::default());
    let request = attempt(format!("https://{address}/").into());
    let ended = deliver(200, 30_000).deliver(request, asked.may_send()).await;
    let kind = NoAnswer::ConnectTimeout;
    assert_eq!(
        ended,
        Delivered::Ended {
            answer: Answer::None { kind },
            is_sent: false
        }
    );
    assert_eq!(asked.count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_attempt_may_have_a_connection_of_its_own() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for make in [own, attempt, own, attempt] {
        assert_eq!(sent(&deliver, make(target.url("/status/200"))).await, status(200));
    }
    assert_eq!(target.connections(), 3, "two of their own, and one that was kept");
    let seen = target.seen();
    let closing: Vec<_> = seen.iter().map(|seen| seen.header("connection")).collect();
    assert_eq!(closing, [Some("close"), None, Some("close"), None]);
}

#[tokio::test]
async fn a_connection_is_not_used_again_after_a_pause() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for _ in 0..2 {
        assert_eq!(sent(&deliver, attempt(target.url("/status/200"))).await, status(200));
        tokio::time::sleep(Duration::from_millis(KEPT_CONNECTION_IDLE_MS + 100)).await;
    }
    assert_eq!(target.connections(), 2);
}

/// A clock that somebody moves.
#[derive(Debug, Default)]
struct MovedClock(AtomicU64);

impl Clock for MovedClock {
    fn wall_ms(&self) -> u64 {
        SystemClock::default().wall_ms()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_connection_that_is_always_in_use_does_not_grow_old() {
    let target = HostileTarget::start().await;
    let clock = Arc::new(MovedClock::default());
    let entropy = Arc::new(SystemEntropy::default());
    let deliver = HttpDeliver::new(&DeliverOptions::default(), clock.clone(), entropy).expect("a client");
    for connections in 1..=3 {
        for _ in 0..3 {
            assert_eq!(sent(&deliver, attempt(target.url("/status/200"))).await, status(200));
            assert_eq!(target.connections(), connections);
        }
        clock.0.fetch_add(KEPT_CONNECTION_MS_MAX, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn connections_are_kept_to_so_many_targets_in_all() {
    let mut targets = Vec::new();
    for _ in 0..4 {
        targets.push(HostileTarget::start().await);
    }
    let options = DeliverOptions {
        idle_total: 2,
        ..DeliverOptions::default()
    };
    let deliver = made(&options).expect("a client");
    for _ in 0..2 {
        for target in &targets {
            assert_eq!(sent(&deliver, attempt(target.url("/status/200"))).await, status(200));
        }
    }
    let connections: Vec<usize> = targets.iter().map(HostileTarget::connections).collect();
    assert_eq!(connections, [1, 1, 2, 2]);
    let closes = |target: &HostileTarget| target.seen()[0].header("connection") == Some("close");
    assert!(
        !closes(&targets[0]) && closes(&targets[3]),
        "the target is told as well"
    );
}

#[tokio::test]
async fn a_node_without_a_free_file_has_made_no_attempt() {
    let marker = "XCRON_TEST_CHILD_FILES";
    if std::env::var_os(marker).is_some() {
        let target = HostileTarget::start().await;
        let deliver = patient();
        // The first attempt opens what the runtime opens once.
        assert_eq!(sent(&deliver, attempt(target.url("/status/200"))).await, status(200));
        let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        for make in [own, own] {
            let failed = delivered(&deliver, make(target.url("/status/200"))).await;
            assert_eq!(failed, Delivered::NotTried(LocalLimit::Files));
        }
        drop(files);
        assert_eq!(sent(&deliver, own(target.url("/status/200"))).await, status(200));
        return;
    }
    let test = "fire::deliver::connection_tests::a_node_without_a_free_file_has_made_no_attempt";
    run_in_shell("ulimit -n 64 && exec \"$@\"", test, marker, &[]);
}

#[tokio::test]
async fn without_a_route_there_is_no_attempt() {
    // TCP has no route to a group of receivers, on any machine.
    let failed = delivered(&patient(), attempt("http://224.0.0.1:9/".into())).await;
    assert_eq!(failed, Delivered::NotTried(LocalLimit::Route));
}
