//! The demo's nodes: real `xcron serve` processes, so that a kill is a kill.
//!
//! In one process a killed node would leave its threads, its locks and its page cache behind: what the demo is to show, that
//! nothing is missed, would not be shown. A node's standard input is a pipe from here: it ends when this process does,
//! however that ends.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use tokio::time::{sleep, timeout};

use super::super::client;

/// Longest time a node may take until it serves: the others have to be found, and groups to be led.
const READY: Duration = Duration::from_mins(1);
/// Pause between two looks at a node.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time a node may take to stop in order.
const STOP: Duration = Duration::from_secs(15);
/// Where a node that founds a cluster keeps the secret, in its data directory.
const SECRET: &str = "secret";
/// Attempts to find a port that is free for both TCP and UDP.
const PORT_ATTEMPTS_MAX: usize = 100;

struct Node {
    api: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
    process: Option<Child>,
    /// Counts what was done to it: who waits for it to serve gives up when it is killed or started meanwhile.
    changes: Arc<AtomicU64>,
}

/// Waits for a node to serve, beside everything else.
pub struct Watch {
    url: String,
    log: PathBuf,
    changes: Arc<AtomicU64>,
}

impl Watch {
    /// `None` if the node was killed meanwhile, else whether it serves, or why it does not.
    pub async fn until_ready(self) -> Option<Result<(), String>> {
        let began = self.changes.load(Ordering::SeqCst);
        let mut why = String::new();
        for _ in 0..READY.as_millis() / LOOK.as_millis() {
            match client::call(&self.url, Method::GET).await {
                Ok(_) => return Some(Ok(())),
                Err(error) => why = format!("{error:#}"),
            }
            sleep(LOOK).await;
            if self.changes.load(Ordering::SeqCst) != began {
                return None;
            }
        }
        Some(Err(format!("{why}; see {}", self.log.display())))
    }
}

/// The nodes, by their number from 1.
pub struct Nodes {
    nodes: Vec<Node>,
}

impl Nodes {
    /// So many nodes, none of them started. Their APIs listen on `port` and the ports after it; 0 means free ones.
    pub fn new(directory: &Path, count: usize, port: u16) -> anyhow::Result<Self> {
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            let name = format!("node-{}", index + 1);
            nodes.push(Node {
                api: api_address(port, index)?,
                peer: free_peer_address()?,
                data: directory.join(name),
                process: None,
                changes: Arc::default(),
            });
        }
        Ok(Self { nodes })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The API of a node.
    pub fn api(&self, number: usize) -> String {
        format!("http://{}", self.nodes[number - 1].api)
    }

    /// The numbers of those that run.
    pub fn running(&mut self) -> Vec<usize> {
        let mut running = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let ended = node
                .process
                .as_mut()
                .is_some_and(|process| !matches!(process.try_wait(), Ok(None)));
            if ended {
                node.process = None;
            }
            if node.process.is_some() {
                running.push(index + 1);
            }
        }
        running
    }

    /// Starts a node that does not run. True if it is the one that is to found the cluster.
    pub fn start(&mut self, number: usize) -> anyhow::Result<bool> {
        let index = number - 1;
        let others: Vec<String> = self.nodes.iter().map(|node| node.peer.to_string()).collect();
        let others = others.into_iter().enumerate().filter(|(other, _)| *other != index);
        let others: Vec<String> = others.map(|(_, peer)| peer).collect();
        // The first node makes the secret, and is told to found the cluster.
        let secret = self.nodes[0].data.join(SECRET);
        let node = &mut self.nodes[index];
        let is_founder = index == 0 && !node.data.exists();
        std::fs::create_dir_all(&node.data).with_context(|| format!("cannot make {}", node.data.display()))?;
        let log = File::options().create(true).append(true).open(log_path(&node.data))?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
        command
            .arg("serve")
            .arg("--until-stdin-ends")
            .arg("--data")
            .arg(&node.data)
            .args([
                "--listen",
                &node.api.to_string(),
                "--peer-listen",
                &node.peer.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        if !is_founder {
            command.arg("--secret-file").arg(secret);
        }
        if !is_founder && !others.is_empty() {
            command.args(["--join", &others.join(",")]);
        }
        // Settings of the surroundings are for another node.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with("XCRON_")) {
            command.env_remove(name);
        }
        node.changes.fetch_add(1, Ordering::SeqCst);
        node.process = Some(command.spawn().context("cannot start a node")?);
        Ok(is_founder)
    }

    /// Tells a node that waits to found the cluster.
    pub async fn found(&mut self, number: usize) -> anyhow::Result<()> {
        let url = format!("{}/v1/cluster/init", self.api(number));
        let founding = async {
            while let Err(error) = client::call(&url, Method::POST).await {
                if !self.running().contains(&number) {
                    return Err(error);
                }
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(READY, founding)
            .await
            .with_context(|| format!("node {number} founds no cluster within {} s", READY.as_secs()))?
    }

    /// Waits until a node that was started serves.
    pub async fn ready(&mut self, number: usize) -> anyhow::Result<()> {
        let url = format!("{}/readyz", self.api(number));
        let log = log_path(&self.nodes[number - 1].data);
        let serving = async {
            loop {
                if !self.running().contains(&number) {
                    let said = std::fs::read_to_string(&log).unwrap_or_default();
                    bail!(
                        "node {number} has ended: {}",
                        said.lines().last().unwrap_or("it said nothing")
                    );
                }
                if client::call(&url, Method::GET).await.is_ok() {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(READY, serving).await.with_context(|| {
            format!(
                "node {number} does not serve after {} s; see {}",
                READY.as_secs(),
                log.display()
            )
        })?
    }

    /// Waits for a node that was started, without holding anything up.
    pub fn watch(&self, number: usize) -> Watch {
        let node = &self.nodes[number - 1];
        Watch {
            url: format!("{}/readyz", self.api(number)),
            log: log_path(&node.data),
            changes: node.changes.clone(),
        }
    }

    /// `kill -9`; false if it does not run.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<bool> {
        let Some(mut process) = self.nodes[number - 1].process.take() else {
            return Ok(false);
        };
        self.nodes[number - 1].changes.fetch_add(1, Ordering::SeqCst);
        process.kill().with_context(|| format!("cannot kill node {number}"))?;
        process.wait()?;
        Ok(true)
    }

    /// Stops all in order, by the end of their standard input; who takes too long is killed.
    pub async fn stop(&mut self) {
        for node in &mut self.nodes {
            drop(node.process.as_mut().and_then(|process| process.stdin.take()));
        }
        let ended = async {
            while !self.running().is_empty() {
                sleep(LOOK).await;
            }
        };
        if timeout(STOP, ended).await.is_err() {
            for number in 1..=self.count() {
                // It may end at this very moment.
                drop(self.kill(number));
            }
        }
    }
}

/// The log of the node whose data is in `data`.
fn log_path(data: &Path) -> PathBuf {
    data.with_extension("log")
}

fn api_address(port: u16, index: usize) -> anyhow::Result<SocketAddr> {
    let wanted = if port == 0 {
        Some(0)
    } else {
        u16::try_from(index).ok().and_then(|index| port.checked_add(index))
    };
    let wanted = wanted.context("--port: there are not enough ports above it")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).with_context(|| {
        format!("cannot listen on 127.0.0.1:{wanted}: choose another first port with --port, or --port 0 for free ones")
    })?;
    Ok(listener.local_addr()?)
}

/// Peers are reached by TCP and by UDP under one number.
fn free_peer_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..PORT_ATTEMPTS_MAX {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of 127.0.0.1 is free for both TCP and UDP")
}
