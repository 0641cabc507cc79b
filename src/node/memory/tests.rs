//! The memory of other nodes: on disk before a handshake is answered, written only for what is new, bounded.

use super::*;
use crate::clock::SystemClock;
use crate::identity::{Identity, Stage};

/// A home that keeps nothing.
#[derive(Debug)]
pub struct Nowhere;

impl Home for Nowhere {
    fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        Ok(None)
    }

    fn keep(&self, _: &Identity) -> Result<(), IdentityError> {
        Ok(())
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, IdentityError> {
        Ok(Vec::new())
    }

    fn keep_peers(&self, _: Vec<KnownPeer>) -> BoxFuture<'_, Result<(), IdentityError>> {
        Box::pin(async { Ok(()) })
    }

    fn note_sound(&self) -> Result<(), IdentityError> {
        Ok(())
    }

    fn superseded(&self) -> IdentityError {
        IdentityError::Superseded("nowhere".into())
    }
}

/// A home in memory, which counts its writes and can be slow or broken.
#[derive(Debug, Default)]
struct Desk {
    identity: Mutex<Option<Identity>>,
    peers: Mutex<Vec<KnownPeer>>,
    writes: AtomicU64,
    slow_ms: AtomicU64,
    is_broken: AtomicBool,
}

impl Home for Desk {
    fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        Ok(self.identity.lock().clone())
    }

    fn keep(&self, identity: &Identity) -> Result<(), IdentityError> {
        *self.identity.lock() = Some(identity.clone());
        Ok(())
    }

    fn peers(&self) -> Result<Vec<KnownPeer>, IdentityError> {
        Ok(self.peers.lock().clone())
    }

    fn keep_peers(&self, peers: Vec<KnownPeer>) -> BoxFuture<'_, Result<(), IdentityError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(self.slow_ms.load(Ordering::SeqCst))).await;
            if self.is_broken.load(Ordering::SeqCst) {
                return Err(IdentityError::InUse("desk".into()));
            }
            *self.peers.lock() = peers;
            self.writes.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn note_sound(&self) -> Result<(), IdentityError> {
        Ok(())
    }

    fn superseded(&self) -> IdentityError {
        IdentityError::Superseded("desk".into())
    }
}

fn at(counter: u64, nonce: u64, log: u64) -> Progress {
    Progress {
        start: Start { counter, nonce },
        log,
    }
}

fn memory(desk: &Arc<Desk>) -> Memory {
    Memory::load(desk.clone(), Arc::new(SystemClock::default())).expect("readable")
}

fn stored(desk: &Desk) -> Vec<(NodeId, Progress)> {
    desk.peers
        .lock()
        .iter()
        .map(|peer| (peer.node, peer.progress))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_new_is_on_disk_before_it_is_answered_and_known_ones_write_nothing() {
    let desk = Arc::<Desk>::default();
    desk.slow_ms.store(300, Ordering::SeqCst);
    let memory = memory(&desk);
    let keeping = tokio::spawn(memory.clone().keep());
    let mark = memory.met(7, at(1, 10, 5)).await.expect("kept");
    assert_eq!(stored(&desk), [(7, at(1, 10, 5))]);
    for _ in 0..50 {
        memory.met(7, at(1, 10, 5)).await.expect("known");
    }
    assert_eq!(desk.writes.load(Ordering::SeqCst), 1, "not a write for each connection");
    // How far its log is, goes to disk a little later, and once.
    mark.raise(900);
    assert_eq!(memory.seen(7), at(1, 10, 900));
    tokio::time::sleep(KEEP_EVERY * 3).await;
    assert_eq!(
        (stored(&desk), desk.writes.load(Ordering::SeqCst)),
        (vec![(7, at(1, 10, 900))], 2)
    );
    // An older copy changes nothing; the next start does.
    for old in [at(1, 11, 900), at(0, 9, 900), at(2, 20, 899)] {
        memory.met(7, old).await.expect_err("behind");
    }
    memory.met(7, at(2, 20, 900)).await.expect("kept");
    assert_eq!(stored(&desk), [(7, at(2, 20, 900))]);
    keeping.abort();
    let again = Memory::load(desk.clone(), Arc::new(SystemClock::default())).expect("readable");
    assert_eq!(again.seen(7), at(2, 20, 900), "the next process remembers");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_kept_is_not_answered_and_ends_the_node() {
    let desk = Arc::<Desk>::default();
    desk.is_broken.store(true, Ordering::SeqCst);
    let memory = memory(&desk);
    tokio::spawn(memory.clone().keep());
    let error = memory.met(7, at(1, 10, 5)).await.expect_err("not kept");
    assert_eq!(memory.until_failed().await, error);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_nodes_remembered_is_bounded() {
    let desk = Arc::<Desk>::default();
    let memory = memory(&desk);
    tokio::spawn(memory.clone().keep());
    for node in 1..=KNOWN_PEERS_MAX as u64 + 40 {
        memory.met(node, at(1, node, 1)).await.expect("kept");
    }
    assert_eq!(desk.peers.lock().len(), KNOWN_PEERS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_node_is_told_at_once_and_marked() {
    let desk = Arc::<Desk>::default();
    let entropy = crate::entropy::SystemEntropy::default();
    let groups = crate::id::GroupCount::new(1).expect("a divisor");
    desk.keep(&Identity::founding(groups, &entropy)).expect("kept");
    let memory = memory(&desk);
    let waits = memory.clone();
    let waiting = tokio::spawn(async move { waits.until_superseded().await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    Remember::superseded(&memory);
    waiting.await.expect("no panic");
    memory.until_superseded().await;
    let error = super::super::enter::mark_superseded(desk.as_ref());
    assert!(matches!(error, IdentityError::Superseded(_)));
    assert_eq!(
        desk.identity.lock().as_ref().map(|identity| identity.stage),
        Some(Stage::Superseded)
    );
}
