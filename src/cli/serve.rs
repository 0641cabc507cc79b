//! `xcron serve`: runs a node until it is told to stop. Owns what belongs to the process: its settings, the log, the
//! runtime, the listening socket and the signals. The node itself is put together in `node.rs`.

use std::net::SocketAddr;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::config::refuse;
use super::{logging, print, process, signals};
use crate::config::{Config, Flags, Source};
use crate::id::NodeHex;
use crate::node::{self, Basics, World};

/// A write into the state can stall for hundreds of milliseconds while the store catches up: on a small machine there must
/// be threads left for the other groups' fires.
const WORKER_THREADS_MIN: usize = 4;
/// Time that work on blocking threads has to end once the node has stopped: below what [`signals::END_GRACE`] adds to
/// the setting `stop_timeout_ms`.
const BLOCKING_END_TIMEOUT: Duration = Duration::from_secs(1);

const _: () = assert!(BLOCKING_END_TIMEOUT.as_millis() < signals::END_GRACE.as_millis());

pub(super) const EXAMPLES: &str = "\
Every setting can be given as a flag, as a variable, or in the file; flags win over variables, variables over the file.

Examples:
  xcron serve
  xcron serve --listen 127.0.0.1:9000 --data /var/lib/xcron
  XCRON_LOG_FORMAT=json xcron serve --config xcron.toml

xcron.toml:
  listen = \"127.0.0.1:9000\"
  [fire]
  timeout_ms = 5000";

/// Arguments of `xcron serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Give up a data directory that a start found damaged or superseded: set it aside and come back as a new node
    #[arg(long)]
    rejoin: bool,
    /// Stop when standard input ends: with a pipe there, when the process that holds its other end ends
    #[arg(long)]
    until_stdin_ends: bool,
}

impl Args {
    /// The arguments of `xcron serve` with no flags: variables still count.
    pub(super) fn parse_from_environment() -> Result<Self, clap::Error> {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            args: Args,
        }
        Ok(Alone::try_parse_from(["xcron"])?.args)
    }
}

/// Runs a node to its end.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (mut config, chose_groups) = match args.flags.load() {
        Ok(loaded) => (loaded.config, loaded.sources.get("groups") != Some(&Source::Default)),
        Err(error) => return Ok(refuse(&error)),
    };
    config.chose_groups = chose_groups;
    config.rejoin = args.rejoin;
    process::make_files_private();
    logging::start(&config.log)?;
    let result = start(config, args.until_stdin_ends);
    logging::flush();
    result.map(|()| ExitCode::SUCCESS)
}

/// Runs the node with these settings.
fn start(mut config: Config, until_stdin_ends: bool) -> anyhow::Result<()> {
    process::fit(&mut config, process::raise_open_files())?;
    if config.allow_remote && !config.listen.ip().to_canonical().is_loopback() {
        warn!(
            listen = %config.listen,
            "allow_remote is set, and the API asks nobody who they are: whoever reaches this address can create, read and \
             delete every task"
        );
    }
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for variable in Flags::unknown_variables(names) {
        warn!(variable, "no setting has this variable: it is ignored");
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(WORKER_THREADS_MIN))
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(serve(config, until_stdin_ends));
    runtime.shutdown_timeout(BLOCKING_END_TIMEOUT);
    result
}

async fn serve(config: Config, until_stdin_ends: bool) -> anyhow::Result<()> {
    let stop_timeout = Duration::from_millis(config.stop_timeout_ms);
    let signal = signals::stop(stop_timeout).context("cannot receive signals")?;
    let shutdown = async {
        tokio::select! {
            () = signal => {}
            () = stdin_end(), if until_stdin_ends => {}
        }
    };
    let address = config.listen;
    let listener = node::listen(address)
        .with_context(|| format!("cannot listen on {address}; choose another address with --listen"))?;
    let greeting = greeting(listener.local_addr()?);
    let ready = || {
        // The node runs on, whoever reads its output or does not.
        let _ = print(&greeting);
    };
    let (basics, (waiting, shown)) = (Basics::of_this_machine(), node::waiting());
    let api = listener.local_addr()?;
    let open = async {
        let world = World::open(&config, &basics, waiting, api).await?;
        tell_start(&config, &world, api);
        Ok(world)
    };
    let ended = node::run(config.clone(), basics.clone(), shown, open, listener, ready, shutdown).await;
    if let Err(error) = &ended {
        node::note_damage(&config, error);
    }
    ended?;
    info!("stopped");
    Ok(())
}

/// The one line by which a start is found in the log, with what an operator asks first.
fn tell_start<P>(config: &Config, world: &World<P>, api: SocketAddr) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        data = %config.data.display(),
        node = %NodeHex(world.identity.node),
        cluster = %format_args!("{:032x}", world.identity.cluster),
        groups = world.identity.groups.get(),
        api = %api,
        peers = %config.peer_listen,
        authentication = "off: whoever reaches the API may use it",
        "xcron starts"
    );
}

fn greeting(address: SocketAddr) -> String {
    format!("xcron listens on http://{address}  (try: curl http://{address}/healthz)\n")
}

/// Resolves at the end of standard input. Reading blocks, so it has a thread of its own, which ends with the process.
async fn stdin_end() {
    let (ended, end) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Whatever comes means nothing, and an error is an end as well.
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        drop(ended);
    });
    drop(end.await);
    info!("standard input has ended: stopping");
}
