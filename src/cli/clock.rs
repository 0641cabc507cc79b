//! `xcron clock`: tells a node that its wall clock is right, where nobody else can.
//!
//! A client of `/v1/clock/accept` alone. Called by `cli/mod.rs`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use hyper::Method;

use super::cluster::Api;
use super::print;

const EXAMPLES: &str = "\
A node whose wall clock has jumped by more than five minutes, or that starts long after its last trusted time, fires nothing by the
new time until its peers confirm it, it is gone, or it has lasted (clock_hold_secs). This command says that the clock is right.

Examples:
  xcron clock accept
  xcron clock accept --api http://10.0.0.1:8000";

/// Arguments of `xcron clock`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say that the clock of this one node is right as it is: what it holds back fires
    Accept {
        #[command(flatten)]
        api: Api,
    },
}

#[derive(serde::Deserialize)]
struct Accepted {
    moved_ms: i64,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Command::Accept { api } = args.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(super::cluster::call(&api, Method::POST, "/v1/clock/accept"))?;
    let accepted: Accepted = serde_json::from_slice(&body)
        .context("the answer is not that of /v1/clock/accept: is it a node of another release?")?;
    print(&format!(
        "the clock is accepted as it is, {} s from what it was: what is due by it fires\n",
        accepted.moved_ms / 1_000
    ))?;
    Ok(ExitCode::SUCCESS)
}
