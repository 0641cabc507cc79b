//! A clock that is moved by hand: what is doubted, for how long, and what ends it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[derive(Debug, Default)]
struct Hands {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl Hands {
    fn pass(&self, wall_ms: u64, monotonic_ms: u64) {
        self.wall_ms.fetch_add(wall_ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(monotonic_ms, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

fn since(steady: &Steady) -> Option<Duration> {
    steady.doubt().map(|(since, _)| since)
}

#[test]
fn a_jump_is_doubted_until_it_was_compared() {
    let hands = Arc::new(Hands::default());
    let steady = alone(&hands, None);
    hands.pass(1_000_000, 1_000_000);
    assert_eq!(steady.wall_ms(), Some(1_000_000));
    hands.pass(3_600_000, 10);
    assert_eq!(steady.wall_ms(), None);
    let first = since(&steady);
    steady.compared(first, 3_600_000, By::Peers);
    assert_eq!(steady.doubt().map(|(_, doubt)| doubt), Some(Doubt::Jumped));
    steady.compared(None, 0, By::Peers);
    assert_eq!(steady.wall_ms(), None, "compared before the jump");
    steady.compared(first, -40, By::Peers);
    assert_eq!(steady.wall_ms(), Some(4_600_000));
}

#[test]
fn a_comparison_across_another_jump_proves_nothing() {
    let hands = Arc::new(Hands::default());
    let steady = Steady::new(hands.clone(), true, HOLD, None, |_| ());
    assert_eq!(steady.doubt(), Some((Duration::ZERO, Doubt::Unknown)));
    let first = since(&steady);
    hands.pass(10_000, 20);
    steady.compared(first, 0, By::Peers);
    assert_eq!(steady.wall_ms(), None);
}

#[test]
fn slewing_is_no_jump_and_drifting_too_far_is_doubted() {
    let hands = Arc::new(Hands::default());
    let steady = alone(&hands, None);
    for _ in 0..100 {
        hands.pass(1_100, 1_000);
        assert!(steady.wall_ms().is_some());
        steady.compared(None, 100, By::Peers);
    }
    steady.compared(None, 501, By::Peers);
    assert_eq!(steady.doubt().map(|(_, doubt)| doubt), Some(Doubt::Off));
    steady.compared(since(&steady), 500, By::Peers);
    assert!(steady.wall_ms().is_some());
}

const HOLD: Duration = Duration::from_mins(15);
const MONTH_MS: u64 = 30 * DAY_MS;
const DAY_MS: u64 = 86_400_000;
const START_MS: u64 = 1_772_323_200_000;

fn alone(hands: &Arc<Hands>, kept_ms: Option<u64>) -> Steady {
    Steady::new(hands.clone(), false, HOLD, kept_ms, |_| ())
}

/// A node alone that has been up for an hour.
fn running() -> (Arc<Hands>, Steady) {
    let hands = Arc::new(Hands::default());
    hands.pass(START_MS, 3_600_000);
    let steady = alone(&hands, None);
    (hands, steady)
}

/// What `cluster/clocks.rs` does for a node that has nobody to ask.
fn ask_nobody(steady: &Steady) {
    if steady.has_lasted() {
        steady.compared(since(steady), 0, By::Time);
    }
}

#[test]
fn a_lone_node_holds_a_month_until_it_has_lasted() {
    let (hands, steady) = running();
    hands.pass(MONTH_MS, 10);
    assert_eq!(steady.wall_ms(), None);
    assert_eq!(steady.hold().map(|hold| hold.moved_ms / 1_000), Some(30 * 86_400 - 1));
    for _ in 0..14 {
        hands.pass(60_000, 60_000);
        ask_nobody(&steady);
        assert_eq!(steady.wall_ms(), None);
    }
    hands.pass(60_000, 60_000);
    ask_nobody(&steady);
    assert_eq!(steady.wall_ms(), Some(START_MS + MONTH_MS + 15 * 60_000));
    assert_eq!((*steady.corrections().borrow(), steady.hold()), (1, None));
}

#[test]
fn what_a_peer_has_computed_by_a_wrong_clock_is_looked_at_when_that_is_right_again() {
    let (_, steady) = running();
    let corrections = steady.corrections();
    steady.found_wrong([2, 3].into());
    assert_eq!(*corrections.borrow(), 0);
    steady.found_wrong([3].into());
    assert_eq!((*corrections.borrow(), steady.is_wrong(3)), (1, true));
}

#[test]
fn a_jump_that_goes_away_ends_the_hold() {
    let (hands, steady) = running();
    hands.pass(MONTH_MS, 10);
    assert!(steady.hold().is_some());
    hands.pass(60_000, 60_000);
    hands.wall_ms.fetch_sub(MONTH_MS, Ordering::SeqCst);
    assert_eq!((steady.wall_ms(), steady.hold()), (None, None));
    hands.pass(2_000, 2_000);
    ask_nobody(&steady);
    assert_eq!(steady.wall_ms(), Some(START_MS + 62_000));
    assert_eq!(
        steady.highest_ms(),
        START_MS + 62_000,
        "what was never trusted is not kept"
    );
}

#[test]
fn a_clock_set_back_is_held_as_well_and_its_time_is_then_what_is_kept() {
    let (hands, steady) = running();
    assert_eq!(steady.highest_ms(), START_MS);
    hands.wall_ms.fetch_sub(DAY_MS, Ordering::SeqCst);
    assert!(steady.hold().is_some_and(|hold| hold.moved_ms < 0));
    assert_eq!(steady.highest_ms(), START_MS);
    assert!(steady.accept().is_some());
    assert_eq!(steady.highest_ms(), START_MS - DAY_MS);
}

#[test]
fn the_operator_and_the_peers_end_a_hold_at_once() {
    let (hands, steady) = running();
    assert_eq!(steady.accept(), None, "nothing is held");
    hands.pass(MONTH_MS, 10);
    assert_eq!(steady.accept().map(|moved_ms| moved_ms > 0), Some(true));
    assert!(steady.wall_ms().is_some());
    hands.pass(MONTH_MS, 10);
    assert!(steady.hold().is_some());
    steady.compared(since(&steady), 0, By::Peers);
    assert!(steady.wall_ms().is_some());
}

#[test]
fn small_steps_do_not_add_up_to_a_large_one() {
    let (hands, steady) = running();
    let mut trusted = 0;
    for _ in 0..10 {
        hands.pass(4 * 60_000, 10);
        assert_eq!(steady.wall_ms(), None);
        for _ in 0..10 {
            hands.pass(1_000, 1_000);
            ask_nobody(&steady);
        }
        trusted += u32::from(steady.wall_ms().is_some());
    }
    assert_eq!(trusted, 1, "the second four minutes are beyond what is believed");
}

#[test]
fn a_start_within_a_day_is_no_news_and_one_far_off_is_held() {
    let at = |kept_ms: u64, wall_ms: u64| {
        let hands = Arc::new(Hands::default());
        hands.pass(wall_ms, 5_000);
        (alone(&hands, Some(kept_ms)), hands)
    };
    for trusted_ms in [START_MS - 4 * 60_000, START_MS, START_MS + DAY_MS] {
        assert_eq!(at(START_MS, trusted_ms).0.wall_ms(), Some(trusted_ms));
    }
    assert_eq!(at(START_MS, START_MS - 6 * 60_000).0.wall_ms(), None);
    let (steady, hands) = at(START_MS, START_MS + MONTH_MS);
    assert_eq!(steady.wall_ms(), Some(START_MS + DAY_MS), "what was due by then fires");
    assert!(steady.hold().is_some());
    hands.pass(15 * 60_000, 15 * 60_000);
    assert_eq!(steady.wall_ms(), Some(START_MS + DAY_MS + 900_000));
    ask_nobody(&steady);
    assert_eq!(steady.wall_ms(), Some(START_MS + MONTH_MS + 900_000));
}

#[test]
fn after_a_start_the_clock_itself_is_believed_not_the_day() {
    let hands = Arc::new(Hands::default());
    hands.pass(START_MS, 5_000);
    let steady = alone(&hands, Some(START_MS - 1_000));
    ask_nobody(&steady);
    hands.pass(DAY_MS / 2, 10);
    assert!(steady.hold().is_some(), "half a day is a large jump of a running node");
}
