//! doc/api.md, held against what it describes: its requests are sent, its tables compared.

use super::super::envelope;
use super::*;
use crate::config::Config;
use crate::core::instant::rfc3339_ms;
use crate::core::schedule::Cron;
use crate::core::target::Target;
use crate::core::task::{Delivery, Schedule, TaskSpec, TaskState};
use crate::limits;

const DOC: &str = include_str!("../../../doc/api.md");

/// The rows under the table head that begins with `head`, as their cells without the code marks.
fn table(head: &str) -> Vec<Vec<String>> {
    let (_, after) = DOC.split_once(head).expect("the table is there");
    let rows = after.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// The task of the page's examples.
fn clearing() -> TaskView {
    let schedule = Schedule::Cron {
        expression: "30 1 * * MON-FRI".to_owned(),
        timezone: "Asia/Shanghai".to_owned(),
    };
    let spec = TaskSpec {
        id: TaskId::parse("clearing").expect("valid"),
        schedule,
        url: "http://127.0.0.1:9000/clear".to_owned(),
        body: br#"{"day":"today"}"#.to_vec(),
        created_ms: NOW_MS,
        delivery: Delivery::AtLeastOnce,
        revision: 1,
    };
    let state = TaskState::new(NOW_MS, Target([0; 16]));
    TaskView { spec, state }
}

/// What a curl line asks for: method, path and body.
fn curl(line: &str) -> (Method, &str, &str) {
    let (_, after) = line.split_once("http://127.0.0.1:8000").expect("the node's address");
    let path = after.split([' ', '\'']).next().expect("a first part");
    let method = if line.contains(" -X PUT ") {
        Method::PUT
    } else {
        Method::POST
    };
    match line.split_once(" -d '") {
        Some((_, body)) => (method, path, body.strip_suffix('\'').expect("a quote")),
        None => (Method::GET, path, ""),
    }
}

#[tokio::test]
async fn the_requests_of_the_page_get_the_answers_of_the_page() {
    let (app, _readiness) = app_with(FakeTasks {
        view: Some(clearing()),
        ..FakeTasks::default()
    });
    let mut lines = DOC.lines();
    let mut sent = 0;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ curl ") else {
            continue;
        };
        let (method, path, body) = curl(command);
        let request = request(method, path).body(body.to_owned().into()).expect("a request");
        let answer = send(&app, request).await;
        // What is not under /xcron/ has none.
        let uuid = answer.json()["uuid"].as_str().unwrap_or("a uuid").to_owned();
        let shown = answer.text.replace(&uuid, "...").replace(r#""made""#, r#""...""#);
        assert_eq!(Some(shown.as_str()), lines.next(), "{command}");
        sent += 1;
    }
    assert_eq!(sent, 5);
}

#[test]
fn the_page_has_every_code() {
    let rows = table("| code | when |");
    let codes: Vec<u16> = rows.iter().map(|row| row[0].parse().expect("a code")).collect();
    let known = [
        0,
        envelope::MALFORMED,
        envelope::NOT_TEN_DIGITS,
        envelope::PAST,
        envelope::NO_URL,
        envelope::UNAVAILABLE,
        envelope::BAD_CRON,
        envelope::BAD_URL,
        envelope::TOO_LARGE,
        envelope::NOT_FOUND,
        envelope::TOO_MANY,
        envelope::FORBIDDEN,
        envelope::CONFLICT,
        envelope::UNKNOWN_TYPE,
        400,
        404,
        405,
        501,
    ];
    assert_eq!(codes, known);
}

#[test]
fn the_first_dues_of_the_page_are_those_of_the_schedule() {
    let start_ms = 1_772_323_200_000;
    let rows = table("| line | zone | first due |");
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let cron = Cron::parse(&row[0], &row[1]).unwrap_or_else(|error| panic!("{row:?}: {error}"));
        assert_eq!(
            cron.next_after(start_ms).map(rfc3339_ms).as_ref(),
            Some(&row[2]),
            "{row:?}"
        );
    }
    for refused in [
        "5/15 * * * *",
        "0 0 * * ? *",
        "0 0 ? * *",
        "@reboot",
        "0 0 * * SAT-SUN",
        "0 0 31W * *",
    ] {
        assert!(Cron::parse(refused, "UTC").is_err(), "{refused}");
    }
    assert!(Cron::parse("0 0 * * SAT-7", "UTC").is_ok());
    let macros = [
        ("@annually", "0 0 1 1 *"),
        ("@weekly", "0 0 * * 0"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
    ];
    for (name, line) in macros {
        let next = |line| Cron::parse(line, "UTC").expect("valid").next_after(start_ms);
        assert_eq!(next(name), next(line), "{name}");
    }
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_code() {
    let config = Config::default();
    for text in [
        format!("larger than {} bytes", limits::REQUEST_BYTES_MAX),
        format!("at most {} bytes: sent byte for byte", limits::BODY_BYTES_MAX),
        format!("`https://`, at most {} bytes", limits::URL_BYTES_MAX),
        format!("at most {} bytes. Type 2", limits::CRON_BYTES_MAX),
        format!("at most {} bytes. Default `UTC`", limits::TIMEZONE_BYTES_MAX),
        format!("1 to {} of `A-Z", limits::TASK_ID_BYTES_MAX),
        format!("`connections_max` | {} |", config.connections_max),
        format!("`header_timeout_ms` | {} s |", config.header_timeout_ms / 1_000),
        format!("`keep_alive_ms` | {} s |", config.keep_alive_ms / 1_000),
        format!("| {} MiB |", limits::REQUEST_BODIES_BYTES_MAX >> 20),
        format!("`request_timeout_ms` | {} s |", config.request_timeout_ms / 1_000),
        format!(
            "may take {} s in all, {} s",
            config.fire.timeout_ms / 1_000,
            config.fire.connect_timeout_ms / 1_000
        ),
        format!("A fire has {} attempts", config.retry.attempts_max),
        format!(
            "about {} s after the first has failed",
            config.retry.first_delay_ms / 1_000
        ),
        format!(
            "up to {} minutes, less up to a fifth",
            config.retry.delay_max_ms / 60_000
        ),
    ] {
        assert!(DOC.contains(&text), "doc/api.md does not say: {text}");
    }
    assert_eq!((config.retention_secs, config.retry.jitter_percent), (24 * 60 * 60, 20));
}
