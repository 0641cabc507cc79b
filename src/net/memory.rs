//! A network in memory, for tests: the same traits as TCP, nothing on the machine. Owns who listens where.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::{Dial, Listen, Stream};

/// Bytes on the way in each direction of a connection.
const BUFFER_BYTES: usize = 64 << 10;

/// The network: a cheap handle, which also dials.
#[derive(Clone, Debug, Default)]
pub struct MemoryNet(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    listeners: BTreeMap<SocketAddr, mpsc::UnboundedSender<DuplexStream>>,
    swallowing: BTreeSet<SocketAddr>,
}

impl MemoryNet {
    /// Takes the connections made to `address` from now on.
    pub fn listen(&self, address: SocketAddr) -> MemoryListener {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.lock().listeners.insert(address, sender);
        MemoryListener { receiver, address }
    }

    /// Lets attempts to connect to `address` hang, as packets to a machine without power do.
    pub fn swallow(&self, address: SocketAddr) {
        self.0.lock().swallowing.insert(address);
    }

    /// Connects to `address`; refused if nobody listens.
    pub fn connect(&self, address: SocketAddr) -> io::Result<DuplexStream> {
        let (near, far) = duplex(BUFFER_BYTES);
        let inner = self.0.lock();
        let listener = inner.listeners.get(&address);
        listener
            .and_then(|listener| listener.send(far).ok())
            .map(|()| near)
            .ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

impl Dial for MemoryNet {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            if self.0.lock().swallowing.contains(&address) {
                std::future::pending::<()>().await;
            }
            Ok(Box::new(self.connect(address)?) as Box<dyn Stream>)
        })
    }
}

/// Takes connections made through the network it came from.
#[derive(Debug)]
pub struct MemoryListener {
    receiver: mpsc::UnboundedReceiver<DuplexStream>,
    address: SocketAddr,
}

impl Listen for MemoryListener {
    type Io = DuplexStream;

    /// Everybody comes from the listener's own address.
    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.receiver.recv().await {
            Some(stream) => Ok((stream, self.address)),
            None => std::future::pending().await,
        }
    }
}
