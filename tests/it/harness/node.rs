//! A node as a process: start, stop, `kill -9`, wait for its own end. Owns the process; the data directory is the test's.
//!
//! A node that is dropped is killed, by its own id alone; if a test is failing just then, what the node wrote is shown.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::client::Client;
use super::{PATIENCE, POLL};

/// Lines of a node's log that a failing test shows.
const LINES_SHOWN: usize = 40;

/// The directory of one test: data of its nodes, and what they wrote.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory for temporary files"),
        }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The data directory of the test's only node.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A node on [`Place::data`].
    pub fn node(&self) -> Launch {
        Launch::new(&self.data(), &self.path("node.log"))
    }
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct Launch {
    data: PathBuf,
    log: PathBuf,
    listen: SocketAddr,
    settings: Vec<(String, String)>,
    before: String,
    arguments: Vec<String>,
}

impl Launch {
    /// A node on `data` that writes its log into `log`, over an older one.
    pub fn new(data: &Path, log: &Path) -> Self {
        Self {
            data: data.to_owned(),
            log: log.to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            settings: Vec::new(),
            before: String::new(),
            arguments: Vec::new(),
        }
    }

    /// With a setting of the configuration, by its key.
    pub fn set(mut self, key: &str, value: u64) -> Self {
        self.settings.push((variable(key), value.to_string()));
        self
    }

    /// With a setting whose value is text.
    pub fn set_text(mut self, key: &str, value: &str) -> Self {
        self.settings.push((variable(key), value.to_owned()));
        self
    }

    /// With commands of a shell before it, which the node inherits: `ulimit`, `umask`, redirections, `trap`.
    pub fn before(mut self, commands: &str) -> Self {
        self.before = format!("{commands}; ");
        self
    }

    /// At this address of the API, and not at any free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// With a further argument of `serve`.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the process and does not wait for it.
    pub fn spawn(&self) -> Node {
        let log = File::create(&self.log).expect("the log can be written");
        self.spawn_with_log(log.into())
    }

    /// Starts the process with this as its standard error.
    pub fn spawn_with_log(&self, log: Stdio) -> Node {
        let mut command = if self.before.is_empty() {
            Command::new(env!("CARGO_BIN_EXE_xcron"))
        } else {
            let mut shell = Command::new("sh");
            shell.args([
                "-c",
                &format!("{}exec \"$0\" \"$@\"", self.before),
                env!("CARGO_BIN_EXE_xcron"),
            ]);
            shell
        };
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.to_string_lossy().starts_with("XCRON_")) {
            command.env_remove(name);
        }
        let mut child = command
            .arg("serve")
            .args(["--listen", &self.listen.to_string(), "--data"])
            .arg(&self.data)
            .args(&self.arguments)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program is built and can be run");
        let stdout = child.stdout.take().expect("it is piped");
        let (greet, greeting) = mpsc::unbounded_channel();
        // A thread, because a pipe is read by blocking; it ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = address_in(&line) {
                    let _ = greet.send(address);
                }
            }
        });
        Node {
            child,
            log: self.log.clone(),
            greeting,
            address: None,
        }
    }

    /// Starts the node and waits until it serves; gives back how it ended if it does not.
    pub async fn try_start(&self) -> Result<Node, Ended> {
        let mut node = self.spawn();
        match node.ready().await {
            Ok(()) => Ok(node),
            Err(ended) => Err(ended),
        }
    }

    /// Starts the node and waits until it serves.
    pub async fn start(&self) -> Node {
        self.try_start()
            .await
            .unwrap_or_else(|ended| panic!("the node does not start: {ended}"))
    }
}

/// How a process ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All it wrote to its standard error.
    pub stderr: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; it wrote:\n{}", self.status, last_lines(&self.stderr))
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    child: Child,
    log: PathBuf,
    greeting: mpsc::UnboundedReceiver<SocketAddr>,
    address: Option<SocketAddr>,
}

impl Node {
    /// Waits until the node says where it serves, or has ended.
    pub async fn ready(&mut self) -> Result<(), Ended> {
        if self.address.is_some() {
            return Ok(());
        }
        let greeted = tokio::time::timeout(PATIENCE, self.greeting.recv()).await;
        match greeted {
            Ok(Some(address)) => {
                self.address = Some(address);
                Ok(())
            }
            Ok(None) => Err(self.ended().await),
            Err(elapsed) => panic!(
                "the node neither serves nor ends, {elapsed}:\n{}",
                last_lines(&self.stderr())
            ),
        }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address.expect("ready() was waited for")
    }

    /// A client of this node.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(mut self) {
        self.end_now();
    }

    /// SIGTERM, and waits for the end.
    pub async fn terminate(mut self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        // The standard library has no call for it, and the repository no unsafe code.
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()])
            .status()
            .expect("a shell is there");
        assert!(sent.success(), "signal {name} cannot be sent");
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self) -> Ended {
        let polls = PATIENCE.as_millis() / POLL.as_millis();
        for _ in 0..polls {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                let stderr = self.stderr();
                return Ended { status, stderr };
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("the node does not end:\n{}", last_lines(&self.stderr()))
    }

    /// All it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The most memory the process has held at once, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process is there and is ours");
        let kilobytes = status.lines().find_map(|line| {
            let value = line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?;
            value.trim().parse::<u64>().ok()
        });
        kilobytes.expect("Linux tells the peak of a process") << 10
    }

    /// Whether a tracer is attached to each of its threads.
    pub fn has_every_thread_traced(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("the process is there");
        threads.flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_some_and(|tracer| tracer.trim() != "0")
        })
    }

    fn end_now(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the node's log ends with:\n{}", last_lines(&self.stderr()));
        }
        self.end_now();
    }
}

fn variable(key: &str) -> String {
    format!("XCRON_{}", key.replace('.', "_").to_uppercase())
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}
