//! Nodes that are told to found a cluster at about the same time, over a network in memory: never two clusters.

use std::net::{IpAddr, Ipv4Addr};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::memory::Memory;
use super::super::memory::tests::Nowhere;
use super::*;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::id::Progress;
use crate::membership::UdpNetwork;
use crate::net::Greeter;
use crate::net::memory::MemoryNet;
use crate::secret::ClusterSecret;

const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn heard(peer: Peer) -> Result<Heard, InitError> {
    judge(5, HERE, &Ok(peer))
}

#[test]
fn of_two_that_found_the_lower_goes_on_and_a_cluster_ends_it() {
    let waiting = |node| Peer {
        node,
        cluster: None,
        is_founding: false,
        seen: Progress::default(),
    };
    let founding = |node| Peer {
        is_founding: true,
        ..waiting(node)
    };
    assert!(matches!(heard(waiting(1)), Ok(Heard::Waits)));
    assert!(matches!(heard(founding(5)), Ok(Heard::Waits)), "itself");
    assert!(matches!(heard(founding(9)), Ok(Heard::Rival)));
    assert_eq!(heard(founding(1)).err(), Some(InitError::Elsewhere { peer: HERE }));
    let member = Peer {
        cluster: Some(7),
        ..waiting(9)
    };
    let exists = InitError::Exists { peer: HERE, cluster: 7 };
    assert_eq!(heard(member).err(), Some(exists));
    assert!(matches!(judge(5, HERE, &Err(Refusal::Deadline)), Ok(Heard::Nothing)));
}

fn address(node: NodeId) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).expect("a small id")], 81))
}

fn greeting(node: NodeId) -> Greeting {
    let secret = ClusterSecret::parse("the secret of this test").expect("long enough");
    let memory = Memory::load(Arc::new(Nowhere), Arc::new(SystemClock::default())).expect("nothing is read");
    let memory = Arc::new(memory);
    Greeting::new(node, None, secret, Arc::new(SystemEntropy::default()), memory)
}

/// A node that is told after `delay`; whether it founded.
async fn told(net: MemoryNet, node: NodeId, greeting: Greeting, join: Vec<String>, delay: Duration) -> bool {
    sleep(delay).await;
    let network: Arc<dyn Network> = Arc::new(UdpNetwork);
    let may = may_found(&Asking {
        node,
        greeting: &greeting,
        dialer: &net,
        network: &network,
        join: &join,
        heard: BTreeSet::new(),
    })
    .await;
    if may.is_ok() {
        // Keeping the identity takes a while.
        sleep(delay / 3).await;
        greeting.set_cluster(node.into());
    }
    may.is_ok()
}

#[tokio::test(start_paused = true)]
async fn several_that_are_told_at_about_the_same_time_found_one_cluster_at_most() {
    let mut founded_none = 0;
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let net = MemoryNet::default();
        let nodes: Vec<NodeId> = vec![1, 2, 3];
        let greetings: Vec<Greeting> = nodes.iter().map(|node| greeting(*node)).collect();
        let join: Vec<String> = nodes.iter().map(|node| address(*node).to_string()).collect();
        let doors: Vec<_> = nodes
            .iter()
            .zip(&greetings)
            .map(|(node, greeting)| Greeter::start(net.listen(address(*node)), greeting.clone()))
            .collect();
        let told = nodes.iter().zip(&greetings).map(|(node, greeting)| {
            let delay = Duration::from_millis(random.random_range(0..3) * random.random_range(0..400));
            tokio::spawn(told(net.clone(), *node, greeting.clone(), join.clone(), delay))
        });
        let told: Vec<bool> = join_all(told)
            .await
            .into_iter()
            .map(|told| told.expect("no panic"))
            .collect();
        let founded = told.iter().filter(|founded| **founded).count();
        assert!(founded <= 1, "seed {seed}: {founded} clusters");
        founded_none += usize::from(founded == 0);
        drop(doors);
    }
    assert!(founded_none < 20, "{founded_none} of 200 times nobody founded");
}
