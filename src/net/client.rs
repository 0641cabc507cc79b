//! Calls to peers: the way in for the rest of the node. Owns one link per peer that was ever called (`link.rs`), and nothing
//! that happens on it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::calls::Calls;
use super::link::{Link, Way};
use super::observe::PeerLog;
use super::{AddressBook, CallError, Dial, Local, Offset, Service};
use crate::id::{NodeHex, NodeId};

/// What [`Peers`] work with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// This node.
    pub local: Arc<Local>,
    /// Where the others are.
    pub addresses: Arc<dyn AddressBook>,
    /// Makes connections.
    pub dialer: Arc<dyn Dial>,
}

/// The other nodes, to be called. A cheap handle; when the last one is gone, so are the connections.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    way: Arc<Way>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
}

impl Peers {
    /// Knows everybody, is connected to nobody yet.
    pub fn new(parts: Parts) -> Self {
        let way = Way {
            parts,
            log: PeerLog::default(),
        };
        Self(Arc::new(Shared {
            way: Arc::new(way),
            links: Mutex::default(),
        }))
    }

    /// Asks `to`, and waits for the answer for at most `deadline`. Connects if need be; a peer that could not be reached just
    /// now is not tried again at once, and the call fails at once. Dropping the future gives the call up.
    pub async fn call(
        &self,
        to: NodeId,
        service: Service,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let calls = self.calls(to)?;
        calls
            .call(service, request, self.0.way.parts.local.now(), deadline)
            .await
    }

    /// Asks `to` for nothing but its time: connects, and measures the offset of its clock.
    pub async fn ping(&self, to: NodeId, deadline: Duration) -> Result<(), CallError> {
        let calls = self.calls(to)?;
        calls.ping(self.0.way.parts.local.now(), deadline).await
    }

    /// How far the wall clocks of the peers are off that were heard of lately.
    pub fn offsets(&self) -> BTreeMap<NodeId, Offset> {
        let now = self.0.way.parts.local.clock.monotonic();
        let links = self.0.links.lock();
        let offsets = links.iter().map(|(node, link)| (*node, link.offset(now)));
        offsets
            .filter_map(|(node, offset)| offset.map(|offset| (node, offset)))
            .collect()
    }

    fn calls(&self, to: NodeId) -> Result<Arc<Calls>, CallError> {
        let Some(address) = self.0.way.parts.addresses.address(to) else {
            return Err(CallError::NotSent(format!(
                "no address is known for node {}",
                NodeHex(to)
            )));
        };
        let link = self.link(to);
        link.calls(&self.0.way, address)
    }

    fn link(&self, to: NodeId) -> Arc<Link> {
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(&to) {
            return link.clone();
        }
        // Ids are never used again: without this, every node that ever was would be remembered.
        links.retain(|node, link| link.is_connected() || self.0.way.parts.addresses.address(*node).is_some());
        links.entry(to).or_insert_with(|| Arc::new(Link::new(to))).clone()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for link in self.links.get_mut().values() {
            link.close();
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("node", &self.0.way.parts.local.node)
            .finish_non_exhaustive()
    }
}
