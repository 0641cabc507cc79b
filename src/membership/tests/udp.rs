//! The machine's own UDP, in real time: as short as it can be, since everything else is tested in memory.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::hub::{CLUSTER, Counts, KEY, facts};
use crate::clock::{Clock, SystemClock};
use crate::entropy::SystemEntropy;
use crate::membership::{
    DATAGRAM_BYTES_MAX, Datagrams, Facts, GOSSIP_INTERVAL, Membership, Network, Parts, UdpNetwork,
};

/// Hands out one socket that is open already, so that its port is known and nobody else's.
#[derive(Debug)]
struct Opened(Mutex<Option<Box<dyn Datagrams>>>);

impl Network for Opened {
    fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Datagrams>>> {
        let socket = self.0.lock().take().ok_or(io::ErrorKind::AddrInUse.into());
        Box::pin(std::future::ready(socket))
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        UdpNetwork.resolve(host)
    }
}

async fn open() -> (Arc<Opened>, SocketAddr) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (Arc::new(Opened(Mutex::new(Some(Box::new(socket))))), address)
}

#[tokio::test]
async fn datagrams_of_every_size_pass() {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let (to, address) = open().await;
    let to = to.bind(any).await.expect("it is open");
    let from = UdpNetwork.bind(any).await.expect("a free port");
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    for bytes in [0, 1, DATAGRAM_BYTES_MAX] {
        from.send(&vec![7; bytes], address).await.expect("it fits");
        let (received, _) = to.receive(&mut buffer).await.expect("it arrives");
        assert_eq!(received, bytes);
    }
    assert!(from.send(&vec![7; DATAGRAM_BYTES_MAX + 1], address).await.is_err());
    let local = UdpNetwork
        .resolve("localhost:80")
        .await
        .expect("every machine knows it");
    assert!(local.iter().all(|address| address.ip().is_loopback()));
}

#[tokio::test]
async fn two_members_find_each_other_over_udp() {
    let ((one, seed), (two, peer)) = (open().await, open().await);
    let start = |node: u16, network: Arc<Opened>, peer: SocketAddr| {
        let clock = Arc::new(SystemClock::default());
        Membership::start(Parts {
            facts: Facts {
                peer,
                ..facts(node, Some(CLUSTER))
            },
            listen: peer,
            known: Vec::new(),
            seeds: vec![format!("localhost:{}", seed.port())],
            keys: vec![KEY],
            incarnation: clock.wall_ms(),
            interval: GOSSIP_INTERVAL,
            clock,
            entropy: Arc::new(SystemEntropy::default()),
            network,
            observer: Arc::new(Counts::default()),
        })
    };
    let first = start(1, one, seed).await.expect("it starts");
    let second = start(2, two, peer).await.expect("it starts");
    for member in [&first, &second] {
        let mut view = member.view();
        let both = view.wait_for(|view| view.live().count() == 2).await;
        assert_eq!(both.expect("it is running").members.len(), 2);
    }
    second.leave().await;
    first.shutdown().await;
}
