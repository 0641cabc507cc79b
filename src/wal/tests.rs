//! Tests of the log as a whole: behaviour here; faults, crashes and damage in the sub-modules.

mod crash;
mod damage;
mod model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::testing::{MemFiles, Syncs, TickClock, Told, open, small};
use super::{DirFiles, Files, GroupLog, OpenError, Options, Step, Wal, WalError, Writer};
use crate::clock::SystemClock;

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn fresh() -> (Arc<MemFiles>, Wal, Writer, Told) {
    let files = Arc::new(MemFiles::default());
    let (wal, writer) = open(&files, small()).expect("an empty directory becomes a log");
    (files, wal, writer, Told::default())
}

/// Steps until nothing waits.
fn settle(writer: &mut Writer) {
    while let Step::Worked(_) = writer.step(AT_ONCE) {}
}

#[test]
fn entries_are_readable_before_and_after_they_are_written_and_after_reopening() {
    let (files, wal, mut writer, told) = fresh();
    wal.append(5, 7, vec![bytes("seven"), bytes("eight")], told.done(0));
    assert_eq!(wal.read(5, 0, 100, 1000), Ok(vec![bytes("seven"), bytes("eight")]));
    assert_eq!(told.all(), [], "nothing is durable yet");
    assert_eq!(writer.step(AT_ONCE), Step::Worked(1));
    assert_eq!(told.all(), [(0, Ok(()))]);
    wal.save_vote(5, bytes("v"), told.done(1));
    wal.save_committed(5, bytes("c"));
    settle(&mut writer);
    let expected = GroupLog {
        first_index: Some(7),
        last_index: Some(8),
        vote: Some(bytes("v")),
        committed: Some(bytes("c")),
        purged: None,
    };
    assert_eq!(wal.group(5), expected);
    let (again, _writer) = open(&files.killed(), small()).expect("an unharmed log opens");
    assert_eq!(again.group(5), expected);
    assert_eq!(again.read(5, 8, 9, 0), Ok(vec![bytes("eight")]), "one entry at least");
    assert_eq!(again.read(5, 0, u64::MAX, 5), Ok(vec![bytes("seven")]));
    assert_eq!(again.read(5, 9, 20, 1000), Ok(vec![]));
    assert_eq!(again.group(6), GroupLog::default());
    assert_eq!(again.log_id(), small().new_log_id);
}

#[test]
fn a_gap_or_something_too_large_is_refused_alone() {
    let (_files, wal, mut writer, told) = fresh();
    wal.append(1, 1, vec![bytes("a")], told.done(0));
    wal.append(1, 3, vec![bytes("c")], told.done(1));
    wal.append(1, 1, vec![bytes("again")], told.done(2));
    let huge = Bytes::from(vec![0; wal.entry_bytes_max() + 1]);
    wal.append(1, 2, vec![huge.clone()], told.done(3));
    wal.save_vote(1, huge.clone(), told.done(4));
    wal.append(1, 2, vec![huge.slice(1..)], told.done(5));
    settle(&mut writer);
    let told = told.all();
    assert_eq!(
        told[0],
        (
            1,
            Err(WalError::Gap {
                group: 1,
                first_index: 3,
                expected: 2
            })
        )
    );
    assert_eq!(
        told[1],
        (
            2,
            Err(WalError::Gap {
                group: 1,
                first_index: 1,
                expected: 2
            })
        )
    );
    assert!(matches!(told[2], (3, Err(WalError::TooLarge { what: "an entry", .. }))));
    assert!(matches!(told[3], (4, Err(WalError::TooLarge { what: "a vote", .. }))));
    assert_eq!(told[4..], [(0, Ok(())), (5, Ok(()))]);
    assert_eq!(wal.read(1, 1, 9, usize::MAX), Ok(vec![bytes("a"), huge.slice(1..)]));
    assert_eq!(wal.failure(), None);
}

#[test]
fn the_state_of_all_groups_must_fit_at_the_head_of_a_segment() {
    let (files, wal, mut writer, told) = fresh();
    let value = Bytes::from(vec![7; 1000]);
    for group in 0..6_u16 {
        wal.save_vote(group, value.clone(), told.done(usize::from(group)));
        settle(&mut writer);
    }
    let results: Vec<bool> = told.all().iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(results, [true, true, true, false, false, false]);
    assert_eq!(wal.groups(), [0, 1, 2]);
    assert!(open(&files.killed(), small()).is_ok());
}

#[test]
fn truncate_and_purge_move_the_only_index_an_append_may_start_at() {
    let (_files, wal, mut writer, told) = fresh();
    wal.append(1, 1, vec![bytes("a"), bytes("b"), bytes("c")], told.done(0));
    wal.truncate(1, 2, told.done(1));
    wal.append(1, 2, vec![bytes("B")], told.done(2));
    assert_eq!(
        wal.read(1, 1, 9, 100),
        Ok(vec![bytes("a"), bytes("B")]),
        "before anything is written"
    );
    settle(&mut writer);
    assert_eq!(wal.read(1, 1, 9, 100), Ok(vec![bytes("a"), bytes("B")]));
    wal.purge(1, 10, bytes("snapshot"), told.done(3));
    wal.append(1, 3, vec![bytes("late")], told.done(4));
    wal.append(1, 11, vec![bytes("k")], told.done(5));
    wal.purge(1, 4, bytes("older"), told.done(6));
    settle(&mut writer);
    assert!(matches!(told.all()[3], (4, Err(WalError::Gap { expected: 11, .. }))) || told.all().len() == 7);
    let log = wal.group(1);
    assert_eq!(
        (log.first_index, log.last_index, log.purged),
        (Some(11), Some(11), Some((10, bytes("snapshot"))))
    );
    wal.drop_group(1, told.done(7));
    settle(&mut writer);
    assert_eq!(wal.group(1), GroupLog::default());
    assert!(wal.groups().is_empty());
}

#[test]
fn waiting_jobs_share_one_sync_and_a_committed_point_needs_none() {
    let files = Arc::new(MemFiles::default());
    let syncs = Arc::new(Syncs::default());
    let shared: Arc<dyn Files> = Arc::clone(&files) as _;
    let (wal, mut writer) =
        super::open(shared, small(), Arc::new(TickClock::default()), Arc::clone(&syncs) as _).expect("opens");
    let told = Told::default();
    let before = syncs.0.load(Ordering::Relaxed);
    for job in 0..8_usize {
        wal.append(u16::try_from(job).expect("small"), 0, vec![bytes("x")], told.done(job));
    }
    assert_eq!(writer.step(AT_ONCE), Step::Worked(8));
    assert_eq!(
        told.all(),
        (0..8).map(|job| (job, Ok(()))).collect::<Vec<_>>(),
        "in order"
    );
    assert_eq!(syncs.0.load(Ordering::Relaxed), before + 1);
    wal.save_committed(1, bytes("c"));
    assert_eq!(writer.step(AT_ONCE), Step::Worked(1));
    assert_eq!(syncs.0.load(Ordering::Relaxed), before + 1);
    assert_eq!(writer.step(AT_ONCE), Step::Idle);
    let (again, _writer) = open(&files.killed(), small()).expect("opens");
    assert_eq!(again.group(1).committed, Some(bytes("c")));
}

#[test]
fn after_a_failed_write_sync_or_allocation_nothing_is_acknowledged_any_more() {
    for fault in 0..3 {
        let (files, wal, mut writer, told) = fresh();
        wal.append(1, 1, vec![bytes("durable")], told.done(0));
        settle(&mut writer);
        let counter = [&files.faults.syncs, &files.faults.writes, &files.faults.creates][fault];
        counter.store(0, Ordering::Relaxed);
        let mut next = 2;
        while wal.failure().is_none() && next < 100 {
            wal.append(1, next, vec![Bytes::from(vec![1; 1000])], told.done(1));
            wal.save_vote(1, bytes("vote"), told.done(2));
            writer.step(AT_ONCE);
            next += 1;
        }
        let acked = told.acked();
        assert!(
            matches!(wal.failure(), Some(WalError::Failed { .. })),
            "fault {fault}: {:?}",
            wal.failure()
        );
        counter.store(-1, Ordering::Relaxed);
        wal.save_vote(1, bytes("later"), told.done(9));
        assert_eq!(writer.step(AT_ONCE), Step::Ended);
        assert_eq!(told.all().last(), Some(&(9, Err(wal.failure().expect("set for ever")))));
        assert_eq!(told.acked(), acked);
        if fault < 2 {
            assert_eq!(acked, 1, "the first job alone was durable");
        }
        drop(writer);
        assert!(
            matches!(wal.failure(), Some(WalError::Failed { .. })),
            "the first failure stays"
        );
        assert!(open(&files.killed(), small()).is_ok());
    }
}

#[test]
fn a_full_disk_shows_before_the_segment_is_full() {
    let (files, wal, mut writer, told) = fresh();
    settle(&mut writer);
    files.faults.creates.store(0, Ordering::Relaxed);
    let mut jobs = 0;
    while wal.failure().is_none() {
        wal.append(1, jobs + 1, vec![Bytes::from(vec![1; 500])], told.done(0));
        writer.step(AT_ONCE);
        jobs += 1;
        assert!(jobs < 200);
    }
    assert!(
        told.all().iter().all(|(_, result)| result.is_ok()),
        "no append met the full disk: it showed ahead of need"
    );
    assert!(wal.failure().expect("set").to_string().contains("disk full"));
}

#[test]
fn nobody_waits_for_a_writer_that_is_gone() {
    let (_files, wal, writer, told) = fresh();
    wal.save_vote(1, bytes("v"), told.done(0));
    drop(writer);
    wal.save_vote(1, bytes("v"), told.done(1));
    assert_eq!(told.all(), [(0, Err(WalError::Stopped)), (1, Err(WalError::Stopped))]);
}

/// Votes, marks and the entries of a group that lags outlive the segments they were first written to.
#[test]
fn purged_segments_go_and_a_lagging_group_does_not_hold_them() {
    let (files, wal, mut writer, told) = fresh();
    wal.save_vote(9, bytes("vote of nine"), told.done(0));
    wal.append(9, 1, vec![bytes("lagging one"), bytes("lagging two")], told.done(0));
    wal.purge(8, 41, bytes("mark of eight"), told.done(0));
    wal.save_committed(8, bytes("committed of eight"));
    for index in 1..400 {
        wal.append(1, index, vec![Bytes::from(vec![3; 700])], told.done(0));
        settle(&mut writer);
        if index % 10 == 0 {
            wal.purge(1, index - 3, bytes("m"), told.done(0));
            settle(&mut writer);
        }
    }
    let segments: Vec<String> = files
        .names()
        .into_iter()
        .filter(|name| name.starts_with("segment"))
        .collect();
    assert!(segments.len() <= 6, "{segments:?}");
    assert!(
        segments[0] > super::segment::name(10),
        "old ones are gone: {segments:?}"
    );
    assert!(told.all().iter().all(|(_, result)| result.is_ok()));
    for wal in [wal, open(&files.killed(), small()).expect("opens").0] {
        assert_eq!(
            wal.read(9, 1, 3, 100),
            Ok(vec![bytes("lagging one"), bytes("lagging two")])
        );
        assert_eq!(wal.group(9).vote, Some(bytes("vote of nine")));
        assert_eq!(wal.group(8).purged, Some((41, bytes("mark of eight"))));
        assert_eq!(wal.group(8).committed, Some(bytes("committed of eight")));
        assert_eq!(wal.group(1).last_index, Some(399));
    }
}

/// When most of the log is alive, moving entries around would gain nothing.
#[test]
fn a_log_that_is_alive_is_left_alone() {
    let (files, wal, mut writer, told) = fresh();
    for index in 1..200 {
        wal.append(1, index, vec![Bytes::from(vec![3; 700])], told.done(0));
        settle(&mut writer);
    }
    let newest = files
        .names()
        .into_iter()
        .filter_map(|name| super::segment::number(&name))
        .max();
    // 142 kB in segments of 12 kB, and the one ahead.
    assert!(
        (10..=17).contains(&newest.expect("there are segments")),
        "written more than once: {newest:?}"
    );
    assert_eq!(wal.read(1, 1, 200, usize::MAX).expect("all are there").len(), 199);
}

/// What was truncated before it was written must not be found in place of what came after it.
#[test]
fn an_entry_that_was_replaced_before_it_was_written_stays_replaced() {
    let files = Arc::new(MemFiles::default());
    let options = Options {
        batch_jobs_max: 2,
        cache_entries_per_group: 0,
        ..small()
    };
    let (wal, mut writer) = open(&files, options).expect("opens");
    let told = Told::default();
    wal.append(1, 1, vec![bytes("a"), bytes("old")], told.done(0));
    wal.truncate(1, 2, told.done(1));
    wal.append(1, 2, vec![bytes("new")], told.done(2));
    for written in [2, 1] {
        assert_eq!(writer.step(AT_ONCE), Step::Worked(written));
        assert_eq!(wal.read(1, 1, 9, 100), Ok(vec![bytes("a"), bytes("new")]));
    }
    assert_eq!(
        wal.shared().with_index(super::Index::cached_bytes),
        0,
        "both were read from the disk"
    );
}

#[test]
fn the_cache_is_bounded_over_all_groups() {
    let (_files, wal, mut writer, told) = fresh();
    for index in 1..50 {
        for group in 0..6 {
            wal.append(group, index, vec![Bytes::from(vec![3; 300])], told.done(0));
        }
        settle(&mut writer);
        let cached = wal.shared().with_index(super::Index::cached_bytes);
        assert!(cached <= small().cache_bytes, "{cached}");
    }
    for group in 0..6 {
        wal.purge(group, 1000, bytes(""), told.done(0));
    }
    settle(&mut writer);
    assert_eq!(wal.shared().with_index(super::Index::cached_bytes), 0);
    assert_eq!(wal.shared().with_index(super::Index::live_bytes), 0);
}

#[test]
fn an_entry_that_rots_under_an_open_log_is_not_served() {
    let (files, wal, mut writer, told) = fresh();
    wal.append(1, 1, vec![Bytes::from(vec![0xAB; 300]); 20], told.done(0));
    settle(&mut writer);
    files.damage(&super::segment::name(1), |bytes| {
        let at = bytes
            .iter()
            .position(|byte| *byte == 0xAB)
            .expect("the first entry is there");
        bytes[at + 1] ^= 4;
    });
    let read = wal.read(1, 1, 3, 10_000);
    assert!(
        matches!(read, Err(WalError::Damaged { group: 1, index: 1, .. })),
        "{read:?}"
    );
    assert!(wal.read(1, 2, 3, 10_000).is_ok());
}

#[test]
fn a_real_directory_with_many_threads_survives_reopening() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        segment_bytes: 256 << 10,
        cache_entries_per_group: 4,
        ..Options::default()
    };
    let start = |options: &Options| {
        let files = Arc::new(DirFiles::open(dir.path()).expect("the directory is free"));
        let clock = Arc::new(SystemClock::default());
        let (wal, writer) = super::open(files, options.clone(), clock, Arc::new(Syncs::default())).expect("opens");
        (wal, std::thread::spawn(move || writer.run()))
    };
    let (wal, writer) = start(&options);
    assert_eq!(
        DirFiles::open(dir.path()).expect_err("one at a time").kind(),
        std::io::ErrorKind::WouldBlock
    );
    let threads: Vec<_> = (0..4_u16)
        .map(|group| {
            let wal = wal.clone();
            std::thread::spawn(move || {
                for index in 0..100 {
                    let (tell, told) = std::sync::mpsc::channel();
                    let entry = Bytes::from(format!("{group}/{index}").repeat(60));
                    wal.append(
                        group,
                        index,
                        vec![entry],
                        Box::new(move |result| drop(tell.send(result))),
                    );
                    assert_eq!(told.recv(), Ok(Ok(())));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no thread fails");
    }
    drop(wal);
    writer.join().expect("the writer ends when the last handle is gone");
    let (wal, writer) = start(&options);
    for group in 0..4 {
        let entries = wal.read(group, 0, 1000, usize::MAX).expect("readable");
        let expected: Vec<_> = (0..100)
            .map(|index| Bytes::from(format!("{group}/{index}").repeat(60)))
            .collect();
        assert_eq!(entries, expected);
    }
    drop(wal);
    writer.join().expect("ends");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let wrong = [
        Options {
            segment_bytes: 8192,
            ..small()
        },
        Options {
            segment_bytes: (16 << 10) + 1,
            ..small()
        },
        Options {
            batch_bytes_max: 0,
            ..small()
        },
        Options {
            batch_jobs_max: 0,
            ..small()
        },
        Options {
            segments_behind_max: 0,
            ..small()
        },
    ];
    for options in wrong {
        let files = Arc::new(MemFiles::default());
        assert!(matches!(open(&files, options), Err(OpenError::Option { .. })));
        assert!(files.names().is_empty());
    }
}
