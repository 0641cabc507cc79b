//! What is kept of names, for how long, and who waits for whom, in tokio's paused time.

use std::collections::VecDeque;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::*;

/// Shows tokio's time.
#[derive(Debug)]
struct PausedClock(Instant);

impl PausedClock {
    #[expect(clippy::disallowed_methods, reason = "tokio's paused time is what this clock shows")]
    fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for PausedClock {
    fn wall_ms(&self) -> u64 {
        self.monotonic_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What the name servers say to one question; with [`LookupError::NoAnswer`] they are silent.
type Answer = Result<Found, LookupError>;

/// Name servers that are silent about `dead` names, and give what was set, in turn, for others. Counts the questions.
#[derive(Debug, Default)]
struct Servers {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<String>>,
}

impl Servers {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let answers = Mutex::new(answers.into_iter().collect());
        let asked = Mutex::default();
        Arc::new(Self { answers, asked })
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Lookup for Servers {
    fn lookup(&self, name: &str) -> Asked {
        self.asked.lock().push(name.to_owned());
        let set = || self.answers.lock().pop_front();
        let answer = if name.starts_with("dead") { None } else { set() };
        Box::pin(async move {
            // A name server is some way off.
            tokio::time::sleep(Duration::from_millis(20)).await;
            match answer {
                None | Some(Err(LookupError::NoAnswer)) => std::future::pending().await,
                Some(answer) => answer,
            }
        })
    }
}

const CONNECT_TIME: Duration = Duration::from_secs(5);

fn at(last: u8, ttl_secs: u64) -> Found {
    Found {
        addresses: addresses(last),
        ttl: Duration::from_secs(ttl_secs),
    }
}

fn addresses(last: u8) -> Arc<[IpAddr]> {
    [IpAddr::from([192, 0, 2, last])].into()
}

fn names(servers: &Arc<Servers>, lookups_max: usize) -> Names {
    Names::new(servers.clone(), PausedClock::new(), lookups_max, CONNECT_TIME)
}

#[tokio::test(start_paused = true)]
async fn many_attempts_wait_for_one_lookup_and_its_answer_holds_for_its_time() {
    let servers = Servers::answering([at(1, 30), at(2, 86_400), at(3, 0)].map(Ok));
    let names = names(&servers, 8);
    let all = join_all((0..500).map(|_| names.addresses("a.example"))).await;
    assert!(all.iter().all(|outcome| *outcome == Ok(addresses(1))));
    assert_eq!(servers.asked(), 1);
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
    assert_eq!(servers.asked(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(names.addresses("a.example").await, Ok(addresses(2)));
    // A day is too long to notice a change.
    tokio::time::sleep(Duration::from_millis(NAME_FRESH_MS_MAX + 1)).await;
    assert_eq!(names.addresses("a.example").await, Ok(addresses(3)));
    // And an answer that is not to be kept at all serves the attempts of one second.
    assert_eq!(names.addresses("a.example").await, Ok(addresses(3)));
    assert_eq!(servers.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_old_address_is_used_while_nobody_answers_and_not_after_the_name_is_gone() {
    let silence = Err(LookupError::NoAnswer);
    let failure = Err(LookupError::Failed("SERVFAIL".into()));
    let servers = Servers::answering([Ok(at(1, 1)), silence, failure, Err(LookupError::NoAddress)]);
    let names = names(&servers, 8);
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
    for lookups in 2..=3 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = names.0.clock.monotonic_ms();
        assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
        assert!(names.0.clock.monotonic_ms() - began <= STALE_PATIENCE_MS);
        assert_eq!(servers.asked(), lookups);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(names.addresses("a.example").await, Err(LookupError::NoAddress));
    assert_eq!(
        names.addresses("a.example").await,
        Err(LookupError::NoAddress),
        "remembered for a moment"
    );
    assert_eq!(servers.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_not_used_for_ever() {
    let servers = Servers::answering([Ok(at(1, 1))]);
    let names = names(&servers, 8);
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
    tokio::time::sleep(Duration::from_millis(NAME_STALE_MS + 2_000)).await;
    assert_eq!(names.addresses("a.example").await, Err(LookupError::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_answers_for_hold_nobody_else() {
    let servers = Servers::answering([Ok(at(1, 30))]);
    let names = names(&servers, 9);
    let dead: Vec<_> = (0..8)
        .map(|number| {
            let names = names.clone();
            tokio::spawn(async move { names.addresses(&format!("dead{number}.example")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
    assert!(dead.iter().all(|dead| !dead.is_finished()));
    for dead in dead {
        assert_eq!(dead.await.expect("no panic"), Err(LookupError::NoAnswer));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_finds_no_place_is_not_begun_and_says_so() {
    let servers = Servers::answering([Ok(at(1, 30))]);
    let names = names(&servers, 1);
    let (dead, waiting) = tokio::join!(names.addresses("dead.example"), names.addresses("a.example"));
    assert_eq!(
        (dead, waiting),
        (Err(LookupError::NoAnswer), Err(LookupError::NotBegun))
    );
    assert_eq!(servers.asked(), 1);
    // It says nothing about the name.
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_died_is_not_waited_for_again() {
    let servers = Servers::answering([Ok(at(1, 30))]);
    let names = names(&servers, 8);
    let died = Known {
        running: Some(watch::channel(None).1),
        ..Known::default()
    };
    names.0.names.lock().insert("a.example".into(), died);
    assert_eq!(names.addresses("a.example").await, Ok(addresses(1)));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_ends_before_the_time_for_a_connection() {
    let servers = Servers::answering([]);
    let names = names(&servers, 1);
    let outcome = timeout(CONNECT_TIME, names.addresses("dead.example")).await;
    assert_eq!(outcome.expect("in time"), Err(LookupError::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn no_more_names_are_kept_than_there_is_room_for() {
    let servers = Servers::answering((0..2 * NAMES_MAX).map(|_| Ok(at(1, 60))));
    let names = names(&servers, usize::MAX);
    let all: Vec<_> = (0..NAMES_MAX + 50).map(|number| format!("n{number}.example")).collect();
    for some in all.chunks(64) {
        let found = join_all(some.iter().map(|name| names.addresses(name))).await;
        assert!(found.iter().all(Result::is_ok));
    }
    let kept = names.0.names.lock().len();
    assert!(kept <= NAMES_MAX + 64, "{kept}");
    let asked = servers.asked();
    let newest = format!("n{}.example", NAMES_MAX + 49);
    names.addresses(&newest).await.expect("an address");
    assert_eq!(servers.asked(), asked, "the newest is kept");
}
