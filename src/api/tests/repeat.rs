//! A create that is sent again after its due: its first answer may have been lost, so it is judged by what is stored.

use super::*;
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};

const PAST_SECONDS: u64 = NOW_SECONDS - 1;

fn stored(url: &str) -> TaskView {
    let at_ms = PAST_SECONDS * 1_000;
    TaskView {
        spec: TaskSpec {
            id: TaskId::parse("t-1").expect("valid"),
            schedule: Schedule::Once { at_ms },
            url: url.to_owned(),
            body: br#"{"n":1}"#.to_vec(),
            created_ms: at_ms - 60_000,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        },
        state: TaskState::new(at_ms, Target([7; 16])),
    }
}

fn late(changes: &[(&str, Value)]) -> String {
    let past = [("/type", json!(2)), ("/format", json!(PAST_SECONDS))];
    good_but(&[&past, changes].concat())
}

async fn answer(tasks: FakeTasks, body: String) -> Answer {
    post(&app_with(tasks).0, "createTask", body).await
}

fn has(view: TaskView) -> FakeTasks {
    FakeTasks {
        view: Some(view),
        ..FakeTasks::default()
    }
}

#[tokio::test]
async fn a_late_repetition_is_answered_as_the_create_was() {
    let tasks = has(stored("http://127.0.0.1:9/hook"));
    let seen = tasks.seen.clone();
    let answer = answer(tasks, late(&[("/task_id", json!("t-1"))])).await;
    assert_eq!(
        (answer.code(), answer.json()["data"].clone()),
        (0, json!({"task_id": "t-1"}))
    );
    assert!(seen.created.lock().is_empty(), "nothing is stored anew");
}

#[tokio::test]
async fn any_other_create_in_the_past_is_1002() {
    let id = ("/task_id", json!("t-1"));
    let stored = || stored("http://127.0.0.1:9/hook");
    assert_eq!(
        answer(FakeTasks::default(), late(std::slice::from_ref(&id)))
            .await
            .code(),
        1002,
        "not there"
    );
    let other = [id.clone(), ("/callback/body/n", json!(2))];
    assert_eq!(answer(has(stored()), late(&other)).await.code(), 1002, "another task");
    assert_eq!(answer(has(stored()), late(&[])).await.code(), 1002, "without a task_id");
    let no_url = [id.clone(), ("/callback/url", json!("mailto:a"))];
    assert_eq!(
        answer(has(stored()), late(&no_url)).await.code(),
        1002,
        "told first, as ever"
    );
    let no_id = [("/task_id", json!("t 1"))];
    assert_eq!(
        answer(has(stored()), late(&no_id)).await.code(),
        1002,
        "told first, as ever"
    );
}

#[tokio::test]
async fn a_late_repetition_that_cannot_be_looked_up_is_not_settled() {
    let tasks = FakeTasks {
        query: Some(QueryError::Unavailable("no leader".to_owned())),
        ..FakeTasks::default()
    };
    let answer = answer(tasks, late(&[("/task_id", json!("t-1"))])).await;
    assert_eq!(answer.code(), 1004);
    assert!(answer.message().contains("no leader"), "{}", answer.message());
}
