//! Datagram sockets: what gossip speaks over. Datagrams are lost, doubled and overtaken.

use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use futures_util::future::BoxFuture;
use xcron::membership::{Datagrams, Network};

use super::{DATAGRAMS_WAITING_MAX, Inner, Net, Travel, Waiting, What, host_at};

/// What waits at a socket.
pub(super) type Inbox = Waiting<(SocketAddr, Vec<u8>)>;

/// A socket of one host.
#[derive(Debug)]
struct SimDatagrams {
    net: Net,
    own: SocketAddr,
}

impl Network for Net {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let bound = self.live(|inner| drop(inner.sockets.insert(address, Inbox::default())));
        let socket = SimDatagrams {
            net: self.clone(),
            own: address,
        };
        let bound = bound.map(|()| Box::new(socket) as Box<dyn Datagrams>);
        Box::pin(std::future::ready(
            bound.ok_or_else(|| io::ErrorKind::NetworkDown.into()),
        ))
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = host.parse().map(|address| vec![address]).map_err(io::Error::other);
        Box::pin(std::future::ready(found))
    }
}

impl Datagrams for SimDatagrams {
    fn send<'a>(&'a self, datagram: &'a [u8], to: SocketAddr) -> BoxFuture<'a, io::Result<()>> {
        self.net.live(|inner| send(inner, self.own, to, datagram));
        Box::pin(std::future::ready(Ok(())))
    }

    fn receive<'a>(&'a self, buffer: &'a mut [u8]) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(std::future::poll_fn(move |context| {
            let received = self.net.live(|inner| {
                let inbox = inner.sockets.get_mut(&self.own)?;
                let first = inbox.items.pop_front();
                if first.is_none() {
                    inbox.reader = Some(context.waker().clone());
                }
                Some(first)
            });
            match received.flatten() {
                Some(Some((from, datagram))) => {
                    let bytes = datagram.len().min(buffer.len());
                    buffer[..bytes].copy_from_slice(&datagram[..bytes]);
                    Poll::Ready(Ok((bytes, from)))
                }
                Some(None) => Poll::Pending,
                None => Poll::Ready(Err(io::ErrorKind::NetworkDown.into())),
            }
        }))
    }
}

/// A datagram as it was sent: from, to, bytes.
pub type Captured = (SocketAddr, SocketAddr, Vec<u8>);

/// Datagrams that are kept for whoever wants to send them again.
const CAPTURED_MAX: usize = 2_000;

impl Net {
    /// From now on datagrams are kept; those that were until now.
    pub fn capture(&self) -> Vec<Captured> {
        self.change(|inner| inner.captured.replace(Vec::new()).unwrap_or_default())
    }

    /// Puts a datagram on its way that claims to come from `from`.
    pub fn forge(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        self.change(|inner| send(inner, from, to, datagram));
    }
}

fn send(inner: &mut Inner, own: SocketAddr, to: SocketAddr, datagram: &[u8]) {
    let (Some(here), Some(there)) = (host_at(own), host_at(to)) else {
        return;
    };
    inner.bytes += datagram.len() as u64;
    if let Some(captured) = &mut inner.captured
        && captured.len() < CAPTURED_MAX
    {
        captured.push((own, to, datagram.to_vec()));
    }
    let copies = 1 + u64::from(
        inner.weather.twice_permille > 0 && {
            let permille = inner.weather.twice_permille;
            inner.dice.chance(permille)
        },
    );
    for _ in 0..copies {
        if inner.is_lost(here, there) {
            continue;
        }
        let after_us = inner.latency_us(here, there);
        let what = What::Datagram {
            from: own,
            to,
            bytes: datagram.to_vec(),
        };
        inner.send(
            after_us,
            Travel {
                from: here,
                to: there,
                what,
            },
        );
    }
}

/// A datagram has come; where too many wait it is lost.
pub(super) fn arrive(inbox: &mut Inbox, wake: &mut Vec<Waker>, from: SocketAddr, bytes: Vec<u8>) {
    if inbox.items.len() < DATAGRAMS_WAITING_MAX {
        inbox.push((from, bytes), wake);
    }
}
