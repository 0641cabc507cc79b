//! `xcron export`: the tasks that a data directory holds, a line of JSON each, for `xcron import` and for people.
//!
//! Works on the directory of a node that does not run, under its lock. A line is
//! `{"v":1,"task":{...},"state":{...}}`: `task` in the form of `PUT /v1/tasks/{id}` with its id. Called by `cli/mod.rs`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::Config;
use crate::core::instant::rfc3339_ms;
use crate::core::task::{Life, Schedule, TaskSpec, TaskState};
use crate::node::Offline;

/// The version of a line.
pub(super) const LINE_V1: u32 = 1;

const EXAMPLES: &str = "\
Examples:
  xcron export --data /var/lib/xcron > tasks.ndjson
  xcron export --data /var/lib/xcron | xcron import --api http://127.0.0.1:8000";

/// Arguments of `xcron export`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The data directory of a node that does not run
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Finished tasks as well, as long as they are kept
    #[arg(long)]
    finished: bool,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    pub v: u32,
    #[serde(borrow)]
    pub task: TaskLine<'a>,
    pub state: StateLine,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TaskLine<'a> {
    pub id: String,
    pub schedule: ScheduleLine,
    #[serde(borrow)]
    pub callback: CallbackLine<'a>,
    pub delivery: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScheduleLine {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timezone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CallbackLine<'a> {
    pub url: String,
    #[serde(borrow)]
    pub body: &'a RawValue,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateLine {
    pub life: String,
    pub revision: u32,
    pub created_at: String,
    pub next_due_at: Option<String>,
    pub delivered: u64,
    pub failed: u64,
    pub skipped: u64,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config {
        data: args.data,
        ..Config::default()
    };
    let directory = Offline::open(&config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = directory.each_task(|spec, state| -> anyhow::Result<()> {
        let is_wanted = state.life == Life::Pending || (args.finished && state.life == Life::Finished);
        if is_wanted {
            serde_json::to_writer(&mut out, &line(&spec, &state)?)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    });
    written?;
    super::unless_closed(out.flush())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let behind: u64 = runtime
        .block_on(directory.survey())?
        .held
        .iter()
        .map(|held| held.behind)
        .sum();
    if behind > 0 {
        // Whoever reads the lines reads on.
        drop(writeln!(
            io::stderr(),
            "xcron: {behind} entries of the log are not in the state yet, and what they changed is not in the export: start the \
             node once, stop it, and export again"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The line of a task.
fn line<'a>(spec: &'a TaskSpec, state: &TaskState) -> anyhow::Result<Line<'a>> {
    let (cron, timezone, at) = match &spec.schedule {
        Schedule::Cron { expression, timezone } => (Some(expression.clone()), Some(timezone.clone()), None),
        Schedule::Once { at_ms } => (None, None, Some(rfc3339_ms(*at_ms))),
    };
    let life = match state.life {
        Life::Pending => "pending",
        Life::Finished => "finished",
        Life::Deleted => "deleted",
    };
    Ok(Line {
        v: LINE_V1,
        task: TaskLine {
            id: spec.id.as_str().to_owned(),
            schedule: ScheduleLine { cron, timezone, at },
            callback: CallbackLine {
                url: spec.url.clone(),
                body: serde_json::from_slice(&spec.body)?,
            },
            delivery: spec.delivery.name().to_owned(),
        },
        state: StateLine {
            life: life.to_owned(),
            revision: state.revision,
            created_at: rfc3339_ms(spec.created_ms),
            next_due_at: state.next_due_ms.map(rfc3339_ms),
            delivered: state.delivered,
            failed: state.failed,
            skipped: state.skipped,
        },
    })
}
