//! The wish that a waiting node founds a cluster (`xcron cluster init`): how it reaches the node, and how it can end.
//!
//! Decides nothing: that is `node/found.rs`. Asked by the API.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

/// Wishes that may wait: one is carried out at a time, and each has a client that waits for it.
const WISHES_MAX: usize = 8;

/// A cluster was founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founded {
    /// Its id.
    pub cluster: u128,
    /// The node, its first.
    pub node: u64,
    /// Addresses of `--join` that did not answer: a cluster there would not have been seen.
    pub silent: Vec<String>,
}

/// Why no cluster was founded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// The node is in a cluster.
    #[error("this node belongs to cluster {0:032x} already: there is nothing to found")]
    Member(u128),
    /// Another node is.
    #[error(
        "the node at {peer} belongs to cluster {cluster:032x}: this node joins it by itself, and must not found another one"
    )]
    Exists {
        /// Where that node is.
        peer: SocketAddr,
        /// Its cluster.
        cluster: u128,
    },
    /// Another node was told to found one.
    #[error("the node at {peer} has just been told to found the cluster: this node joins it. One init is enough")]
    Elsewhere {
        /// Where that node is.
        peer: SocketAddr,
    },
    /// The identity could not be kept, or a name not be looked up.
    #[error("the cluster was not founded: {0}")]
    Failed(String),
    /// The node is ending.
    #[error("the node is stopping: look whether it has founded the cluster once it is back")]
    Stopping,
}

/// A wish, answered once.
pub type Wish = oneshot::Sender<Result<Founded, InitError>>;

/// The way to a node that waits. A cheap handle.
#[derive(Clone, Debug)]
pub struct Init {
    sender: mpsc::Sender<Wish>,
    entered: Arc<OnceLock<u128>>,
}

/// Where wishes arrive, until the node is in a cluster.
#[derive(Debug)]
pub struct Wishes {
    receiver: mpsc::Receiver<Wish>,
    entered: Arc<OnceLock<u128>>,
}

/// Both ends.
pub fn channel() -> (Init, Wishes) {
    let (sender, receiver) = mpsc::channel(WISHES_MAX);
    let entered = Arc::<OnceLock<u128>>::default();
    let init = Init {
        sender,
        entered: entered.clone(),
    };
    (init, Wishes { receiver, entered })
}

impl Init {
    /// Tells the node to found a cluster, and waits for what becomes of it.
    pub async fn found(&self) -> Result<Founded, InitError> {
        let (wish, answer) = oneshot::channel();
        if self.sender.send(wish).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // Nobody listens any more.
        Err(self
            .entered
            .get()
            .map_or(InitError::Stopping, |cluster| InitError::Member(*cluster)))
    }
}

impl Wishes {
    /// The next wish. Never completes once nobody can wish any more.
    pub async fn next(&mut self) -> Wish {
        match self.receiver.recv().await {
            Some(wish) => wish,
            None => std::future::pending().await,
        }
    }

    /// The node is in `cluster`: wishes are answered with that from now on.
    pub fn entered(self, cluster: u128) {
        // Set once: this consumes the only end that sets it.
        let _ = self.entered.set(cluster);
    }
}
