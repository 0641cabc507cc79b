//! One test for every row of the table of codes, and their order.

use super::*;
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};
use crate::limits::{BODY_BYTES_MAX, REQUEST_BYTES_MAX};

async fn assert_refused(body: String, code: u64, word: &str) {
    let answer = create(body.clone()).await;
    let start = &body[..body.len().min(200)];
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::OK, code),
        "{start}: {}",
        answer.text
    );
    assert!(
        answer.message().contains(word),
        "{start}: {:?} does not name {word}",
        answer.message()
    );
    assert_eq!(answer.json().get("data"), None);
}

async fn create_with(error: CreateError) -> Answer {
    let tasks = FakeTasks {
        create: Some(error),
        ..FakeTasks::default()
    };
    post(&app_with(tasks).0, "createTask", good().to_string()).await
}

fn id(text: &str) -> TaskId {
    TaskId::parse(text).expect("valid")
}

#[tokio::test]
async fn code_0_create() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    let answer = post(&app, "createTask", good().to_string()).await;
    assert_eq!(answer.json()["data"], json!({"task_id": "made"}));
    let zoned = good_but(&[("/timezone", json!("Europe/Rome")), ("/task_id", json!("a:b-c_d.1"))]);
    let answer = post(&app, "createTask", zoned).await;
    assert_eq!(answer.json()["data"], json!({"task_id": "a:b-c_d.1"}));

    let created = seen.created.lock();
    let cron = |timezone: &str| Schedule::Cron {
        expression: "*/5 * * * *".to_owned(),
        timezone: timezone.to_owned(),
    };
    let url = "http://127.0.0.1:9/hook".to_owned();
    let first = &created[0];
    assert_eq!((first.id.clone(), first.schedule.clone()), (None, cron("UTC")));
    assert_eq!((&first.url, first.body.as_slice()), (&url, br#"{"n":1}"#.as_slice()));
    assert!(first.first_due_ms > NOW_MS, "the first due is after now");
    assert_eq!(
        (created[1].id.clone(), created[1].schedule.clone()),
        (Some(id("a:b-c_d.1")), cron("Europe/Rome"))
    );
    assert_eq!(*seen.answered.lock(), [(Call::CreateTask, 0), (Call::CreateTask, 0)]);
}

#[tokio::test]
async fn code_0_create_once() {
    for format in [json!(NOW_SECONDS), json!(NOW_SECONDS.to_string()), json!("9999999999")] {
        let seen = Arc::new(Seen::default());
        let (app, _readiness) = app_with(FakeTasks {
            seen: seen.clone(),
            ..FakeTasks::default()
        });
        let answer = post(
            &app,
            "createTask",
            good_but(&[("/type", json!(2)), ("/format", format.clone())]),
        )
        .await;
        assert_eq!(answer.code(), 0, "{format}: {}", answer.text);
        let text = format.as_str().map_or_else(|| format.to_string(), str::to_owned);
        let at_ms = text.parse::<u64>().expect("digits") * 1_000;
        let created = seen.created.lock();
        assert_eq!(
            (&created[0].schedule, created[0].first_due_ms),
            (&Schedule::Once { at_ms }, at_ms)
        );
    }
}

#[tokio::test]
async fn code_0_query() {
    let spec = TaskSpec {
        id: id("t-1"),
        schedule: Schedule::Once {
            at_ms: 1_772_400_000_000,
        },
        url: "http://h/\u{fc}".to_owned(),
        body: br#"{ "n" : 12345678901234567890, "n":1.0 }"#.to_vec(),
        created_ms: NOW_MS,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    };
    let mut state = TaskState::new(1_772_400_000_000, Target([7; 16]));
    state.delivered = 3;
    state.failed = 2;
    let tasks = FakeTasks {
        view: Some(TaskView { spec, state }),
        ..FakeTasks::default()
    };
    let (app, _readiness) = app_with(tasks);
    let answer = get(&app, "/xcron/queryTask?task_id=t-1").await;
    let data = concat!(
        r#""code":0,"data":{"task_id":"t-1","create_time":"1772323200","type":2,"format":"1772400000","#,
        r#""run_count":3,"callback":{"url":"http://h/ü","body":{ "n" : 12345678901234567890, "n":1.0 }}}}"#
    );
    assert!(answer.text.ends_with(data), "{}", answer.text);
}

#[tokio::test]
async fn code_0_delete() {
    let seen = Arc::new(Seen::default());
    let (app, _readiness) = app_with(FakeTasks {
        seen: seen.clone(),
        ..FakeTasks::default()
    });
    let answer = post(&app, "deleteTask", r#"{"task_id":"t-1","other":[]}"#).await;
    assert_eq!((answer.code(), answer.json().get("data")), (0, None));
    assert_eq!(*seen.asked.lock(), [id("t-1")]);
    assert_eq!(*seen.answered.lock(), [(Call::DeleteTask, 0)]);
}

#[tokio::test]
async fn code_1000() {
    for (change, word) in [
        (("/type", json!("1")), "`type`"),
        (("/type", json!(1.5)), "`type`"),
        (("/type", json!(u64::MAX)), "`type`"),
        (("/format", json!(5)), "`format`"),
        (("/format", json!(["* * * * *"])), "`format`"),
        (("/callback", json!("http://h/")), "`callback`"),
        (("/callback", json!(["http://h/", {}])), "`callback`"),
        (("/callback/url", json!(1)), "`callback.url`"),
        (("/callback/body", json!([1])), "`callback.body`"),
        (("/callback/body", json!("{}")), "`callback.body`"),
        (("/timezone", json!(1)), "`timezone`"),
        (("/task_id", json!(1)), "`task_id`"),
        (("/task_id", json!("a b")), "task_id"),
        (("/task_id", json!("")), "task_id"),
    ] {
        assert_refused(good_but(&[change]), 1000, word).await;
    }
    assert_refused(
        good_but(&[("/type", json!(2)), ("/format", json!(1_772_323_200.5))]),
        1000,
        "`format`",
    )
    .await;
    assert_refused("{\n  \"type\": 1,\n  oops".to_owned(), 1000, "line 3 column 3").await;
}

#[tokio::test]
async fn code_1001() {
    for format in [
        json!(""),
        json!("177232320"),
        json!("17723232000"),
        json!("1772323200.0"),
    ] {
        assert_refused(good_but(&[("/type", json!(2)), ("/format", format)]), 1001, "`format`").await;
    }
    for format in [
        json!("１772323200"),
        json!(" 1772323200"),
        json!(-1),
        json!(17_723_232_000_u64),
        Value::Null,
    ] {
        assert_refused(good_but(&[("/type", json!(2)), ("/format", format)]), 1001, "`format`").await;
    }
}

#[tokio::test]
async fn code_1002() {
    for format in [
        json!("0000000000"),
        json!(NOW_SECONDS - 1),
        json!((NOW_SECONDS - 1).to_string()),
    ] {
        assert_refused(
            good_but(&[("/type", json!(2)), ("/format", format)]),
            1002,
            "1772323200",
        )
        .await;
    }
    // Ten characters that are no number, as in the original; 1001 is for another length.
    for format in [
        json!("+177232320"),
        json!("17723232.0"),
        json!("abcdefghij"),
        json!("          "),
        json!(-100_000_000),
    ] {
        let text = good_but(&[("/type", json!(2)), ("/format", format)]);
        assert_refused(text, 1002, "is no number").await;
    }
}

#[tokio::test]
async fn code_1003() {
    for change in [
        ("/callback", Value::Null),
        ("/callback", json!({})),
        ("/callback/url", json!("")),
    ] {
        assert_refused(good_but(&[change]), 1003, "`callback.url`").await;
    }
    assert_refused(good_but(&[("/callback/url", Value::Null)]), 1003, "`callback.url`").await;
}

#[tokio::test]
async fn code_1004() {
    let answer = create_with(CreateError::Unavailable("no leader".to_owned())).await;
    assert_eq!(answer.code(), 1004);
    assert!(
        answer.message().contains("was not stored: no leader"),
        "{}",
        answer.text
    );

    let answer = create_with(CreateError::DiskReserve).await;
    assert_eq!(answer.code(), 1004);
    assert!(answer.message().contains("nearly full"), "{}", answer.text);

    let answer = create_with(CreateError::Unknown { id: id("t-1") }).await;
    assert_eq!(answer.code(), 1004);
    let message = answer.message();
    assert!(
        message.contains("not known") && message.contains("t-1") && message.contains("safe"),
        "{message}"
    );

    for error in [DeleteError::Unavailable("no leader".to_owned()), DeleteError::Unknown] {
        let (app, _readiness) = app_with(FakeTasks {
            delete: Some(error),
            ..FakeTasks::default()
        });
        assert_eq!(post(&app, "deleteTask", r#"{"task_id":"t"}"#).await.code(), 1004);
    }
    let query = Some(QueryError::Unavailable("no leader".to_owned()));
    let (app, _readiness) = app_with(FakeTasks {
        query,
        ..FakeTasks::default()
    });
    assert_eq!(get(&app, "/xcron/queryTask?task_id=t").await.code(), 1004);
    // A create whose instant has passed is looked up: its answer speaks of a create all the same.
    let late = good_but(&[
        ("/type", json!(2)),
        ("/format", json!(NOW_SECONDS - 1)),
        ("/task_id", json!("t")),
    ]);
    let answer = post(&app, "createTask", late).await;
    assert_eq!(answer.code(), 1004);
    let message = answer.message();
    assert!(
        message.starts_with("whether the task is stored is not known: no leader"),
        "{message}"
    );
}

#[tokio::test]
async fn code_1005() {
    for format in [
        json!("61 * * * *"),
        json!("* * * *"),
        json!(""),
        json!("x".repeat(257)),
        Value::Null,
    ] {
        assert_refused(good_but(&[("/format", format)]), 1005, "`format`").await;
    }
    assert_refused(good_but(&[("/format", json!("0 0 30 2 *"))]), 1005, "never fires").await;
    assert_refused(
        good_but(&[("/format", json!("TZ=Mars/Atlantis 0 0 * * *"))]),
        1005,
        "`format`: the time zone \"Mars",
    )
    .await;
    for timezone in [json!("Mars/Atlantis"), json!(""), json!("x/".repeat(40))] {
        let answer = create(good_but(&[("/timezone", timezone)])).await;
        assert_eq!(answer.code(), 1005);
        assert!(answer.message().starts_with("`timezone`"), "{}", answer.text);
    }
}

#[tokio::test]
async fn code_1006() {
    let too_long = format!("http://h/{}", "x".repeat(2_048));
    for url in [
        "ftp://h/",
        "h/hook",
        "http://u:p@h/",
        "http://",
        "http://h/\r\nx:y",
        "http://h:0/",
        "http://a..b/",
        too_long.as_str(),
    ] {
        assert_refused(good_but(&[("/callback/url", json!(url))]), 1006, "`callback.url`").await;
    }
}

#[tokio::test]
async fn code_1007_request() {
    let padded = |bytes: usize| {
        let good = good().to_string();
        good.clone() + &" ".repeat(bytes - good.len())
    };
    assert_eq!(create(padded(REQUEST_BYTES_MAX)).await.code(), 0);
    assert_refused(padded(REQUEST_BYTES_MAX + 1), 1007, "262144").await;
    assert_refused("x".repeat(10 * REQUEST_BYTES_MAX), 1007, "262144").await;
    let (app, _readiness) = app_with(FakeTasks::default());
    assert_eq!(
        post(&app, "deleteTask", "x".repeat(REQUEST_BYTES_MAX + 1)).await.code(),
        1007
    );
}

#[tokio::test]
async fn code_1007_callback_body() {
    let of = |bytes: usize| good_but(&[("/callback/body", json!({"x": "y".repeat(bytes - r#"{"x":""}"#.len())}))]);
    assert_eq!(create(of(BODY_BYTES_MAX)).await.code(), 0);
    assert_refused(of(BODY_BYTES_MAX + 1), 1007, "`callback.body`").await;
}

#[tokio::test]
async fn code_1008() {
    let (app, _readiness) = app_with(FakeTasks {
        delete: Some(DeleteError::NotFound),
        ..FakeTasks::default()
    });
    assert_eq!(post(&app, "deleteTask", r#"{"task_id":"t"}"#).await.code(), 1008);
    assert_eq!(get(&app, "/xcron/queryTask?task_id=t").await.code(), 1008);
}

#[tokio::test]
async fn code_1009() {
    let limit = "proposals_per_group";
    let answer = create_with(CreateError::TooMany {
        limit,
        retry_after_ms: 1_001,
    })
    .await;
    assert_eq!((answer.status, answer.code()), (StatusCode::OK, 1009));
    assert_eq!(answer.headers["retry-after"], "2");
    assert!(answer.message().contains(limit), "{}", answer.text);

    let delete = Some(DeleteError::TooMany {
        limit,
        retry_after_ms: 0,
    });
    let (app, _readiness) = app_with(FakeTasks {
        delete,
        ..FakeTasks::default()
    });
    let answer = post(&app, "deleteTask", r#"{"task_id":"t"}"#).await;
    assert_eq!(answer.code(), 1009);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn code_1012() {
    let answer = create_with(CreateError::Conflict).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::OK, 1012));
    assert!(answer.message().contains("task_id"), "{}", answer.text);
}

#[tokio::test]
async fn code_1020() {
    for kind in [json!(0), json!(3), json!(-1), json!(i64::MAX), Value::Null] {
        assert_refused(good_but(&[("/type", kind)]), 1020, "`type`").await;
    }
}

/// Each row mends the first fault of the row before, and the next one shows.
#[tokio::test]
async fn the_first_fault_alone_is_told() {
    let mut changes = vec![
        ("/type", json!(9)),
        ("/format", json!("nonsense")),
        ("/callback/url", json!("")),
        ("/callback/body", json!([])),
        ("/task_id", json!("a b")),
    ];
    let mut request = |change: Option<(&'static str, Value)>| {
        changes.extend(change);
        good_but(&changes)
    };
    let large = json!(["y".repeat(BODY_BYTES_MAX)]);
    assert_refused(request(Some(("/callback/body", large))), 1007, "").await;
    assert_refused(request(Some(("/callback/body", json!([])))), 1000, "`callback.body`").await;
    assert_refused(request(Some(("/callback/body", json!({})))), 1020, "").await;
    assert_refused(request(Some(("/type", json!(2)))), 1001, "").await;
    assert_refused(request(Some(("/format", json!("0000000000")))), 1002, "").await;
    assert_refused(request(Some(("/type", json!(1)))), 1005, "").await;
    assert_refused(request(Some(("/format", json!("* * * * *")))), 1003, "").await;
    assert_refused(request(Some(("/callback/url", json!("ftp://h/")))), 1006, "").await;
    assert_refused(request(Some(("/callback/url", json!("http://h/")))), 1000, "task_id").await;
    assert_eq!(create(request(Some(("/task_id", json!("a"))))).await.code(), 0);
}

#[tokio::test]
async fn fields_that_nothing_knows_are_named_in_a_header() {
    let header = async |body: String| {
        let answer = create(body).await;
        let value = answer.headers.get("xcron-ignored-fields").cloned();
        (
            answer.code(),
            value.map(|value| value.to_str().expect("text").to_owned()),
        )
    };
    let ignored = |changes: &[(&str, Value)]| good_but(changes);
    assert_eq!(header(good().to_string()).await, (0, None));
    let misspelt = ignored(&[("/timezon", json!("Asia/Shanghai")), ("/callback/headers", json!({}))]);
    assert_eq!(
        header(misspelt).await,
        (0, Some("timezon, callback.headers".to_owned()))
    );
    // Also where something else is wrong.
    let refused = ignored(&[("/formatt", json!("x")), ("/format", json!(""))]);
    assert_eq!(header(refused).await, (1005, Some("formatt".to_owned())));
    let odd = ignored(&[("/a,b\u{e9}\n", json!(1))]);
    assert_eq!(header(odd).await, (0, Some("a?b??".to_owned())));
    let long = ignored(&[(&format!("/{}", "x".repeat(1_000)), json!(1))]);
    assert_eq!(header(long).await.1.map(|value| value.len()), Some(64));
    // Every field that is known is known there too.
    let all = json!({
        "type": 1, "format": "* * * * *", "timezone": "UTC", "task_id": "t", "delivery": "at_least_once",
        "callback": {"url": "http://h/", "body": {"unknown": 1}}
    });
    assert_eq!(header(all.to_string()).await, (0, None));
}
