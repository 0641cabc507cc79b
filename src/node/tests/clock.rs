//! A wall clock that is set: back while a fire waits, and ahead over the dues of a crontab task.

use std::sync::atomic::AtomicI64;

use super::*;
use crate::core::reason::Reason;
use crate::core::task::Verdict;

const MINUTE_MS: u64 = 60_000;

/// A clock that somebody sets.
#[derive(Debug)]
struct SetClock(SystemClock, AtomicI64);

impl Clock for SetClock {
    fn wall_ms(&self) -> u64 {
        self.0.wall_ms().saturating_add_signed(self.1.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Holds the first attempt until it is told to go on.
#[derive(Debug, Default)]
struct Gate {
    seen: Mutex<Vec<(String, u64)>>,
    open: Notify,
}

impl Deliver for Arc<Gate> {
    fn deliver(&self, attempt: Attempt, may_send: MaySend) -> Delivery {
        let gate = self.clone();
        Box::pin(async move {
            if !may_send() {
                return Delivered::Withdrawn;
            }
            let is_first = {
                let mut seen = gate.seen.lock();
                seen.push((attempt.task_id.to_string(), attempt.now_ms - attempt.due_ms));
                seen.len() == 1
            };
            if is_first {
                gate.open.notified().await;
            }
            let answer = Answer::Status {
                code: 200,
                retry_after_ms: None,
            };
            Delivered::Ended { answer, is_sent: true }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fire_that_waits_its_turn_outlives_a_clock_set_back() {
    let fixture = Fixture::new();
    let mut config = Config {
        data: fixture.directory.path().to_owned(),
        ..Config::default()
    };
    config.fire.in_flight_per_target_max = 1;
    let mut world = open(&config).await.expect("opens");
    let clock = Arc::new(SetClock(SystemClock::default(), AtomicI64::new(0)));
    let gate = Arc::new(Gate::default());
    world.clock = clock.clone();
    world.deliver = Arc::new(gate.clone());
    let node = Node::start(config, world).await.expect("starts");
    node.all_led().await;
    for (id, delay_ms) in [("first", 0), ("second", 50)] {
        let task = fixture.task(id, delay_ms, "ok");
        Tasks::create(node.router.as_ref(), task).await.expect("stored");
    }
    let wait = async |what: &str, condition: &dyn Fn() -> bool| {
        let waited = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waited).await.expect(what);
    };
    wait("the first is in flight", &|| gate.seen.lock().len() == 1).await;
    wait("the second waits for its place", &|| node.dispatcher.load().0 == 1).await;
    clock.1.store(-1_000, Ordering::SeqCst);
    gate.open.notify_one();
    wait("the second arrives", &|| gate.seen.lock().len() == 2).await;
    assert_eq!(gate.seen.lock()[1].0, "second");
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crontab_task_that_missed_three_dues_fires_the_latest_and_records_two_as_skipped() {
    let fixture = Fixture::new();
    let (node, router) = fixture.start().await;
    // The minute to come is far away, by the clock that the tasks see.
    let minute_ms = (fixture.now_ms() / MINUTE_MS + 2) * MINUTE_MS;
    let id = || TaskId::parse("minutely").expect("valid");
    let task = NewTask {
        id: Some(id()),
        schedule: Schedule::Cron {
            expression: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
        },
        first_due_ms: minute_ms,
        url: "http://ok.test/ok".to_owned(),
        body: b"{}".to_vec(),
        delivery: task::Delivery::AtLeastOnce,
    };
    Tasks::create(router.as_ref(), task).await.expect("stored");
    drop(router);
    stop(node).await;

    // Down for the dues of three minutes, up again half a minute after the last of them.
    let back_ms = minute_ms + 2 * MINUTE_MS + MINUTE_MS / 2;
    let ahead_ms = i64::try_from(back_ms - fixture.now_ms()).expect("some minutes");
    let clock = Arc::new(SetClock(SystemClock::default(), AtomicI64::new(ahead_ms)));
    let (node, router) = fixture.start_at(clock).await;
    let state = loop {
        let view = Tasks::query(router.as_ref(), id()).await.expect("there");
        if view.state.dues_past > 0 {
            break view.state;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((state.delivered, state.skipped, state.dues_past), (1, 2, 3));
    assert_eq!(state.next_due_ms, Some(minute_ms + 3 * MINUTE_MS));
    let outcomes: Vec<_> = state
        .outcomes
        .iter()
        .map(|o| (o.due_ms, o.count, o.verdict, o.reason))
        .collect();
    let wanted = [
        (minute_ms, 2, Verdict::Skipped, Reason::Misfire),
        (minute_ms + 2 * MINUTE_MS, 1, Verdict::Delivered, Reason::Http(200)),
    ];
    assert_eq!(outcomes, wanted);
    let fired: Vec<_> = fixture
        .targets
        .attempts
        .lock()
        .iter()
        .map(|(attempt, _)| attempt.due_ms)
        .collect();
    assert_eq!(fired, [minute_ms + 2 * MINUTE_MS], "one fire, for the latest of them");
    stop(node).await;
}
