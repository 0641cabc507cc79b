//! A cluster of nodes as processes on free loopback ports, with one secret. Owns the processes and what is done to them.
//!
//! Nodes are counted from 0; each keeps its addresses and its data directory for the whole test. Clusters take turns: three
//! nodes are load enough for the machine that a gate runs on. Whoever kills or pauses tells the oracle itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::sync::{Mutex, MutexGuard};

use super::client::{Client, Reply};
use super::node::{Ended, Launch, Node, Place};
use super::view::View;
use super::{PATIENCE, POLL, eventually};

/// Ports are taken from here: below those that the system gives to outgoing connections, so that none of these takes the
/// port of a node that is down, and not the defaults.
const PORT_MIN: u16 = 12_000;
const PORT_COUNT: u16 = 18_000;
/// Groups of these clusters: enough to spread, few enough for builds without optimisation.
const GROUPS: u64 = 16;

static TURNS: Mutex<()> = Mutex::const_new(());
static PORTS: AtomicU16 = AtomicU16::new(0);

/// One node, whether it runs or not.
struct Member {
    api: SocketAddr,
    peer: SocketAddr,
    node: Option<Node>,
}

/// Nodes of one cluster; those that run are killed when it is dropped.
pub struct Cluster {
    members: Vec<Member>,
    secret: PathBuf,
    place: Place,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// A cluster of so many nodes that has come to rest.
    pub async fn start(nodes: usize) -> Self {
        let mut cluster = Self::waiting(nodes).await;
        // One is told to found the cluster; the others find it.
        cluster.found(0).await;
        for index in 0..nodes {
            cluster.ready(index).await;
        }
        cluster.at_rest().await;
        cluster
    }

    /// Tells a node that waits to found the cluster, as `xcron cluster init` does.
    pub async fn found(&mut self, index: usize) {
        eventually(&format!("node {index} founds a cluster"), async || {
            let reply = self.init(index).await?;
            (reply.status == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// Asks a node once to found a cluster.
    pub async fn init(&self, index: usize) -> Option<Reply> {
        let mut client = self.client(index);
        client
            .request(Method::POST, "/v1/cluster/init", Bytes::new())
            .await
            .ok()
    }

    /// So many nodes that wait for a cluster, since none was told to found one.
    pub async fn waiting(nodes: usize) -> Self {
        let turn = TURNS.lock().await;
        let place = Place::new();
        let secret = place.path("secret");
        write_secret(&secret, "the secret of this test, at least 16 characters");
        let mut cluster = Self {
            members: Vec::new(),
            secret,
            place,
            _turn: turn,
        };
        for _ in 0..nodes {
            cluster.enlist();
        }
        for index in 0..nodes {
            cluster.spawn(index);
        }
        cluster
    }

    /// Adds so many nodes, and waits until the cluster has come to rest.
    pub async fn grow(&mut self, nodes: usize) {
        let first = self.members.len();
        for _ in 0..nodes {
            self.enlist();
        }
        for index in first..self.members.len() {
            self.spawn(index);
        }
        for index in first..self.members.len() {
            self.ready(index).await;
        }
        self.at_rest().await;
    }

    /// Makes a member that does not run yet; gives its index.
    pub fn enlist(&mut self) -> usize {
        self.members.push(Member {
            api: free_address(),
            peer: free_address(),
            node: None,
        });
        self.members.len() - 1
    }

    /// How a node is started that knows nobody.
    fn launch_alone(&self, index: usize, secret: &std::path::Path) -> Launch {
        let (member, name) = (&self.members[index], format!("node-{index}"));
        let (data, log) = (self.place.path(&name), self.place.path(&format!("{name}.log")));
        Launch::new(&data, &log)
            .listen(member.api)
            .set("groups", GROUPS)
            // What becomes of single replicas is told at this level only; a test waits for it.
            .set_text("log.filter", "info,xcron::raft::leave=debug")
            .argument("--peer-listen")
            .argument(&member.peer.to_string())
            .argument("--secret-file")
            .argument(secret.to_str().expect("temporary paths are UTF-8"))
    }

    /// How a node is started that knows all others.
    fn launch(&self, index: usize, secret: &std::path::Path) -> Launch {
        let (launch, member) = (self.launch_alone(index, secret), &self.members[index]);
        let others = self.members.iter().filter(|other| other.peer != member.peer);
        let others: Vec<String> = others.map(|other| other.peer.to_string()).collect();
        if others.is_empty() {
            launch
        } else {
            launch.argument("--join").argument(&others.join(","))
        }
    }

    /// Starts a node that does not run, and does not wait for it.
    pub fn spawn(&mut self, index: usize) {
        assert!(self.members[index].node.is_none(), "node {index} runs already");
        self.members[index].node = Some(self.launch(index, &self.secret).spawn());
    }

    /// The same, with a start line that names no other node.
    pub fn spawn_alone(&mut self, index: usize) {
        assert!(self.members[index].node.is_none(), "node {index} runs already");
        self.members[index].node = Some(self.launch_alone(index, &self.secret).spawn());
    }

    /// Starts a node with another secret beside the cluster; it is no member.
    pub fn stranger(&mut self, secret: &str) -> Node {
        let path = self.place.path("other-secret");
        write_secret(&path, secret);
        let index = self.enlist();
        let stranger = self.launch(index, &path).spawn();
        self.members.pop();
        stranger
    }

    /// How a node is started on a copy of the data directory, as it is now, of one that does not run. It is no member.
    pub fn copy(&mut self, index: usize) -> Launch {
        assert!(
            self.members[index].node.is_none(),
            "node {index} writes to its directory"
        );
        let twin = self.enlist();
        copy_directory(&self.data(index), &self.data(twin));
        let launch = self.launch(twin, &self.secret);
        self.members.pop();
        launch
    }

    /// Copies the data directory of a node that writes nothing now, to be restored later.
    pub fn back_up(&self, index: usize) {
        let (data, backup) = (self.data(index), self.place.path(&format!("backup-{index}")));
        // A copy of an earlier moment goes.
        drop(std::fs::remove_dir_all(&backup));
        copy_directory(&data, &backup);
    }

    /// Puts the copy in the place of the data directory of a node that does not run.
    pub fn restore(&mut self, index: usize) {
        self.wipe(index);
        copy_directory(&self.place.path(&format!("backup-{index}")), &self.data(index));
    }

    /// How a node is started that names only these others.
    pub fn launch_naming(&self, index: usize, others: &[usize]) -> Launch {
        let others: Vec<String> = others
            .iter()
            .map(|&other| self.members[other].peer.to_string())
            .collect();
        let launch = self.launch_alone(index, &self.secret);
        launch.argument("--join").argument(&others.join(","))
    }

    /// Starts a node as `launch` says, and does not wait for it.
    pub fn spawn_as(&mut self, index: usize, launch: &Launch) {
        assert!(self.members[index].node.is_none(), "node {index} runs already");
        self.members[index].node = Some(launch.spawn());
    }

    /// How a node is started that knows all others.
    pub fn launch_again(&self, index: usize) -> Launch {
        self.launch(index, &self.secret)
    }

    /// Where a node's data is.
    pub fn data(&self, index: usize) -> PathBuf {
        self.place.path(&format!("node-{index}"))
    }

    /// Waits until a node that was started has ended by itself.
    pub async fn ended(&mut self, index: usize) -> Ended {
        let mut node = self.members[index].node.take().expect("it was started");
        node.ended().await
    }

    /// Where the node's peer port is.
    pub fn peer(&self, index: usize) -> SocketAddr {
        self.members[index].peer
    }

    /// Erases the data directory of a node that does not run.
    pub fn wipe(&mut self, index: usize) {
        let member = &self.members[index];
        assert!(member.node.is_none(), "node {index} writes to its directory");
        let directory = self.place.path(&format!("node-{index}"));
        std::fs::remove_dir_all(directory).expect("it is a directory of this test");
    }

    /// Waits until a node that was started serves, and says that it is ready.
    pub async fn ready(&mut self, index: usize) {
        let node = self.members[index].node.as_mut().expect("it was started");
        if let Err(ended) = node.ready().await {
            panic!("node {index} does not start: {ended}");
        }
        let mut client = self.client(index);
        eventually(&format!("node {index} is ready"), async || {
            let reply = client.request(Method::GET, "/readyz", Bytes::new()).await.ok()?;
            (reply.status == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// Starts a node that does not run, and waits until it is ready.
    pub async fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.ready(index).await;
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self, index: usize) {
        self.members[index].node.take().expect("it runs").kill();
    }

    /// Tells a node to stop, and waits until it has, which must be with code 0.
    pub async fn stop(&mut self, index: usize) {
        let node = self.members[index].node.take().expect("it runs");
        let ended = node.terminate().await;
        assert_eq!(ended.status.code(), Some(0), "{ended}");
    }

    /// Asks a node through another to leave, and waits until it has, which must be with code 0.
    pub async fn drain(&mut self, index: usize, through: usize) {
        let view = self.view(through).await.expect("the node answers");
        let id = view.node_at(self.members[index].api).expect("it is known").id.clone();
        let path = format!("/v1/cluster/nodes/{id}:drain");
        let reply = self.client(through).request(Method::POST, &path, Bytes::new()).await;
        let status = reply.expect("the node answers").status;
        assert!(status.is_success(), "{status}");
        let mut node = self.members[index].node.take().expect("it runs");
        let ended = node.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{ended}");
    }

    /// What a node that runs has written to its log.
    pub fn log_of(&self, index: usize) -> String {
        self.node(index).stderr()
    }

    /// `kill -9` for all at once.
    pub fn kill_all(&mut self) {
        let nodes: Vec<Node> = self
            .members
            .iter_mut()
            .filter_map(|member| member.node.take())
            .collect();
        let ids: Vec<String> = nodes.iter().map(|node| node.id().to_string()).collect();
        let sent = Command::new("sh")
            .args(["-c", "kill -s KILL \"$@\"", "sh"])
            .args(&ids)
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "a signal cannot be sent");
        // Dropped, which waits for each of them.
    }

    /// Stops a node where it stands.
    pub fn pause(&self, index: usize) {
        self.node(index).signal("STOP");
    }

    /// Lets a node go on; without effect on one that runs.
    pub fn resume(&self, index: usize) {
        self.node(index).signal("CONT");
    }

    /// Every node runs, and none stands still; waits until all of them are ready.
    pub async fn heal(&mut self) {
        for index in 0..self.members.len() {
            match &self.members[index].node {
                Some(_) => self.resume(index),
                None => self.spawn(index),
            }
        }
        for index in 0..self.members.len() {
            self.ready(index).await;
        }
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// The APIs of all nodes.
    pub fn apis(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.api).collect()
    }

    /// A client of this node, whether it runs or not.
    pub fn client(&self, index: usize) -> Client {
        Client::new(self.members[index].api)
    }

    fn node(&self, index: usize) -> &Node {
        self.members[index].node.as_ref().expect("it runs")
    }

    fn running(&self) -> Vec<usize> {
        let indexes = 0..self.members.len();
        indexes.filter(|&index| self.members[index].node.is_some()).collect()
    }

    /// The cluster as this node sees it; `None` if it does not say.
    pub async fn view(&self, index: usize) -> Option<View> {
        let mut client = self.client(index);
        let reply = client.request(Method::GET, "/v1/cluster", Bytes::new()).await.ok()?;
        if reply.status != StatusCode::OK {
            return None;
        }
        let view = serde_json::from_slice(&reply.body);
        Some(view.unwrap_or_else(|error| panic!("/v1/cluster: {error} in {}", reply.text())))
    }

    /// Waits until all nodes that run agree that the cluster of just them has come to rest.
    pub async fn at_rest(&self) {
        let running = self.running();
        let apis: Vec<SocketAddr> = running.iter().map(|&index| self.members[index].api).collect();
        let mut last = String::new();
        let waited = async {
            loop {
                last.clear();
                for &index in &running {
                    let unrest = match self.view(index).await {
                        Some(view) => view.unrest(&apis),
                        None => Some("no view".to_owned()),
                    };
                    if let Some(why) = unrest {
                        last = format!("node {index}: {why}");
                        break;
                    }
                }
                if last.is_empty() {
                    return;
                }
                tokio::time::sleep(POLL * 5).await;
            }
        };
        let is_at_rest = tokio::time::timeout(PATIENCE, waited).await.is_ok();
        assert!(is_at_rest, "the cluster does not come to rest: {last}");
    }

    /// The node that leads most groups, as the first that can say it sees it.
    pub async fn busiest(&self) -> usize {
        eventually("a node that leads groups", async || {
            for index in self.running() {
                let busiest = self.view(index).await.and_then(|view| view.busiest());
                let found = self.members.iter().position(|member| Some(member.api) == busiest);
                if let Some(found) = found.filter(|&found| self.members[found].node.is_some()) {
                    return Some(found);
                }
            }
            None
        })
        .await
    }

    /// Stops all nodes in good order, at once; each must end with code 0.
    pub async fn terminate(mut self) {
        let mut nodes: Vec<Node> = self
            .members
            .iter_mut()
            .filter_map(|member| member.node.take())
            .collect();
        for node in &nodes {
            node.signal("TERM");
        }
        for node in &mut nodes {
            let ended = node.ended().await;
            assert_eq!(ended.status.code(), Some(0), "{ended}");
        }
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "the directory cannot be copied"
    );
}

fn write_secret(path: &std::path::Path, secret: &str) {
    std::fs::write(path, format!("{secret}\n")).expect("the place can be written");
}

/// An address that nothing listens at, of either kind, and that this process has not given away.
fn free_address() -> SocketAddr {
    let own = u16::try_from(std::process::id() % u32::from(PORT_COUNT)).expect("less than the count");
    for _ in 0..PORT_COUNT {
        // Processes that run at the same time begin at different places.
        let number = PORTS.fetch_add(1, Ordering::SeqCst);
        let port = PORT_MIN + (own.wrapping_mul(64).wrapping_add(number)) % PORT_COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {PORT_MIN} to {}", PORT_MIN + PORT_COUNT);
}
