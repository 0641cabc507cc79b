//! A node that runs on an older copy of its directory is refused, and learns why; what is remembered is kept before the answer.

use super::*;
use crate::id::Start;

fn at(counter: u64, nonce: u64, log: u64) -> Progress {
    Progress {
        start: Start { counter, nonce },
        log,
    }
}

fn node(net: &MemoryNet, id: NodeId, own: Progress) -> Node {
    let node = Node::new(net, id);
    *node.memory.own.lock() = own;
    node
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_is_refused_whoever_calls_and_learns_it() {
    for own in [at(6, 60, 900), at(7, 71, 900), at(8, 80, 10)] {
        for calls in [1, 2] {
            let net = MemoryNet::default();
            let (copy, other) = (node(&net, 1, own), node(&net, 2, at(1, 1, 5)));
            let (memory, remembering) = (copy.memory.clone(), other.memory.clone());
            remembering.seen.lock().insert(1, (at(7, 70, 0), LogMark::default()));
            remembering.seen.lock().get(&1).expect("put").1.raise(500);
            let (copy, other) = (copy.start(), other.start());
            let answer = match calls {
                1 => copy.call(2, "who").await,
                _ => other.call(1, "who").await,
            };
            assert!(matches!(answer, Err(CallError::NotSent(_))), "{own:?}: {answer:?}");
            copy.counters
                .wait(
                    if calls == 1 {
                        "Dialed refused superseded"
                    } else {
                        "Accepted refused superseded"
                    },
                    1,
                )
                .await;
            assert!(memory.is_superseded.load(Ordering::SeqCst), "{own:?}");
            assert!(!remembering.is_superseded.load(Ordering::SeqCst));
            assert_eq!(remembering.seen(1), at(7, 70, 500), "what was seen of it stays");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_remember_each_other_and_how_far_the_log_is_with_every_frame() {
    let net = MemoryNet::default();
    let (one, two) = (node(&net, 1, at(3, 30, 100)), node(&net, 2, at(4, 40, 200)));
    let (of_one, of_two) = (one.memory.clone(), two.memory.clone());
    let (one, _two) = (one.start(), two.start());
    one.call(2, "who").await.expect("answered");
    assert_eq!((of_one.seen(2), of_two.seen(1)), (at(4, 40, 200), at(3, 30, 100)));
    of_one.own.lock().log = 150;
    of_two.own.lock().log = 250;
    one.call(2, "who").await.expect("answered");
    assert_eq!((of_one.seen(2), of_two.seen(1)), (at(4, 40, 250), at(3, 30, 150)));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_remembered_is_not_answered() {
    let net = MemoryNet::default();
    let (one, two) = (node(&net, 1, at(3, 30, 100)), node(&net, 2, at(4, 40, 200)));
    two.memory.is_full.store(true, Ordering::SeqCst);
    let (one, two) = (one.start(), two.start());
    assert!(one.call(2, "who").await.is_err());
    two.counters.wait("Accepted refused not_kept", 1).await;
}
