//! What works: calls, many at once, over memory and over TCP; clock offsets; the beginning and end of connections.

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::*;
use crate::clock::SystemClock;

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_and_both_sides_know_who_is_there() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    assert_eq!(one.call(2, "who").await, Ok(Bytes::from("Router from 1")));
    assert_eq!(two.call(1, "who").await, Ok(Bytes::from("Router from 2")));
    assert_eq!(one.call(2, "").await, Ok(Bytes::new()));
    for node in [&one, &two] {
        assert_eq!(
            node.counters.get("Dialed open"),
            1,
            "a connection for each one's own calls"
        );
        assert_eq!(node.counters.get("Accepted open"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_any_size_up_to_the_bound_arrive_whole() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    for size in [1, 65_000, 65_519 - 26, 65_519, 65_535, 300_000, PEER_MESSAGE_BYTES_MAX] {
        let body: Bytes = (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
        let answer = one.peers.call(2, Service::Raft, body.clone(), DEADLINE).await;
        assert!(answer == Ok(body), "{size}");
    }
    assert_eq!(one.counters.get("Dialed open"), 1);
}

#[tokio::test(start_paused = true)]
async fn many_calls_at_once_share_one_connection() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let bodies = (0..1_000).map(|n| Bytes::from(format!("{n}").repeat(1 + n % 7)));
    let answers = join_all(
        bodies
            .clone()
            .map(|body| one.peers.call(2, Service::Raft, body, DEADLINE)),
    )
    .await;
    assert!(answers.into_iter().eq(bodies.map(Ok)));
    assert_eq!(
        (one.counters.get("Dialed open"), two.counters.get("Accepted open")),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_does_not_hold_up_another() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let mut hanging = Box::pin(one.call(2, "never"));
    tokio::select! {
        biased;
        _ = &mut hanging => panic!("it hangs"),
        answer = one.call(2, "who") => assert!(answer.is_ok()),
    }
}

#[tokio::test(start_paused = true)]
async fn the_offset_of_each_peer_is_measured() {
    let net = MemoryNet::default();
    let skewed = |id, skew_ms| {
        let node = Node::new(&net, id);
        Node { skew_ms, ..node }.start()
    };
    let (one, two, _three) = (skewed(1, 5_000), skewed(2, 5_300), skewed(3, 0));
    assert_eq!(one.peers.offsets(), BTreeMap::new());
    one.peers.ping(2, DEADLINE).await.expect("answered");
    one.call(3, "who").await.expect("answered");
    two.call(1, "who").await.expect("answered");
    let offsets = |node: &Running| -> BTreeMap<NodeId, i64> {
        let offsets = node.peers.offsets().into_iter();
        offsets
            .map(|(peer, offset)| {
                assert!(offset.uncertainty_ms < 10, "{offset:?}");
                (peer, offset.offset_ms)
            })
            .collect()
    };
    assert_eq!(offsets(&one), BTreeMap::from([(2, 300), (3, -5_000)]));
    assert_eq!(offsets(&two), BTreeMap::from([(1, -300)]));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_and_its_offset_stays_known() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    one.call(2, "who").await.expect("answered");
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(one.peers.offsets().len(), 1);
    one.call(2, "who").await.expect("answered");
    assert_eq!(one.counters.get("Dialed open"), 1);
    assert_eq!(one.counters.get("Dialed closed"), 0);
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_the_last_handle() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    one.call(2, "who").await.expect("answered");
    let other_handle = one.peers.clone();
    drop(one.peers);
    other_handle.ping(2, DEADLINE).await.expect("answered");
    drop(other_handle);
    one.counters.wait("Dialed closed", 1).await;
    two.counters.wait("Accepted closed", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_ends_its_connections_and_what_was_sent_is_unknown() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    one.call(2, "who").await.expect("answered");
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        two.stop().await;
    };
    let (answer, ()) = tokio::join!(one.call(2, "never"), stopping);
    assert!(
        matches!(&answer, Err(CallError::Unknown(why)) if why.contains("node 0000000000000002 at 10.0.0.2:7000")),
        "{answer:?}"
    );
    assert!(matches!(one.call(2, "who").await, Err(CallError::NotSent(_))));
}

/// The same over the machine's own network, on real time.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_call_each_other_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let book = Book::default();
    book.0.lock().insert(2, listener.local_addr().expect("an address"));
    let local = |node| {
        Arc::new(Local {
            node,
            cluster: CLUSTER,
            secret: secret(SECRET),
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(SystemEntropy::default()),
            observe: Arc::new(Counters::default()),
            memory: Arc::<Memory>::default(),
        })
    };
    let serving = tokio::spawn(serve(
        listener,
        local(2),
        Arc::new(Obedient),
        DoorLimits::of_files(u32::MAX),
        pending(),
    ));
    let peers = Peers::new(Parts {
        local: local(1),
        addresses: Arc::new(book),
        dialer: Arc::new(TcpDial),
    });
    let body = Bytes::from(vec![7; 1 << 20]);
    let calls = (0..20).map(|_| peers.call(2, Service::Raft, body.clone(), Duration::from_mins(1)));
    assert!(
        join_all(calls)
            .await
            .into_iter()
            .all(|answer| answer == Ok(body.clone()))
    );
    serving.abort();
}
