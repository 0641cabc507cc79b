//! Datagrams, and chitchat on top of them. Owns the seam behind which the network is (the system's UDP, or a simulated one)
//! and the socket that seals every message of chitchat. Used by `gossip.rs`; [`UdpNetwork`] by whoever starts a node.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use futures_util::future::BoxFuture;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep;

use super::observe::{Dropped, Reporter};
use super::seal::{DATAGRAM_BYTES_MAX, Sealer};

/// Room for one byte more than is accepted, so that what is too long shows.
const BUFFER_BYTES: usize = DATAGRAM_BYTES_MAX + 1;
/// Errors in a row after which a socket is taken for broken, and a new one opened.
const RECEIVE_ERRORS_MAX: u32 = 20;
/// Pause after an error: a socket that fails at once must not take a whole core.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Where datagram sockets and addresses come from.
pub trait Network: Debug + Send + Sync + 'static {
    /// Opens a socket at `address`.
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>>;
    /// The addresses of `host:port`.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// A datagram socket.
pub trait Datagrams: Debug + Send + Sync + 'static {
    /// Sends one datagram; that it went out does not mean that it arrives.
    fn send<'a>(&'a self, datagram: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>>;
    /// Waits for one datagram; what does not fit into `buffer` is cut off. Dropping the future loses none.
    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>>;
}

/// The machine's UDP and resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpNetwork;

impl Network for UdpNetwork {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(address).await?;
            Ok(Box::new(socket) as Box<dyn Datagrams>)
        })
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(lookup_host(host).await?.collect()) })
    }
}

impl Datagrams for UdpSocket {
    fn send<'a>(&'a self, datagram: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move { self.send_to(datagram, to).await.map(|_| ()) })
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(self.recv_from(buffer))
    }
}

/// Gives chitchat its sealed socket.
#[derive(Clone, Debug)]
pub(super) struct SealedTransport {
    pub(super) network: Arc<dyn Network>,
    pub(super) sealer: Arc<Sealer>,
    pub(super) reporter: Arc<Reporter>,
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(SealedSocket {
            socket: self.network.bind(address).await?,
            sealer: self.sealer.clone(),
            reporter: self.reporter.clone(),
            message: Vec::new(),
            datagram: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            errors: 0,
        }))
    }
}

struct SealedSocket {
    socket: Box<dyn Datagrams>,
    sealer: Arc<Sealer>,
    reporter: Arc<Reporter>,
    message: Vec<u8>,
    datagram: Vec<u8>,
    buffer: Vec<u8>,
    /// Errors of the socket since the last datagram.
    errors: u32,
}

#[async_trait]
impl Socket for SealedSocket {
    /// Never fails: gossip that does not go out is tried again by itself, and chitchat would log every single one.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.message.clear();
        message.serialize(&mut self.message);
        self.sealer.seal(&self.message, &mut self.datagram);
        if self.datagram.len() > DATAGRAM_BYTES_MAX {
            self.reporter.dropped(Dropped::Oversized, Some(to), None);
            return Ok(());
        }
        match self.socket.send(&self.datagram, to).await {
            Ok(()) => self.reporter.sent(self.datagram.len()),
            Err(error) => {
                self.reporter.dropped(Dropped::NotSent, Some(to), Some(&error));
            }
        }
        Ok(())
    }

    /// Fails only when the socket is broken; whatever a datagram holds, the next one is waited for.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            match self.socket.receive(&mut self.buffer).await {
                Ok((bytes, from)) => {
                    self.errors = 0;
                    self.reporter.received(bytes);
                    match message(&self.sealer, &mut self.buffer[..bytes]) {
                        Ok(message) => return Ok((from, message)),
                        Err(why) => {
                            self.reporter.dropped(why, Some(from), None);
                        }
                    }
                }
                Err(error) => {
                    self.reporter.dropped(Dropped::NotReceived, None, Some(&error));
                    self.errors += 1;
                    if self.errors >= RECEIVE_ERRORS_MAX {
                        return Err(error.into());
                    }
                    sleep(RECEIVE_ERROR_PAUSE).await;
                }
            }
        }
    }
}

/// The message sealed in `datagram`.
fn message(sealer: &Sealer, datagram: &mut [u8]) -> Result<ChitchatMessage, Dropped> {
    let mut inside = sealer.open(datagram)?;
    ChitchatMessage::deserialize(&mut inside).map_err(|_| Dropped::Malformed)
}
