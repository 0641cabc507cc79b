//! Tasks that are delivered at most once: one attempt, whatever becomes of it and of its node.

use super::*;
use crate::core::reason::Reason;
use crate::core::task::Verdict;

fn once(fixture: &Fixture, id: &str, path: &str) -> NewTask {
    NewTask {
        delivery: task::Delivery::AtMostOnce,
        ..fixture.task(id, 0, path)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_attempt_is_made_whatever_the_answer() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    for path in ["ok", "never", "second", "gone"] {
        let task = once(&fixture, path, path);
        Tasks::create(router.as_ref(), task).await.expect("stored");
    }
    for (id, delivered, failed) in [("ok", 1, 0), ("never", 0, 1), ("second", 0, 1), ("gone", 0, 1)] {
        let state = settled(&router, id).await;
        assert_eq!(
            (state.delivered, state.failed, state.skipped),
            (delivered, failed, 0),
            "{id}"
        );
        assert_eq!((state.claim, state.outcomes[0].attempts), (None, 1), "{id}");
    }
    assert_eq!(fixture.targets.attempts.lock().len(), 4);
    stop(node).await;
}

#[test]
fn what_a_process_had_begun_the_next_one_does_not_repeat() {
    let fixture = Fixture::new();
    let process = || tokio::runtime::Runtime::new().expect("threads are to be had");
    let first = process();
    let cut_short = first.block_on(async {
        let (node, router) = fixture.start().await;
        let task = once(&fixture, "t", "hang");
        Tasks::create(router.as_ref(), task).await.expect("stored");
        fixture.wait_for_attempts(1).await;
        (node, router)
    });
    // All of its work ends where it is, the attempt as well.
    first.shutdown_timeout(Duration::from_secs(10));
    drop(cut_short);
    process().block_on(async {
        let (node, router) = fixture.start().await;
        let state = settled(&router, "t").await;
        let outcome = &state.outcomes[0];
        assert_eq!(
            (state.skipped, outcome.verdict, outcome.reason, outcome.is_sent),
            (1, Verdict::Skipped, Reason::Unknown, true)
        );
        assert_eq!(fixture.targets.attempts.lock().len(), 1, "it may have been delivered");
        stop(node).await;
    });
}
