//! What this node remembers of the others, and how far it has come itself: what tells an older copy of a directory.
//!
//! Owns the table of known peers: in memory for every handshake, on disk through [`Home::keep_peers`] by one task. A start that
//! is new is on disk before its handshake is answered; how far a peer's log is, every ten seconds. Used by `net` as its
//! [`Remember`], by `enter.rs` for addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::found::resolve;
use crate::clock::Clock;
use crate::id::{NodeId, Progress, Start};
use crate::identity::{Home, IdentityError, KNOWN_PEERS_MAX, KnownPeer};
use crate::membership::{ClusterView, Network};
use crate::net::{Dial, Greeting, LogMark, Remember};

/// How often what was heard of the peers' logs goes to disk, if anything was.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// The memory: a cheap handle.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    home: Arc<dyn Home>,
    clock: Arc<dyn Clock>,
    own_start: Mutex<Start>,
    own_log: AtomicU64,
    table: Mutex<Table>,
    /// What was on disk at the start, until [`Memory::keep`] takes it.
    loaded: Mutex<Vec<KnownPeer>>,
    /// The table has changed.
    changed: Notify,
    /// The newest version that is on disk, or why it cannot be.
    kept: watch::Sender<Result<u64, String>>,
    is_superseded: AtomicBool,
    superseded: Notify,
}

#[derive(Debug, Default)]
struct Table {
    version: u64,
    peers: BTreeMap<NodeId, Entry>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    address: Option<SocketAddr>,
    start: Start,
    log: LogMark,
    heard_ms: u64,
}

impl Entry {
    fn progress(&self) -> Progress {
        Progress {
            start: self.start,
            log: self.log.get(),
        }
    }
}

impl Memory {
    /// What is remembered in `home`.
    pub fn load(home: Arc<dyn Home>, clock: Arc<dyn Clock>) -> Result<Self, IdentityError> {
        let mut table = Table::default();
        let loaded = home.peers()?;
        for known in &loaded {
            let log = LogMark::default();
            log.raise(known.progress.log);
            let entry = Entry {
                address: known.address,
                start: known.progress.start,
                log,
                heard_ms: known.heard_ms,
            };
            table.peers.insert(known.node, entry);
        }
        Ok(Self(Arc::new(Shared {
            home,
            clock,
            own_start: Mutex::default(),
            own_log: AtomicU64::new(0),
            table: Mutex::new(table),
            loaded: Mutex::new(loaded),
            changed: Notify::new(),
            kept: watch::Sender::new(Ok(0)),
            is_superseded: AtomicBool::new(false),
            superseded: Notify::new(),
        })))
    }

    /// This node's own start, once it is on disk.
    pub fn set_start(&self, start: Start) {
        *self.0.own_start.lock() = start;
    }

    /// This node's log is on disk up to `frame`.
    pub fn log_is_at(&self, frame: u64) {
        self.0.own_log.fetch_max(frame, Ordering::SeqCst);
    }

    /// Where the others were when they were last alive.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let table = self.0.table.lock();
        table.peers.values().filter_map(|entry| entry.address).collect()
    }

    /// Asks the others, before this node reads its log or votes, whether they have seen it further on. Who does not answer is not
    /// waited for: whoever remembers refuses the handshake as well.
    pub async fn ask_the_others(
        &self,
        greeting: &Greeting,
        dialer: &dyn Dial,
        network: &Arc<dyn Network>,
        (own, join): (SocketAddr, &[String]),
    ) {
        let (mut addresses, _) = resolve(network, join).await;
        addresses.extend(self.addresses());
        // It need not ask itself: `--join` may be the whole list.
        let others = addresses.into_iter().filter(|address| *address != own);
        let asked = others.map(|address| greeting.ask(dialer, address));
        for peer in join_all(asked).await.into_iter().flatten() {
            if peer.cluster == greeting.cluster() && self.own().is_behind(peer.seen) {
                self.superseded();
            }
        }
    }

    /// Remembers where the live members are. Nobody waits for that to be on disk.
    pub fn note_addresses(&self, view: &ClusterView) {
        let members = view
            .live()
            .filter(|member| member.facts.node != view.me && member.facts.cluster.is_some());
        let is_changed = {
            let mut table = self.0.table.lock();
            let before = table.version;
            for member in members {
                let (node, address) = (member.facts.node, Some(member.facts.peer));
                if table.peers.get(&node).is_none_or(|entry| entry.address != address) {
                    let entry = table.entry(node, self.0.clock.wall_ms());
                    entry.address = address;
                }
            }
            table.version != before
        };
        if is_changed {
            self.0.changed.notify_one();
        }
    }

    /// Follows the view for as long as it changes.
    pub async fn follow(self, mut view: watch::Receiver<Arc<ClusterView>>) {
        loop {
            let now = view.borrow_and_update().clone();
            self.note_addresses(&now);
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps on disk what changes, until that fails.
    pub async fn keep(self) {
        let mut on_disk = std::mem::take(&mut *self.0.loaded.lock());
        loop {
            drop(timeout(KEEP_EVERY, self.0.changed.notified()).await);
            let (version, peers) = self.snapshot();
            if peers != on_disk {
                if let Err(error) = self.0.home.keep_peers(peers.clone()).await {
                    drop(self.0.kept.send_replace(Err(error.to_string())));
                    return;
                }
                on_disk = peers;
            }
            drop(self.0.kept.send_replace(Ok(version)));
        }
    }

    /// Completes with the reason when nothing can be kept any more.
    pub async fn until_failed(&self) -> String {
        let mut kept = self.0.kept.subscribe();
        let failed = kept.wait_for(Result::is_err).await;
        // The sender is in this handle: it is never gone.
        failed.map_or_else(|error| error.to_string(), |kept| kept.clone().err().unwrap_or_default())
    }

    /// Whether another node has seen this one further on than it is.
    pub fn is_superseded(&self) -> bool {
        self.0.is_superseded.load(Ordering::SeqCst)
    }

    /// Completes when it has.
    pub async fn until_superseded(&self) {
        let told = self.0.superseded.notified();
        if !self.is_superseded() {
            told.await;
        }
    }

    fn snapshot(&self) -> (u64, Vec<KnownPeer>) {
        let table = self.0.table.lock();
        let peers = table.peers.iter().map(|(node, entry)| KnownPeer {
            node: *node,
            address: entry.address,
            progress: entry.progress(),
            heard_ms: entry.heard_ms,
        });
        (table.version, peers.collect())
    }
}

impl Table {
    /// The entry of a node, which is about to change; made if there is none, in place of the one heard of longest ago.
    fn entry(&mut self, node: NodeId, now_ms: u64) -> &mut Entry {
        self.version += 1;
        if !self.peers.contains_key(&node)
            && self.peers.len() >= KNOWN_PEERS_MAX
            && let Some(oldest) = self
                .peers
                .iter()
                .min_by_key(|(_, entry)| entry.heard_ms)
                .map(|(node, _)| *node)
        {
            self.peers.remove(&oldest);
        }
        let entry = self.peers.entry(node).or_default();
        entry.heard_ms = now_ms;
        entry
    }
}

impl Remember for Memory {
    fn own(&self) -> Progress {
        Progress {
            start: *self.0.own_start.lock(),
            log: self.0.own_log.load(Ordering::SeqCst),
        }
    }

    fn seen(&self, node: NodeId) -> Progress {
        let table = self.0.table.lock();
        table.peers.get(&node).map_or_else(Progress::default, Entry::progress)
    }

    fn met(&self, node: NodeId, progress: Progress) -> BoxFuture<'_, Result<LogMark, String>> {
        let outcome = {
            let mut table = self.0.table.lock();
            let known = table.peers.get(&node).map_or_else(Progress::default, Entry::progress);
            if progress.is_behind(known) {
                Err("it has been seen further on a moment ago".to_owned())
            } else {
                if known.start != progress.start {
                    table.entry(node, self.0.clock.wall_ms()).start = progress.start;
                }
                let log = table
                    .peers
                    .get(&node)
                    .map(|entry| entry.log.clone())
                    .unwrap_or_default();
                log.raise(progress.log);
                Ok((log, table.version))
            }
        };
        Box::pin(async move {
            let (log, version) = outcome?;
            let mut kept = self.0.kept.subscribe();
            // Known already, most often: then nothing is written.
            if kept.borrow().as_ref().is_ok_and(|kept| *kept < version) {
                self.0.changed.notify_one();
            }
            let is_kept = |kept: &Result<u64, String>| kept.as_ref().map_or(true, |kept| *kept >= version);
            match kept.wait_for(is_kept).await {
                Ok(kept) => kept.clone().map(|_| log),
                Err(_) => Err("the node is stopping".to_owned()),
            }
        })
    }

    fn superseded(&self) {
        self.0.is_superseded.store(true, Ordering::SeqCst);
        self.0.superseded.notify_waiters();
    }
}

#[cfg(test)]
pub mod tests;
