//! `xcron import`: creates the tasks of an export, through the public API, and writes nothing over what is there.
//!
//! Reads lines of `xcron export` from standard input or a file. A task whose id is taken by another one is left out; counts and
//! past outcomes do not come along. Called by `cli/mod.rs`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;
use serde::{Deserialize, Serialize};

use super::{client, print};
use crate::core::export::{CallbackLine, LINE_V1, Line};
use crate::core::instant::instant_ms;

/// Longest line: a task with the largest body, and what is around it.
const LINE_BYTES_MAX: u64 = 128 << 10;
/// Tasks that were refused are named, so many of them.
const REFUSED_SHOWN: usize = 20;
/// The codes of a task that is there already and is another one, and of an instant that is past.
const CONFLICT: u64 = 1012;
const PAST: u64 = 1002;

const EXAMPLES: &str = "\
Examples:
  xcron import --api http://127.0.0.1:8000 tasks.ndjson
  xcron export --data old/xcron-data | xcron import

Safe to repeat: a task that is there is left as it is. Dues that passed since the export are not made up for.";

/// Arguments of `xcron import`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// API of any node of the cluster
    #[arg(
        long = "api",
        env = "XCRON_API",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    url: String,
    /// Lines of `xcron export` [default: standard input]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What became of the lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    created: u64,
    taken: u64,
    past: u64,
    refused: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let input: Box<dyn Read> = match &args.file {
        Some(path) => Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?),
        None => Box::new(io::stdin()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(import(&args.url, BufReader::new(input)))?;
    print(&told(&tally))?;
    Ok(if tally.refused.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn import(api: &str, mut input: impl BufRead) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for number in 1u64.. {
        let mut text = Vec::new();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut text)?;
        if read == 0 {
            break;
        }
        if read as u64 > LINE_BYTES_MAX {
            bail!("line {number} is longer than {LINE_BYTES_MAX} bytes: is it an export?");
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        let line: Line<'_> = serde_json::from_slice(&text)
            .with_context(|| format!("line {number} is no line of xcron export; those before it are imported"))?;
        if line.v != LINE_V1 {
            bail!("line {number} has version {}: this release reads {LINE_V1}", line.v);
        }
        if line.state.life == "pending" {
            let told = create(api, &line).await;
            let told = told.with_context(|| format!("line {number}: the outcome is unknown; import again"))?;
            count(&mut tally, &line.task.id, told);
        }
    }
    Ok(tally)
}

/// What a node answers.
#[derive(Deserialize)]
struct Told {
    code: u64,
    message: Option<String>,
}

fn count(tally: &mut Tally, id: &str, told: Told) {
    match told.code {
        0 => tally.created += 1,
        CONFLICT => tally.taken += 1,
        PAST => tally.past += 1,
        code => tally
            .refused
            .push(format!("{id}: code {code}: {}", told.message.unwrap_or_default())),
    }
}

async fn create(api: &str, line: &Line<'_>) -> anyhow::Result<Told> {
    let url = format!("{}/xcron/createTask", api.trim_end_matches('/'));
    let body = serde_json::to_vec(&request(line)?)?;
    let answer = client::send(&url, Method::POST, Bytes::from(body)).await?;
    serde_json::from_slice(&answer).context("the answer is not that of an xcron node")
}

/// The createTask of a line.
#[derive(Debug, Serialize)]
struct Request<'a> {
    task_id: &'a str,
    #[serde(rename = "type")]
    kind: u8,
    format: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<&'a str>,
    delivery: &'a str,
    /// Its body goes on byte for byte.
    callback: &'a CallbackLine<'a>,
}

/// The createTask of a line. An instant is rounded up to whole seconds: never early.
fn request<'a>(line: &'a Line<'_>) -> anyhow::Result<Request<'a>> {
    let task = &line.task;
    let (kind, format) = match (&task.schedule.cron, &task.schedule.at) {
        (Some(cron), None) => (1, cron.clone()),
        (None, Some(at)) => {
            let ms = instant_ms(at).with_context(|| format!("task {}: {at:?} is no instant", task.id))?;
            (2, ms.div_ceil(1_000).to_string())
        }
        _ => bail!("task {}: its schedule has neither `cron` nor `at`, or both", task.id),
    };
    Ok(Request {
        task_id: &task.id,
        kind,
        format,
        timezone: task.schedule.timezone.as_deref(),
        delivery: &task.delivery,
        callback: &task.callback,
    })
}

fn told(tally: &Tally) -> String {
    let Tally {
        created,
        taken,
        past,
        refused,
    } = tally;
    let counts = format!(
        "{created} tasks are there, {taken} were left out because another task has their id, {past} because their instant is past"
    );
    let shown = refused.iter().take(REFUSED_SHOWN).map(|refused| format!("  {refused}"));
    let more = (!refused.is_empty()).then(|| format!("{} were refused:", refused.len()));
    let mut lines: Vec<String> = [counts].into_iter().chain(more).chain(shown).collect();
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(schedule: &str) -> String {
        format!(
            r#"{{"v":1,"task":{{"id":"t","schedule":{schedule},"callback":{{"url":"http://h/","body":{{"z" : 1.0e5, "a":12345678901234567890123}}}},
            "delivery":"at_most_once"}},"state":{{"life":"pending","revision":1,"created_at":"x","next_due_at":null,
            "delivered":0,"failed":0,"skipped":0}}}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn a_line_becomes_the_create_that_it_was_made_of() {
        let asked = |text: &str| {
            let line: Line<'_> = serde_json::from_str(text).expect("a line");
            request(&line).map(|request| serde_json::to_string(&request).expect("it encodes"))
        };
        assert_eq!(
            asked(&line(r#"{"cron":"0 1 * * *","timezone":"UTC"}"#)).expect("a task"),
            r#"{"task_id":"t","type":1,"format":"0 1 * * *","timezone":"UTC","delivery":"at_most_once","callback":{"url":"http://h/","body":{"z" : 1.0e5, "a":12345678901234567890123}}}"#,
            "the body byte for byte"
        );
        let once = asked(&line(r#"{"at":"2030-01-01T00:00:00.001Z"}"#)).expect("a task");
        assert!(
            once.contains(r#""type":2,"format":"1893456001","delivery""#),
            "never early: {once}"
        );
        assert!(asked(&line("{}")).is_err());
    }

    #[tokio::test]
    async fn an_empty_line_is_nothing() {
        let tally = import("http://127.0.0.1:1", &b"\n  \n"[..]).await;
        assert_eq!(tally.expect("nothing to do"), Tally::default());
    }

    #[tokio::test]
    async fn what_is_no_export_is_refused_with_its_line() {
        let error = import("http://127.0.0.1:1", &b"{}\n"[..]).await.expect_err("no line");
        assert!(error.to_string().contains("line 1"), "{error:#}");
        let later = line("{}").replace("\"v\":1", "\"v\":2");
        let error = import("http://127.0.0.1:1", later.as_bytes())
            .await
            .expect_err("a later version");
        assert!(error.to_string().contains("version 2"), "{error:#}");
    }
}
