//! The command line: one file or folder a command. Each parses its flags and calls into the library; none decides anything.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong flags or settings. Called by `main.rs`.

mod bench;
mod callback;
mod client;
mod clock;
mod cluster;
mod config;
mod cron;
mod dev;
mod export;
mod import;
mod logging;
mod process;
mod recover;
mod serve;
mod signals;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

use crate::clock::SystemClock;

/// Exit code for flags and settings that cannot be used, the same as clap's own.
const EXIT_USAGE: u8 = 2;

/// A timer service: post a task to any node, and its body is posted to its URL at the due time.
#[derive(Debug, Parser)]
#[command(name = "xcron", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (what `xcron` alone does)
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Args),
    /// Measure nodes from outside: create tasks, wait for their callbacks, report rates and lateness
    Bench(bench::Args),
    /// Say when a crontab line fires, before a task is made of it
    Cron(cron::Args),
    /// Look at a running cluster, or ask a node to leave it
    Cluster(cluster::Args),
    /// Write the tasks that a data directory holds, one line of JSON each
    Export(export::Args),
    /// Create the tasks of an export; nothing that is there is changed
    Import(import::Args),
    /// Make a surviving data directory a cluster of its own, after the majority was lost for good
    Recover(recover::Args),
    /// Say that a node's wall clock is right after a jump that nobody else can confirm
    Clock(clock::Args),
    /// Try a cluster on this machine: nodes to kill and restart, and a target that prints every callback
    Dev(dev::Args),
    /// Show or check settings
    Config(config::Args),
}

const EXAMPLES: &str = "\
Examples:
  xcron                                     run a node: API on 127.0.0.1:8000, data in ./xcron-data
  xcron serve --listen 127.0.0.1:9000       the same on another port
  xcron serve --config xcron.toml           the same with settings from a file
  xcron dev                                 a cluster of three nodes to play with
  xcron cron next '0 8 * * MON-FRI'         the next instants of a crontab line
  xcron config show                         every setting, its value, and where it came from
  xcron bench --tasks 1000                  how fast and how punctual is the node on this machine";

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = match Cli::try_parse_from(&arguments).and_then(or_serve) {
        Ok(command) => command,
        Err(error) => return usage(error, &arguments),
    };
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Bench(args) => bench::run(args, Arc::new(SystemClock::default())),
        Command::Cron(args) => {
            let clock = SystemClock::default();
            Ok(cron::run(
                args,
                &clock,
                &mut io::stdout().lock(),
                &mut io::stderr().lock(),
            ))
        }
        Command::Cluster(args) => cluster::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(&args),
        Command::Recover(args) => recover::run(args),
        Command::Clock(args) => clock::run(args),
        Command::Dev(args) => dev::run(&args),
        Command::Config(args) => config::run(args),
    }
}

/// No command means `serve`. It is parsed, not built, so that variables count there too.
fn or_serve(cli: Cli) -> Result<Command, clap::Error> {
    match cli.command {
        Some(command) => Ok(command),
        None => Ok(Command::Serve(serve::Args::parse_from_environment()?)),
    }
}

/// Prints help (exit code 0) or what is wrong with the arguments (exit code 2).
fn usage(mut error: clap::Error, arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    name_variable(&mut error, arguments);
    unless_closed(error.print())?;
    Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE)))
}

/// Names the variable of the environment where a value that cannot be used came from one: clap names the flag always.
fn name_variable(error: &mut clap::Error, arguments: &[OsString]) {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    let flag = argument.split_whitespace().next().unwrap_or_default().to_owned();
    let is_flag = |given: &OsString| {
        let given = given.to_string_lossy();
        given == flag || given.strip_prefix(&flag).is_some_and(|rest| rest.starts_with('='))
    };
    let Some(name) = flag.strip_prefix("--").filter(|_| !arguments.iter().any(is_flag)) else {
        return;
    };
    let variable = format!("XCRON_{}", name.replace('-', "_").to_uppercase());
    if std::env::var_os(&variable).is_some() {
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
}

/// Prints to stdout; a reader that has seen enough (`xcron config show | head -1`) is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Says something on stderr; where nobody listens any more there is nothing else to do.
fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints why a command failed. Called by `main.rs`.
pub fn report(error: &anyhow::Error) {
    complain(&format!("xcron: {error:#}"));
}

fn unless_closed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        let cli = Cli::try_parse_from(["xcron"]).expect("no argument is needed");
        assert!(matches!(or_serve(cli), Ok(Command::Serve(_))));
    }
}
