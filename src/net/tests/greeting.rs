//! Nodes that do not serve yet: what they say at their peer port, and what they hear there.

use super::*;
use crate::net::greeter::{Greeter, Greeting, Peer};

fn greeting(node: NodeId) -> Greeting {
    Greeting::new(
        node,
        None,
        secret(SECRET),
        Arc::new(SystemEntropy::default()),
        Arc::<Memory>::default(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_says_who_it_is_and_hears_who_calls() {
    let net = MemoryNet::default();
    let (one, two) = (greeting(1), greeting(2));
    let greeter = Greeter::start(net.listen(address(1)), one.clone());
    let waits = Peer {
        node: 1,
        cluster: None,
        is_founding: false,
        seen: Progress::default(),
    };
    assert_eq!(two.ask(&net, address(1)).await, Ok(waits));
    one.set_founding(true);
    let founds = Peer {
        is_founding: true,
        ..waits
    };
    assert_eq!(two.ask(&net, address(1)).await, Ok(founds));
    assert_eq!(one.called(), None, "a node that waits itself is no member");
    // A member that takes this node for one that it knows.
    let refusal = initiate_as(&net, hello(7, 1)).await;
    assert_eq!(refusal, Some(Refusal::Starting));
    assert_eq!(one.called(), Some((CLUSTER, address(1))));
    one.set_cluster(CLUSTER);
    let found = two.ask(&net, address(1)).await.expect("it answers");
    assert_eq!(found.cluster, Some(CLUSTER));
    // The port goes on to the server.
    let listener = greeter.end().await;
    assert!(listener.is_some());
    assert_eq!(two.ask(&net, address(1)).await, Err(Refusal::Deadline));
    assert!(two.ask(&net, address(9)).await.is_err(), "nobody is there");
}

async fn initiate_as(net: &MemoryNet, own: Hello) -> Option<Refusal> {
    let mut stream = net.connect(address(own.to)).expect("somebody listens");
    let key = secret(SECRET).peer_keys()[0];
    let session = initiate(&mut stream, &own, &key, Arc::new(SystemEntropy::default())).await;
    session.err()
}

#[tokio::test(start_paused = true)]
async fn a_member_says_its_cluster_to_a_node_that_waits() {
    let net = MemoryNet::default();
    let _member = Node::new(&net, 1).start();
    let found = greeting(2).ask(&net, address(1)).await.expect("it answers");
    assert_eq!((found.node, found.cluster), (1, Some(CLUSTER)));
    let stranger = Greeting::new(
        3,
        None,
        secret("another secret of this test"),
        Arc::new(SystemEntropy::default()),
        Arc::<Memory>::default(),
    );
    assert_eq!(stranger.ask(&net, address(1)).await, Err(Refusal::Secret));
}
