//! `/v1/cluster`.

use super::*;

#[tokio::test]
async fn the_cluster_is_shown_as_json() {
    let (app, _readiness) = app_with(FakeTasks::default());
    let answer = get(&app, "/v1/cluster").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
    assert_eq!(
        answer.text,
        format!(
            r#"{{"cluster":"{}","problems":[],"copies_wanted":3,"nodes":[],"groups":[]}}"#,
            "c".repeat(32)
        )
    );
}

#[tokio::test]
async fn a_node_is_asked_to_leave_or_the_problem_is_told() {
    let (app, _readiness) = app_with(FakeTasks::default());
    for (call, status, code) in [
        ("a:drain", StatusCode::ACCEPTED, None),
        ("b:drain", StatusCode::NOT_FOUND, Some("node_not_found")),
        ("alone:drain", StatusCode::CONFLICT, Some("node_alone")),
        (
            "silent:drain",
            StatusCode::SERVICE_UNAVAILABLE,
            Some("node_unreachable"),
        ),
        ("a", StatusCode::NOT_FOUND, Some("not_found")),
        ("a:stop", StatusCode::NOT_FOUND, Some("not_found")),
    ] {
        let request = request(Method::POST, &format!("/v1/cluster/nodes/{call}"));
        let answer = send(&app, request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, status, "{call}: {}", answer.text);
        if let Some(code) = code {
            assert_eq!(answer.json()["code"], code, "{call}");
            assert_eq!(answer.headers[CONTENT_TYPE], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn a_clock_is_accepted_once_while_it_is_held() {
    let (app, _readiness) = app_with(FakeTasks::default());
    for (status, field) in [(StatusCode::OK, "moved_ms"), (StatusCode::CONFLICT, "code")] {
        let request = request(Method::POST, "/v1/clock/accept");
        let answer = send(&app, request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        assert!(!answer.json()[field].is_null(), "{}", answer.text);
    }
}
