//! More than a group's proposer holds, at once: a refusal that says when to come back, and nothing lost of what was taken.

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

use super::*;
use crate::limits::PROPOSALS_PER_GROUP_MAX;

const CREATES: usize = PROPOSALS_PER_GROUP_MAX + 500;

fn request(number: usize) -> hyper::Request<Full<Bytes>> {
    let body = format!(
        r#"{{"type":2,"format":"4000000000","task_id":"t{number}","callback":{{"url":"http://127.0.0.1:9/"}}}}"#
    );
    let request = hyper::Request::post("/xcron/createTask");
    request.body(Full::new(Bytes::from(body))).expect("a request")
}

fn api_of(node: &Node) -> api::ApiState {
    api::ApiState {
        tasks: node.router.clone(),
        cluster: Arc::new(node.cluster.clone()),
        clock: node.clock.clone(),
        entropy: node.entropy.clone(),
        readiness: watch::channel(Readiness::Ready).1,
        metrics_text: node.metrics_text(),
        observe: Arc::new(ApiMetrics(node.metrics.clone())),
    }
}

/// On one thread: the proposer has no turn before every create has asked it for a place.
#[tokio::test]
async fn past_its_bound_a_group_refuses_with_1009_and_a_time_to_come_back() {
    let fixture = Fixture::new();
    let config = Config {
        data: fixture.directory.path().to_owned(),
        groups: GroupCount::new(1).expect("a divisor"),
        ..Config::default()
    };
    let world = open(&config).await.expect("opens");
    let node = Node::start(config, world).await.expect("starts");
    node.all_led().await;
    let app = api::app(api_of(&node));
    let create = async |number| {
        let answer = app.clone().call(request(number)).await.expect("infallible");
        let retry_after = answer.headers().get("retry-after").cloned();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        (json, retry_after)
    };
    let answers = tokio::task::unconstrained(join_all((0..CREATES).map(create))).await;
    let code = |(json, _): &(serde_json::Value, _)| json["code"].as_u64().expect("an envelope");
    let taken = answers.iter().filter(|answer| code(answer) == 0).count();
    assert!(taken >= PROPOSALS_PER_GROUP_MAX, "{taken} taken");
    let (last, refused) = answers
        .iter()
        .enumerate()
        .find(|(_, answer)| code(answer) != 0)
        .expect("one is too many");
    assert_eq!(code(refused), 1009, "{refused:?}");
    assert_eq!(refused.1.as_ref().expect("Retry-After"), "1");
    let message = refused.0["message"].as_str().expect("a message");
    assert!(message.contains("proposals_per_group"), "{message}");
    assert!(answers.iter().all(|answer| [0, 1009].contains(&code(answer))));
    let refused = CREATES - taken;
    assert_eq!(
        node.groups.iter().map(|group| group.pending()).sum::<u64>(),
        taken as u64,
        "{refused} refused"
    );
    assert_eq!(code(&create(last).await), 0, "there is room again");
    stop(node).await;
}
