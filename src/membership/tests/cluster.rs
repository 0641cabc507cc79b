//! Members that find each other, change, die, return, leave, join and are doubled.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::hub::{CLUSTER, KEY, World, address, facts, groups, live};
use crate::clock::Clock;
use crate::id::GroupId;
use crate::membership::{ClusterView, DEAD_GRACE, Dropped, Facts, MembershipError, Parts, Twin};

#[tokio::test(start_paused = true)]
async fn members_find_each_other_through_one_seed() {
    for count in [3, 5] {
        let mut nodes = World::new().cluster(count).await;
        for node in &mut nodes {
            let view = node.view.borrow_and_update().clone();
            assert_eq!(view.members.len(), usize::from(count));
            assert_eq!(view.members[&1].facts, facts(1, Some(CLUSTER)));
            assert_eq!(view.clusters().into_iter().collect::<Vec<_>>(), [(CLUSTER, groups())]);
            assert_eq!(view.twin, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn facts_spread_and_change() {
    let mut nodes = World::new().cluster(3).await;
    nodes[1].membership.publish(|facts| facts.ready = true);
    nodes[1].membership.publish(|facts| {
        facts.led = vec![(GroupId(9), 4), (GroupId(2), 7), (GroupId(9), 5)];
        facts.clock_offset_ms = -12;
        facts.draining = true;
    });
    let told = Facts {
        ready: true,
        draining: true,
        led: vec![(GroupId(2), 7), (GroupId(9), 5)],
        clock_offset_ms: -12,
        ..facts(2, Some(CLUSTER))
    };
    for node in &mut nodes {
        node.until("the change", |view| view.members[&2].facts == told).await;
    }
    nodes[1].membership.publish(|facts| facts.led.clear());
    for node in &mut nodes {
        node.until("no led groups", |view| view.members[&2].facts.led.is_empty())
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_become_another_one() {
    let mut node = World::new().start(1).await;
    node.membership.publish(|facts| {
        *facts = Facts {
            zone: "b".into(),
            version: "9".into(),
            ready: true,
            ..super::hub::facts(2, Some(0xC2))
        };
    });
    let view = node.until("ready", |view| view.own().facts.ready).await;
    let expected = Facts {
        ready: true,
        api: super::hub::facts(2, None).api,
        ..facts(1, Some(CLUSTER))
    };
    assert_eq!(view.own().facts, expected);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_member_is_dead_soon_and_returns() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    sleep(Duration::from_secs(10)).await;
    let first = nodes[0].incarnation_of(3);
    let killed_ms = world.clock.monotonic_ms();
    nodes.pop().expect("there are 3").membership.shutdown().await;
    for node in &mut nodes {
        let view = node.until_live(&[1, 2]).await;
        let silent_ms = view.members[&3].since_ms - killed_ms;
        assert!((3_000..=5_000).contains(&silent_ms), "dead after {silent_ms} ms");
        assert_eq!(view.members[&3].facts, facts(3, Some(CLUSTER)));
    }
    let mut back = world.start(3).await;
    back.until_live(&[1, 2, 3]).await;
    for node in &mut nodes {
        node.until_live(&[1, 2, 3]).await;
        assert!(node.incarnation_of(3) > first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_noticed_without_a_death() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    sleep(Duration::from_secs(10)).await;
    let first = nodes[0].incarnation_of(3);
    nodes.pop().expect("there are 3").membership.shutdown().await;
    sleep(Duration::from_secs(1)).await;
    let _back = world.start(3).await;
    let is_new = |view: &crate::membership::ClusterView| {
        assert_eq!(live(view), [1, 2, 3], "the old one counts until the new one is alive");
        view.members[&3].incarnation > first
    };
    nodes[0].until("the new incarnation", is_new).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_not_a_death() {
    let world = World::new();
    let mut nodes = world.cluster(5).await;
    for pause_s in [1, 1, 3] {
        sleep(Duration::from_secs(10)).await;
        world.hub.cut(&[3], &[1, 2, 4, 5]);
        sleep(Duration::from_secs(pause_s)).await;
        world.hub.heal();
        let dead = nodes[0].view.wait_for(|view| live(view).len() != 5);
        assert!(timeout(Duration::from_secs(10), dead).await.is_err(), "{pause_s} s");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_not_waited_for() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    sleep(Duration::from_secs(10)).await;
    let leaver = nodes.pop().expect("there are 3");
    let left_ms = world.clock.monotonic_ms();
    leaver.membership.leave().await;
    for node in &mut nodes {
        let view = node.until_live(&[1, 2]).await;
        let noticed_ms = view.members[&3].since_ms - left_ms;
        assert!(noticed_ms < 2_000, "noticed after {noticed_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_forgotten() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    nodes.pop().expect("there are 3").membership.shutdown().await;
    nodes[0].until_live(&[1, 2]).await;
    sleep(DEAD_GRACE / 2).await;
    assert!(nodes[0].view.borrow().members.contains_key(&3));
    nodes[0].until("no node 3", |view| !view.members.contains_key(&3)).await;
}

#[tokio::test(start_paused = true)]
async fn halves_meet_again_however_long_they_were_apart() {
    let world = World::new();
    let mut nodes = world.cluster(5).await;
    // The seed is gone for ever; nobody is configured to know anybody of the other half.
    nodes.remove(0).membership.shutdown().await;
    world.hub.cut(&[2, 3], &[4, 5]);
    nodes[0].until_live(&[2, 3]).await;
    sleep(DEAD_GRACE * 3).await;
    assert_eq!(nodes[0].view.borrow().members.len(), 2);
    assert_eq!(nodes[2].view.borrow().members.len(), 2);
    world.hub.heal();
    for node in &mut nodes {
        node.until_live(&[2, 3, 4, 5]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_may_be_a_name_that_comes_to_be_known() {
    let world = World::new();
    let mut first = world.start(1).await;
    let named = Parts {
        seeds: vec!["first.example:7000".into()],
        ..world.parts(2)
    };
    let mut second = world.start_with(named).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(live(&second.view.borrow()), [2]);
    world.hub.name("first.example:7000", 1);
    second.until_live(&[1, 2]).await;
    first.until_live(&[1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_joining_node_sees_the_cluster_and_adopts_it() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let joining = Parts {
        facts: facts(3, None),
        ..world.parts(3)
    };
    let mut joiner = world.start_with(joining).await;
    let view = joiner.until("a cluster", |view| !view.clusters().is_empty()).await;
    assert_eq!(view.clusters().into_iter().collect::<Vec<_>>(), [(CLUSTER, groups())]);
    assert_eq!(view.own().facts.cluster, None);
    nodes[0].until("the joiner", |view| view.members.contains_key(&3)).await;
    joiner.membership.adopt(CLUSTER, groups()).expect("it has no cluster");
    for node in &mut nodes {
        node.until("a member", |view| {
            view.members
                .get(&3)
                .is_some_and(|member| member.facts.cluster == Some(CLUSTER))
        })
        .await;
    }
    joiner.until_live(&[1, 2, 3]).await;
    joiner.membership.adopt(CLUSTER, groups()).expect("the same again");
    let other = joiner.membership.adopt(0xC2, groups());
    assert!(matches!(
        other,
        Err(MembershipError::AlreadyMember {
            own: CLUSTER,
            other: 0xC2
        })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_joining_node_sees_every_cluster_and_mixes_none() {
    let world = World::new();
    let mut one = world.start(1).await;
    let other = Parts {
        facts: facts(2, Some(0xC2)),
        seeds: Vec::new(),
        ..world.parts(2)
    };
    let mut other = world.start_with(other).await;
    let joining = Parts {
        facts: facts(3, None),
        seeds: vec![address(1).to_string(), address(2).to_string()],
        ..world.parts(3)
    };
    let mut joiner = world.start_with(joining).await;
    let view = joiner.until("two clusters", |view| view.clusters().len() == 2).await;
    assert_eq!(live(&view), [1, 2, 3]);
    one.until_live(&[1, 3]).await;
    other.until_live(&[2, 3]).await;
    joiner.membership.adopt(CLUSTER, groups()).expect("it has no cluster");
    joiner.until_live(&[1, 3]).await;
    other.until("no joiner", |view| live(view) == [2]).await;
    assert!(!joiner.view.borrow().members.contains_key(&2));
    assert!(!one.view.borrow().members.contains_key(&2));
    assert!(other.counts.of(Dropped::OtherCluster) > 0);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_alive_twice_is_reported_to_both() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let old = nodes[0].incarnation_of(2);
    sleep(Duration::from_secs(5)).await;
    let copy = Parts {
        facts: Facts {
            node: 2,
            ..facts(9, Some(CLUSTER))
        },
        ..world.parts(9)
    };
    let incarnation = copy.incarnation;
    let mut copy = world.start_with(copy).await;
    let is = |twin: Option<Twin>, incarnation: u64, at: u16, is_newer: bool| {
        let wanted = (incarnation, address(at), is_newer);
        twin.is_some_and(|twin| twin.is_alive && (twin.incarnation, twin.peer, twin.is_newer) == wanted)
    };
    let seen = |view: &ClusterView| is(view.twin, incarnation, 9, true);
    nodes[1].until("the newer twin", seen).await;
    let seen = |view: &ClusterView| is(view.twin, old, 2, false);
    copy.until("the older twin", seen).await;
    nodes[0]
        .until("the newest counts", |view| view.members[&2].facts.peer == address(9))
        .await;
    copy.membership.shutdown().await;
    let gone = |view: &ClusterView| view.twin.is_none_or(|twin| !twin.is_alive);
    nodes[1].until("no live twin", gone).await;
    nodes[0]
        .until("the live one counts", |view| view.members[&2].facts.peer == address(2))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moved_is_no_twin_of_itself() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    sleep(Duration::from_secs(10)).await;
    nodes.pop().expect("there are 3").membership.shutdown().await;
    let moved = Parts {
        facts: Facts {
            node: 3,
            ..facts(9, Some(CLUSTER))
        },
        ..world.parts(9)
    };
    let mut moved = world.start_with(moved).await;
    moved.until_live(&[1, 2, 3]).await;
    let clock = world.parts(9).clock;
    let is_first = |view: &Arc<ClusterView>| view.twin.is_some_and(|twin| twin.was_first(clock.wall_ms()));
    let twin = moved.view.wait_for(is_first);
    assert!(timeout(Duration::from_mins(1), twin).await.is_err());
    nodes[0]
        .until("the new address", |view| view.members[&3].facts.peer == address(9))
        .await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_rotated_without_a_gap() {
    let world = World::new();
    let (old, new) = (KEY, [8; 32]);
    // Step by step as in a rolling restart: both are accepted before any node seals with the new one.
    let steps: [[Vec<[u8; 32]>; 2]; 5] = [
        [vec![old], vec![old, new]],
        [vec![old, new], vec![old, new]],
        [vec![old, new], vec![new, old]],
        [vec![new, old], vec![new, old]],
        [vec![new, old], vec![new]],
    ];
    for keys in steps {
        let mut nodes = Vec::new();
        for (node, keys) in (1..).zip(keys) {
            let parts = Parts {
                keys,
                ..world.parts(node)
            };
            nodes.push(world.start_with(parts).await);
        }
        for node in &mut nodes {
            node.until_live(&[1, 2]).await;
            assert_eq!(node.counts.of(Dropped::UnknownKey), 0);
        }
        for node in nodes {
            node.membership.shutdown().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_gossip_is_refused() {
    let world = World::new();
    let _first = world.start(1).await;
    let refused = |parts: Parts| async move {
        crate::membership::Membership::start(parts)
            .await
            .expect_err("it is refused")
            .to_string()
    };
    let no_key = Parts {
        keys: Vec::new(),
        ..world.parts(2)
    };
    assert!(refused(no_key).await.contains("at least one key"));
    let twice = Parts {
        keys: vec![KEY, KEY],
        ..world.parts(2)
    };
    assert!(refused(twice).await.contains("keys 1 and 2"));
    for seed in [
        "",
        "host",
        "host:0",
        "host:70000",
        ":7000",
        "a:b:7000",
        "http://host:7000",
    ] {
        let seeds = vec![seed.to_owned()];
        let parts = Parts {
            seeds,
            ..world.parts(2)
        };
        assert!(refused(parts).await.contains("must be host:port"), "{seed}");
    }
    for peer in ["0.0.0.0:7000", "10.0.0.2:0", "[::1]:7000"] {
        let peer = peer.parse().expect("an address");
        let facts = Facts { peer, ..facts(2, None) };
        let parts = Parts {
            facts,
            ..world.parts(2)
        };
        assert!(refused(parts).await.contains("not an address at which"), "{peer}");
    }
    let zone = "z".repeat(65);
    let facts = Facts { zone, ..facts(2, None) };
    let parts = Parts {
        facts,
        ..world.parts(2)
    };
    assert!(refused(parts).await.contains("zone must have at most 64 bytes"));
    let taken = world.parts(1);
    assert!(refused(taken).await.contains("cannot listen on 10.0.0.1:7000"));
}

#[tokio::test(start_paused = true)]
async fn gossip_ends_with_its_last_handle() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    drop(nodes.pop());
    nodes[0].until_live(&[1]).await;
    let _again = world.start(2).await;
    nodes[0].until_live(&[1, 2]).await;
}
