//! Any sequence of operations, with reopening in between, leaves what plain maps would hold.

use std::sync::Arc;

use proptest::prelude::*;

use super::{AT_ONCE, settle};
use crate::wal::Options;
use crate::wal::testing::{Dice, MemFiles, Model, Told, open, random_act, small, view};

/// Segments of another size from one open to the next.
fn options(dice: &mut Dice) -> Options {
    Options {
        segment_bytes: [16 << 10, 20 << 10, 64 << 10][dice.index(3)],
        ..small()
    }
}

fn check(seed: u64, acts: usize) {
    let dice = &mut Dice(seed);
    let mut files = Arc::new(MemFiles::default());
    let (mut wal, mut writer) = open(&files, small()).expect("a new log");
    let (mut model, told) = (Model::default(), Told::default());
    for job in 0..acts {
        let (group, act) = random_act(dice);
        model.act(&wal, group, act, told.done(job));
        match dice.roll(40) {
            0 => {
                settle(&mut writer);
                files = files.killed();
                (wal, writer) = open(&files, options(dice)).expect("an unharmed log opens");
                assert_eq!(
                    view(&wal, 700).expect("all is readable"),
                    model.view(),
                    "seed {seed}, after {job}"
                );
            }
            1..15 => drop(writer.step(AT_ONCE)),
            15 => assert_eq!(
                view(&wal, 700).expect("all is readable"),
                model.view(),
                "seed {seed}, job {job}"
            ),
            _ => {}
        }
    }
    settle(&mut writer);
    assert_eq!(
        view(&wal, usize::MAX).expect("all is readable"),
        model.view(),
        "seed {seed}, at the end"
    );
    assert!(
        told.all().iter().all(|(_, result)| result.is_ok()),
        "seed {seed}: no operation was wrong"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_operations_leave_what_maps_would_hold(seed: u64, acts in 1_usize..600) {
        check(seed, acts);
    }
}
