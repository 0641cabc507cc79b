//! A wall clock that is set back.

use std::sync::atomic::AtomicI64;

use super::*;

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
    fn deliver(&self, attempt: Attempt) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> {
        let gate = self.clone();
        Box::pin(async move {
            let is_first = {
                let mut seen = gate.seen.lock();
                seen.push((attempt.task_id.to_string(), attempt.now_ms - attempt.due_ms));
                seen.len() == 1
            };
            if is_first {
                gate.open.notified().await;
            }
            Answer::Status {
                code: 200,
                retry_after_ms: None,
            }
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
    let mut world = World::open(&config, config.listen).await.expect("opens");
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
