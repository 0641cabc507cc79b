//! What fails, and how: dead, slow, silent, busy and broken peers, each without harm to the others.

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::sleep;

use super::*;

#[track_caller]
fn not_sent(answer: Result<Bytes, CallError>) -> String {
    match answer {
        Err(CallError::NotSent(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unknown(answer: Result<Bytes, CallError>) -> String {
    match answer {
        Err(CallError::Unknown(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_leaves_the_outcome_unknown() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    assert!(unknown(one.call(2, "never").await).contains("1000 ms"));
    // The peer gave up at the same time, and said so.
    one.counters.wait("late", 1).await;
    one.call(2, "who").await.expect("the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_fails_calls_at_once_until_it_is_tried_again() {
    let net = MemoryNet::default();
    let one = Node::new(&net, 1).start();
    assert!(not_sent(one.call(2, "who").await).contains("connection refused"));
    for _ in 0..10 {
        // Without any await that waits: time does not pass.
        let answer = one.call(2, "who").now_or_never().expect("at once");
        assert!(not_sent(answer).contains("not tried again for"));
    }
    assert_eq!(one.counters.get("Dialed refused unreachable"), 1);
    let _two = Node::new(&net, 2).start();
    sleep(Duration::from_secs(1)).await;
    one.call(2, "who").await.expect("it is there now");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_moved_is_tried_at_once() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    one.book.0.lock().insert(2, address(9));
    assert!(not_sent(one.call(2, "who").await).contains("node 0000000000000002 at 10.0.0.9:7000"));
    one.book.0.lock().insert(2, address(2));
    one.call(2, "who").await.expect("found");
}

#[tokio::test(start_paused = true)]
async fn a_node_without_an_address_is_not_called() {
    let one = Node::new(&MemoryNet::default(), 1).start();
    assert!(not_sent(one.call(200, "who").await).contains("no address is known for node 00000000000000c8"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_cannot_be_reached_holds_up_nobody_else() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    net.swallow(address(3));
    let mut hanging = Box::pin(one.call(3, "who"));
    assert!((&mut hanging).now_or_never().is_none());
    one.call(2, "who").await.expect("answered");
    assert!((&mut hanging).now_or_never().is_none());
    not_sent(hanging.await);
    // The attempt itself is bounded as well.
    one.counters.wait("Dialed refused unreachable", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_bounded_and_holds_up_nobody_else() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let mut listener = net.listen(address(3));
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let keys = secret(SECRET);
        let session = respond_as(&mut stream, hello(3, 0), &keys).await;
        let _kept = (stream, session);
        pending::<()>().await;
    });
    let body = Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX]);
    let big = |deadline| one.peers.call(3, Service::Raft, body.clone(), deadline);
    let mut stuck = join_all((0..9).map(|_| big(Duration::from_mins(1))));
    tokio::select! {
        biased;
        _ = &mut stuck => panic!("nobody reads them"),
        () = sleep(Duration::from_millis(100)) => {}
    }
    let refused = join_all((0..9).map(|_| big(DEADLINE)));
    let (refused, well) = tokio::join!(refused, one.call(2, "who"));
    let refused = refused
        .into_iter()
        .filter_map(Result::err)
        .map(|error| error.to_string());
    assert!(refused.into_iter().any(|why| why.contains("bytes wait to be sent")));
    assert!(well.is_ok());
    // In the end it is given up: what the socket has taken of it is unknown, the rest was not sent.
    let ended = stuck.await;
    let unknown = ended
        .iter()
        .filter(|answer| matches!(answer, Err(CallError::Unknown(_))))
        .count();
    let not_sent = ended
        .iter()
        .filter(|answer| matches!(answer, Err(CallError::NotSent(_))))
        .count();
    assert_eq!((unknown + not_sent, unknown), (9, 1), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_and_called_anew() {
    let net = MemoryNet::default();
    let one = Node::new(&net, 1).start();
    let two = Node::new(&net, 2).start();
    one.call(2, "who").await.expect("answered");
    // It is not dead: it hangs, with its connections open.
    two.serving.abort();
    let mut listener = net.listen(address(2));
    one.counters.wait("Dialed closed", 1).await;
    let mut silent = Box::pin(one.peers.call(2, Service::Raft, Bytes::new(), Duration::from_mins(1)));
    sleep(Duration::from_secs(1)).await;
    assert!((&mut silent).now_or_never().is_none());
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let keys = secret(SECRET);
    let session = respond_as(&mut stream, hello(2, 0), &keys).await;
    assert!(session.is_ok());
    assert!(unknown(silent.await).contains("silent for 8 s"));
    let _two = Node::new(&net, 2).start();
    sleep(Duration::from_secs(1)).await;
    one.call(2, "who").await.expect("answered again");
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_too_much_to_do_says_so() {
    let net = MemoryNet::default();
    let (one, two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    let mut hanging = join_all((0..2_048).map(|_| one.call(2, "never")));
    tokio::select! {
        biased;
        _ = &mut hanging => panic!("they hang"),
        () = sleep(Duration::from_millis(100)) => {}
    }
    assert!(not_sent(one.call(2, "who").await).contains("busy"));
    assert_eq!(two.counters.get("busy"), 1);
    one.peers.ping(2, DEADLINE).await.expect("it is there, and says so");
    for answer in hanging.await {
        unknown(answer);
    }
    one.counters.wait("late", 2_048).await;
    one.call(2, "who").await.expect("it has time again");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_or_answers_too_much_ends_its_request_alone() {
    let net = MemoryNet::default();
    let (one, _two) = (Node::new(&net, 1).start(), Node::new(&net, 2).start());
    for request in ["panic", "too much"] {
        assert!(unknown(one.call(2, request).await).contains("has no answer"));
    }
    one.call(2, "who").await.expect("the connection goes on");
    assert_eq!(one.counters.get("Dialed open"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_service_of_a_newer_release_is_refused_as_not_done() {
    let net = MemoryNet::default();
    let _two = Node::new(&net, 2).start();
    let (mut reader, mut writer) = Rogue::connect(&net, 2).await.frames();
    let request = Frame {
        service: 9,
        ..Frame::bare(Kind::Request, 5)
    };
    writer.send(&[request]).await.expect("sent");
    let answer = reader.next().await.expect("answered");
    assert_eq!((answer.kind, answer.id), (Kind::Unserved, 5));
}
