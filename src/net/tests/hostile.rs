//! Bytes that do not belong here: the connection ends and is counted, the server goes on, and memory stays bounded.

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Seals `plain` as the next message of the rogue's session.
fn seal(rogue: &mut Rogue, plain: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    rogue.session.sealer.seal(plain, &mut sealed);
    sealed
}

fn request(body: &[u8]) -> Vec<u8> {
    let frame = Frame {
        body: Bytes::copy_from_slice(body),
        deadline_ms: 1_000,
        service: Service::Raft as u8,
        ..Frame::bare(Kind::Request, 1)
    };
    [&frame.header()[..], body].concat()
}

/// A proved rogue sends `bytes` of its own making and closes: the connection ends with `name`, and a good peer is served.
async fn breach(name: &str, bytes: impl Fn(&mut Rogue) -> Vec<u8>) {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let mut rogue = Rogue::connect(&net, 2).await;
    let proof = seal(&mut rogue, &Frame::bare(Kind::Ping, 1).header());
    rogue.stream.write_all(&proof).await.expect("sent");
    two.counters.wait("Accepted open", 1).await;
    let bytes = bytes(&mut rogue);
    rogue.stream.write_all(&bytes).await.expect("sent");
    rogue.stream.shutdown().await.expect("open");
    two.counters.wait("Accepted closed", 1).await;
    assert_eq!(
        two.counters.get(&format!("Accepted broken {name}")),
        1,
        "{:?}",
        two.counters
    );
    one.call(2, "who").await.expect("the server goes on");
}

#[tokio::test(start_paused = true)]
async fn garbage_after_the_handshake_ends_the_connection() {
    breach("unsealed", |_| [0, 100].into_iter().chain([7; 100]).collect()).await;
    breach("unsealed", |_| vec![0, 0]).await;
    breach("unsealed", |rogue| {
        let mut changed = seal(rogue, &request(b"who"));
        changed[20] ^= 1;
        changed
    })
    .await;
    breach("unsealed", |rogue| seal(rogue, b"").repeat(2)).await;
    breach("garbage", |rogue| seal(rogue, &[0; 100])).await;
    breach("garbage", |rogue| seal(rogue, &Frame::bare(Kind::Response, 1).header())).await;
}

#[tokio::test(start_paused = true)]
async fn an_oversized_length_ends_the_connection() {
    breach("oversized", |rogue| seal(rogue, &[255; 4])).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_anywhere_is_noticed() {
    for length in [1, 4, 20, 26, 28] {
        breach("cut", |rogue| seal(rogue, &request(b"who")[..length])).await;
    }
    breach("cut", |rogue| {
        let sealed = seal(rogue, &request(b"who"));
        sealed[..sealed.len() - 1].to_vec()
    })
    .await;
    breach("cut", |_| vec![0]).await;
}

#[tokio::test(start_paused = true)]
async fn strangers_with_other_protocols_are_refused_at_once() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    for (count, bytes) in (1..).zip([
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &[255; 4_096],
    ]) {
        let mut stream = net.connect(address(2)).expect("it listens");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("closed");
        assert_eq!(answer, b"");
        two.counters.wait("Accepted refused protocol", count).await;
    }
    one.call(2, "who").await.expect("the server goes on");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_strangers_who_only_hold_on_keep_no_peer_out() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let strangers: Vec<DuplexStream> = (0..1_000)
        .map(|_| net.connect(address(2)).expect("it listens"))
        .collect();
    one.call(2, "who").await.expect("let in");
    let crowded = two.counters.get("Accepted refused crowded");
    assert!(crowded >= 1_000 - 256, "{crowded}");
    let more: Vec<DuplexStream> = (0..1_000)
        .map(|_| net.connect(address(2)).expect("it listens"))
        .collect();
    one.call(2, "who").await.expect("still connected");
    assert_eq!(one.counters.get("Dialed open"), 1);
    drop((strangers, more));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_garbage_is_left() {
    let net = MemoryNet::default();
    let one = Node::new(&net, 1).start();
    let mut listener = net.listen(address(3));
    let serving = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let keys = secret(SECRET);
        let mut session = respond_as(&mut stream, hello(3, 0), &keys).await.expect("welcome");
        // Answers what was never asked, then asks, which only the one who dialed may.
        let mut sealed = Vec::new();
        session
            .sealer
            .seal(&Frame::bare(Kind::Response, 999).header(), &mut sealed);
        stream.write_all(&sealed).await.expect("sent");
        one.counters.wait("late", 1).await;
        sealed.clear();
        session.sealer.seal(&request(b"who"), &mut sealed);
        stream.write_all(&sealed).await.expect("sent");
        one.counters.wait("Dialed broken garbage", 1).await;
    };
    let (answer, ()) = tokio::join!(one.call(3, "who"), serving);
    assert!(matches!(answer, Err(CallError::Unknown(_))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_and_never_reads_is_not_served_without_end() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let (reader, mut writer) = Rogue::connect(&net, 2).await.frames();
    let flood = async {
        let frames: Vec<Frame> = (0..1_000).map(|id| Frame::bare(Kind::Ping, id)).collect();
        loop {
            if let Err(end) = writer.send(&frames).await {
                return end;
            }
        }
    };
    // It is read no further once so many answers wait, and is given up as silent.
    let end = flood.await;
    assert!(matches!(end, End::Silent | End::Io(_)), "{end}");
    drop(reader);
    one.call(2, "who").await.expect("the server goes on");
    two.counters.wait("Accepted closed", 1).await;
}

#[tokio::test(start_paused = true)]
async fn calls_survive_strangers_of_every_kind_at_once() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let pester = async {
        for round in 0u32..300 {
            let mut stream = net.connect(address(2)).expect("it listens");
            let bytes = round.wrapping_mul(2_654_435_761).to_be_bytes().repeat(50);
            drop(stream.write_all(&bytes).await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let calling = async {
        for _ in 0..30 {
            let answers = join_all((0..10).map(|_| one.call(2, "who"))).await;
            assert!(answers.iter().all(Result::is_ok));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(pester, calling);
    assert_eq!(one.counters.get("Dialed open"), 1);
}
