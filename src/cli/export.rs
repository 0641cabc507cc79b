//! `xcron export`: the tasks of a running cluster, or those that a data directory holds, a line of JSON each, for `xcron import` and for
//! people.
//!
//! A directory is that of a node that does not run, and is read under its lock; a cluster is asked through `GET /v1/export`. What a
//! line is is `core/export.rs`'s. Called by `cli/mod.rs`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::client;
use crate::config::Config;
use crate::core::export::{is_exported, line};
use crate::node::Offline;

const EXAMPLES: &str = "\
Examples:
  xcron export --api http://127.0.0.1:8000 > tasks.ndjson
  xcron export --data /var/lib/xcron > tasks.ndjson
  xcron export --data /var/lib/xcron | xcron import --api http://127.0.0.1:8000";

/// Arguments of `xcron export`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    from: From,
    /// Finished tasks as well, as long as they are kept
    #[arg(long)]
    finished: bool,
}

/// Where the tasks are.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// API of any node of a running cluster: all of its tasks. What changes meanwhile may be missing or not
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// The data directory of a node that does not run: the tasks of the groups that it holds
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.from {
        From { api: Some(api), .. } => of_cluster(&api, args.finished),
        From { data, .. } => of_directory(data.expect("one of the two is required"), args.finished),
    }
}

fn of_cluster(api: &str, finished: bool) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let base = client::base(api);
    let mut out = io::stdout().lock();
    let mut next = Some(format!("/v1/export?finished={finished}"));
    while let Some(path) = next.take() {
        let (lines, following) = runtime.block_on(client::page(&format!("{base}{path}")))?;
        if let Err(error) = out.write_all(&lines) {
            super::unless_closed(Err(error))?;
            break;
        }
        next = following;
    }
    super::unless_closed(out.flush())?;
    Ok(ExitCode::SUCCESS)
}

fn of_directory(data: PathBuf, finished: bool) -> anyhow::Result<ExitCode> {
    let config = Config {
        data,
        ..Config::default()
    };
    let directory = Offline::open(&config)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = directory.each_task(|spec, state| -> anyhow::Result<()> {
        if is_exported(state.life, finished) {
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
