//! What strangers send, and what the members make of it: nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatId, spawn_chitchat};
use tokio::time::sleep;

use super::hub::{CLUSTER, CountingEntropy, Counts, KEY, VirtualClock, World, address, facts, live};
use crate::clock::Clock;
use crate::membership::observe::Reporter;
use crate::membership::seal::Sealer;
use crate::membership::transport::SealedTransport;
use crate::membership::{AGE_MS_MAX, DATAGRAM_BYTES_MAX, Dropped, GOSSIP_INTERVAL, Parts};

/// Where strangers send from.
const STRANGER: u16 = 99;

#[tokio::test(start_paused = true)]
async fn another_secret_stays_out() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let parts = Parts {
        keys: vec![[9; 32]],
        ..world.parts(3)
    };
    let stranger = world.start_with(parts).await;
    nodes[0].until_dropped(Dropped::UnknownKey, 10).await;
    assert_eq!(live(&stranger.view.borrow()), [3]);
    let view = nodes[0].view.borrow_and_update().clone();
    assert_eq!(view.members.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_stays_out() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let parts = Parts {
        facts: facts(3, Some(0xC2)),
        ..world.parts(3)
    };
    let stranger = world.start_with(parts).await;
    nodes[0].until_dropped(Dropped::OtherCluster, 10).await;
    assert_eq!(live(&stranger.view.borrow()), [3]);
    let view = nodes[0].view.borrow_and_update().clone();
    assert_eq!(view.members.keys().copied().collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_arrives_stops_a_node() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let (genuine, unseen) = (world.hub.last(2, 1), sealed(world.clock.clone(), b"never delivered"));
    let changed = |at: usize| {
        let mut datagram = unseen.clone();
        datagram[at] ^= 1;
        datagram
    };
    let last = unseen.len() - 1;
    let mut wrong: Vec<(Dropped, Vec<u8>)> = vec![
        (Dropped::Truncated, Vec::new()),
        (Dropped::Truncated, genuine[..59].to_vec()),
        (Dropped::TooLarge, vec![0; DATAGRAM_BYTES_MAX + 1]),
        (Dropped::TooLarge, vec![0; 2 * DATAGRAM_BYTES_MAX]),
        (Dropped::Magic, vec![0; 100]),
        (Dropped::Magic, vec![0xFF; DATAGRAM_BYTES_MAX]),
        (Dropped::Version, changed(3)),
        (Dropped::UnknownKey, changed(4)),
        (Dropped::OtherCluster, changed(8)),
        (Dropped::Forged, changed(43)),
        (Dropped::Forged, changed(44)),
        (Dropped::Forged, changed(last)),
        (Dropped::Forged, unseen[..last].to_vec()),
        (Dropped::Replayed, genuine.clone()),
    ];
    for (away_ms, why) in [(61_000, Dropped::Future), (-61_000, Dropped::Stale)] {
        let clock = VirtualClock::new();
        clock.wrong_ms.store(away_ms, Ordering::Relaxed);
        wrong.push((why, sealed(clock, b"too early or too late")));
    }
    wrong.push((Dropped::Malformed, sealed(world.clock.clone(), b"not of chitchat")));
    wrong.push((Dropped::Malformed, sealed(world.clock.clone(), b"")));
    for (why, datagram) in wrong {
        let before = nodes[0].counts.of(why);
        world.hub.inject(address(STRANGER), address(1), &datagram);
        nodes[0].until_dropped(why, before).await;
        assert_eq!(nodes[0].counts.of(why), before + 1);
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(live(&nodes[0].view.borrow()), [1, 2, 3]);
    assert_eq!(nodes[0].counts.reopened.load(Ordering::Relaxed), 0);
    nodes[1].membership.publish(|facts| facts.ready = true);
    nodes[0]
        .until("it still listens", |view| view.members[&2].facts.ready)
        .await;
}

/// A datagram sealed with the members' key, 1 ms into the world's time or as wrong as `clock` is.
fn sealed(clock: Arc<dyn Clock>, message: &[u8]) -> Vec<u8> {
    // Its own nonces, so that none is a replay.
    let sealer = Sealer::new(
        &[KEY],
        Some(CLUSTER),
        clock,
        CountingEntropy::from(message.len() as u64 + (1 << 60)),
    );
    let mut datagram = Vec::new();
    sealer.expect("one key").seal(message, &mut datagram);
    datagram
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_silences_a_node_until_it_is_right() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let wrong = World {
        clock: VirtualClock::new(),
        ..world.clone()
    };
    let beyond = i64::try_from(AGE_MS_MAX).expect("it is small") + 10_000;
    wrong.clock.wrong_ms.store(beyond, Ordering::Relaxed);
    let mut third = wrong.start(3).await;
    nodes[0].until_dropped(Dropped::Future, 10).await;
    assert_eq!(live(&third.view.borrow()), [3]);
    assert_eq!(live(&nodes[0].view.borrow()), [1, 2]);
    wrong.clock.wrong_ms.store(0, Ordering::Relaxed);
    third.until_live(&[1, 2, 3]).await;
    nodes[0].until_live(&[1, 2, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_socket_is_replaced() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let first = nodes[0].incarnation_of(2);
    world.hub.break_socket(2);
    nodes[0]
        .until("a new incarnation", |view| view.members[&2].incarnation > first)
        .await;
    for node in &mut nodes {
        node.until_live(&[1, 2, 3]).await;
    }
    assert_eq!(nodes[1].counts.reopened.load(Ordering::Relaxed), 1);
    assert!(nodes[1].counts.of(Dropped::NotReceived) > 0);
    assert_eq!(nodes[1].view.borrow().twin, None);
    nodes[1].membership.publish(|facts| facts.ready = true);
    nodes[0]
        .until("what it tells", |view| view.members[&2].facts.ready)
        .await;
}

#[tokio::test(start_paused = true)]
async fn unreadable_facts_are_counted_and_left_out() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let counts = Arc::new(Counts::default());
    let sealer = Sealer::new(
        &[KEY],
        Some(CLUSTER),
        world.clock.clone(),
        CountingEntropy::from(1 << 61),
    );
    let transport = SealedTransport {
        network: Arc::new(world.hub.clone()),
        sealer: Arc::new(sealer.expect("one key")),
        reporter: Arc::new(Reporter::new(counts, world.clock.clone())),
    };
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new("0000000000000003", 1, address(3)),
        cluster_id: "xcron".into(),
        gossip_interval: GOSSIP_INTERVAL,
        listen_addr: address(3),
        seed_nodes: vec![address(1).to_string()],
        failure_detector_config: chitchat::FailureDetectorConfig::default(),
        marked_for_deletion_grace_period: Duration::from_mins(1),
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let told = facts(3, Some(CLUSTER)).tell(false);
    let [about, ..] = told.clone();
    let handle = spawn_chitchat(config, vec![(about.0.into(), about.1)], &transport).await;
    let handle = handle.expect("it starts");
    nodes[0].until_unreadable().await;
    assert!(!nodes[0].view.borrow().members.contains_key(&3));
    // The rest of them: now it is a member.
    let state = handle.chitchat();
    for (key, value) in told {
        state.lock().await.self_node_state().set(key, value);
    }
    nodes[0].until_live(&[1, 2, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_logged_once_a_minute() {
    let counts = Arc::new(Counts::default());
    let reporter = Reporter::new(counts.clone(), VirtualClock::new());
    let stranger = Some(address(STRANGER));
    assert!(reporter.dropped(Dropped::Magic, stranger, None));
    assert!(!reporter.dropped(Dropped::Magic, stranger, None));
    assert!(reporter.dropped(Dropped::Forged, stranger, None));
    sleep(Duration::from_secs(61)).await;
    assert!(reporter.dropped(Dropped::Magic, stranger, None));
    assert_eq!(counts.of(Dropped::Magic), 3);
}

#[test]
fn every_reason_has_a_label_of_its_own() {
    let labels: std::collections::BTreeSet<_> = Dropped::ALL.iter().map(|why| why.label()).collect();
    assert_eq!(labels.len(), Dropped::ALL.len());
}
