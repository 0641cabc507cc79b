//! A node without its API: the whole path from create to callback on a real disk, with targets that do as they are told.

mod clock;
mod disk;
mod once;
mod overload;
mod update;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;
use crate::clock::SystemClock;
use crate::core::reason::NoAnswer;
use crate::core::retry::{Answer, RetryPolicy};
use crate::core::task::{self, Life, Schedule};
use crate::fire::deliver::{Attempt, Deliver, Delivered, Delivery, MaySend};
use crate::id::{GroupCount, TaskId};
use crate::router::{NewTask, QueryError, Tasks};

impl Node {
    /// Completes once every group has a leader.
    async fn all_led(&self) {
        for group in self.groups.count().iter() {
            while !self.router.is_led(group) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Records every attempt with the time it started; answers by the URL's path.
#[derive(Debug)]
struct Targets {
    clock: Arc<dyn Clock>,
    attempts: Mutex<Vec<(Attempt, u64)>>,
    hanging: AtomicUsize,
    progress: Notify,
}

impl Deliver for Arc<Targets> {
    fn deliver(&self, attempt: Attempt, may_send: MaySend) -> Delivery {
        let targets = self.clone();
        Box::pin(async move {
            if !may_send() {
                return Delivered::Withdrawn;
            }
            let now_ms = targets.clock.wall_ms();
            let path = attempt.url.rsplit('/').next().unwrap_or_default().to_owned();
            let number = attempt.attempt;
            targets.attempts.lock().push((attempt, now_ms));
            targets.progress.notify_waiters();
            let status = |code| Answer::Status {
                code,
                retry_after_ms: None,
            };
            let answer = match path.as_str() {
                "hang" => {
                    targets.hanging.fetch_add(1, Ordering::SeqCst);
                    std::future::pending().await
                }
                "gone" => status(410),
                "second" if number == 1 => Answer::None { kind: NoAnswer::Reset },
                "never" => status(500),
                _ => status(200),
            };
            Delivered::Ended { answer, is_sent: true }
        })
    }
}

/// The world of a node that is alone.
async fn open(config: &Config) -> Result<World<tokio::net::TcpListener>, NodeError> {
    World::open(config, &Basics::of_this_machine(), waiting().0, config.listen).await
}

struct Fixture {
    directory: tempfile::TempDir,
    targets: Arc<Targets>,
}

impl Fixture {
    fn new() -> Self {
        let targets = Targets {
            clock: Arc::new(SystemClock::default()),
            attempts: Mutex::default(),
            hanging: AtomicUsize::new(0),
            progress: Notify::new(),
        };
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            targets: Arc::new(targets),
        }
    }

    async fn start(&self) -> (Node, Arc<Router>) {
        self.start_at(Arc::new(SystemClock::default())).await
    }

    async fn start_at(&self, clock: Arc<dyn Clock>) -> (Node, Arc<Router>) {
        let config = Config {
            data: self.directory.path().to_owned(),
            ..Config::default()
        };
        let mut world = loop {
            match open(&config).await {
                Ok(world) => break world,
                // The locks on the directory go with the last task of the node before.
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        world.clock = clock;
        world.deliver = Arc::new(self.targets.clone());
        let mut node = Node::start(config, world).await.expect("starts");
        node.config.retention_secs = 3_600;
        node.all_led().await;
        let router = node.router.clone();
        (node, router)
    }

    fn now_ms(&self) -> u64 {
        self.targets.clock.wall_ms()
    }

    fn task(&self, id: &str, delay_ms: u64, path: &str) -> NewTask {
        let at_ms = self.now_ms() + delay_ms;
        NewTask {
            id: Some(TaskId::parse(id).expect("valid")),
            schedule: Schedule::Once { at_ms },
            first_due_ms: at_ms,
            url: format!("http://{path}.test/{path}"),
            body: format!("{{\"id\":\"{id}\"}}").into_bytes(),
            delivery: task::Delivery::AtLeastOnce,
        }
    }

    async fn wait_for_attempts(&self, count: usize) {
        while self.targets.attempts.lock().len() < count {
            let progress = self.targets.progress.notified();
            drop(tokio::time::timeout(Duration::from_millis(100), progress).await);
        }
    }
}

async fn settled(router: &Router, id: &str) -> crate::core::task::TaskState {
    loop {
        let view = Tasks::query(router, TaskId::parse(id).expect("valid"))
            .await
            .expect("there");
        if view.state.life == Life::Finished {
            return view.state;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stop(node: Node) {
    node.groups.shutdown().await;
    drop(node);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_fired_once_and_never_early() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    for n in 0..200 {
        let task = fixture.task(&format!("t{n}"), n * 5, "ok");
        Tasks::create(router.as_ref(), task).await.expect("stored");
    }
    fixture.wait_for_attempts(200).await;
    for n in 0..200 {
        assert_eq!(settled(&router, &format!("t{n}")).await.delivered, 1);
    }
    let attempts = std::mem::take(&mut *fixture.targets.attempts.lock());
    assert_eq!(attempts.len(), 200, "one attempt each");
    for (attempt, at_ms) in &attempts {
        assert!(*at_ms >= attempt.due_ms, "early: {attempt:?}");
        assert_eq!(attempt.body, format!("{{\"id\":\"{}\"}}", attempt.task_id));
    }
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_task_is_not_fired_and_its_id_stays_taken() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    let id = || TaskId::parse("t").expect("valid");
    Tasks::create(router.as_ref(), fixture.task("t", 300, "ok"))
        .await
        .expect("stored");
    Tasks::delete(router.as_ref(), id()).await.expect("deleted");
    assert_eq!(Tasks::query(router.as_ref(), id()).await, Err(QueryError::NotFound));
    assert_eq!(Tasks::delete(router.as_ref(), id()).await, Ok(()), "again is a success");
    let again = Tasks::create(router.as_ref(), fixture.task("t", 300, "ok")).await;
    assert_eq!(again, Err(crate::router::CreateError::Conflict));
    Tasks::create(router.as_ref(), fixture.task("later", 400, "ok"))
        .await
        .expect("stored");
    fixture.wait_for_attempts(1).await;
    assert_eq!(fixture.targets.attempts.lock()[0].0.task_id.as_str(), "later");
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_target_does_not_hold_up_another() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    for n in 0..400 {
        Tasks::create(router.as_ref(), fixture.task(&format!("h{n}"), 0, "hang"))
            .await
            .expect("stored");
    }
    for n in 0..50 {
        Tasks::create(router.as_ref(), fixture.task(&format!("t{n}"), 0, "ok"))
            .await
            .expect("stored");
    }
    for n in 0..50 {
        assert_eq!(settled(&router, &format!("t{n}")).await.delivered, 1);
    }
    let (hanging, all) = (
        fixture.targets.hanging.load(Ordering::SeqCst),
        node.config.fire.in_flight_max as usize,
    );
    assert!(
        (1..all / 8).contains(&hanging),
        "{hanging} of {all}: it has never answered"
    );
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_with_the_same_fire_id_and_410_stops() {
    let fixture = Fixture::new();
    let policy = RetryPolicy::default();
    let (node, router) = fixture.start().await;
    Tasks::create(router.as_ref(), fixture.task("second", 0, "second"))
        .await
        .expect("stored");
    Tasks::create(router.as_ref(), fixture.task("gone", 0, "gone"))
        .await
        .expect("stored");
    let gone = settled(&router, "gone").await;
    assert_eq!((gone.failed, gone.outcomes[0].http_status()), (1, Some(410)));
    let view = Tasks::query(router.as_ref(), TaskId::parse("second").expect("valid"))
        .await
        .expect("there");
    if let Some(open) = view.state.open.first() {
        assert_eq!(open.attempts, 1);
        assert!(open.retry_ms >= open.due_ms + policy.first_delay_ms / 2);
    }
    let second = settled(&router, "second").await;
    assert_eq!((second.delivered, second.outcomes[0].attempts), (1, 2));
    let attempts = std::mem::take(&mut *fixture.targets.attempts.lock());
    let of_second: Vec<_> = attempts
        .iter()
        .filter(|(attempt, _)| attempt.task_id.as_str() == "second")
        .collect();
    assert_eq!(of_second.len(), 2);
    assert_eq!(of_second[0].0.fire_id, of_second[1].0.fire_id);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_fired_by_the_next_process() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    for n in 0..100 {
        Tasks::create(router.as_ref(), fixture.task(&format!("t{n}"), 2_500, "ok"))
            .await
            .expect("stored");
    }
    drop(router);
    stop(node).await;
    let (node, router) = fixture.start().await;
    for n in 0..100 {
        assert_eq!(settled(&router, &format!("t{n}")).await.delivered, 1);
    }
    assert!(
        fixture
            .targets
            .attempts
            .lock()
            .iter()
            .all(|(attempt, at_ms)| *at_ms >= attempt.due_ms)
    );
    stop(node).await;
}

#[tokio::test]
async fn a_group_count_is_fixed_at_birth() {
    let fixture = Fixture::new();
    let groups = |count| GroupCount::new(count).expect("a divisor");
    let config = |count| Config {
        data: fixture.directory.path().to_owned(),
        groups: groups(count),
        ..Config::default()
    };
    let open = async |groups| open(&config(groups)).await.expect("opens");
    drop(open(8).await);
    assert_eq!(open(16).await.identity.groups, groups(8));
}
