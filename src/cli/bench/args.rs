//! The options of `xcron bench`, and the checked form that the phases work from.
//!
//! Owns the help text and every refusal of an option. Opens no connection and no file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hyper::header::HeaderValue;
use url::Url;

use crate::limits::BODY_BYTES_MAX;

/// Delay of the first due with `--pending`, in seconds: one day, so that nothing falls due during a run.
const PENDING_DELAY_S: u64 = 86_400;
/// Furthest due a run may ask for, in seconds from now: one year.
const AHEAD_S_MAX: u64 = 366 * 86_400;
/// Most tasks of one run: a run keeps 12 bytes for each.
const TASKS_MAX: u32 = 50_000_000;

const AT_LEAST_ONCE: &str = "at_least_once";
const AT_MOST_ONCE: &str = "at_most_once";

const EXAMPLES: &str = "\
Examples:
  xcron bench                                    10,000 tasks, all due in one second
  xcron bench -n 20000 -c 256 --delay 10         a burst of 20,000
  xcron bench -n 30000 --rate 500 --delay 2      a minute of steady load
  xcron bench -n 1000000 --pending -c 256        a million tasks that stay pending
  xcron bench --api http://10.0.0.1:8000,http://10.0.0.2:8000 --sink 10.0.0.9:0
  xcron bench --json > run.json                  for a script; the exit code says whether it passed

How to read it:
  A one-shot's due is a whole second on this API, so steady load of R/s falls due as R tasks once a second:
  its lateness is that of a small burst.
  With --rate a create's latency counts from the moment it was planned for, so a stalled server cannot hide.
  Lateness and 'early' compare this machine's clock with the due: run it on the node's machine, or trust NTP.
  Compare ratios, not rates: the two probes tell what the disk and the sink gave in the same minute.
  The tasks that --pending creates stay on the node.
  Exit code: 0 passed, 1 callbacks missing or early or nothing created, 130 interrupted.";

/// Measure nodes from outside: create tasks, wait for their callbacks, report rates and lateness.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Base URL of a node; repeat it or separate with commas to spread the load over several.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8000"
    )]
    api: Vec<String>,
    /// How many tasks to create.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(TASKS_MAX)))]
    tasks: u32,
    /// How many requests are in flight at once, each on a connection of its own.
    #[arg(short, long, value_name = "C", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4_096))]
    concurrency: u16,
    /// Creates per second; without it as many as the nodes take. Each task is then due --delay after its own
    /// creation, unless --spread is given too.
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// How many seconds from now the first task is due. Must be longer than the creates take.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    delay: u64,
    /// Over how many seconds the dues are spread evenly; 0: all in one second [default: 0, or see --rate].
    #[arg(long, value_name = "SECONDS")]
    spread: Option<u64>,
    /// Size of the callback's JSON body, in bytes; fewer than 10 give `{}`.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    body_bytes: usize,
    /// How the tasks are delivered; at most once: a callback that may have been sent is never sent again.
    #[arg(long, value_name = "HOW", default_value = AT_LEAST_ONCE, value_parser = [AT_LEAST_ONCE, AT_MOST_ONCE])]
    delivery: String,
    /// Create tasks due in a day or later and do not wait for them.
    #[arg(long)]
    pending: bool,
    /// How many seconds after the last due to wait for callbacks that have not come.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    wait: u64,
    /// Where to listen for callbacks; nodes must be able to reach this address.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    sink: SocketAddr,
    /// Skip the two probes (fdatasync/s of the disk, POST/s of the sink), which take about 4 seconds.
    #[arg(long)]
    no_probes: bool,
    /// Directory for the disk probe's temporary file; choose the disk the node writes to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    probe_dir: PathBuf,
    /// Print one JSON object on stdout instead of the tables.
    #[arg(long)]
    pub(super) json: bool,
    /// After the creates, ask for this many of the tasks with queryTask. Raise --delay to keep it before the dues.
    #[arg(long, value_name = "N", default_value_t = 0)]
    query: u32,
}

/// One node under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `host:port`, to connect to.
    pub authority: String,
    /// The same as a `Host` header.
    pub host: HeaderValue,
}

/// When the tasks of a run are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dues {
    /// At seconds fixed when the run starts: the first after `delay_s`, the others over `spread_s` from there.
    Fixed { delay_s: u64, spread_s: u64 },
    /// Each `delay_s` after its own creation.
    Rolling { delay_s: u64 },
}

impl Dues {
    /// Due of task `index` of `tasks`, in whole seconds since the epoch: never less than the delay away.
    pub fn due_s(self, start_us: u64, now_us: u64, index: u32, tasks: u32) -> u64 {
        match self {
            Self::Fixed { delay_s, spread_s } => {
                start_us.div_ceil(1_000_000) + delay_s + u64::from(index) * spread_s / u64::from(tasks.max(1))
            }
            Self::Rolling { delay_s } => now_us.div_ceil(1_000_000) + delay_s,
        }
    }
}

/// Options that have been checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub nodes: Vec<Node>,
    pub tasks: u32,
    pub concurrency: u16,
    /// Creates per second, above zero.
    pub rate: Option<f64>,
    pub dues: Dues,
    pub body_bytes: usize,
    /// Tasks are delivered at most once.
    pub is_at_most_once: bool,
    /// How long to wait for callbacks after the last due; `None` = do not wait for any.
    pub wait: Option<Duration>,
    pub sink: SocketAddr,
    /// Where the disk is probed; `None` = no probes at all.
    pub probe_dir: Option<PathBuf>,
    pub queries: u32,
}

impl TryFrom<Args> for Settings {
    type Error = anyhow::Error;

    fn try_from(args: Args) -> anyhow::Result<Self> {
        let nodes = args
            .api
            .iter()
            .map(|api| node(api))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(rate) = args.rate {
            ensure!(
                rate.is_finite() && rate >= 0.001,
                "--rate: {rate} is not a number of creates per second"
            );
        }
        ensure!(
            args.body_bytes <= BODY_BYTES_MAX,
            "--body-bytes: a callback body has at most {BODY_BYTES_MAX} bytes"
        );
        ensure!(
            !args.sink.ip().is_unspecified(),
            "--sink: {} is no address that a node can call; name the one this machine has on the nodes' network",
            args.sink
        );
        let delay_s = if args.pending {
            args.delay.max(PENDING_DELAY_S)
        } else {
            args.delay
        };
        let ahead_s = delay_s.saturating_add(args.spread.unwrap_or(0));
        ensure!(
            ahead_s <= AHEAD_S_MAX,
            "--delay and --spread: at most a year ahead in all"
        );
        Ok(Self {
            nodes,
            tasks: args.tasks,
            concurrency: args.concurrency,
            rate: args.rate,
            dues: match (args.rate, args.spread) {
                (Some(_), None) => Dues::Rolling { delay_s },
                (_, spread) => Dues::Fixed {
                    delay_s,
                    spread_s: spread.unwrap_or(0),
                },
            },
            body_bytes: args.body_bytes,
            is_at_most_once: args.delivery == AT_MOST_ONCE,
            wait: (!args.pending).then_some(Duration::from_secs(args.wait)),
            sink: args.sink,
            probe_dir: (!args.no_probes).then_some(args.probe_dir),
            queries: args.query,
        })
    }
}

fn node(api: &str) -> anyhow::Result<Node> {
    let url = Url::parse(&super::super::client::base(api)).with_context(|| format!("--api: `{api}` is not a URL"))?;
    if url.scheme() != "http" || !matches!(url.path(), "" | "/") {
        bail!("--api: `{api}` must be http://host:port, without a path");
    }
    let host = url
        .host_str()
        .with_context(|| format!("--api: `{api}` names no host"))?;
    let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let host = HeaderValue::from_str(&authority).with_context(|| format!("--api: `{api}` names no valid host"))?;
    Ok(Node { authority, host })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn settings(line: &str) -> anyhow::Result<Settings> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Settings::try_from(Cli::try_parse_from(words)?.args)
    }

    #[test]
    fn nodes_come_repeated_or_separated_by_commas() {
        let settings = settings("--api http://a:1,http://b:2 --api http://[::1]:3/").expect("valid");
        let authorities: Vec<_> = settings.nodes.iter().map(|node| node.authority.as_str()).collect();
        assert_eq!(authorities, ["a:1", "b:2", "[::1]:3"]);
    }

    #[test]
    fn refusals_name_the_option() {
        for (line, option) in [
            ("--api ://x", "--api"),
            ("--api https://a:1", "--api"),
            ("--api http://a:1/v1", "--api"),
            ("--rate 0", "--rate"),
            ("--rate NaN", "--rate"),
            ("--body-bytes 9999999", "--body-bytes"),
            ("--sink 0.0.0.0:80", "--sink"),
            ("--delay 99999999999", "--delay"),
            ("-n 0", "--tasks"),
            ("-c 0", "--concurrency"),
        ] {
            let error = settings(line).expect_err(line).to_string();
            assert!(error.contains(option), "{line}: {error}");
        }
    }

    #[test]
    fn dues_follow_the_options() {
        let of = |line: &str| settings(line).expect("valid").dues;
        assert_eq!(
            of(""),
            Dues::Fixed {
                delay_s: 5,
                spread_s: 0
            }
        );
        assert_eq!(of("--rate 10"), Dues::Rolling { delay_s: 5 });
        assert_eq!(
            of("--rate 10 --spread 3"),
            Dues::Fixed {
                delay_s: 5,
                spread_s: 3
            }
        );
        assert_eq!(
            of("--pending"),
            Dues::Fixed {
                delay_s: 86_400,
                spread_s: 0
            }
        );
        assert!(settings("--pending").expect("valid").wait.is_none());
    }

    #[test]
    fn dues_are_whole_seconds_ahead() {
        let burst = Dues::Fixed {
            delay_s: 5,
            spread_s: 0,
        };
        assert_eq!(burst.due_s(1_000_001, 9_000_000, 3, 4), 7);
        assert_eq!(burst.due_s(1_000_000, 9_000_000, 0, 4), 6);
        let spread = Dues::Fixed {
            delay_s: 0,
            spread_s: 2,
        };
        let dues: Vec<_> = (0..4).map(|index| spread.due_s(1_000_000, 0, index, 4)).collect();
        assert_eq!(dues, [1, 1, 2, 2]);
        assert_eq!(Dues::Rolling { delay_s: 2 }.due_s(0, 1_500_000, 3, 4), 4);
    }
}
