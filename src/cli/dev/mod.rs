//! `xcron dev`: a cluster to play with. Starts nodes on this machine, prints every callback, kills and restarts on demand.
//!
//! Owns the order of things and what is printed. Called by the command line.

mod command;
mod load;
mod nodes;
mod receiver;
mod tally;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::command::{Command, HELP};
use self::load::Load;
use self::nodes::Nodes;
use self::receiver::Receiver;
use self::tally::Tally;
use super::{client, cluster, print};
use crate::clock::{Clock, SystemClock};
use crate::cluster::status::ClusterStatus;
use crate::limits::REPLICAS_DEFAULT;

/// Most nodes: each is a process with a store of its own.
const NODES_MAX: u8 = 7;
/// Lines that may wait to be carried out.
const LINES_MAX: usize = 64;
/// Pause between two looks at the cluster while it settles.
const LOOK: Duration = Duration::from_millis(250);

pub(super) const EXAMPLES: &str = "\
Examples:
  xcron dev                  three nodes, APIs on 127.0.0.1:8000 to 8002
  xcron dev --port 0         the same on free ports
  xcron dev --dir play       keeps data and logs in ./play, and goes on from there the next time";

/// Arguments of `xcron dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(NODES_MAX)))]
    nodes: u8,
    /// Port of the first node's API, the others follow; 0 for free ones
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// Where data and logs are [default: a temporary directory that is removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the cluster until it is told to end.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (directory, temporary) = if let Some(directory) = &args.dir {
        (directory.clone(), None)
    } else {
        let temporary = tempfile::Builder::new().prefix("xcron-dev-").tempdir();
        let temporary = temporary.context("cannot make a temporary directory")?;
        (temporary.path().to_owned(), Some(temporary))
    };
    std::fs::create_dir_all(&directory).with_context(|| format!("--dir: cannot make {}", directory.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut dev = Dev::new(args, directory).await?;
        // Nodes that have started are stopped, whatever became of the others.
        let ended = dev.run().await;
        dev.nodes.stop().await;
        print(&format!("{}\n", dev.summary()))?;
        ended
    });
    // Reading standard input cannot be called off.
    runtime.shutdown_background();
    if let Some(temporary) = temporary {
        let path = temporary.path().to_owned();
        temporary
            .close()
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    ended.map(|()| ExitCode::SUCCESS)
}

struct Dev {
    nodes: Nodes,
    tally: Arc<Mutex<Tally>>,
    clock: Arc<dyn Clock>,
    target: String,
    loads: u32,
}

impl Dev {
    async fn new(args: &Args, directory: PathBuf) -> anyhow::Result<Self> {
        let nodes = Nodes::new(&directory, args.nodes.into(), args.port)?;
        let (tally, clock) = (Arc::<Mutex<Tally>>::default(), Arc::<SystemClock>::default());
        let receiver = Receiver {
            tally: tally.clone(),
            clock: clock.clone(),
        };
        let target = format!("http://{}/", receiver.start().await?);
        Ok(Self {
            nodes,
            tally,
            clock,
            target,
            loads: 0,
        })
    }

    /// Starts everything, and does what is typed until it is `quit` or a signal comes.
    async fn run(&mut self) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let work = async {
            self.start().await?;
            let mut lines = lines();
            while let Some(line) = lines.recv().await {
                match command::parse(&line, self.nodes.count()) {
                    Ok(Command::Quit) => return Ok(()),
                    Ok(command) => {
                        if let Err(error) = self.carry_out(command).await {
                            print(&format!("{error:#}\n"))?;
                        }
                    }
                    Err(told) => print(&told)?,
                }
            }
            if io::stdin().is_terminal() {
                return Ok(());
            }
            // Started without a keyboard: runs until it is told to end.
            std::future::pending().await
        };
        tokio::select! {
            ended = work => ended,
            () = stop => Ok(()),
        }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        for number in 1..=self.nodes.count() {
            print(&format!("node {number} starts on {} ... ", self.nodes.api(number)))?;
            if self.nodes.start(number)? {
                self.nodes.found(number).await?;
            }
            self.nodes.ready(number).await?;
            print("ready\n")?;
        }
        print("every group gets its copies ... ")?;
        while !self.is_settled().await? {
            sleep(LOOK).await;
        }
        print("done\n")?;
        print(&self.greeting())?;
        Ok(())
    }

    /// Whether a node may die and nothing is missed: every group is led, and has as many voters as it will get.
    async fn is_settled(&mut self) -> anyhow::Result<bool> {
        let voters = voters(self.nodes.count());
        let groups = self.cluster().await?.groups;
        Ok(groups
            .iter()
            .all(|group| group.leader.is_some() && group.voters.len() == voters))
    }

    fn greeting(&self) -> String {
        let (api, target) = (self.nodes.api(self.nodes.count()), &self.target);
        format!(
            "\n{target} prints every callback. A task of your own, due in five seconds:\n  \
             curl {api}/xcron/createTask -d '{{\"type\":2,\"format\":\"'$(($(date +%s)+5))'\",\
             \"callback\":{{\"url\":\"{target}\",\"body\":{{\"hello\":\"world\"}}}}}}'\n\nType a command and return:\n{HELP}\n"
        )
    }

    async fn carry_out(&mut self, command: Command) -> anyhow::Result<()> {
        let said = match command {
            Command::Kill(number) => self.kill(number)?,
            Command::Restart(number) => self.restart(number)?,
            Command::Status => self.status().await?,
            Command::Load(tasks) => self.load(tasks)?,
            Command::Help => HELP.to_owned(),
            Command::Nothing | Command::Quit => String::new(),
        };
        Ok(print(&said)?)
    }

    fn kill(&mut self, number: usize) -> anyhow::Result<String> {
        if !self.nodes.kill(number)? {
            bail!("node {number} does not run; 'r {number}' starts it");
        }
        let (running, count) = (self.nodes.running().len(), self.nodes.count());
        let warning = if count.saturating_sub(running) * 2 > voters(count) {
            ". Some groups have lost the majority of their copies: until a node is back, calls for them are answered as unknown"
        } else {
            ""
        };
        Ok(format!("node {number} is killed; {running} of {count} run{warning}\n"))
    }

    fn restart(&mut self, number: usize) -> anyhow::Result<String> {
        if self.nodes.running().contains(&number) {
            bail!("node {number} runs; 'k {number}' kills it");
        }
        self.nodes.start(number)?;
        let (running, needed) = (self.nodes.running().len(), voters(self.nodes.count()) / 2 + 1);
        if running < needed {
            let more = needed - running;
            // Another one that is started makes this one ready as well.
            return Ok(format!(
                "node {number} is started; it is not ready until {more} more {}\n",
                if more == 1 { "runs" } else { "run" }
            ));
        }
        // What is typed next is carried out meanwhile.
        let ready = self.nodes.watch(number);
        tokio::spawn(async move {
            let said = match ready.until_ready().await {
                Some(Ok(())) => format!("node {number} is back\n"),
                Some(Err(why)) => format!("node {number} is not ready: {why}\n"),
                None => return,
            };
            drop(print(&said));
        });
        Ok(format!("node {number} is started\n"))
    }

    async fn status(&mut self) -> anyhow::Result<String> {
        let table = cluster::nodes_table(&self.cluster().await?);
        Ok(format!("{table}{}\n", self.summary()))
    }

    /// The cluster as a node that runs shows it.
    async fn cluster(&mut self) -> anyhow::Result<ClusterStatus> {
        let running = self.nodes.running();
        let Some(number) = running.first() else {
            bail!("no node runs; 'r 1' starts the first");
        };
        let url = format!("{}/v1/cluster", self.nodes.api(*number));
        cluster::read(&client::call(&url, Method::GET).await?)
    }

    /// Begins to create tasks; callbacks are printed meanwhile.
    fn load(&mut self, tasks: u32) -> anyhow::Result<String> {
        let apis: Vec<String> = self
            .nodes
            .running()
            .iter()
            .map(|number| self.nodes.api(*number))
            .collect();
        if apis.is_empty() {
            bail!("no node runs; 'r 1' starts the first");
        }
        self.loads += 1;
        let load = Load {
            batch: self.loads,
            tasks,
            apis,
            target: self.target.clone(),
            now_secs: self.clock.wall_ms() / 1_000,
        };
        let tally = self.tally.clone();
        tokio::spawn(async move {
            let said = match load.create(tally).await {
                (0, _) => format!("{tasks} tasks are created\n"),
                (failed, why) => format!(
                    "{failed} of {tasks} tasks were not acknowledged (they may exist all the same): {}\n",
                    why.unwrap_or_default()
                ),
            };
            drop(print(&said));
        });
        Ok(String::new())
    }

    fn summary(&self) -> String {
        self.tally.lock().summary(self.clock.wall_ms()).to_string()
    }
}

/// How many nodes vote in each group of a cluster of so many.
fn voters(nodes: usize) -> usize {
    if nodes < usize::from(REPLICAS_DEFAULT) {
        1
    } else {
        REPLICAS_DEFAULT.into()
    }
}

/// What is typed, line by line. Reading blocks, so it has a thread of its own, which ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
