//! `/v1/tasks/{id}`: what a change must hold, what is told of it, the form of a task.

use super::*;
use crate::core::reason::{NoAnswer, Reason};
use crate::core::target::Target;
use crate::core::task::{Claim, Delivery, OpenFire, Outcome, Schedule, TaskSpec, TaskState, Verdict};

fn task() -> TaskView {
    let cron = Schedule::Cron {
        expression: "@daily".into(),
        timezone: "UTC".into(),
    };
    let spec = TaskSpec {
        id: TaskId::parse("t-1").expect("valid"),
        schedule: cron,
        url: "http://127.0.0.1:9/hook".into(),
        body: br#"{"n": 1}"#.to_vec(),
        created_ms: NOW_MS,
        delivery: Delivery::AtMostOnce,
        revision: 7,
    };
    let outcome = |verdict, reason, is_sent| Outcome {
        due_ms: NOW_MS,
        count: 2,
        attempts: 1,
        verdict,
        reason,
        is_sent,
        at_ms: NOW_MS + 1,
    };
    let open = OpenFire {
        due_ms: NOW_MS,
        run: 3,
        attempts: 2,
        retry_ms: NOW_MS + 5,
        reason: Reason::None(NoAnswer::Dns),
        is_sent: false,
    };
    let claim = Claim {
        due_ms: NOW_MS + 2,
        run: 9,
        generation: 4,
        at_ms: NOW_MS + 3,
        attempts: 1,
    };
    let state = TaskState {
        revision: 7,
        delivered: 1,
        failed: 2,
        skipped: 3,
        cancelled: 4,
        open: vec![open],
        claim: Some(claim),
        outcomes: vec![
            outcome(Verdict::Delivered, Reason::Http(200), true),
            outcome(Verdict::Failed, Reason::Gone, true),
            outcome(Verdict::Skipped, Reason::Overlap, false),
        ],
        ..TaskState::new(NOW_MS + 1_000, Target([7; 16]))
    };
    TaskView { spec, state }
}

fn change() -> Value {
    json!({
        "schedule": {"cron": "0 1 * * *", "timezone": "Europe/Berlin"},
        "callback": {"url": "http://127.0.0.1:9/new", "body": {"n": 2}},
    })
}

async fn put(tasks: FakeTasks, if_match: Option<&str>, body: impl ToString) -> Answer {
    let mut request = request(Method::PUT, "/v1/tasks/t-1");
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    let request = request.body(Body::from(body.to_string())).expect("a request");
    send(&app_with(tasks).0, request).await
}

fn has(view: TaskView) -> FakeTasks {
    FakeTasks {
        view: Some(view),
        ..FakeTasks::default()
    }
}

#[tokio::test]
async fn a_task_is_shown_with_all_that_became_of_it() {
    let (app, _readiness) = app_with(has(task()));
    let answer = get(&app, "/v1/tasks/t-1").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["etag"], "\"7\"");
    assert!(
        answer.text.contains(r#""body":{"n": 1}"#),
        "byte for byte: {}",
        answer.text
    );
    let now = "2026-03-01T00:00:00.500Z";
    let expected = json!({
        "id": "t-1",
        "revision": 7,
        "status": "pending",
        "schedule": {"cron": "@daily", "timezone": "UTC"},
        "callback": {"url": "http://127.0.0.1:9/hook", "body": {"n": 1}},
        "delivery": "at_most_once",
        "created_at": now,
        "next_due_at": "2026-03-01T00:00:01.500Z",
        "counts": {"delivered": 1, "failed": 2, "skipped": 3, "cancelled": 4},
        "retrying": [{"due_at": now, "run": 3, "attempts": 2, "retry_at": "2026-03-01T00:00:00.505Z",
                      "reason": "dns", "sent": false}],
        "claimed": {"due_at": "2026-03-01T00:00:00.502Z", "run": 9, "attempts": 1},
        "outcomes": [
            {"due_at": now, "dues": 2, "verdict": "delivered", "reason": "http_200", "attempts": 1, "http_status": 200,
             "sent": true, "at": "2026-03-01T00:00:00.501Z"},
            {"due_at": now, "dues": 2, "verdict": "failed", "reason": "gone", "attempts": 1, "http_status": 410,
             "sent": true, "at": "2026-03-01T00:00:00.501Z"},
            {"due_at": now, "dues": 2, "verdict": "skipped", "reason": "overlap", "attempts": 1, "http_status": null,
             "sent": false, "at": "2026-03-01T00:00:00.501Z"},
        ],
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn any_copy_may_show_a_task_on_request() {
    let tasks = has(task());
    let seen = tasks.seen.clone();
    let (app, _readiness) = app_with(tasks);
    assert_eq!(
        get(&app, "/v1/tasks/t-1?consistency=stale").await.status,
        StatusCode::OK
    );
    assert_eq!(seen.asked_stale.lock().len(), 1);
    let bad = get(&app, "/v1/tasks/t-1?consistency=maybe").await;
    assert_eq!(
        (bad.status, &bad.json()["code"]),
        (StatusCode::BAD_REQUEST, &json!("malformed"))
    );
}

#[tokio::test]
async fn a_change_replaces_the_whole_of_a_task() {
    let tasks = FakeTasks::default();
    let seen = tasks.seen.clone();
    let answer = put(tasks, Some("\"3\""), change()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json(), json!({"id": "t-1", "revision": 4}));
    assert_eq!(answer.headers["etag"], "\"4\"");
    let expected = Change {
        id: TaskId::parse("t-1").expect("valid"),
        replaces: Some(3),
        schedule: Schedule::Cron {
            expression: "0 1 * * *".into(),
            timezone: "Europe/Berlin".into(),
        },
        first_due_ms: NOW_MS - 500 + 24 * 3_600_000,
        url: "http://127.0.0.1:9/new".into(),
        body: br#"{"n":2}"#.to_vec(),
        delivery: Delivery::AtLeastOnce,
    };
    assert_eq!(*seen.changed.lock(), [expected]);
    assert_eq!(*seen.answered.lock(), [(Call::PutTask, 200)]);
}

#[tokio::test]
async fn an_instant_is_kept_to_the_millisecond() {
    let tasks = FakeTasks::default();
    let seen = tasks.seen.clone();
    let once = json!({
        "schedule": {"at": "2026-03-01T01:00:00.750+01:00"},
        "callback": {"url": "http://127.0.0.1:9/new"},
        "delivery": "at_most_once",
    });
    assert_eq!(put(tasks, Some("*"), once).await.status, StatusCode::OK);
    let changed = seen.changed.lock()[0].clone();
    assert_eq!(changed.schedule, Schedule::Once { at_ms: NOW_MS + 250 });
    assert_eq!(
        (changed.replaces, changed.delivery, &changed.body[..]),
        (None, Delivery::AtMostOnce, &b"{}"[..])
    );
}

/// Changes that are refused: the body, the status, the code, and what the text must name.
fn faults() -> Vec<(String, u16, &'static str, &'static str)> {
    let but = |pointer: &str, new: Value| {
        let mut value = change();
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        value.pointer_mut(parent).expect("an object")[name] = new;
        value.to_string()
    };
    let at = |text: &str| but("/schedule", json!({ "at": text }));
    vec![
        ("[]".to_owned(), 400, "malformed", "object"),
        ("{".to_owned(), 400, "malformed", "JSON"),
        (but("/colour", json!("red")), 400, "malformed", "colour"),
        (but("/schedule", Value::Null), 400, "malformed", "`schedule`"),
        (but("/schedule", json!({})), 400, "malformed", "`schedule`"),
        (
            but("/schedule/at", json!("2027-01-01T00:00:00Z")),
            400,
            "malformed",
            "not both",
        ),
        (but("/schedule/second", json!(1)), 400, "malformed", "second"),
        (but("/schedule/cron", json!(5)), 400, "malformed", "`schedule.cron`"),
        (but("/schedule/cron", json!("")), 422, "bad_schedule", "`schedule.cron`"),
        (
            but("/schedule/cron", json!("61 * * * *")),
            422,
            "bad_schedule",
            "`schedule.cron`",
        ),
        (
            but("/schedule/cron", json!("0 0 30 2 *")),
            422,
            "bad_schedule",
            "`schedule.cron`",
        ),
        (
            but("/schedule/timezone", json!("Mars/Base")),
            422,
            "bad_schedule",
            "`schedule.timezone`",
        ),
        (at("tomorrow"), 422, "bad_schedule", "`schedule.at`"),
        (at("2026-02-28T23:59:59.999Z"), 422, "past", "`schedule.at`"),
        (
            but("/schedule", json!({"at": "2027-01-01T00:00:00Z", "timezone": "UTC"})),
            400,
            "malformed",
            "`schedule.timezone`",
        ),
        (but("/callback", json!(1)), 400, "malformed", "`callback`"),
        (but("/callback/boddy", json!({})), 400, "malformed", "boddy"),
        (but("/callback/url", json!("")), 422, "bad_url", "`callback.url`"),
        (but("/callback/url", json!("ftp://x/")), 422, "bad_url", "url"),
        (but("/callback/body", json!([])), 400, "malformed", "`callback.body`"),
        (
            but("/callback/body", json!({"x": "y".repeat(65_536)})),
            413,
            "too_large",
            "`callback.body`",
        ),
        (but("/delivery", json!("exactly_once")), 400, "malformed", "`delivery`"),
        (but("/delivery", json!(1)), 400, "malformed", "`delivery`"),
    ]
}

#[tokio::test]
async fn every_fault_of_a_change_is_told_with_its_field() {
    for (body, status, code, about) in faults() {
        let tasks = has(task());
        let seen = tasks.seen.clone();
        let answer = put(tasks, None, &body).await;
        let told = answer.json();
        assert_eq!(
            (answer.status.as_u16(), &told["code"]),
            (status, &json!(code)),
            "{body}: {told}"
        );
        assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
        assert!(
            told["detail"].as_str().expect("a text").contains(about),
            "{body}: {told}"
        );
        assert!(seen.changed.lock().is_empty(), "nothing is done: {body}");
    }
}

#[tokio::test]
async fn the_revision_to_replace_must_be_an_etag() {
    for tag in [
        "3",
        "W/\"3\"",
        "\"03\"",
        "\"x\"",
        "\"3\", \"4\"",
        "\"-1\"",
        "\"4294967296\"",
    ] {
        let answer = put(FakeTasks::default(), Some(tag), change()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["code"]),
            (400, &json!("malformed")),
            "{tag}"
        );
    }
}

#[tokio::test]
async fn what_becomes_of_a_change_has_a_status_of_its_own() {
    let cases = [
        (UpdateError::NotFound, 404, "task_not_found"),
        (UpdateError::Outdated { revision: 9 }, 412, "outdated"),
        (UpdateError::Unavailable("no leader".into()), 503, "unavailable"),
        (UpdateError::Unknown, 503, "unavailable"),
        (UpdateError::DiskReserve, 507, "disk_reserve"),
        (
            UpdateError::TooMany {
                limit: "proposals_per_group",
                retry_after_ms: 1_500,
            },
            429,
            "too_many_requests",
        ),
    ];
    for (error, status, code) in cases {
        let tasks = FakeTasks {
            update: Some(error.clone()),
            ..FakeTasks::default()
        };
        let answer = put(tasks, None, change()).await;
        let told = answer.json();
        assert_eq!((answer.status.as_u16(), &told["code"]), (status, &json!(code)));
        assert_eq!(told["detail"], json!(error.to_string()));
        let retry = answer
            .headers
            .get("retry-after")
            .map(|value| value.to_str().expect("text"));
        assert_eq!(retry, (status == 429).then_some("2"));
    }
    let (app, _readiness) = app_with(FakeTasks::default());
    let missing = get(&app, "/v1/tasks/t-2").await;
    assert_eq!(
        (missing.status.as_u16(), &missing.json()["code"]),
        (404, &json!("task_not_found"))
    );
    let bad = get(&app, "/v1/tasks/%FF").await;
    assert_eq!((bad.status.as_u16(), &bad.json()["code"]), (400, &json!("malformed")));
    let bad = get(&app, "/v1/tasks/a%20b").await;
    assert_eq!((bad.status.as_u16(), &bad.json()["code"]), (400, &json!("malformed")));
}

#[tokio::test]
async fn a_change_to_an_instant_that_has_passed_is_a_repetition_if_the_task_is_so() {
    let past = json!({
        "schedule": {"at": "2026-02-28T23:00:00Z"},
        "callback": {"url": "http://127.0.0.1:9/hook", "body": {"n": 1}},
    });
    let mut stored = task();
    stored.spec.delivery = Delivery::AtLeastOnce;
    stored.spec.schedule = Schedule::Once {
        at_ms: NOW_MS - 500 - 3_600_000,
    };
    stored.spec.body = br#"{"n":1}"#.to_vec();
    let same = put(has(stored), None, &past).await;
    assert_eq!((same.status.as_u16(), &same.json()["revision"]), (200, &json!(7)));
    let mut stored = task();
    stored.spec.schedule = Schedule::Once {
        at_ms: NOW_MS - 500 - 3_600_000,
    };
    stored.spec.body = br#"{"n":1}"#.to_vec();
    stored.spec.delivery = Delivery::AtLeastOnce;
    for (tag, status, code) in [
        ("\"6\"", 200, Value::Null),
        ("\"2\"", 412, json!("outdated")),
        ("\"7\"", 422, json!("past")),
    ] {
        let told = put(has(stored.clone()), Some(tag), &past).await;
        assert_eq!((told.status.as_u16(), &told.json()["code"]), (status, &code), "{tag}");
    }
    let other = put(has(task()), None, &past).await;
    assert_eq!((other.status.as_u16(), &other.json()["code"]), (422, &json!("past")));
    let none = put(FakeTasks::default(), None, &past).await;
    assert_eq!(
        (none.status.as_u16(), &none.json()["code"]),
        (404, &json!("task_not_found"))
    );
}

#[tokio::test]
async fn only_a_client_that_asked_for_it_sees_how_a_task_is_delivered() {
    let (app, _readiness) = app_with(has(task()));
    let data = get(&app, "/xcron/queryTask?task_id=t-1").await.json()["data"].clone();
    assert_eq!(
        (&data["delivery"], &data["skipped_count"]),
        (&json!("at_most_once"), &json!(3))
    );
    let mut plain = task();
    plain.spec.delivery = Delivery::AtLeastOnce;
    let (app, _readiness) = app_with(has(plain));
    let data = get(&app, "/xcron/queryTask?task_id=t-1").await.json()["data"].clone();
    assert_eq!((data.get("delivery"), data.get("skipped_count")), (None, None));
}

#[tokio::test]
async fn a_create_says_how_its_task_is_delivered() {
    for (given, delivery) in [
        (Value::Null, Delivery::AtLeastOnce),
        (json!("at_least_once"), Delivery::AtLeastOnce),
        (json!("at_most_once"), Delivery::AtMostOnce),
    ] {
        let tasks = FakeTasks::default();
        let seen = tasks.seen.clone();
        let body = good_but(&[("/delivery", given)]);
        assert_eq!(post(&app_with(tasks).0, "createTask", body).await.code(), 0);
        assert_eq!(seen.created.lock()[0].delivery, delivery);
    }
    for wrong in [json!("never"), json!(1)] {
        let answer = create(good_but(&[("/delivery", wrong)])).await;
        assert_eq!(answer.code(), 1000);
        assert!(answer.message().contains("`delivery`"), "{}", answer.message());
    }
}
