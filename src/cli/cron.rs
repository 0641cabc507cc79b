//! `xcron cron`: says when a crontab line fires, before a task is made of it. Needs no node.
//!
//! Owns the flags and the output. The dialect is `core/schedule/`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use super::{EXIT_USAGE, unless_closed};
use crate::clock::Clock;
use crate::core::schedule::Cron;

/// Most instants that one call prints.
const COUNT_MAX: u32 = 10_000;

/// Arguments of `xcron cron`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the next instants at which a crontab line fires; exit code 2 when it is wrong or never fires
    #[command(after_help = EXAMPLES)]
    Next(NextArgs),
}

/// Arguments of `xcron cron next`.
#[derive(Debug, clap::Args)]
pub struct NextArgs {
    /// The crontab line, in quotes: minute, hour, day of month, month, day of week; or a macro such as @daily
    #[arg(value_name = "EXPR")]
    expression: String,
    /// Time zone that the line is read in, by its IANA name; a TZ= in front of the line goes before it
    #[arg(long = "tz", value_name = "ZONE", default_value = "UTC")]
    timezone: String,
    /// Print what comes after this instant [default: now]
    #[arg(long, value_name = "UNIX_SECONDS")]
    from: Option<u64>,
    /// How many instants to print
    #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    count: u32,
    /// Print the line in words, then local times with their offsets, instead of unix seconds
    #[arg(long)]
    human: bool,
}

const EXAMPLES: &str = "\
Examples:
  xcron cron next '30 2 * * MON-FRI'
  xcron cron next '*/20 8-18 * * 1-5' --tz Europe/Berlin --human
  xcron cron next @monthly -n 12 --from 1772323200
  xcron cron next 'TZ=Asia/Tokyo 0 9 L * *'      the last day of each month, 9 o'clock in Tokyo

A line is read as Linux cron reads it: a day matches either day field when both are set,
and both when one begins with *. When clocks go forward, a time left out fires once, right
after; when they go back, a time shown twice fires once. Lines whose minute or hour begins
with * follow the clock instead.";

/// Runs the command: instants go to `out`, what is wrong to `err`.
pub fn run(args: Args, clock: &dyn Clock, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let Command::Next(next) = args.command;
    let (written, code) = match text(&next, clock) {
        Ok(text) => (
            out.write_all(text.as_bytes()).and_then(|()| out.flush()),
            ExitCode::SUCCESS,
        ),
        Err(wrong) => (writeln!(err, "xcron: {wrong}"), ExitCode::from(EXIT_USAGE)),
    };
    match unless_closed(written) {
        Ok(()) => code,
        Err(error) => cannot_write(err, &error),
    }
}

/// What is printed, or what is wrong.
fn text(args: &NextArgs, clock: &dyn Clock) -> Result<String, String> {
    let cron = Cron::parse(&args.expression, &args.timezone).map_err(|error| error.to_string())?;
    let after_ms = args
        .from
        .map_or_else(|| clock.wall_ms(), |seconds| seconds.saturating_mul(1_000));
    let dues = std::iter::successors(cron.next_after(after_ms), |due_ms| cron.next_after(*due_ms));
    let lines: Vec<String> = dues
        .take(args.count as usize)
        .map(|due_ms| {
            if args.human {
                cron.local_text(due_ms)
            } else {
                (due_ms / 1_000).to_string()
            }
        })
        .collect();
    if lines.is_empty() {
        let after = after_ms / 1_000;
        return Err(format!(
            "{:?} never fires: nothing after {after}, up to the year 9999, matches it",
            args.expression
        ));
    }
    let sentence = args.human.then(|| cron.describe());
    Ok(sentence.into_iter().chain(lines).map(|line| line + "\n").collect())
}

fn cannot_write(err: &mut dyn Write, error: &io::Error) -> ExitCode {
    // When stderr is gone as well, the exit code is all that is left to say it with.
    drop(writeln!(err, "xcron: cannot write the answer: {error}"));
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Debug)]
    struct Stopped;

    impl Clock for Stopped {
        fn wall_ms(&self) -> u64 {
            1_772_323_200_000
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    /// Exit code (0 or 2), stdout and stderr of `xcron cron` with these arguments.
    fn cron(arguments: &[&str]) -> (u8, String, String) {
        let parsed = Program::try_parse_from([&["cron"], arguments].concat()).expect("flags are right");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(parsed.args, &Stopped, &mut out, &mut err);
        let code = (0..=2)
            .find(|known| ExitCode::from(*known) == code)
            .expect("one of the documented codes");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(out), text(err))
    }

    #[test]
    fn instants_are_printed_one_a_line() {
        let (code, out, err) = cron(&["next", "3-7 1-17 * * *"]);
        assert_eq!(out, "1772326980\n1772327040\n1772327100\n1772327160\n1772327220\n");
        assert_eq!((code, err.as_str()), (0, ""));
    }

    #[test]
    fn flags_move_start_count_and_zone() {
        let (_, out, _) = cron(&[
            "next",
            "0 9 * * *",
            "--tz",
            "Asia/Tokyo",
            "--from",
            "1772323199",
            "-n",
            "2",
        ]);
        assert_eq!(out, "1772323200\n1772409600\n");
        let (_, out, _) = cron(&[
            "next",
            "TZ=Asia/Tokyo 0 9 * * *",
            "--from",
            "1772323200",
            "--count",
            "1",
        ]);
        assert_eq!(out, "1772409600\n", "the start itself is left out");
        assert!(Program::try_parse_from(["cron", "next", "@daily", "-n", "0"]).is_err());
        assert!(Program::try_parse_from(["cron", "next", "@daily", "-n", "10001"]).is_err());
    }

    #[test]
    fn people_get_words_and_local_times() {
        let (code, out, _) = cron(&["next", "30 2 8,9 3 *", "--tz", "America/New_York", "--human", "-n", "2"]);
        let expected = "At 02:30, on the 8th and 9th of the month, in March (America/New_York).\n\
                        2026-03-08 03:00:00 -04:00 Sun\n2026-03-09 02:30:00 -04:00 Mon\n";
        assert_eq!((code, out.as_str()), (0, expected));
    }

    #[test]
    fn what_is_wrong_goes_to_stderr_with_exit_code_2() {
        let (code, out, err) = cron(&["next", "0 22-2 * * *"]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(
            err.starts_with("xcron: hour: \"22-2\" runs backwards; allowed: "),
            "{err}"
        );
        let (code, _, err) = cron(&["next", "@daily", "--tz", "Mars/Base"]);
        assert_eq!(code, 2);
        assert!(err.contains("Mars/Base"), "{err}");
    }

    #[test]
    fn a_line_that_never_fires_is_told_apart() {
        for arguments in [
            ["next", "0 0 30 2 *", "--from", "0"],
            ["next", "@daily", "--from", "18446744073709551615"],
        ] {
            let (code, out, err) = cron(&arguments);
            assert_eq!((code, out.as_str()), (2, ""));
            assert!(err.contains("never fires"), "{err}");
        }
    }
}
