//! What is sent, and how everything that a target can do is classified.

use std::process::Command;
use std::time::Duration;

use super::hostile_target::HostileTarget;
use super::*;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;

const NOW_MS: u64 = 1_772_323_230_456;

pub(super) fn attempt(url: Arc<str>) -> Attempt {
    let task_id = TaskId::parse("order-1").expect("an id");
    let due_ms = 1_772_323_200_000;
    Attempt {
        url,
        body: Bytes::from_static(b"{}"),
        fire_id: FireId::new(task_id.key(), 1, due_ms),
        task_id,
        due_ms,
        attempt: 2,
        run: 3,
        generation: 4,
        now_ms: NOW_MS,
        needs_own_connection: false,
    }
}

pub(super) fn made(options: &DeliverOptions) -> Result<HttpDeliver, DeliverBuildError> {
    let (clock, entropy) = (SystemClock::default(), SystemEntropy::default());
    HttpDeliver::new(options, Arc::new(clock), Arc::new(entropy))
}

pub(super) fn deliver(connect_timeout_ms: u64, timeout_ms: u64) -> HttpDeliver {
    made(&DeliverOptions {
        connect_timeout_ms,
        timeout_ms,
        ..DeliverOptions::default()
    })
    .expect("a client")
}

/// With time enough for anything that answers.
pub(super) fn patient() -> HttpDeliver {
    deliver(10_000, 30_000)
}

fn hasty() -> HttpDeliver {
    deliver(1_000, 1_000)
}

pub(super) fn status(code: u16) -> Answer {
    Answer::Status {
        code,
        retry_after_ms: None,
    }
}

fn none(kind: NoAnswer) -> Answer {
    Answer::None { kind }
}

/// Makes one attempt, which nothing stops; that it ends at all is part of every test.
pub(super) async fn delivered(deliver: &HttpDeliver, attempt: Attempt) -> Delivered {
    let delivery = deliver.deliver(attempt, Box::new(|| true));
    tokio::time::timeout(Duration::from_mins(1), delivery)
        .await
        .expect("an attempt ends within its time")
}

async fn answer_of(deliver: &HttpDeliver, url: Arc<str>) -> Answer {
    sent(deliver, attempt(url)).await
}

/// The answer to one attempt.
pub(super) async fn sent(deliver: &HttpDeliver, attempt: Attempt) -> Answer {
    match delivered(deliver, attempt).await {
        Delivered::Ended { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_target_is_sent_every_header_and_the_body_byte_for_byte() {
    let target = HostileTarget::start().await;
    let body = "{\"b\": 1,\n \"a\" :18446744073709551617, \"ü\":\"\\u0000 \u{1f600}\"}  ";
    let mut request = attempt(target.url("/status/200?x=%20y&z=ä#fragment"));
    request.body = Bytes::from(body);
    assert_eq!(sent(&patient(), request).await, status(200));
    let seen = target.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].request_line, "POST /status/200?x=%20y&z=%C3%A4 HTTP/1.1");
    assert_eq!(seen[0].body, body.as_bytes());
    let mut headers = seen[0].headers.clone();
    headers.sort();
    let host = target.address().to_string();
    let length = body.len().to_string();
    let expected = [
        ("accept", "*/*"),
        ("content-length", &length),
        ("content-type", "application/json"),
        ("host", &host),
        ("traceparent", "00-a037969387e65d81c692da75d980e3b0-3fca3f5df355fc8e-01"),
        ("user-agent", concat!("xcron/", env!("CARGO_PKG_VERSION"))),
        ("webhook-id", "a037969387e65d81c692da75d980e3b0"),
        ("webhook-timestamp", "1772323230"),
        ("xcron-attempt", "2"),
        ("xcron-due", "2026-03-01T00:00:00.000Z"),
        ("xcron-generation", "4"),
        ("xcron-run", "3"),
        ("xcron-task-id", "order-1"),
    ];
    let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn the_largest_body_arrives_whole() {
    let target = HostileTarget::start().await;
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(crate::limits::BODY_BYTES_MAX).collect();
    let mut request = attempt(target.url("/204"));
    request.body = Bytes::from(body.clone());
    assert_eq!(sent(&patient(), request).await, status(204));
    assert_eq!(target.seen()[0].body, body);
}

#[tokio::test]
async fn statuses_come_back_as_they_are() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for code in [200, 201, 299, 300, 304, 400, 404, 410, 429, 500, 503, 599, 999] {
        let answer = answer_of(&deliver, target.url(&format!("/status/{code}"))).await;
        assert_eq!(answer, status(code));
    }
    assert_eq!(answer_of(&deliver, target.url("/204")).await, status(204));
    assert_eq!(answer_of(&deliver, target.url("/continue")).await, status(202));
    let asked = |code, after_ms| Answer::Status {
        code,
        retry_after_ms: Some(after_ms),
    };
    assert_eq!(answer_of(&deliver, target.url("/429")).await, asked(429, 7_000));
    let until_the_date = 1_772_323_260_000 - NOW_MS;
    assert_eq!(
        answer_of(&deliver, target.url("/503")).await,
        asked(503, until_the_date)
    );
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    assert_eq!(answer_of(&deliver, target.url("/redirect")).await, status(301));
    assert_eq!(answer_of(&deliver, target.url("/redirect-307")).await, status(307));
    let lines: Vec<_> = target.seen().into_iter().map(|seen| seen.request_line).collect();
    assert_eq!(lines, ["POST /redirect HTTP/1.1", "POST /redirect-307 HTTP/1.1"]);
}

#[tokio::test]
async fn connections_that_end_without_a_status_are_resets_and_are_tried_once() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for path in ["/reset", "/half-close", "/half-head"] {
        assert_eq!(
            answer_of(&deliver, target.url(path)).await,
            none(NoAnswer::Reset),
            "{path}"
        );
    }
    assert_eq!(target.seen().len(), 3);
}

#[tokio::test]
async fn silence_ends_with_the_attempts_time() {
    let target = HostileTarget::start().await;
    let deliver = hasty();
    for path in ["/hang", "/drip-head"] {
        assert_eq!(
            answer_of(&deliver, target.url(path)).await,
            none(NoAnswer::Timeout),
            "{path}"
        );
    }
    assert_eq!(target.seen().len(), 2);
}

#[tokio::test]
async fn a_status_counts_whatever_becomes_of_the_body() {
    let target = HostileTarget::start().await;
    assert_eq!(answer_of(&hasty(), target.url("/drip-body")).await, status(200));
    let deliver = patient();
    for path in ["/half-body", "/huge", "/endless", "/bad-chunks", "/reset-body"] {
        assert_eq!(answer_of(&deliver, target.url(path)).await, status(200), "{path}");
    }
    // What the sockets' buffers take, and no more: 2 GiB were on offer.
    assert!(target.body_bytes() < 64 << 20, "{} bytes", target.body_bytes());
}

#[tokio::test]
async fn a_status_counts_whatever_the_headers_are() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for (path, code) in [("/200-headers", 200), ("/folded", 200), ("/bad-headers", 201)] {
        assert_eq!(answer_of(&deliver, target.url(path)).await, status(code), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_an_http_answer_is_told_as_that() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for path in ["/headers", "/not-http"] {
        assert_eq!(
            answer_of(&deliver, target.url(path)).await,
            none(NoAnswer::BadAnswer),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_target_that_is_not_there_is_no_connection() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let deliver = patient();
    let refused = answer_of(&deliver, format!("http://{address}/").into()).await;
    assert_eq!(refused, none(NoAnswer::Refused));
    // A label longer than DNS has them: no resolver needs to be asked.
    let name = "x".repeat(64);
    let unknown = answer_of(&deliver, format!("http://{name}.invalid/").into()).await;
    assert_eq!(unknown, none(NoAnswer::Dns));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_no_connection() {
    // It accepts, in the backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound");
    let answer = answer_of(&deliver(200, 30_000), format!("https://{address}/").into()).await;
    assert_eq!(answer, none(NoAnswer::ConnectTimeout));
}

#[tokio::test]
async fn urls_that_cannot_be_called_are_told_apart() {
    let deliver = patient();
    for url in [
        "",
        "x",
        "http://",
        "ftp://127.0.0.1/",
        "http://u:p@127.0.0.1/",
        "http://h:99999/",
        "unix:/x",
    ] {
        assert_eq!(answer_of(&deliver, url.into()).await, none(NoAnswer::BadUrl), "{url}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_attempts_unless_an_answer_spoilt_it() {
    let target = HostileTarget::start().await;
    let deliver = patient();
    for path in [
        "/status/200",
        "/204",
        "/late-body",
        "/status/500",
        "/late-body",
        "/redirect",
        "/429",
    ] {
        assert!(
            matches!(answer_of(&deliver, target.url(path)).await, Answer::Status { .. }),
            "{path}"
        );
    }
    assert_eq!(target.connections(), 1);
    assert_eq!(answer_of(&deliver, target.url("/huge")).await, status(200));
    assert_eq!(answer_of(&deliver, target.url("/status/200")).await, status(200));
    assert_eq!(target.connections(), 2);
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    let message = |options: DeliverOptions| made(&options).expect_err("refused").to_string();
    let good = DeliverOptions::default;
    let zero = DeliverOptions {
        timeout_ms: 0,
        ..good()
    };
    assert_eq!(message(zero), "timeout_ms is 0: set 1 to 600000");
    let late = DeliverOptions {
        connect_timeout_ms: 10_001,
        ..good()
    };
    assert_eq!(message(late), "connect_timeout_ms is 10001: set 1 up to timeout_ms");
    let idle = DeliverOptions {
        idle_per_target: 1_025,
        ..good()
    };
    assert_eq!(message(idle), "idle_per_target is 1025: set 0 to 1024");
    for pem in [
        "",
        "x",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let roots = DeliverOptions {
            extra_roots_pem: Some(pem.into()),
            ..good()
        };
        assert!(
            message(roots).starts_with("the extra root certificates cannot be used"),
            "{pem}"
        );
    }
}

/// Runs one test of this binary once more, in a process whose environment is `variables`' besides; its own part is where
/// the variable `marker` is set.
fn run_in_child(test: &str, marker: &str, variables: &[(&str, &str)]) {
    run_in_shell("exec \"$@\"", test, marker, variables);
}

/// The same, begun by this shell script.
pub(super) fn run_in_shell(script: &str, test: &str, marker: &str, variables: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("the test binary");
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program);
    command.args(["--exact", test, "--nocapture"]).env(marker, "1");
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name);
    }
    let output = command
        .envs(variables.iter().copied())
        .output()
        .expect("the test binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_ignored() {
    let marker = "XCRON_TEST_CHILD_PROXY";
    if std::env::var_os(marker).is_some() {
        let target = HostileTarget::start().await;
        assert_eq!(answer_of(&patient(), target.url("/status/200")).await, status(200));
        assert_eq!(target.seen()[0].request_line, "POST /status/200 HTTP/1.1");
        return;
    }
    let proxy = HostileTarget::start().await;
    let url = proxy.url("");
    let names = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let variables = names.map(|name| (name, &*url));
    let test = "fire::deliver::tests::a_proxy_of_the_environment_is_ignored";
    let variables = variables.map(|(name, url)| (name.to_owned(), url.to_owned()));
    let child = tokio::task::spawn_blocking(move || {
        let variables: Vec<_> = variables.iter().map(|(name, url)| (&**name, &**url)).collect();
        run_in_child(test, marker, &variables);
    });
    child.await.expect("the child's assertions hold");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_machine_without_root_certificates_still_calls_http_targets() {
    let marker = "XCRON_TEST_CHILD_ROOTS";
    if std::env::var_os(marker).is_some() {
        let target = HostileTarget::start().await;
        assert_eq!(answer_of(&patient(), target.url("/status/200")).await, status(200));
        return;
    }
    let test = "fire::deliver::tests::a_machine_without_root_certificates_still_calls_http_targets";
    let variables = [("SSL_CERT_FILE", "/no/such/file"), ("SSL_CERT_DIR", "/no/such/dir")];
    run_in_child(test, marker, &variables);
}
