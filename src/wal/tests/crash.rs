//! Power cuts at any moment: what was acknowledged is there, in a state the log really went through.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{AT_ONCE, bytes, settle};
use crate::wal::testing::{Dice, MemFiles, Model, Told, open, random_act, small, view};
use crate::wal::{OpenError, Step};

/// The power may go again while the log is opened, anywhere between its writes.
fn cut_while_opening(files: Arc<MemFiles>, dice: &mut Dice) -> Arc<MemFiles> {
    let counters = [&files.faults.writes, &files.faults.syncs, &files.faults.creates];
    for counter in counters {
        counter.store(i64::try_from(dice.roll(6)).expect("small") - 1, Ordering::Relaxed);
    }
    let opened = open(&files, small());
    assert!(!matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
    for counter in counters {
        counter.store(-1, Ordering::Relaxed);
    }
    if opened.is_err() { files.power_cut(dice) } else { files }
}

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
        let acked = told.acked();
        drop((wal, writer));
        // The process may die first, and the machine only later: then what is not synced is still there, for now.
        if dice.roll(4) > 0 {
            files = files.power_cut(dice);
        }
        files = cut_while_opening(files, dice);
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

/// The process dies after it has written, and not synced, that an old segment is no longer needed. The next one must not
/// remove it before that is durable.
#[test]
fn a_segment_goes_only_when_the_disk_knows_that_it_is_not_needed() {
    for syncs in 0..6 {
        let files = Arc::new(MemFiles::default());
        let (wal, mut writer) = open(&files, small()).expect("a new log");
        let told = Told::default();
        for index in 1..40 {
            wal.append(1, index, vec![vec![1; 700].into()], told.done(0));
            settle(&mut writer);
        }
        wal.purge(1, 39, bytes("mark"), told.done(0));
        files.faults.syncs.store(syncs, Ordering::Relaxed);
        settle(&mut writer);
        drop((wal, writer));
        files.faults.syncs.store(syncs, Ordering::Relaxed);
        let opened_in_between = open(&files, small()).is_ok();
        files.faults.syncs.store(-1, Ordering::Relaxed);
        for seed in 0..20 {
            let left = files.power_cut(&mut Dice(seed));
            let opened = open(&left, small());
            assert!(
                opened.is_ok(),
                "{syncs} syncs, seed {seed}, in between {opened_in_between}: {opened:?}"
            );
        }
    }
}
