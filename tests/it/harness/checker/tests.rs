//! The checker is checked: histories whose verdict is known, agreement with a slow and obvious checker, and random
//! good histories that are broken on purpose.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Call, Content, Histories, NOT_FOUND, OUTDATED, Operation, Outcome, Revision, State, TAKEN, check};
use crate::harness::random;

const ABSENT: Outcome = Outcome::Refused(NOT_FOUND);
const CONFLICT: Outcome = Outcome::Refused(TAKEN);
const DONE: Outcome = Outcome::Done;
const OPEN: Outcome = Outcome::Unknown;

fn op(from: u64, to: u64, call: Call, outcome: Outcome) -> Operation {
    Operation {
        client: from,
        call,
        outcome,
        from,
        to,
    }
}

fn create(from: u64, to: u64, content: Content, outcome: Outcome) -> Operation {
    op(from, to, Call::Create(content), outcome)
}

fn delete(from: u64, to: u64, outcome: Outcome) -> Operation {
    op(from, to, Call::Delete, outcome)
}

fn query(from: u64, to: u64, outcome: Outcome) -> Operation {
    op(from, to, Call::Query, outcome)
}

fn update(from: u64, to: u64, content: Content, replaces: Option<Revision>, outcome: Outcome) -> Operation {
    op(from, to, Call::Update(content, replaces), outcome)
}

fn seen(from: u64, to: u64, content: Content, revision: Revision) -> Operation {
    op(from, to, Call::Show, Outcome::Seen(content, revision))
}

fn shown(from: u64, to: u64, content: Content) -> Operation {
    query(from, to, Outcome::Shown(content))
}

#[test]
fn the_model_is_the_api_s() {
    let (absent, present, deleted) = (State::Absent, State::Present(1, 4), State::Deleted);
    for (state, call, outcome, next) in [
        (absent, Call::Create(1), DONE, State::Present(1, 1)),
        (absent, Call::Update(1, None), ABSENT, absent),
        (absent, Call::Show, ABSENT, absent),
        (present, Call::Update(1, None), DONE, present),
        (present, Call::Update(2, None), DONE, State::Present(2, 5)),
        (present, Call::Update(1, Some(3)), DONE, present),
        (present, Call::Update(2, Some(3)), Outcome::Refused(OUTDATED), present),
        (present, Call::Update(1, Some(4)), DONE, State::Present(1, 5)),
        (present, Call::Update(2, Some(4)), DONE, State::Present(2, 5)),
        (present, Call::Update(1, Some(5)), Outcome::Refused(OUTDATED), present),
        (present, Call::Show, Outcome::Seen(1, 4), present),
        (deleted, Call::Update(1, None), ABSENT, deleted),
        (deleted, Call::Show, ABSENT, deleted),
        (absent, Call::Delete, ABSENT, absent),
        (absent, Call::Query, ABSENT, absent),
        (present, Call::Create(1), DONE, present),
        (present, Call::Create(2), CONFLICT, present),
        (present, Call::Delete, DONE, deleted),
        (present, Call::Query, Outcome::Shown(1), present),
        (deleted, Call::Create(1), CONFLICT, deleted),
        (deleted, Call::Create(2), CONFLICT, deleted),
        (deleted, Call::Delete, DONE, deleted),
        (deleted, Call::Query, ABSENT, deleted),
    ] {
        assert_eq!(state.apply(call), (outcome, next), "{call:?} on {state:?}");
    }
}

type Named = (&'static str, Vec<Operation>);

#[track_caller]
fn explained(histories: impl IntoIterator<Item = Named>) {
    for (name, history) in histories {
        assert_eq!(check(&history), Ok(()), "{name}");
    }
}

#[track_caller]
fn not_explained(histories: impl IntoIterator<Item = Named>) {
    for (name, history) in histories {
        assert!(check(&history).is_err(), "{name}");
    }
}

#[test]
fn good_histories_are_explained() {
    explained([
        ("nothing", vec![]),
        (
            "one after the other",
            vec![
                query(0, 1, ABSENT),
                create(2, 3, 1, DONE),
                shown(4, 5, 1),
                delete(6, 7, DONE),
                query(8, 9, ABSENT),
                delete(10, 11, DONE),
                create(12, 13, 1, CONFLICT),
            ],
        ),
        (
            "a query beside a create may see either",
            vec![
                create(0, 9, 1, DONE),
                query(1, 2, ABSENT),
                shown(3, 4, 1),
                shown(5, 6, 1),
            ],
        ),
        (
            "of two creates at once one wins, in either order of their answers",
            vec![create(0, 5, 1, CONFLICT), create(1, 4, 2, DONE), shown(6, 7, 2)],
        ),
    ]);
}

#[test]
fn open_calls_take_effect_at_any_time_or_never() {
    explained([
        (
            "an unknown create took effect late",
            vec![create(0, 1, 1, OPEN), query(2, 3, ABSENT), shown(4, 5, 1)],
        ),
        (
            "an unknown create never took effect",
            vec![
                create(0, 1, 1, OPEN),
                query(2, 3, ABSENT),
                create(4, 5, 2, DONE),
                shown(6, 7, 2),
            ],
        ),
        (
            "an unknown delete took effect long after",
            vec![
                create(0, 1, 1, DONE),
                delete(2, 3, OPEN),
                shown(4, 5, 1),
                shown(6, 7, 1),
                query(8, 9, ABSENT),
            ],
        ),
        (
            "of two unknown creates the later one came first",
            vec![
                create(0, 1, 1, OPEN),
                create(2, 3, 2, OPEN),
                shown(4, 5, 2),
                shown(6, 7, 2),
            ],
        ),
        (
            "an unknown create and an unknown delete, both between two queries",
            vec![
                create(0, 1, 1, OPEN),
                delete(2, 3, OPEN),
                query(4, 5, ABSENT),
                create(6, 7, 2, CONFLICT),
                query(8, 9, ABSENT),
            ],
        ),
        (
            "an unknown query says nothing",
            vec![query(0, 1, OPEN), create(2, 3, 1, DONE)],
        ),
    ]);
}

#[test]
fn stale_and_lost_is_refused() {
    not_explained([
        ("a task that nobody made", vec![shown(0, 1, 1)]),
        ("a stale read", vec![create(0, 1, 1, DONE), query(2, 3, ABSENT)]),
        (
            "a stale read while the create is under way: it was seen already",
            vec![create(0, 9, 1, DONE), shown(1, 2, 1), query(3, 4, ABSENT)],
        ),
        (
            "a lost write: created, and then free for another",
            vec![create(0, 1, 1, DONE), create(2, 3, 2, DONE)],
        ),
        (
            "a lost write: nothing to delete",
            vec![create(0, 1, 1, DONE), delete(2, 3, ABSENT)],
        ),
    ]);
}

#[test]
fn updates_are_explained_or_not() {
    explained([
        (
            "an unknown update takes effect late",
            vec![
                create(0, 1, 1, DONE),
                update(2, 3, 2, None, OPEN),
                shown(4, 5, 1),
                seen(6, 7, 2, 2),
            ],
        ),
        (
            "of two of one revision one wins",
            vec![
                create(0, 1, 1, DONE),
                update(2, 9, 2, Some(1), Outcome::Refused(OUTDATED)),
                update(3, 8, 3, Some(1), DONE),
                seen(10, 11, 3, 2),
            ],
        ),
    ]);
    not_explained([
        (
            "a late try undoes what others did",
            vec![
                create(0, 1, 1, DONE),
                update(2, 9, 2, None, DONE),
                shown(3, 4, 2),
                update(5, 6, 3, None, DONE),
                shown(7, 8, 2),
            ],
        ),
        (
            "two replace one revision",
            vec![
                create(0, 1, 1, DONE),
                update(2, 9, 2, Some(1), DONE),
                update(2, 9, 3, Some(1), DONE),
            ],
        ),
        (
            "a stale read",
            vec![create(0, 1, 1, DONE), update(2, 3, 2, None, DONE), shown(4, 5, 1)],
        ),
        (
            "a revision too many",
            vec![create(0, 1, 1, DONE), update(2, 3, 2, None, DONE), seen(4, 5, 2, 3)],
        ),
        (
            "of a task that is gone",
            vec![create(0, 1, 1, DONE), delete(2, 3, DONE), update(4, 5, 2, None, DONE)],
        ),
    ]);
}

#[test]
fn resurrected_and_reordered_is_refused() {
    not_explained([
        (
            "resurrected in a query",
            vec![create(0, 1, 1, DONE), delete(2, 3, DONE), shown(4, 5, 1)],
        ),
        (
            "resurrected by a late repetition of its create",
            vec![create(0, 1, 1, DONE), delete(2, 3, DONE), create(4, 5, 1, DONE)],
        ),
        (
            "resurrected by an unknown create",
            vec![
                create(0, 1, 1, OPEN),
                create(2, 3, 1, DONE),
                delete(4, 5, DONE),
                query(6, 7, ABSENT),
                shown(8, 9, 1),
            ],
        ),
        (
            "reordered: seen before, not seen after",
            vec![
                create(0, 1, 1, OPEN),
                shown(2, 3, 1),
                query(4, 5, ABSENT),
                shown(6, 7, 1),
            ],
        ),
        (
            "reordered: the delete came before the create that it followed",
            vec![
                create(0, 1, 1, DONE),
                delete(2, 3, DONE),
                query(4, 5, Outcome::Shown(1)),
            ],
        ),
        (
            "two contents at once",
            vec![
                create(0, 9, 1, OPEN),
                create(1, 9, 2, OPEN),
                shown(10, 11, 1),
                shown(12, 13, 2),
            ],
        ),
        (
            "refused, and done all the same",
            vec![create(0, 1, 1, DONE), create(2, 3, 2, CONFLICT), shown(4, 5, 2)],
        ),
        (
            "deleted before it was there",
            vec![delete(0, 1, DONE), create(2, 3, 1, DONE)],
        ),
        (
            "an answer that no rule gives",
            vec![create(0, 1, 1, Outcome::Refused(1000))],
        ),
        (
            "an unknown delete cannot take effect before it is sent",
            vec![create(0, 1, 1, DONE), query(2, 3, ABSENT), delete(4, 5, OPEN)],
        ),
    ]);
}

#[test]
fn a_complaint_shows_the_history() {
    let complaint = check(&[create(0, 1, 7, DONE), query(2, 3, ABSENT)]).expect_err("a stale read");
    for part in [
        "1 of 2 answers",
        "+      0..1",
        "Create(7) -> Done",
        "Query -> Refused(1008)",
    ] {
        assert!(complaint.contains(part), "{part} in\n{complaint}");
    }
}

#[test]
fn histories_are_kept_apart_by_task() {
    let histories = Histories::default();
    for (task, call, outcome) in [
        ("a", Call::Create(1), DONE),
        ("b", Call::Query, ABSENT),
        ("a", Call::Query, Outcome::Shown(1)),
        ("b", Call::Create(2), OPEN),
    ] {
        let from = histories.begin();
        histories.end(task, 0, call, outcome, from);
    }
    assert_eq!(histories.tasks(), ["a", "b"]);
    assert_eq!(histories.counts(), (4, 1));
    assert_eq!(histories.violations(), Vec::<String>::new());
    let from = histories.begin();
    histories.end("b", 0, Call::Query, Outcome::Shown(1), from);
    let violations = histories.violations();
    assert!(
        violations.len() == 1 && violations[0].starts_with("b: "),
        "{violations:?}"
    );
}

/// Tries every order of every choice of open calls: slow, and obviously right.
fn is_explained_by_some_order(history: &[Operation]) -> bool {
    fn extend(history: &[Operation], order: &mut Vec<usize>) -> bool {
        let must = (0..history.len()).filter(|&place| history[place].outcome != OPEN);
        if must.clone().all(|place| order.contains(&place)) && is_valid(history, order) {
            return true;
        }
        for place in 0..history.len() {
            if !order.contains(&place) {
                order.push(place);
                let found = extend(history, order);
                order.pop();
                if found {
                    return true;
                }
            }
        }
        false
    }
    extend(history, &mut Vec::new())
}

fn is_valid(history: &[Operation], order: &[usize]) -> bool {
    let end = |place: usize| match history[place].outcome {
        OPEN => u64::MAX,
        _ => history[place].to,
    };
    let is_in_time =
        |(at, &place): (usize, &usize)| order[at + 1..].iter().all(|&later| end(later) > history[place].from);
    let mut state = State::Absent;
    let mut fits = |place: &usize| {
        let (outcome, next) = state.apply(history[*place].call);
        state = next;
        history[*place].outcome == OPEN || history[*place].outcome == outcome
    };
    order.iter().enumerate().all(is_in_time) && order.iter().all(&mut fits)
}

/// Calls at random with answers at random.
fn nonsense(random: &mut StdRng) -> Vec<Operation> {
    let mut times: Vec<u64> = (0..16).collect();
    let mut take = |random: &mut StdRng| times.swap_remove(random.random_range(0..times.len()));
    (0..random.random_range(1..=5))
        .map(|_| {
            let (a, b) = (take(random), take(random));
            let replaces = [None, Some(1), Some(2)][random.random_range(0..3)];
            let call = match random.random_range(0..7) {
                0 | 1 => Call::Create(random.random_range(1..=2)),
                2 => Call::Delete,
                3 => Call::Update(random.random_range(1..=2), replaces),
                4 => Call::Show,
                _ => Call::Query,
            };
            let outcome = match (call, random.random_range(0..4)) {
                (_, 0) => OPEN,
                (Call::Create(_) | Call::Update(..) | Call::Delete, 1 | 2) => DONE,
                (Call::Create(_), _) => CONFLICT,
                (Call::Query, 1 | 2) => Outcome::Shown(random.random_range(1..=2)),
                (Call::Show, 1 | 2) => Outcome::Seen(random.random_range(1..=2), random.random_range(1..=2)),
                (Call::Update(_, Some(_)), _) => Outcome::Refused(OUTDATED),
                _ => ABSENT,
            };
            op(a.min(b), a.max(b), call, outcome)
        })
        .collect()
}

#[test]
fn it_agrees_with_the_slow_checker() {
    let mut random = random(31);
    let mut counts = [0, 0];
    for _ in 0..6_000 {
        let history = nonsense(&mut random);
        let expected = is_explained_by_some_order(&history);
        assert_eq!(check(&history).is_ok(), expected, "{history:?}");
        counts[usize::from(expected)] += 1;
    }
    println!("bad, good: {counts:?}");
    assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
}

/// A history that happened, with updates or without: each call has an instant between its ends at which the model answered it.
fn happened(random: &mut StdRng, has_updates: bool) -> Vec<Operation> {
    let (mut calls, mut instants) = (Vec::new(), Vec::new());
    for client in 0..random.random_range(2..=8) {
        let mut time = random.random_range(0..100);
        for _ in 0..random.random_range(1..=7) {
            let replaces = [None, Some(random.random_range(1..=4))][random.random_range(0..2)];
            let call = match random.random_range(0..if has_updates { 15 } else { 10 }) {
                0..4 => Call::Create(random.random_range(1..=3)),
                4 => Call::Delete,
                5..10 => Call::Query,
                10..13 => Call::Update(random.random_range(1..=3), replaces),
                _ => Call::Show,
            };
            let is_open = random.random_range(0..6) == 0;
            let (from, instant) = (time, time + random.random_range(0..if is_open { 400 } else { 40 }));
            let to = instant + random.random_range(0..40);
            time = if is_open { from + 10 } else { to } + random.random_range(1..20);
            // An open call may never happen.
            if !is_open || random.random() {
                instants.push((instant, calls.len()));
            }
            // Ends before the beginnings of the same time, so that equal times count as at once.
            calls.push((client, call, is_open, from * 2, to * 2 + 1));
        }
    }
    instants.sort_unstable();
    let (mut state, mut outcomes) = (State::Absent, vec![OPEN; calls.len()]);
    for (_, place) in instants {
        let outcome;
        (outcome, state) = state.apply(calls[place].1);
        if !calls[place].2 {
            outcomes[place] = outcome;
        }
    }
    let operations = calls.into_iter().zip(outcomes);
    operations
        .map(|((client, call, _, from, to), outcome)| Operation {
            client,
            call,
            outcome,
            from,
            to,
        })
        .collect()
}

/// Changes one answer of a good history into one that no order explains; `None` if it has no place for that.
type Breakage = fn(&[Operation]) -> Option<(usize, Outcome)>;

/// The first operation that began after one like `first` was answered, and for which `then` holds.
fn after(
    history: &[Operation],
    first: impl Fn(&Operation) -> bool,
    then: impl Fn(&Operation, &Operation) -> bool,
) -> Option<(Operation, usize)> {
    history.iter().filter(|operation| first(operation)).find_map(|before| {
        let mut rest = history.iter().enumerate();
        let place = rest.find(|(_, later)| later.outcome != OPEN && later.from > before.to && then(before, later))?;
        Some((*before, place.0))
    })
}

fn is_acked_create(operation: &Operation) -> bool {
    matches!(operation.call, Call::Create(_)) && operation.outcome == DONE
}

fn is_acked_delete(operation: &Operation) -> bool {
    operation.call == Call::Delete && operation.outcome == DONE
}

const BREAKAGES: [(&str, Breakage); 6] = [
    ("invented", |history| {
        let place = history
            .iter()
            .position(|op| op.call == Call::Query && op.outcome != OPEN)?;
        Some((place, Outcome::Shown(99)))
    }),
    ("stale read", |history| {
        let deleted = history
            .iter()
            .filter(|op| op.call == Call::Delete)
            .map(|op| op.from)
            .min();
        let is_before_deletes = |query: &Operation| deleted.is_none_or(|from| query.to < from);
        let found = after(history, is_acked_create, |_, op| {
            op.call == Call::Query && is_before_deletes(op)
        })?;
        Some((found.1, ABSENT))
    }),
    ("lost write", |history| {
        let found = after(history, is_acked_create, |_, op| op.call == Call::Delete)?;
        Some((found.1, ABSENT))
    }),
    ("resurrected in a query", |history| {
        let created = history.iter().find(|op| is_acked_create(op))?;
        let Call::Create(content) = created.call else {
            return None;
        };
        let found = after(history, is_acked_delete, |_, op| op.call == Call::Query)?;
        Some((found.1, Outcome::Shown(content)))
    }),
    ("resurrected by a create", |history| {
        let is_create = |_: &Operation, op: &Operation| matches!(op.call, Call::Create(_));
        Some((after(history, is_acked_delete, is_create)?.1, DONE))
    }),
    ("two contents", |history| {
        let is_other = |first: &Operation, op: &Operation| matches!(op.call, Call::Create(_)) && op.call != first.call;
        Some((after(history, is_acked_create, is_other)?.1, DONE))
    }),
];

#[test]
fn a_good_history_is_explained_and_a_broken_one_is_not() {
    let mut random = random(32);
    let mut broken = [0; BREAKAGES.len()];
    for _ in 0..3_000 {
        assert_eq!(check(&happened(&mut random, true)), Ok(()));
        let history = happened(&mut random, false);
        assert_eq!(check(&history), Ok(()));
        for (count, (name, breakage)) in broken.iter_mut().zip(BREAKAGES) {
            let Some((place, outcome)) = breakage(&history) else {
                continue;
            };
            let mut bad = history.clone();
            bad[place].outcome = outcome;
            assert!(check(&bad).is_err(), "{name} at {place} is not seen in {bad:?}");
            *count += 1;
        }
    }
    println!("broken: {broken:?}");
    assert!(broken.iter().all(|&count| count > 100), "{broken:?}");
}
