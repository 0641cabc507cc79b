//! Paths, methods, the envelope's shape, where a task id may stand, and health.

use super::*;
use crate::core::target::Target;

fn keys(value: &Value) -> Vec<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test]
async fn the_envelope_has_its_fields_and_a_fresh_uuid() {
    let (app, _readiness) = app_with(FakeTasks::default());
    let created = post(&app, "createTask", good().to_string()).await;
    let refused = post(&app, "createTask", "x").await;
    let deleted = post(&app, "deleteTask", r#"{"task_id":"t"}"#).await;
    assert_eq!(keys(&created.json()), ["code", "data", "uuid"]);
    assert_eq!(keys(&refused.json()), ["code", "message", "uuid"]);
    assert_eq!(keys(&deleted.json()), ["code", "uuid"]);
    assert!(
        created
            .text
            .starts_with(r#"{"uuid":"01010101-0101-4101-8101-010101010101","code":0,"#),
        "{}",
        created.text
    );
    assert_ne!(created.json()["uuid"], deleted.json()["uuid"]);
    for answer in [created, refused, deleted] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    }
}

#[tokio::test]
async fn unknown_paths_are_404_with_the_envelope() {
    let (app, _readiness) = app_with(FakeTasks::default());
    for path in [
        "/",
        "/xcron",
        "/xcron/createtask",
        "/xcron/createTask/",
        "/xcron/peer",
        "/v2/tasks",
    ] {
        let answer = get(&app, path).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, 404), "{path}");
        assert_eq!(keys(&answer.json()), ["code", "message", "uuid"]);
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
        for part in [
            "/xcron/createTask",
            "/v1/tasks/{id}",
            "/v1/cluster",
            "/metrics",
            "/healthz",
            "/readyz",
        ] {
            assert!(answer.message().contains(part), "{part} is missing: {}", answer.text);
        }
    }
    for (method, status, code) in [
        (Method::GET, StatusCode::NOT_FOUND, "not_found"),
        (Method::DELETE, StatusCode::NOT_FOUND, "not_found"),
    ] {
        let request = request(method, "/v1/tasks").body(Body::empty()).expect("a request");
        let answer = send(&app, request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)));
    }
    let request = request(Method::DELETE, "/v1/cluster")
        .body(Body::empty())
        .expect("a request");
    let answer = send(&app, request).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.json()["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_query_tells_the_truth_about_instants_and_zones() {
    use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};
    let query = async |schedule: Schedule| {
        let spec = TaskSpec {
            id: TaskId::parse("t").expect("valid"),
            schedule,
            url: "http://h/".to_owned(),
            body: b"{}".to_vec(),
            created_ms: NOW_MS,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        };
        let view = Some(TaskView {
            spec,
            state: TaskState::new(NOW_MS, Target([0; 16])),
        });
        let (app, _readiness) = app_with(FakeTasks {
            view,
            ..FakeTasks::default()
        });
        let data = get(&app, "/xcron/queryTask?task_id=t").await.json()["data"].clone();
        (data["format"].clone(), data["at"].clone(), data["schedule"].clone())
    };
    let once = |at_ms| Schedule::Once { at_ms };
    let cron = |timezone: &str| Schedule::Cron {
        expression: "@daily".to_owned(),
        timezone: timezone.to_owned(),
    };
    assert_eq!(
        query(once(1_893_456_000_000)).await,
        (json!("1893456000"), json!(null), json!(null))
    );
    let at = "2030-01-01T00:00:00.001Z";
    let expected = (json!("1893456001"), json!(at), json!({"at": at}));
    assert_eq!(query(once(1_893_456_000_001)).await, expected);
    let late = query(once(20_000_000_000_000)).await;
    assert_eq!(
        (late.0, late.1),
        (json!("9999999999"), json!("2603-10-11T11:33:20.000Z"))
    );
    assert_eq!(query(cron("UTC")).await, (json!("@daily"), json!(null), json!(null)));
    let expected = (
        json!("@daily"),
        json!(null),
        json!({"cron": "@daily", "timezone": "Asia/Tokyo"}),
    );
    assert_eq!(query(cron("Asia/Tokyo")).await, expected);
}

#[tokio::test]
async fn wrong_methods_are_405_with_the_envelope() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    for (method, path, allow) in [
        (Method::GET, "/xcron/createTask", "POST"),
        (Method::PUT, "/xcron/createTask", "POST"),
        (Method::DELETE, "/xcron/deleteTask", "POST"),
        (Method::POST, "/xcron/queryTask?task_id=t", "GET,HEAD"),
        (Method::POST, "/healthz", "GET,HEAD"),
    ] {
        let request = request(method, path)
            .body(good().to_string().into())
            .expect("a request");
        let answer = send(&app, request).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::METHOD_NOT_ALLOWED, 405),
            "{path}"
        );
        assert_eq!(keys(&answer.json()), ["code", "message", "uuid"]);
        assert_eq!(answer.headers[ALLOW], allow, "{path}");
    }
    assert!(
        seen.created.lock().is_empty() && seen.asked.lock().is_empty(),
        "nothing was done"
    );
}

#[tokio::test]
async fn a_task_id_is_taken_from_the_query_string_or_a_json_body() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    let query = async |path: &str, body: &'static str| {
        send(
            &app,
            request(Method::GET, path).body(Body::from(body)).expect("a request"),
        )
        .await
        .code()
    };
    assert_eq!(query("/xcron/queryTask?task_id=a", "").await, 1008);
    assert_eq!(query("/xcron/queryTask?x=y&task_id=%62%3A1&task_id=z", "").await, 1008);
    assert_eq!(query("/xcron/queryTask", r#"{"task_id":"c"}"#).await, 1008);
    assert_eq!(query("/xcron/queryTask?x=y", r#"{"task_id":"d"}"#).await, 1008);
    assert_eq!(query("/xcron/queryTask?task_id=e", r#"{"task_id":"f"}"#).await, 1008);
    assert_eq!(query("/xcron/queryTask?task_id=g&consistency=stale", "").await, 1008);
    assert_eq!(
        query("/xcron/queryTask?consistency=stale", r#"{"task_id":"h"}"#).await,
        1008
    );
    assert_eq!(
        query("/xcron/queryTask?task_id=i&consistency=linearizable", "").await,
        1008
    );
    assert_eq!(query("/xcron/queryTask?task_id=j&consistency=old", "").await, 1000);
    let asked: Vec<_> = seen.asked.lock().iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["a", "b:1", "c", "d", "e", "g", "h", "i"]);
    let stale: Vec<_> = seen.asked_stale.lock().iter().map(ToString::to_string).collect();
    assert_eq!(stale, ["g", "h"]);
    for path in [
        "/xcron/queryTask",
        "/xcron/queryTask?",
        "/xcron/queryTask?task_id=",
        "/xcron/queryTask?task_id=%ff",
    ] {
        assert_eq!(query(path, "").await, 1000, "{path}");
    }
    for body in [
        "{}",
        r#"{"task_id":null}"#,
        r#"{"task_id":7}"#,
        r#"{"task_id":"a b"}"#,
        r#"["a"]"#,
        "a",
    ] {
        assert_eq!(query("/xcron/queryTask", body).await, 1000, "{body}");
        assert_eq!(post(&app, "deleteTask", body).await.code(), 1000, "{body}");
    }
}

#[tokio::test]
async fn every_answer_to_a_call_is_observed() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    post(&app, "createTask", "x").await;
    get(&app, "/xcron/queryTask?task_id=t").await;
    get(&app, "/healthz").await;
    assert_eq!(
        *seen.answered.lock(),
        [(Call::CreateTask, 1000), (Call::QueryTask, 1008)]
    );
}

#[tokio::test]
async fn damage_in_a_stored_body_is_told_and_counted() {
    let spec = crate::core::task::TaskSpec {
        id: TaskId::parse("t").expect("valid"),
        schedule: crate::core::task::Schedule::Once { at_ms: 0 },
        url: String::new(),
        body: b"{\"a\":".to_vec(),
        created_ms: 0,
        delivery: crate::core::task::Delivery::AtLeastOnce,
        revision: 1,
    };
    let state = crate::core::task::TaskState::new(0, crate::core::target::Target([0; 16]));
    let seen = Arc::new(Seen::default());
    let tasks = FakeTasks {
        view: Some(TaskView { spec, state }),
        seen: seen.clone(),
        ..FakeTasks::default()
    };
    let (app, _readiness) = app_with(tasks);
    let answer = get(&app, "/xcron/queryTask?task_id=t").await;
    assert_eq!(answer.code(), 1004, "{}", answer.text);
    assert_eq!(*seen.answered.lock(), [(Call::QueryTask, 1004)]);
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let (app, readiness) = app_with(FakeTasks::default());
    let alive = get(&app, "/healthz").await;
    assert_eq!(
        (alive.status, alive.text.as_str()),
        (StatusCode::OK, r#"{"status":"ok"}"#)
    );

    let starting = get(&app, "/readyz").await;
    assert_eq!(starting.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        starting.json(),
        json!({"status": "not ready", "reason": "the node is starting"})
    );
    readiness.send_replace(Readiness::Ready);
    let ready = get(&app, "/readyz").await;
    assert_eq!(
        (ready.status, ready.text.as_str()),
        (StatusCode::OK, r#"{"status":"ready"}"#)
    );
    readiness.send_replace(Readiness::NotReady("the disk is full".to_owned()));
    assert_eq!(get(&app, "/readyz").await.json()["reason"], "the disk is full");

    let metrics = get(&app, "/metrics").await;
    assert_eq!(
        (metrics.status, metrics.text.as_str()),
        (StatusCode::OK, "xcron_up 1\n# EOF\n")
    );
    assert_eq!(
        metrics.headers[CONTENT_TYPE],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
}
