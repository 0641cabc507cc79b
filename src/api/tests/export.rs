//! `/v1/export`: its lines, where the next ones are, and what may be asked for.

use super::*;
use crate::core::target::Target;
use crate::core::task::{Delivery, Life, Schedule, TaskSpec, TaskState};
use crate::id::GroupId;

fn task(id: &str, life: Life) -> TaskView {
    let state = TaskState::new(NOW_MS + 1_000, Target([0; 16]));
    TaskView {
        spec: TaskSpec {
            id: TaskId::parse(id).expect("valid"),
            schedule: Schedule::Once { at_ms: NOW_MS + 1_000 },
            url: "http://h/".to_owned(),
            body: format!(r#"{{"text":"{}"}}"#, "x".repeat(600 << 10)).into_bytes(),
            created_ms: NOW_MS,
            delivery: Delivery::AtLeastOnce,
            revision: 1,
        },
        state: TaskState { life, ..state },
    }
}

fn ids(answer: &Answer) -> Vec<String> {
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let id = |line: Value| line["task"]["id"].as_str().expect("an id").to_owned();
    answer.text.lines().map(line).map(id).collect()
}

#[tokio::test]
async fn every_task_is_in_some_page_and_the_last_one_names_no_next() {
    let group = |tasks: &[(&str, Life)]| tasks.iter().map(|(id, life)| task(id, *life)).collect();
    let pages = vec![
        group(&[("a", Life::Pending)]),
        group(&[]),
        group(&[("b", Life::Finished), ("c", Life::Pending)]),
        group(&[("d", Life::Deleted), ("e", Life::Pending)]),
    ];
    let (app, _readiness) = app_with(FakeTasks {
        pages,
        ..FakeTasks::default()
    });
    for (finished, expected) in [
        ("", ["a", "c", "e"].join(" ")),
        ("?finished=true", ["a", "b", "c", "e"].join(" ")),
    ] {
        let (mut path, mut found, mut answers) = (format!("/v1/export{finished}"), Vec::new(), 0);
        loop {
            let answer = get(&app, &path).await;
            assert_eq!((answer.status, answers < 9), (StatusCode::OK, true), "{}", answer.text);
            assert_eq!(answer.headers[CONTENT_TYPE], "application/x-ndjson");
            (answers, found) = (answers + 1, [found, ids(&answer)].concat());
            let Some(link) = answer.headers.get("link") else { break };
            let link = link.to_str().expect("text");
            let inner = link
                .strip_prefix('<')
                .and_then(|link| link.strip_suffix(">; rel=\"next\""));
            inner.expect("a link").clone_into(&mut path);
        }
        assert_eq!(found.join(" "), expected);
        assert_eq!(answers, 2, "an answer has about a megabyte");
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_named() {
    let (app, _readiness) = app_with(FakeTasks::default());
    for (query, part) in [
        ("cursor=x", "`cursor` is \"x\""),
        ("finished=1", "`finished` is \"1\""),
        ("limit=3", "no parameter \"limit\""),
    ] {
        let answer = get(&app, &format!("/v1/export?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.text.contains(&part.replace('"', "\\\"")), "{}", answer.text);
    }
    let (app, _readiness) = app_with(FakeTasks {
        query: Some(QueryError::Unavailable("no node leads".into())),
        ..FakeTasks::default()
    });
    let answer = get(&app, "/v1/export").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text.contains("no node leads"), "{}", answer.text);
}

/// What the fake tasks answer: the group's page, and the next group.
pub(super) fn page(pages: &[Vec<TaskView>], from: &Cursor) -> Page {
    let following = from.group.0 + 1;
    Page {
        tasks: pages.get(usize::from(from.group.0)).cloned().unwrap_or_default(),
        next: (usize::from(following) < pages.len()).then_some(Cursor {
            group: GroupId(following),
            row: Vec::new(),
        }),
    }
}
