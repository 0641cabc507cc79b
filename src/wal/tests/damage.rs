//! Every kind of damage to every file: either the log is refused, or nothing acknowledged is missing or changed.

use std::sync::Arc;

use super::{bytes, settle};
use crate::wal::testing::{Dice, MemFiles, Model, SECTOR, Told, View, open, random_act, small, view};
use crate::wal::{OpenError, Options, segment, watermark};

const TRIALS: u64 = 80;

/// A log whose process was killed, all of it acknowledged, and what it holds.
fn killed_log(dice: &mut Dice) -> (Arc<MemFiles>, View) {
    let files = Arc::new(MemFiles::default());
    let (wal, mut writer) = open(&files, small()).expect("a new log");
    let (mut model, told) = (Model::default(), Told::default());
    for job in 0..30 + dice.index(300) {
        let (group, act) = random_act(dice);
        model.act(&wal, group, act, told.done(job));
        if dice.roll(3) == 0 {
            settle(&mut writer);
        }
    }
    settle(&mut writer);
    wal.save_vote(1, bytes("the last word"), told.done(0));
    settle(&mut writer);
    (files.killed(), view(&wal, usize::MAX).expect("all is readable"))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    Newest,
    Any,
    Watermark,
}

/// Runs the trials of one kind; how many were refused.
fn trials(target: Target, damage: impl Fn(&MemFiles, &str, &mut Dice)) -> u64 {
    let mut refused = 0;
    for seed in 0..TRIALS {
        let dice = &mut Dice(seed);
        let (files, mut expected) = killed_log(dice);
        let segments: Vec<String> = files
            .names()
            .into_iter()
            .filter(|name| segment::number(name).is_some())
            .collect();
        let used = |name: &&String| {
            let mut written = false;
            files.damage(name, |bytes| written = bytes[4096..].iter().any(|byte| *byte != 0));
            written
        };
        let name = match target {
            Target::Newest => segments
                .iter()
                .rev()
                .find(used)
                .expect("some segment has frames")
                .clone(),
            Target::Any => segments[dice.index(segments.len())].clone(),
            Target::Watermark => watermark::NAME.to_owned(),
        };
        damage(&files, &name, dice);
        match open(&files, small()) {
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. }), "seed {seed}: {error}");
                assert!(error.to_string().contains("--rejoin"));
                refused += 1;
            }
            Ok((wal, mut writer)) => {
                let found = view(&wal, usize::MAX).expect("all is readable");
                assert_eq!(found, expected, "seed {seed}: {target:?} damaged, and not noticed");
                // And it goes on as if nothing had been.
                let told = Told::default();
                wal.save_vote(1, bytes("after"), told.done(0));
                settle(&mut writer);
                assert_eq!(told.acked(), 1);
                expected.get_mut(&1).expect("voted before").0.vote = Some(bytes("after"));
                let (again, _writer) = open(&files.killed(), small()).expect("opens again");
                assert_eq!(
                    view(&again, usize::MAX).expect("all is readable"),
                    expected,
                    "seed {seed}"
                );
            }
        }
    }
    refused
}

/// End of what is written in a file.
fn used_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn flip(files: &MemFiles, name: &str, dice: &mut Dice) {
    files.damage(name, |bytes| {
        let at = dice.index(used_bytes(bytes));
        bytes[at] ^= 1 << dice.roll(8);
    });
}

fn zero_sector(files: &MemFiles, name: &str, dice: &mut Dice) {
    files.damage(name, |bytes| {
        let sector = dice.index(used_bytes(bytes).div_ceil(SECTOR));
        bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
    });
}

fn truncate(files: &MemFiles, name: &str, dice: &mut Dice) {
    files.damage(name, |bytes| bytes.truncate(dice.index(bytes.len())));
}

fn remove(files: &MemFiles, name: &str, _dice: &mut Dice) {
    crate::wal::Files::remove(files, name).expect("the file exists");
}

#[test]
fn a_flipped_bit_is_never_silent() {
    // The unused rest of the first 4096 bytes, and padding, may flip without harm.
    for target in [Target::Newest, Target::Any] {
        assert!(trials(target, flip) > TRIALS / 3, "{target:?}");
    }
    trials(Target::Watermark, flip);
}

#[test]
fn a_zeroed_sector_is_never_silent() {
    for target in [Target::Newest, Target::Any] {
        assert!(trials(target, zero_sector) > TRIALS / 3, "{target:?}");
    }
    trials(Target::Watermark, zero_sector);
}

#[test]
fn a_shortened_file_is_refused() {
    for target in [Target::Newest, Target::Any, Target::Watermark] {
        assert_eq!(trials(target, truncate), TRIALS, "{target:?}");
    }
}

#[test]
fn a_missing_file_is_never_silent() {
    assert_eq!(trials(Target::Newest, remove), TRIALS);
    assert!(trials(Target::Any, remove) > TRIALS / 3);
    assert_eq!(trials(Target::Watermark, remove), TRIALS);
}

#[test]
fn zeros_from_anywhere_to_the_end_of_the_newest_segment_are_refused() {
    let zero_tail = |files: &MemFiles, name: &str, dice: &mut Dice| {
        files.damage(name, |bytes| {
            let at = 4096 + dice.index(used_bytes(bytes) - 4096);
            bytes[at..].fill(0);
        });
    };
    assert_eq!(trials(Target::Newest, zero_tail), TRIALS);
}

/// Without the watermark's help, later frames vouch for earlier ones.
#[test]
fn frames_vouch_for_those_before_them() {
    let files = Arc::new(MemFiles::default());
    let (wal, mut writer) = open(&files, small()).expect("a new log");
    let stale = {
        let mut copy = Vec::new();
        files.damage(watermark::NAME, |bytes| copy.clone_from(bytes));
        copy
    };
    let told = Told::default();
    for index in 1..=4 {
        wal.append(7, index, vec![bytes(&format!("entry {index}"))], told.done(0));
        settle(&mut writer);
    }
    let files = files.killed();
    files.put(watermark::NAME, stale);
    assert_eq!(
        open(&files.killed(), small())
            .expect("nothing is missing")
            .0
            .group(7)
            .last_index,
        Some(4)
    );
    files.damage(&segment::name(1), |bytes| {
        let at = bytes
            .windows(7)
            .position(|window| window == b"entry 2")
            .expect("written");
        bytes[at] ^= 1;
    });
    let error = open(&files, small()).expect_err("entry 3 was acknowledged");
    let OpenError::Damaged {
        file, offset, groups, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (file.as_str(), groups.as_slice()),
        (segment::name(1).as_str(), [7].as_slice())
    );
    assert!((4096..4400).contains(offset), "{offset}");
}

/// The first frame of a new segment torn, one behind it written: never acknowledged, and gone for good.
#[test]
fn a_segment_that_was_begun_and_torn_is_made_anew() {
    let files = Arc::new(MemFiles::default());
    let (wal, mut writer) = open(&files, small()).expect("a new log");
    wal.save_vote(1, bytes("v"), Told::default().done(0));
    settle(&mut writer);
    let files = files.killed();
    assert!(files.names().contains(&segment::name(2)), "made ahead");
    files.damage(&segment::name(2), |bytes| bytes[5000] = 1);
    let (_wal, _writer) = open(&files, small()).expect("nothing acknowledged is missing");
    assert!(!files.names().contains(&segment::name(2)));
}

/// Entries whose segment went though they were alive: a purge that went too far, or a forged watermark.
#[test]
fn a_live_entry_that_is_in_no_segment_is_missed() {
    let files = Arc::new(MemFiles::default());
    let (wal, mut writer) = open(&files, small()).expect("a new log");
    let told = Told::default();
    wal.append(7, 1, vec![bytes("early")], told.done(0));
    for index in 1..40 {
        wal.append(8, index, vec![vec![1; 700].into()], told.done(0));
        settle(&mut writer);
    }
    let files = files.killed();
    files.damage(watermark::NAME, |bytes| {
        let mark = watermark::Mark::latest(bytes).expect("whole");
        let forged = watermark::Mark {
            first: 2,
            sequence: mark.sequence + 1,
            ..mark
        }
        .encode();
        bytes[..forged.len()].copy_from_slice(&forged);
    });
    let error = open(&files, small())
        .expect_err("entry 1 of group 7 was acknowledged")
        .to_string();
    assert!(error.contains("entry 1 of group 7 is in no segment"), "{error}");
}

/// Acknowledged or not, a frame behind a tear is never seen again: not now, and not after new frames were written.
#[test]
fn what_stands_behind_a_torn_tail_never_comes_back() {
    let files = Arc::new(MemFiles::default());
    let (wal, mut writer) = open(&files, small()).expect("a new log");
    let told = Told::default();
    wal.append(7, 1, vec![bytes("entry 1")], told.done(0));
    settle(&mut writer);
    let mut acked = Vec::new();
    files.damage(watermark::NAME, |bytes| acked.clone_from(bytes));
    for index in 2..=4 {
        wal.append(7, index, vec![bytes(&format!("entry {index}"))], told.done(0));
    }
    settle(&mut writer);
    // As if the one sync of entries 2 to 4 had never come, and entry 2 was torn.
    let files = files.killed();
    files.put(watermark::NAME, acked);
    files.damage(&segment::name(1), |bytes| {
        let at = bytes
            .windows(7)
            .position(|window| window == b"entry 2")
            .expect("written");
        bytes[at] ^= 1;
    });
    let (wal, mut writer) = open(&files, small()).expect("an honest tear");
    assert_eq!(wal.read(7, 0, 9, 100), Ok(vec![bytes("entry 1")]));
    // The same size and numbers as the frame that was torn.
    wal.append(7, 2, vec![bytes("another")], told.done(0));
    settle(&mut writer);
    let (wal, _writer) = open(&files.killed(), small()).expect("opens");
    assert_eq!(wal.read(7, 0, 9, 100), Ok(vec![bytes("entry 1"), bytes("another")]));
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let make = |new_log_id| {
        let files = Arc::new(MemFiles::default());
        let (wal, mut writer) = open(&files, Options { new_log_id, ..small() }).expect("a new log");
        wal.save_vote(1, bytes("v"), Told::default().done(0));
        settle(&mut writer);
        files.killed()
    };
    let (ours, theirs) = (make(1), make(2));
    theirs.damage(&segment::name(1), |foreign| {
        ours.put(&segment::name(1), foreign.clone());
    });
    let error = open(&ours, small()).expect_err("foreign");
    assert!(error.to_string().contains("of log 0000000000000002"), "{error}");
}

#[test]
fn a_newer_format_is_refused_without_calling_it_damage() {
    let files = Arc::new(MemFiles::default());
    drop(open(&files, small()).expect("a new log"));
    files.damage(&segment::name(1), |bytes| {
        let header = segment::SegmentHeader::decode(bytes).expect("whole");
        let newer = segment::SegmentHeader { version: 2, ..header }.encode();
        bytes[..newer.len()].copy_from_slice(&newer);
    });
    assert!(matches!(
        open(&files, small()),
        Err(OpenError::Version {
            version: 2,
            known: 1,
            ..
        })
    ));
}
