//! A cluster of real processes on loopback: any node serves any call, every task fires once, and no fault of a node makes
//! the cluster lose, hurry or, but for what was on its way, repeat a fire.

mod founding;
mod load;
mod lost_majority;
mod moves;
mod old_copies;
mod strangers;
mod voters;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use rand::RngExt;
use serde_json::{Value, json};

use crate::harness::client::{Told, one_shot};
use crate::harness::cluster::Cluster;
use crate::harness::oracle::Oracle;
use crate::harness::sink::Sink;
use crate::harness::{eventually, random, wall_ms, wall_secs};

use load::Load;

/// Long enough for an attempt that should not happen to be seen if it does.
const SETTLING: Duration = Duration::from_secs(1);
const NODES: usize = 3;
/// Far in the future of every test.
const FAR_SECS: u64 = 4_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn any_of_three_nodes_serves_any_call_and_tasks_fire_once() {
    const TASKS: usize = 60;
    let cluster = Cluster::start(NODES).await;
    let (sink, oracle) = (Sink::start().await, Oracle::default());
    every_node_shows_the_same_cluster(&cluster).await;
    let start = wall_secs() + 10;
    for number in 0..TASKS {
        let (id, due) = (format!("any-{number}"), start + number as u64 % 3);
        let mut nodes = (0..NODES).map(|step| cluster.client((number + step * (1 + number / 3 % 2)) % NODES));
        let mut next = || nodes.next().expect("three are asked");
        let body = format!(r#"{{"n":{number}}}"#);
        oracle.creating(&id, due * 1_000, "/ok", &body);
        let task = one_shot(&id, due, &sink.url("/ok"), &body);
        let told = next().create(task.clone()).await;
        assert_eq!(told.clone().done(), json!({ "task_id": id }));
        oracle.created(&id, &told);
        let mut second = next();
        let shown = second.query(&id).await.done();
        assert_eq!(
            (&shown["task_id"], &shown["callback"]["body"]["n"]),
            (&json!(id), &json!(number))
        );
        assert_eq!(
            second.create(task).await.done(),
            json!({ "task_id": id }),
            "the same again"
        );
        let other = one_shot(&id, due, &sink.url("/ok"), r#"{"n":-1}"#);
        assert_eq!(
            second.create(other.clone()).await.refused(),
            1012,
            "the same id, another content"
        );
        if number % 4 == 0 {
            let mut third = next();
            oracle.deleting(&id);
            let told = third.delete(&id).await;
            oracle.deleted(&id, &told);
            told.done();
            assert_eq!(second.query(&id).await.refused(), 1008);
            assert_eq!(
                second.create(other).await.refused(),
                1012,
                "a deleted task does not come back"
            );
        }
    }
    assert!(
        wall_secs() < start,
        "the machine was too slow to delete in time: nothing can be said"
    );
    assert_eq!(cluster.client(0).delete("never-was").await.refused(), 1008);
    sink.wait_for_count(TASKS - TASKS / 4).await;
    tokio::time::sleep(SETTLING).await;
    let verdict = oracle.judge(&sink.arrivals());
    assert_eq!(verdict.violations, Vec::<String>::new());
    let expected = (TASKS, 0, TASKS - TASKS / 4);
    assert_eq!((verdict.acked, verdict.repeats, sink.count()), expected);
    for number in [1, 2, 3, 5] {
        let mut client = cluster.client(number % NODES);
        eventually("the delivery in the query", async || {
            (client.run_count(&format!("any-{number}")).await == 1).then_some(())
        })
        .await;
    }
    cluster.terminate().await;
}

async fn every_node_shows_the_same_cluster(cluster: &Cluster) {
    let mut seen = BTreeSet::new();
    for index in 0..cluster.len() {
        let reply = cluster
            .client(index)
            .request(Method::GET, "/v1/cluster", Bytes::new())
            .await;
        let reply = reply.expect("the node answers").text();
        let shown: Value = serde_json::from_str(&reply).expect("JSON");
        for name in [
            "id",
            "api",
            "peer",
            "zone",
            "version",
            "alive",
            "draining",
            "left",
            "led",
            "replicas",
            "clock_offset_ms",
        ] {
            let nodes = shown["nodes"].as_array().expect("a list");
            assert!(nodes.iter().all(|node| node.get(name).is_some()), "{name} in {reply}");
        }
        for name in [
            "group",
            "leader",
            "generation",
            "voters",
            "learners",
            "planned",
            "lag",
            "copies",
        ] {
            let groups = shown["groups"].as_array().expect("a list");
            assert!(
                groups.iter().all(|group| group.get(name).is_some()),
                "{name} in {reply}"
            );
        }
        let view = cluster.view(index).await.expect("the node answers");
        let own = view.node_at(cluster.apis()[index]).expect("a node knows itself");
        assert!(
            own.id.len() == 16 && own.id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{own:?}"
        );
        seen.insert(view.cluster);
    }
    assert_eq!(seen.len(), 1, "one cluster: {seen:?}");
}

/// A target's dues are whole seconds, so a fault right before one shows how long nobody fires.
async fn just_before_a_second() {
    let left_ms = 1_000 - wall_ms() % 1_000;
    let wait_ms = if left_ms > 40 { left_ms - 40 } else { left_ms + 960 };
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_of_most_groups_loses_nothing() {
    let mut cluster = Cluster::start(NODES).await;
    let load = Load::start(cluster.apis(), &mut random(41)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let busiest = cluster.busiest().await;
    just_before_a_second().await;
    let from_ms = wall_ms();
    cluster.kill(busiest);
    load.oracle().killed(from_ms, wall_ms());
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.restart(busiest).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let verdict = load.finish("leader killed", &cluster).await;
    assert!(
        verdict.acked > 200,
        "too few were acknowledged to say anything: {verdict:?}"
    );
    cluster.at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_and_started_again_keeps_its_votes() {
    let mut cluster = Cluster::start(NODES).await;
    cluster.kill(2);
    cluster.spawn(2);
    // Every change of voters goes through the log, and a step comes at most twice a second.
    for _ in 0..40 {
        let view = eventually("a node shows the cluster", async || cluster.view(0).await).await;
        for group in view.groups.iter().filter(|group| group.leader.is_some()) {
            assert_eq!(
                group.voters.len(),
                NODES,
                "a restart is no reason to have fewer copies: {group:?}"
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.ready(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_for_five_seconds_changes_nothing() {
    let mut cluster = Cluster::start(NODES).await;
    let load = Load::start(cluster.apis(), &mut random(42)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let busiest = cluster.busiest().await;
    just_before_a_second().await;
    let from_ms = wall_ms();
    cluster.pause(busiest);
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.oracle().paused(from_ms, wall_ms());
    cluster.resume(busiest);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.ready(busiest).await;
    let verdict = load.finish("paused 5 s", &cluster).await;
    assert!(
        verdict.acked > 200,
        "too few were acknowledged to say anything: {verdict:?}"
    );
    cluster.at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_keep_their_promises() {
    let mut random = random(43);
    let mut cluster = Cluster::start(NODES).await;
    let load = Load::start(cluster.apis(), &mut random).await;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(random.random_range(1_500..3_000))).await;
        let from_ms = wall_ms();
        cluster.kill_all();
        load.oracle().killed(from_ms, wall_ms());
        cluster.heal().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let verdict = load.finish("all killed at once, twice", &cluster).await;
    assert!(
        verdict.acked > 200,
        "too few were acknowledged to say anything: {verdict:?}"
    );
    cluster.at_rest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_grows_to_three_and_may_then_be_lost() {
    const PENDING: usize = 300;
    let mut cluster = Cluster::start(1).await;
    let sink = Sink::start().await;
    let mut client = cluster.client(0);
    for number in 0..PENDING {
        let task = one_shot(&format!("pending-{number}"), FAR_SECS, &sink.url("/ok"), "{}");
        client.create(task).await.done();
    }
    let load = Load::start(cluster.apis(), &mut random(44)).await;
    cluster.grow(2).await;
    let verdict = load.finish("grown from 1 to 3", &cluster).await;
    assert_eq!(verdict.repeats, 0, "growth is no fault");
    assert!(
        verdict.acked > 100,
        "too few were acknowledged to say anything: {verdict:?}"
    );
    // Everything is on the new nodes by now.
    cluster.kill(0);
    for number in 0..PENDING {
        let mut client = cluster.client(1 + number % 2);
        let id = format!("pending-{number}");
        let shown = eventually(
            &format!("{id} is shown without the first node"),
            async || match client.query(&id).await {
                Told::Done(data) => Some(data),
                Told::Refused(code, message) => panic!("{id} was lost in the move: {code} {message}"),
                Told::Unknown(_) => None,
            },
        )
        .await;
        assert_eq!(shown["format"], FAR_SECS.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_says_that_it_cannot_know() {
    let mut cluster = Cluster::start(NODES).await;
    let task = |id: &str| one_shot(id, FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(0).create(task("before")).await.done();
    cluster.pause(1);
    cluster.pause(2);
    let mut client = cluster.client(0);
    // Leases of before the pause may still be valid; without them no read and no write has an answer.
    for id in ["before", "after"] {
        let asked_ms = eventually("the minority knows that it is one", async || {
            let asked_ms = wall_ms();
            matches!(client.query(id).await, Told::Unknown(_)).then_some(asked_ms)
        })
        .await;
        println!("query of {id}: not known, told after {} ms", wall_ms() - asked_ms);
    }
    let asked_ms = wall_ms();
    let told = client.create(task("after")).await;
    assert!(matches!(told, Told::Unknown(_)), "{told:?}");
    println!("create: not known, told after {} ms", wall_ms() - asked_ms);
    cluster.heal().await;
    for index in 0..NODES {
        let mut client = cluster.client(index);
        eventually("the cluster serves again", async || {
            match client.query("before").await {
                Told::Done(data) => Some(data),
                Told::Refused(code, message) => panic!("an acknowledged task is lost: {code} {message}"),
                Told::Unknown(_) => None,
            }
        })
        .await;
    }
    eventually("the create can be repeated", async || {
        matches!(cluster.client(1).create(task("after")).await, Told::Done(_)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_secret_is_refused_and_told_why() {
    let mut cluster = Cluster::start(2).await;
    let stranger = cluster.stranger("another secret, as long as a secret must be");
    eventually("the stranger says what is wrong", async || {
        stranger.stderr().to_lowercase().contains("secret").then_some(())
    })
    .await;
    // The others did not even notice.
    cluster.at_rest().await;
    let task = one_shot("undisturbed", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(1).create(task).await.done();
    assert_eq!(cluster.client(0).query("undisturbed").await.done()["type"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_data_directory_is_refused_while_the_original_lives() {
    let mut cluster = Cluster::start(NODES).await;
    cluster.kill(2);
    let copy = cluster.copy(2);
    cluster.restart(2).await;
    let Err(ended) = copy.try_start().await else {
        panic!("two processes are one node");
    };
    assert!(ended.stderr.contains("is alive already, at "), "{}", ended.stderr);
    cluster.at_rest().await;
    let task = one_shot("undisturbed", FAR_SECS, "http://127.0.0.1:9/", "{}");
    cluster.client(2).create(task).await.done();
}
