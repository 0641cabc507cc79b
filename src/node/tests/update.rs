//! Updates of tasks that wait, are being fired, and are over.

use super::*;
use crate::router::{Change, UpdateError};

fn to(task: NewTask, replaces: Option<u32>) -> Change {
    Change {
        id: task.id.expect("every task here has one"),
        replaces,
        schedule: task.schedule,
        first_due_ms: task.first_due_ms,
        url: task.url,
        body: task.body,
        delivery: task.delivery,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_due_never_fires_and_the_new_one_does() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    Tasks::create(router.as_ref(), fixture.task("t", 300, "old"))
        .await
        .expect("stored");
    let new = fixture.task("t", 700, "new");
    let due_ms = new.first_due_ms;
    assert_eq!(Tasks::update(router.as_ref(), to(new.clone(), Some(1))).await, Ok(2));
    assert_eq!(
        Tasks::update(router.as_ref(), to(new, Some(1))).await,
        Ok(2),
        "the same again changes nothing"
    );
    let state = settled(&router, "t").await;
    assert_eq!(
        (state.revision, state.delivered, state.cancelled, state.dues_past),
        (2, 1, 1, 2)
    );
    let attempts = std::mem::take(&mut *fixture.targets.attempts.lock());
    let seen: Vec<_> = attempts
        .iter()
        .map(|(attempt, _)| (&*attempt.url, attempt.due_ms, attempt.run))
        .collect();
    assert_eq!(seen, [("http://new.test/new", due_ms, 2)]);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_on_its_way_keeps_the_new_revision_waiting_and_does_not_count() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    Tasks::create(router.as_ref(), fixture.task("t", 0, "hang"))
        .await
        .expect("stored");
    fixture.wait_for_attempts(1).await;
    let new = fixture.task("t", 3_600_000, "new");
    assert_eq!(Tasks::update(router.as_ref(), to(new, None)).await, Ok(2));
    let view = Tasks::query(router.as_ref(), TaskId::parse("t").expect("valid"))
        .await
        .expect("there");
    assert_eq!(
        (view.spec.revision, view.state.revision, view.state.cancelled),
        (2, 2, 1)
    );
    assert_eq!(view.state.open, []);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_over_is_begun_again() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    Tasks::create(router.as_ref(), fixture.task("t", 0, "ok"))
        .await
        .expect("stored");
    let created_ms = {
        settled(&router, "t").await;
        let view = Tasks::query(router.as_ref(), TaskId::parse("t").expect("valid"))
            .await
            .expect("there");
        view.spec.created_ms
    };
    let again = fixture.task("t", 200, "ok");
    assert_eq!(Tasks::update(router.as_ref(), to(again.clone(), None)).await, Ok(2));
    fixture.wait_for_attempts(2).await;
    assert_eq!(settled(&router, "t").await.delivered, 2);
    assert_eq!(
        Tasks::update(router.as_ref(), to(again, None)).await,
        Ok(2),
        "the same instant again, after it has fired: a repetition"
    );
    let view = Tasks::query(router.as_ref(), TaskId::parse("t").expect("valid"))
        .await
        .expect("there");
    assert_eq!(view.spec.created_ms, created_ms);
    let attempts = std::mem::take(&mut *fixture.targets.attempts.lock());
    assert_ne!(attempts[0].0.fire_id, attempts[1].0.fire_id);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_another_revision_or_of_nothing_is_refused() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    let new = || fixture.task("t", 3_600_000, "new");
    assert_eq!(
        Tasks::update(router.as_ref(), to(new(), None)).await,
        Err(UpdateError::NotFound)
    );
    Tasks::create(router.as_ref(), fixture.task("t", 3_000_000, "old"))
        .await
        .expect("stored");
    for wrong in [0, 2, 7] {
        assert_eq!(
            Tasks::update(router.as_ref(), to(new(), Some(wrong))).await,
            Err(UpdateError::Outdated { revision: 1 })
        );
    }
    Tasks::delete(router.as_ref(), TaskId::parse("t").expect("valid"))
        .await
        .expect("deleted");
    assert_eq!(
        Tasks::update(router.as_ref(), to(new(), None)).await,
        Err(UpdateError::NotFound)
    );
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_updates_at_the_same_time_each_is_done_once() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    Tasks::create(router.as_ref(), fixture.task("t", 3_000_000, "old"))
        .await
        .expect("stored");
    let updates = (0..4).map(|n| Tasks::update(router.as_ref(), to(fixture.task("t", 3_600_000 + n, "new"), None)));
    let revisions = futures_util::future::join_all(updates).await;
    let mut revisions: Vec<u32> = revisions.into_iter().map(|done| done.expect("done")).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [2, 3, 4, 5]);
    stop(node).await;
}
