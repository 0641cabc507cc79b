//! `xcron recover`: makes a surviving data directory a cluster of its own, after the majority was lost for good.
//!
//! Works on the directory alone, under its lock. Called by `cli/mod.rs`; done by `node/recover.rs`.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::print;
use crate::config::Config;
use crate::node::{Offline, Survey};

const EXAMPLES: &str = "\
Examples:
  xcron recover --as-sole-voter --data /var/lib/xcron          says what is there and asks
  xcron recover --as-sole-voter --data /var/lib/xcron --yes

Only when the other nodes are lost for good. What they acknowledged and this directory has not is lost. Never start one of them
again with its old data: its tasks would fire beside those of this one.";

/// Arguments of `xcron recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Make the node of this directory the only voter of every group, in a cluster with a new id
    #[arg(long, required = true)]
    as_sole_voter: bool,
    /// The surviving data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Config {
        data: args.data,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let directory = Offline::open(&config)?;
        let survey = directory.survey().await?;
        print(&told(&survey))?;
        if !args.yes {
            print("\nTo go on, type the id of the old cluster: ")?;
            let mut typed = String::new();
            io::stdin().lock().read_line(&mut typed)?;
            if typed.trim() != format!("{:032x}", survey.cluster) {
                bail!("nothing was done: that is not the cluster's id");
            }
        }
        let cluster = directory.become_sole_voter().await?;
        print(&format!(
            "cluster {cluster:032x}: this directory is its only node. Start it with its usual line; add the others with empty \
             directories, and with --join to this one\n"
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What is there, and what may be lost.
fn told(survey: &Survey) -> String {
    let (held, all) = (survey.held.len(), survey.groups.get());
    let missing = usize::from(all) - held;
    let learns = survey
        .held
        .iter()
        .filter(|held| !held.voters.contains(&survey.node))
        .count();
    let others: Vec<String> = survey.others.iter().map(|node| format!("{node:016x}")).collect();
    let lines = [
        (
            true,
            format!(
                "cluster {:032x}, node {:016x}: {held} of {all} groups are here",
                survey.cluster, survey.node
            ),
        ),
        (!others.is_empty(), format!("other voters: {}", others.join(", "))),
        (
            true,
            "lost is what the others acknowledged in the last moments and this node has not heard of".to_owned(),
        ),
        (
            learns > 0,
            format!("of {learns} groups this node held a copy without a vote: more may be missing there"),
        ),
        (
            missing > 0,
            format!(
                "{missing} groups have no copy here: all of their tasks are lost, unless another directory has them (xcron \
                 export --data)"
            ),
        ),
        (
            survey.is_superseded,
            "the directory is an older copy of the node's: what the node confirmed after that is lost".to_owned(),
        ),
    ];
    let lines = lines
        .into_iter()
        .filter(|(is_so, _)| *is_so)
        .map(|(_, line)| line + "\n");
    lines.collect()
}
