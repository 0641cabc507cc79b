//! Who is let in, who is not, and that both sides know why.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;

const NEW: &str = "the second secret of this test";

/// Lets 1 call 2, which is refused: what 1 says of it, once both have counted `name`.
async fn refusal(one: Node, two: Node, name: &str) -> String {
    let (one, two) = (one.start(), two.start());
    let Err(CallError::NotSent(why)) = one.call(2, "who").await else {
        panic!("not refused");
    };
    two.counters.wait(&format!("Accepted refused {name}"), 1).await;
    assert_eq!(one.counters.get(&format!("Dialed refused {name}")), 1);
    assert_eq!(one.counters.get("Dialed open") + two.counters.get("Accepted open"), 0);
    why
}

#[tokio::test(start_paused = true)]
async fn another_secret_is_refused() {
    let net = MemoryNet::default();
    let other = Node {
        secret: NEW.into(),
        ..Node::new(&net, 2)
    };
    let why = refusal(Node::new(&net, 1), other, "secret").await;
    assert!(why.contains("--secret-file"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_refused() {
    let net = MemoryNet::default();
    let other = Node {
        cluster: 5,
        ..Node::new(&net, 2)
    };
    let why = refusal(Node::new(&net, 1), other, "cluster").await;
    assert!(why.contains("cluster 00000000000000000000000000000005"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_copied_data_directory_is_refused() {
    let net = MemoryNet::default();
    let one = Node::new(&net, 1).start();
    one.book.0.lock().insert(2, address(1));
    // It reaches itself, which is not who was meant, but the same id is the graver finding.
    let Err(CallError::NotSent(why)) = one.call(2, "who").await else {
        panic!("not refused");
    };
    assert!(why.contains("own id 0000000000000001"), "{why}");
    one.counters.wait("Accepted refused own_id", 1).await;
}

#[tokio::test(start_paused = true)]
async fn another_node_than_the_one_meant_is_refused() {
    let net = MemoryNet::default();
    let (one, three) = (Node::new(&net, 1).start(), Node::new(&net, 3).start());
    one.book.0.lock().insert(2, address(3));
    assert!(matches!(one.call(2, "who").await, Err(CallError::NotSent(_))));
    three.counters.wait("Accepted refused node", 1).await;
    assert_eq!(one.counters.get("Dialed refused node"), 1);
}

#[tokio::test(start_paused = true)]
async fn another_version_is_refused() {
    let net = MemoryNet::default();
    let two = Node::new(&net, 2).start();
    let later = Hello {
        version_min: 7,
        version_max: 9,
        ..hello(1, 2)
    };
    let refusal = Rogue::present(&net, later).await.err();
    let versions = Refusal::Version {
        own: (7, 9),
        theirs: (1, 1),
    };
    assert_eq!(refusal, Some(versions));
    two.counters.wait("Accepted refused version", 1).await;
    // A node of the next release, which still speaks this one's version.
    let next = Hello {
        version_max: 2,
        ..hello(1, 2)
    };
    let welcome = Rogue::present(&net, next).await.expect("welcome");
    assert_eq!(welcome.session.version, 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_can_be_changed_without_a_stop() {
    let both = |first: &str, second: &str| format!("{first}\n{second}\n");
    let steps = [SECRET.to_owned(), both(SECRET, NEW), both(NEW, SECRET), NEW.to_owned()];
    for (before, after) in [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
    ] {
        let net = MemoryNet::default();
        let node = |id, step: usize| {
            let secret = steps[step].clone();
            Node {
                secret,
                ..Node::new(&net, id)
            }
            .start()
        };
        let (one, _two) = (node(1, before), node(2, after));
        let answer = one.call(2, "who").await;
        assert!(answer.is_ok(), "{before} to {after}: {answer:?}");
    }
    // Two steps at once are one too many.
    let net = MemoryNet::default();
    let fresh = Node {
        secret: steps[2].clone(),
        ..Node::new(&net, 1)
    };
    refusal(fresh, Node::new(&net, 2), "secret").await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_repeated_by_a_listener_gets_nowhere() {
    let net = MemoryNet::default();
    let two = Node::new(&net, 2).start();
    let peer = Rogue::connect(&net, 2).await;
    let (mut reader, mut writer) = peer.frames();
    writer.send(&[Frame::bare(Kind::Ping, 1)]).await.expect("sent");
    reader.next().await.expect("answered");
    // What a listener on the wire has seen of a first message is enough to be answered, but not to be believed.
    let (mut near, mut far) = tokio::io::duplex(1_024);
    let key = secret(SECRET).peer_keys()[0];
    let entropy = Arc::new(SystemEntropy::default());
    let seen = tokio::spawn(async move { initiate(&mut near, &hello(66, 2), &key, entropy).await.map(drop) });
    let length = far.read_u16().await.expect("a length");
    let mut first = vec![0; usize::from(length)];
    far.read_exact(&mut first).await.expect("a message");
    seen.abort();
    let mut stream = net.connect(address(2)).expect("it listens");
    stream.write_u16(length).await.expect("sent");
    stream.write_all(&first).await.expect("sent");
    let length = stream.read_u16().await.expect("answered");
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.expect("an answer");
    stream.write_u16(length).await.expect("sent");
    stream.write_all(&answer).await.expect("sent");
    two.counters.wait("Accepted refused broken", 1).await;
    assert_eq!(two.counters.get("Accepted open"), 1);
    writer.send(&[Frame::bare(Kind::Ping, 2)]).await.expect("sent");
    reader.next().await.expect("the peer is not replaced");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    // One that says nothing, one that stops after the length, one that stops before the first sealed message.
    let _silent = net.connect(address(2)).expect("it listens");
    let mut half = net.connect(address(2)).expect("it listens");
    half.write_u16(80).await.expect("sent");
    let _unproved = Rogue::connect(&net, 2).await;
    two.counters.wait("Accepted refused deadline", 3).await;
    // And a server that says nothing.
    let mut listener = net.listen(address(3));
    let accepting = async {
        let kept = listener.accept().await;
        sleep(Duration::from_mins(1)).await;
        drop(kept);
    };
    let call = one.peers.call(3, Service::Raft, Bytes::new(), Duration::from_mins(1));
    let answer = tokio::select! {
        answer = call => answer,
        () = accepting => panic!("it took too long"),
    };
    assert!(matches!(answer, Err(CallError::NotSent(_))), "{answer:?}");
    assert_eq!(one.counters.get("Dialed refused deadline"), 1);
}

proptest! {
    #[test]
    fn arbitrary_first_bytes_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..700),
        is_framed: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(2_048);
            if is_framed {
                let length = u16::try_from(bytes.len()).expect("short");
                near.write_u16(length).await.expect("room");
            }
            near.write_all(&bytes).await.expect("room");
            near.shutdown().await.expect("open");
            let refusal = respond_as(&mut far, hello(2, 0), &secret(SECRET)).await;
            assert!(refusal.is_err());
            let entropy = Arc::new(SystemEntropy::default());
            let (mut near, mut far) = tokio::io::duplex(2_048);
            near.write_all(&bytes).await.expect("room");
            let key = secret(SECRET).peer_keys()[0];
            let initiating = async {
                let refusal = initiate(&mut far, &hello(1, 2), &key, entropy).await;
                drop(far);
                refusal
            };
            let answering = async {
                let mut sink = Vec::new();
                near.shutdown().await.expect("open");
                drop(near.read_to_end(&mut sink).await);
            };
            assert!(tokio::join!(initiating, answering).0.is_err());
        });
    }
}
