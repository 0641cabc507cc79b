//! One node as its users see it on a good day and on the usual bad ones: when callbacks arrive, how often, with what
//! bytes, and what a target's answer does. Never judges by how long something took, except that nothing may be early.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::json;

use crate::harness::client::{count, one_shot};
use crate::harness::node::Place;
use crate::harness::oracle::Oracle;
use crate::harness::sink::Sink;
use crate::harness::{eventually, wall_ms, wall_secs};

/// Long enough for an attempt that should not happen to be seen if it does.
const SETTLING: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_one_shots_arrive_once_each_and_never_early() {
    let (place, sink, oracle) = (Place::new(), Sink::start().await, Oracle::default());
    let node = place.node().start().await;
    let mut client = node.client();
    let start = wall_secs() + 2;
    for number in 0..200_u64 {
        let (id, due, body) = (format!("calm-{number}"), start + number % 3, format!("[{number}]"));
        // The body must be an object.
        let body = format!(r#"{{"n":{body}}}"#);
        oracle.creating(&id, due * 1_000, "/ok/calm", &body);
        let told = client.create(one_shot(&id, due, &sink.url("/ok/calm"), &body)).await;
        assert_eq!(told.clone().done(), json!({ "task_id": id }));
        oracle.created(&id, &told);
    }
    sink.wait_for_count(200).await;
    tokio::time::sleep(SETTLING).await;
    let verdict = oracle.judge(&sink.arrivals());
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.acked, verdict.repeats, sink.count()), (200, 0, 200));
    let fires: BTreeSet<String> = sink.arrivals().into_iter().map(|arrival| arrival.fire).collect();
    assert_eq!(fires.len(), 200, "every fire has its own id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_carries_the_headers_and_the_query_counts_it() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().start().await;
    let mut client = node.client();
    let due = wall_secs() + 1;
    let created = client.create(one_shot("headers", due, &sink.url("/ok/h"), "{}")).await;
    created.done();
    let arrival = sink.wait_for("headers", 1).await.remove(0);
    let header = |name: &str| {
        let value = arrival.headers.get(name);
        value.map(|value| value.to_str().expect("ASCII").to_owned())
    };
    assert_eq!(arrival.due_ms, due * 1_000);
    assert_eq!(header("content-type").as_deref(), Some("application/json"));
    assert_eq!(header("xcron-attempt").as_deref(), Some("1"));
    assert_eq!(header("xcron-run").as_deref(), Some("1"));
    let agent = concat!("xcron/", env!("CARGO_PKG_VERSION"));
    assert_eq!(header("user-agent").as_deref(), Some(agent));
    for name in ["webhook-id", "webhook-timestamp", "xcron-generation", "traceparent"] {
        assert!(header(name).is_some_and(|value| !value.is_empty()), "{name} is missing");
    }
    eventually("the delivery in the query", async || {
        (client.run_count("headers").await == 1).then_some(())
    })
    .await;
    let data = client.query("headers").await.done();
    assert_eq!(data["task_id"], "headers");
    assert_eq!(data["type"], 2);
    assert_eq!(data["format"], due.to_string());
    assert_eq!(data["callback"]["url"], sink.url("/ok/h"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_tried_again_as_the_same_fire() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().set("retry.first_delay_ms", 50).start().await;
    let mut client = node.client();
    let due = wall_secs() + 1;
    for path in ["/flaky", "/fail", "/redirect", "/close"] {
        let task = one_shot(&path[1..], due, &sink.url(path), "{}");
        client.create(task).await.done();
    }
    let flaky = sink.wait_for("flaky", 2).await;
    for (task, attempts) in [("fail", 3), ("redirect", 3), ("close", 3)] {
        sink.wait_for(task, attempts).await;
    }
    eventually("the delivery in the query", async || {
        (client.run_count("flaky").await == 1).then_some(())
    })
    .await;
    tokio::time::sleep(SETTLING).await;
    assert_eq!(sink.of("flaky").len(), 2, "delivered at the second attempt");
    assert_eq!([flaky[0].attempt, flaky[1].attempt], [1, 2]);
    for task in ["flaky", "fail", "redirect", "close"] {
        let attempts = sink.of(task);
        let numbers: Vec<u64> = attempts.iter().map(|arrival| arrival.attempt).collect();
        let expected: Vec<u64> = (1..=attempts.len() as u64).collect();
        assert_eq!(numbers, expected, "{task}");
        assert!(
            attempts.iter().all(|arrival| arrival.fire == attempts[0].fire),
            "{task}"
        );
        assert!(attempts.iter().all(|arrival| arrival.due_ms == due * 1_000), "{task}");
        assert!(attempts.len() <= 3, "{task}: three attempts is the default");
    }
    let redirected = sink.arrivals().iter().any(|arrival| arrival.path == "/ok/redirected");
    assert!(!redirected, "no redirect is followed");
    for task in ["fail", "redirect", "close"] {
        assert_eq!(client.run_count(task).await, 0, "{task}: run_count counts deliveries");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_ends_the_task_without_another_attempt() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().set("retry.first_delay_ms", 50).start().await;
    let mut client = node.client();
    let task = one_shot("gone", wall_secs() + 1, &sink.url("/gone"), "{}");
    client.create(task).await.done();
    sink.wait_for("gone", 1).await;
    eventually("the end of the task in the metrics", async || {
        (client.count("xcron_tasks_pending").await == 0).then_some(())
    })
    .await;
    tokio::time::sleep(SETTLING).await;
    assert_eq!(sink.of("gone").len(), 1);
    assert_eq!(client.run_count("gone").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_holds_up_nobody_else() {
    let (place, slow, quick) = (Place::new(), Sink::start().await, Sink::start().await);
    // More hang than one target may have in flight, and none ends by itself while this runs.
    let node = place
        .node()
        .set("fire.in_flight_per_target_max", 8)
        .set("fire.in_flight_max", 16)
        .set("fire.timeout_ms", 600_000)
        .start()
        .await;
    let mut client = node.client();
    let due = wall_secs() + 2;
    for number in 0..40 {
        let hanging = one_shot(&format!("slow-{number}"), due, &slow.url("/hang"), "{}");
        client.create(hanging).await.done();
    }
    for number in 0..40 {
        let prompt = one_shot(&format!("quick-{number}"), due + 1, &quick.url("/ok"), "{}");
        client.create(prompt).await.done();
    }
    quick.wait_for_count(40).await;
    let hanging = slow.count();
    assert!((1..=8).contains(&hanging), "{hanging} calls hang, 8 are allowed");
    slow.release();
    slow.wait_for_count(40).await;
    tokio::time::sleep(SETTLING).await;
    assert_eq!((slow.count(), quick.count()), (40, 40), "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_task_does_not_arrive() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().start().await;
    let mut client = node.client();
    let due = wall_secs() + 2;
    for id in ["deleted", "kept"] {
        client.create(one_shot(id, due, &sink.url("/ok"), "{}")).await.done();
    }
    client.delete("deleted").await.done();
    assert!(
        wall_secs() < due,
        "the machine was too slow to delete in time: nothing can be said"
    );
    client.delete("deleted").await.done();
    assert_eq!(client.delete("never-was").await.refused(), 1008);
    assert_eq!(client.query("deleted").await.refused(), 1008);
    let again = client
        .create(one_shot("deleted", due + 60, &sink.url("/ok"), "{}"))
        .await;
    assert_eq!(again.refused(), 1012, "a late retry does not bring a deleted task back");
    sink.wait_for("kept", 1).await;
    tokio::time::sleep(SETTLING).await;
    assert_eq!(sink.of("deleted").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_repeated_with_its_id_is_one_task() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().start().await;
    let mut client = node.client();
    let due = wall_secs() + 2;
    let task = one_shot("once", due, &sink.url("/ok"), r#"{"a":1}"#);
    for _ in 0..3 {
        assert_eq!(client.create(task.clone()).await.done()["task_id"], "once");
    }
    let other = one_shot("once", due, &sink.url("/ok"), r#"{"a":2}"#);
    assert_eq!(client.create(other).await.refused(), 1012);
    sink.wait_for("once", 1).await;
    tokio::time::sleep(SETTLING).await;
    let attempts = sink.of("once");
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].body, r#"{"a":1}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_byte_for_byte() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().start().await;
    let mut client = node.client();
    let due = wall_secs() + 1;
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(60_000));
    let bodies = [
        "{}",
        "{ }",
        "{\"z\" : 1,\t\"a\":2 ,\r\n \"m\":{\"b\":[1 , 2]} }",
        r#"{"big":9007199254740993,"bigger":123456789012345678901234567890,"small":-0.0,"exponent":1E+02}"#,
        r#"{"same":1,"same":2}"#,
        r#"{"escaped":"\u0041\/\ud83d\ude00","plain":"😀 é","nul":"\u0000"}"#,
        &long,
    ];
    for (number, body) in bodies.iter().enumerate() {
        let task = one_shot(&format!("body-{number}"), due, &sink.url("/ok"), body);
        client.create(task).await.done();
    }
    let absent = format!(
        r#"{{"task_id":"absent","type":2,"format":{due},"callback":{{"url":"{}"}}}}"#,
        sink.url("/ok")
    );
    client.create(absent).await.done();
    for (number, body) in bodies.iter().enumerate() {
        let arrival = sink.wait_for(&format!("body-{number}"), 1).await.remove(0);
        assert_eq!(arrival.body, Bytes::copy_from_slice(body.as_bytes()), "body {number}");
    }
    assert_eq!(sink.wait_for("absent", 1).await[0].body, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_due_while_the_node_was_down_arrives_late_and_once() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().start().await;
    let due = wall_secs() + 2;
    let mut client = node.client();
    for number in 0..20 {
        let task = one_shot(&format!("late-{number}"), due, &sink.url("/ok"), "{}");
        client.create(task).await.done();
    }
    node.kill();
    assert!(
        wall_secs() < due,
        "the machine was too slow to kill in time: nothing can be said"
    );
    eventually("the due", async || (wall_ms() > due * 1_000 + 200).then_some(())).await;
    assert_eq!(sink.count(), 0);
    let node = place.node().start().await;
    sink.wait_for_count(20).await;
    tokio::time::sleep(SETTLING).await;
    let mut client = node.client();
    for number in 0..20 {
        let task = format!("late-{number}");
        let attempts = sink.of(&task);
        assert_eq!(attempts.len(), 1, "{task}");
        assert_eq!(attempts[0].due_ms, due * 1_000, "{task}: the due is not moved");
        assert_eq!(client.run_count(&task).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_stop_loses_and_repeats_nothing() {
    let (place, sink, oracle) = (Place::new(), Sink::start().await, Oracle::default());
    let mut node = place.node().start().await;
    let mut number = 0;
    for _ in 0..3 {
        let mut client = node.client();
        let due = wall_secs() + 2;
        for _ in 0..60 {
            let (id, due) = (format!("stop-{number}"), due + number % 2);
            number += 1;
            oracle.creating(&id, due * 1_000, "/ok", "{}");
            let told = client.create(one_shot(&id, due, &sink.url("/ok"), "{}")).await;
            oracle.created(&id, &told);
        }
        // In the middle of the first due second's callbacks.
        eventually("the due", async || (wall_ms() >= due * 1_000).then_some(())).await;
        let ended = node.terminate().await;
        assert_eq!(ended.status.code(), Some(0), "{ended}");
        node = place.node().start().await;
    }
    eventually("all callbacks", async || {
        oracle.missing(&sink.arrivals()).is_empty().then_some(())
    })
    .await;
    tokio::time::sleep(SETTLING).await;
    let verdict = oracle.judge(&sink.arrivals());
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!((verdict.acked, verdict.repeats), (180, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_count_what_happened() {
    let (place, sink) = (Place::new(), Sink::start().await);
    let node = place.node().set("retry.first_delay_ms", 50).start().await;
    let mut client = node.client();
    let due = wall_secs() + 1;
    for id in ["m-1", "m-2", "m-3"] {
        client.create(one_shot(id, due, &sink.url("/ok"), "{}")).await.done();
    }
    client
        .create(one_shot("m-flaky", due, &sink.url("/flaky"), "{}"))
        .await
        .done();
    client
        .create(one_shot("m-far", due + 86_400, &sink.url("/ok"), "{}"))
        .await
        .done();
    client
        .create(one_shot("m-deleted", due + 86_400, &sink.url("/ok"), "{}"))
        .await
        .done();
    client.delete("m-deleted").await.done();
    let page = eventually("four deliveries in the metrics", async || {
        let page = client.request(Method::GET, "/metrics", Bytes::new()).await;
        let page = page.expect("the node answers").text();
        (count(&page, r#"xcron_outcomes_total{verdict="delivered"}"#) == Some(4)).then_some(page)
    })
    .await;
    for (series, value) in [
        ("xcron_creates_total", 6),
        ("xcron_deletes_total", 1),
        ("xcron_attempts_total", 5),
        (r#"xcron_attempt_answers_total{class="2xx"}"#, 4),
        (r#"xcron_attempt_answers_total{class="5xx"}"#, 1),
        ("xcron_fire_lateness_seconds_count", 4),
        ("xcron_tasks_pending", 1),
        ("xcron_fires_overdue", 0),
        ("xcron_fires_in_flight", 0),
        ("xcron_ready", 1),
    ] {
        assert_eq!(count(&page, series), Some(value), "{series} in\n{page}");
    }
    for series in ["xcron_log_sync_seconds_count", "xcron_proposal_batch_ops_count"] {
        assert!(count(&page, series).is_some_and(|samples| samples > 0), "{series}");
    }
}
