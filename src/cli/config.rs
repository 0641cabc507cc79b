//! `xcron config`: shows the settings a node would run with, and checks files before a node meets them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_USAGE, complain, print};
use crate::config::{self, Flags, LoadError};

/// Arguments of `xcron config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every setting as TOML, with where its value came from
    Show(Flags),
    /// Check a file of settings; exit code 2 when it cannot be used
    Check {
        /// The TOML file
        file: PathBuf,
    },
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Show(flags) => match flags.load() {
            Ok(loaded) => print(&config::show(&loaded))?,
            Err(error) => return Ok(refuse(&error)),
        },
        Command::Check { file } => match config::check_file(&file) {
            Ok(()) => print(&format!("{}: ok\n", file.display()))?,
            Err(error) => return Ok(refuse(&error)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why the settings cannot be used.
pub(super) fn refuse(error: &LoadError) -> ExitCode {
    complain(&format!("xcron: {}", error.to_string().trim_end()));
    ExitCode::from(EXIT_USAGE)
}
