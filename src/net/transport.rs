//! Where connections come from: TCP, or what a simulation or a test gives instead. Owns no protocol.
//!
//! `client.rs` dials, `server.rs` accepts.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What the system holds of a connection to a peer, at the most: a heartbeat cannot pass what is in there. Left alone it grows to
/// megabytes, which take seconds on a slow network.
const SEND_BUFFER_BYTES: u32 = 256 << 10;

/// A connection's bytes, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// Makes connections.
pub trait Dial: Debug + Send + Sync + 'static {
    /// Connects to `address`. Dropping the future gives it up.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

/// Takes connections.
pub trait Listen: Send + 'static {
    /// A connection.
    type Io: Stream;

    /// The next connection and its peer. It may be dropped before it completes, and no connection may be lost by that.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

/// Connects over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
            let stream = socket.connect(address).await?;
            // Messages are gathered before they are written: waiting to fill a packet would only delay them.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

impl Listen for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // A peer that is gone already is noticed at its first read.
        drop(stream.set_nodelay(true));
        Ok((stream, peer))
    }
}
