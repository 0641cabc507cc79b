//! The laws of the queues, with many targets of which any number does not answer.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: QueueLimits = QueueLimits {
    in_flight_max: 16,
    in_flight_per_target_max: 8,
};

fn end<K: Copy + Ord + Hash, T>(queues: &mut Queues<K, T>, target: K, heard: Option<Heard>) {
    if let Some(heard) = heard {
        queues.hear(target, heard);
    }
    queues.finish(target);
}

fn drain<K: Copy + Ord + Hash, T>(queues: &mut Queues<K, T>) -> Vec<(K, T)> {
    std::iter::from_fn(|| queues.pop()).collect()
}

#[test]
fn a_target_that_hangs_leaves_room_for_the_others() {
    let mut queues = Queues::new(LIMITS);
    (0..100).for_each(|n| queues.push("hangs", n));
    assert_eq!(drain(&mut queues).len(), 2, "a ninth of what is free to strangers");
    for other in ["a", "b", "c", "d"] {
        queues.push(other, 0);
        assert_eq!(queues.pop(), Some((other, 0)), "{other} has nothing in flight");
    }
}

#[test]
fn targets_that_hang_one_after_the_other_leave_a_place_to_the_next() {
    let mut queues = Queues::new(QueueLimits {
        in_flight_max: 64,
        in_flight_per_target_max: 64,
    });
    for target in 0..16 {
        (0..100).for_each(|n| queues.push(target, n));
        assert!(!drain(&mut queues).is_empty(), "{target} has nothing in flight");
    }
}

#[test]
fn the_first_answer_opens_half_of_the_places() {
    let mut queues = Queues::new(LIMITS);
    (0..100).for_each(|n| queues.push("t", n));
    drain(&mut queues);
    end(&mut queues, "t", Some(Heard::Answer));
    drain(&mut queues);
    assert_eq!(queues.in_flight(), 8);
}

#[test]
fn many_targets_that_hang_leave_a_place_to_one_that_answers() {
    let mut queues = Queues::new(LIMITS);
    queues.push(0, 0);
    queues.pop();
    end(&mut queues, 0, Some(Heard::Answer));
    (1..1_000).for_each(|target| (0..10).for_each(|n| queues.push(target, n)));
    assert_eq!(drain(&mut queues).len(), 14, "two are kept for those that answer");
    (0..5).for_each(|n| queues.push(0, n));
    assert_eq!(drain(&mut queues), [(0, 0)]);
    end(&mut queues, 0, Some(Heard::Answer));
    assert_eq!(drain(&mut queues), [(0, 1)]);
}

#[test]
fn who_does_not_answer_is_let_down_to_probes_and_recovers() {
    let mut queues = Queues::new(LIMITS);
    (0..500).for_each(|n| queues.push("t", n));
    for _ in 0..SILENCES {
        queues.pop();
        end(&mut queues, "t", Some(Heard::Silence));
    }
    assert!(queues.is_in_trouble("t"));
    assert_eq!(
        drain(&mut queues).len(),
        2,
        "a quarter of the places, of which it leaves half"
    );
    end(&mut queues, "t", Some(Heard::Silence));
    assert_eq!(drain(&mut queues).len(), 1, "and no fewer");
    end(&mut queues, "t", Some(Heard::Answer));
    assert!(!queues.is_in_trouble("t"));
    for _ in 0..20 {
        drain(&mut queues);
        end(&mut queues, "t", Some(Heard::Answer));
    }
    drain(&mut queues);
    assert_eq!(queues.in_flight(), 8, "its full share again");
}

#[test]
fn what_is_remembered_of_idle_targets_is_bounded() {
    let mut queues = Queues::new(LIMITS);
    for target in 0..3 * REMEMBERED_MAX {
        queues.push(target, ());
        assert_eq!(queues.pop(), Some((target, ())));
        let heard = [None, Some(Heard::Answer), Some(Heard::Silence)][target % 3];
        end(&mut queues, target, heard);
    }
    assert_eq!(queues.targets.len(), REMEMBERED_MAX);
    assert_eq!(queues.idle.len(), queues.targets.len());
    assert!(queues.ready.iter().all(BTreeSet::is_empty));
    assert_eq!((queues.waiting(), queues.in_flight()), (0, 0));
}

#[test]
fn what_is_not_kept_does_not_start() {
    let mut queues = Queues::new(LIMITS);
    (0..6).for_each(|n| queues.push(n, n));
    queues.retain(|n| n % 2 == 0);
    assert_eq!(queues.waiting(), 3);
    assert_eq!(drain(&mut queues), [(0, 0), (2, 2), (4, 4)]);
    assert_eq!(queues.waiting(), 0);
}

/// What an outside observer knows of a target.
#[derive(Default)]
struct Seen {
    waiting: VecDeque<usize>,
    flying: usize,
    silences: u32,
    has_answered: bool,
}

impl Seen {
    fn rank(&self) -> usize {
        match (self.silences >= SILENCES, self.has_answered) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Pop,
    Finish(u8, Option<bool>),
}

fn step(targets: u8) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..targets).prop_map(Step::Push),
        4 => Just(Step::Pop),
        2 => (0..targets, proptest::option::of(any::<bool>())).prop_map(|(target, heard)| Step::Finish(target, heard)),
    ]
}

proptest! {
    /// Bounds hold, nothing is lost or doubled, each target is first in first out, and nobody waits but for its own bound or
    /// for places that are kept for others.
    #[test]
    fn laws_hold(steps in proptest::collection::vec(step(20), 1..600)) {
        let mut queues = Queues::new(LIMITS);
        let mut seen: BTreeMap<u8, Seen> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            let flying = |seen: &BTreeMap<u8, Seen>, from: usize| -> usize {
                seen.values().filter(|target| target.rank() >= from).map(|target| target.flying).sum()
            };
            match step {
                Step::Push(target) => {
                    queues.push(target, n);
                    seen.entry(target).or_default().waiting.push_back(n);
                }
                Step::Pop => match queues.pop() {
                    Some((target, item)) => {
                        let free = 16 - flying(&seen, 0);
                        let one = seen.get_mut(&target).expect("pushed");
                        prop_assert_eq!(one.waiting.pop_front(), Some(item));
                        let has = one.flying * if one.rank() == 1 { STRANGER_LEAVES } else { 1 };
                        prop_assert!(has < free, "it has {} places, {} are free", one.flying, free);
                        one.flying += 1;
                    }
                    None => for (name, target) in seen.iter().filter(|(_, target)| !target.waiting.is_empty()) {
                        let free = [16, 14, 4].into_iter().enumerate().take(target.rank() + 1);
                        let free = free.map(|(rank, places): (usize, usize)| places.saturating_sub(flying(&seen, rank))).min();
                        // By silences it may be let down, but never below its probes.
                        let has = target.flying * if target.rank() == 1 { STRANGER_LEAVES } else { 1 };
                        let is_bounded = target.flying >= PROBES || Some(has) >= free;
                        prop_assert!(is_bounded, "{name} could have started: {} of {free:?} free", target.flying);
                        let was_never_silent = queues.targets[name].allowed == 8;
                        prop_assert!(!was_never_silent || target.flying >= 8 || Some(has) >= free);
                    }
                },
                Step::Finish(target, heard) => {
                    let Some(one) = seen.get_mut(&target).filter(|one| one.flying > 0) else { continue };
                    one.flying -= 1;
                    let heard = heard.map(|answers| if answers { Heard::Answer } else { Heard::Silence });
                    match heard {
                        Some(Heard::Answer) => (one.silences, one.has_answered) = (0, true),
                        Some(Heard::Silence) => one.silences += 1,
                        None => {}
                    }
                    end(&mut queues, target, heard);
                }
            }
            prop_assert!(flying(&seen, 0) <= 16 && seen.values().all(|target| target.flying <= 8));
            prop_assert_eq!(queues.in_flight(), flying(&seen, 0));
            prop_assert_eq!(queues.waiting(), seen.values().map(|target| target.waiting.len()).sum::<usize>());
        }
    }

    /// However many targets hang, whatever they have waiting, and whenever their attempts end: a target that answers, and has
    /// nothing in flight, starts at once.
    #[test]
    fn a_target_that_answers_never_waits_for_those_that_do_not(
        others in 1..100_u16,
        steps in proptest::collection::vec((0..4_u8, 0..100_u16), 1..500),
    ) {
        let mut queues = Queues::new(LIMITS);
        queues.push(0, ());
        queues.pop();
        end(&mut queues, 0, Some(Heard::Answer));
        let mut flying = BTreeMap::<u16, usize>::new();
        for (kind, other) in steps {
            let other = 1 + other % others;
            match kind {
                0 | 1 => (0..4).for_each(|_| queues.push(other, ())),
                2 => if let Some(count) = flying.get_mut(&other).filter(|count| **count > 0) {
                    *count -= 1;
                    end(&mut queues, other, Some(Heard::Silence));
                },
                _ => queues.push(0, ()),
            }
            let mut healthy = 0;
            for (target, ()) in drain(&mut queues) {
                *flying.entry(target).or_default() += 1;
                healthy += usize::from(target == 0);
            }
            prop_assert!(kind != 3 || healthy > 0 || flying.get(&0).is_some_and(|count| *count > 0), "it waits");
            for _ in 0..flying.remove(&0).unwrap_or(0) {
                end(&mut queues, 0, Some(Heard::Answer));
            }
            while queues.targets[&0].in_flight + queues.targets[&0].waiting.len() > 0 {
                let next: Vec<_> = drain(&mut queues);
                prop_assert!(next.iter().any(|(target, ())| *target == 0), "it waits");
                for (target, ()) in next {
                    match target {
                        0 => end(&mut queues, 0, Some(Heard::Answer)),
                        other => *flying.entry(other).or_default() += 1,
                    }
                }
            }
        }
    }

    /// Targets of which nothing is known: all have a place before one has two, as long as there are places for all.
    #[test]
    fn places_are_shared_evenly(others in 1..13_usize, each in 1..30_usize) {
        let mut queues = Queues::new(LIMITS);
        for target in 0..others {
            (0..each).for_each(|_| queues.push(target, ()));
        }
        let mut places = vec![0_usize; others];
        for (target, ()) in drain(&mut queues) {
            places[target] += 1;
        }
        let (least, most) = (places.iter().min().expect("some"), places.iter().max().expect("some"));
        prop_assert!(most - least <= 1, "{places:?}");
        queues.push(usize::MAX, ());
        prop_assert_eq!(queues.pop(), Some((usize::MAX, ())), "a newcomer starts at once");
    }

    /// A target with something waiting is served within one round of the others.
    #[test]
    fn nobody_starves(others in 1..50_usize) {
        let limits = QueueLimits { in_flight_max: 1, in_flight_per_target_max: 1 };
        let mut queues = Queues::new(limits);
        for target in 0..others {
            (0..10).for_each(|_| queues.push(target, ()));
        }
        queues.push(usize::MAX, ());
        let mut served = Vec::new();
        for _ in 0..=others {
            let (target, ()) = queues.pop().expect("one place is free");
            end(&mut queues, target, None);
            served.push(target);
        }
        prop_assert!(served.contains(&usize::MAX), "not served within a round");
    }
}
