//! Power cuts at any moment: what was acknowledged is there, in a state the log really went through.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::AT_ONCE;
use crate::wal::Step;
use crate::wal::testing::{Dice, MemFiles, Model, Told, open, random_act, small, view};

/// Lives and dies a few times on one disk.
fn check(seed: u64) {
    let dice = &mut Dice(seed);
    let mut files = Arc::new(MemFiles::default());
    let mut base = Model::default();
    for life in 0..6 {
        let (wal, mut writer) =
            open(&files, small()).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        let found = view(&wal, usize::MAX).expect("all is readable");
        assert_eq!(
            found,
            base.view(),
            "seed {seed}, life {life}: opening again shows the same"
        );
        let told = Told::default();
        let mut history = vec![base.clone()];
        let acts = dice.index(150);
        for job in 0..acts {
            let mut model = history[job].clone();
            let (group, act) = random_act(dice);
            model.act(&wal, group, act, told.done(job));
            history.push(model);
            if dice.roll(4) == 0 {
                assert!(matches!(writer.step(AT_ONCE), Step::Worked(_)));
            }
        }
        // The cut may come between a write and its sync, or inside maintenance.
        let faults = &files.faults;
        let counter = [&faults.syncs, &faults.writes, &faults.creates][dice.index(3)];
        counter.store(i64::try_from(dice.roll(5)).expect("small"), Ordering::Relaxed);
        for _ in 0..dice.roll(4) {
            writer.step(AT_ONCE);
        }
        // The process may die first, and the machine only later.
        let acked = told.acked();
        files = if dice.roll(4) == 0 {
            files.killed()
        } else {
            files.power_cut(dice)
        };
        let (wal, _writer) = open(&files, small()).unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        let found = view(&wal, usize::MAX).expect("all is readable");
        let survived = (acked..history.len()).rev().find(|job| history[*job].view() == found);
        let Some(survived) = survived else {
            panic!(
                "seed {seed}, life {life}: {acked} of {acts} acknowledged, and the log is in none of the later states"
            );
        };
        base = history.swap_remove(survived);
        // What was found must stay found, whatever the power does now.
        if dice.roll(2) == 0 {
            files = files.power_cut(dice);
        }
    }
}

#[test]
fn acknowledged_operations_survive_power_cuts() {
    (0..120).for_each(check);
}
