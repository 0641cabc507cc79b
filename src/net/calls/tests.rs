//! The calls of one connection, without a connection: what counts as sent, and what is bounded.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;

const DEADLINE: Duration = Duration::from_secs(1);

fn moment() -> Moment {
    Moment {
        wall_ms: 5,
        monotonic: Duration::from_secs(9),
    }
}

async fn call(calls: &Calls, body: &'static [u8]) -> Answer {
    calls
        .call(Service::Raft, Bytes::from_static(body), moment(), DEADLINE)
        .await
}

fn take(calls: &Calls) -> Vec<Frame> {
    let mut frames = Vec::new();
    let stamp = Stamp { wall_ms: 77, log: 5 };
    calls.take(stamp, &mut frames);
    frames
}

fn is_empty(calls: &Calls) -> bool {
    let inner = calls.inner.lock();
    inner.is_idle() && inner.queued_bytes == 0 && inner.waiting.is_empty()
}

fn not_sent(answer: &Answer) -> bool {
    matches!(answer, Err(CallError::NotSent(_)))
}

fn unknown(answer: &Answer) -> bool {
    matches!(answer, Err(CallError::Unknown(_)))
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_calls_in_any_order() {
    let calls = Calls::default();
    let callers = join_all([call(&calls, b"a"), call(&calls, b"b")]);
    let answering = async {
        calls.ready().await;
        let mut frames = take(&calls);
        assert_eq!(frames.iter().map(|frame| frame.wall_ms).collect::<Vec<_>>(), [77, 77]);
        assert_eq!(frames[0].deadline_ms, 1_000);
        frames.reverse();
        for frame in frames {
            let answer = Frame {
                kind: Kind::Response,
                ..frame
            };
            assert_eq!(calls.answer(answer.clone()).expect("waiting").wall_ms, 5);
            assert!(calls.answer(answer).is_none(), "answered once");
        }
    };
    let (answers, ()) = tokio::join!(callers, answering);
    assert_eq!(answers, [Ok(Bytes::from("a")), Ok(Bytes::from("b"))]);
    assert!(is_empty(&calls));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_for_sending_is_not_sent_and_never_will_be() {
    let calls = Calls::default();
    let answers = join_all([call(&calls, b"a"), call(&calls, b"b")]).await;
    assert!(answers.iter().all(not_sent), "{answers:?}");
    assert!(is_empty(&calls));
    assert_eq!(take(&calls), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_for_sending_is_unknown() {
    let calls = Calls::default();
    let taking = async { take(&calls).len() };
    let (answer, taken) = tokio::join!(call(&calls, b"a"), taking);
    assert_eq!(taken, 1);
    assert!(unknown(&answer), "{answer:?}");
    assert!(is_empty(&calls));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_tells_both_apart() {
    let calls = Calls::default();
    let ending = async {
        let first = take(&calls);
        assert_eq!(first.len(), 1);
        let second = call(&calls, b"second");
        let end = async { calls.close("it is over") };
        tokio::join!(second, end).0
    };
    let (first, second) = tokio::join!(call(&calls, b"first"), ending);
    assert_eq!(first, Err(CallError::Unknown("it is over".into())));
    assert_eq!(second, Err(CallError::NotSent("it is over".into())));
    assert_eq!(
        call(&calls, b"third").await,
        Err(CallError::NotSent("it is over".into()))
    );
    assert!(is_empty(&calls));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_taken_out() {
    let calls = Calls::default();
    let mut first = Box::pin(call(&calls, b"first"));
    let second = call(&calls, b"second");
    assert!(first.as_mut().now_or_never().is_none());
    drop(first);
    let sending = async { take(&calls) };
    let (_, sent) = tokio::join!(second, sending);
    assert_eq!(
        sent.iter().map(|frame| &frame.body[..]).collect::<Vec<_>>(),
        [b"second"]
    );
    assert!(is_empty(&calls));
}

#[tokio::test(start_paused = true)]
async fn what_a_refusal_means_is_told() {
    for (kind, is_unknown) in [(Kind::Busy, false), (Kind::Unserved, false), (Kind::Failed, true)] {
        let calls = Calls::default();
        let refusing = async { calls.answer(Frame::bare(kind, take(&calls)[0].id)) };
        let (answer, _) = tokio::join!(call(&calls, b"a"), refusing);
        assert_eq!(
            (unknown(&answer), not_sent(&answer)),
            (is_unknown, !is_unknown),
            "{kind:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn number_and_bytes_are_bounded() {
    let calls = Calls::default();
    let body = Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX]);
    let big = || calls.call(Service::Raft, body.clone(), moment(), DEADLINE);
    let fit = QUEUE_BYTES_MAX / PEER_MESSAGE_BYTES_MAX - 1;
    let mut waiting = join_all((0..fit).map(|_| big()));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(
        big().now_or_never().is_some_and(|answer| not_sent(&answer)),
        "too many bytes"
    );
    drop(waiting);
    let mut waiting = join_all((0..CALLS_MAX).map(|_| call(&calls, b"")));
    assert!((&mut waiting).now_or_never().is_none());
    assert!(
        call(&calls, b"").now_or_never().is_some_and(|answer| not_sent(&answer)),
        "too many"
    );
    // Sent or not: what waits for an answer counts.
    while !take(&calls).is_empty() {}
    assert!(call(&calls, b"").now_or_never().is_some_and(|answer| not_sent(&answer)));
    drop(waiting);
    let long = Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX + 1]);
    let long = calls.call(Service::Raft, long, moment(), DEADLINE).now_or_never();
    assert!(
        long.is_some_and(|answer| not_sent(&answer)),
        "longer than a frame may be"
    );
    assert!(is_empty(&calls));
}

#[tokio::test(start_paused = true)]
async fn small_calls_pass_large_ones_and_starve_none() {
    let calls = Calls::default();
    let large = Bytes::from(vec![0; BATCH_BYTES]);
    let mut waiting = Box::pin(join_all(
        (0..3).map(|_| calls.call(Service::Raft, large.clone(), moment(), DEADLINE)),
    ));
    assert!((&mut waiting).now_or_never().is_none());
    let mut heartbeat = Box::pin(call(&calls, b"heartbeat"));
    assert!((&mut heartbeat).now_or_never().is_none());
    let first = take(&calls);
    assert_eq!(&first[0].body[..], b"heartbeat", "before what was there first");
    assert_eq!(first.len(), 2, "and a large one with it");
    // However many small ones come, a large one goes with each batch.
    let small = Bytes::from(vec![0; SMALL_BYTES]);
    let many = (0..2 * BATCH_BYTES / SMALL_BYTES).map(|_| calls.call(Service::Raft, small.clone(), moment(), DEADLINE));
    let mut many = Box::pin(join_all(many));
    assert!((&mut many).now_or_never().is_none());
    let larges = |frames: &[Frame]| frames.iter().filter(|frame| frame.body.len() > SMALL_BYTES).count();
    assert_eq!([larges(&take(&calls)), larges(&take(&calls))], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_is_sent() {
    let calls = Calls::default();
    let body = Bytes::from(vec![0; PEER_MESSAGE_BYTES_MAX]);
    let mut largest = Box::pin(calls.call(Service::Raft, body, moment(), DEADLINE));
    assert!((&mut largest).now_or_never().is_none());
    assert_eq!(take(&calls)[0].body.len(), PEER_MESSAGE_BYTES_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_and_the_rest_stays() {
    let calls = Calls::default();
    let body = Bytes::from(vec![0; BATCH_BYTES / 2]);
    let mut waiting = join_all((0..5).map(|_| calls.call(Service::Raft, body.clone(), moment(), DEADLINE)));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!([take(&calls).len(), take(&calls).len(), take(&calls).len()], [2, 2, 1]);
}
