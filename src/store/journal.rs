//! Looks at fjall's journals before fjall does: it cuts a journal that it cannot follow and goes on with the next one, and
//! its checksums leave out the one number that orders a batch among the others. Both lose rows without a word.
//!
//! A journal that is not the last one was synced whole when the next was begun: it must be whole. The last one may have lost
//! any of its unsynced sectors in a power cut: it is cut behind its last whole batch, and the Raft log is replayed from there
//! (if that is gone, the group's position tells). The sequence numbers rise from batch to batch; one that does not is damage,
//! because its rows would hide newer ones, or be hidden by older ones.
//!
//! Knows the layout of the pinned release's journals (`N.jnl`): a batch is a start (count, sequence number), items, and an
//! end with a checksum of the items. Called by `fjall_kv.rs`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// What is reserved and not written yet.
const UNWRITTEN: u8 = 0;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Numbers that may lie between two batches: flushes and the like draw a few as well.
const GAP_MAX: u64 = 1 << 10;

/// Why the journals are not what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// A file cannot be read or cut.
    #[error("{}: {error}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A batch is out of line.
    #[error("{}: a batch has sequence number {found} after {before}", path.display())]
    OutOfLine {
        /// The journal.
        path: PathBuf,
        /// The number of the batch before it.
        before: u64,
        /// Its own.
        found: u64,
    },
    /// A journal that was complete is not.
    #[error("{}: damaged at offset {offset}, and newer journals follow it", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// End of the last whole batch, in bytes.
        offset: u64,
    },
    /// A journal between others is not there.
    #[error("{} is missing", path.display())]
    Missing {
        /// The journal.
        path: PathBuf,
    },
}

/// How a journal goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A whole batch with this sequence number.
    Batch(u64),
    /// Nothing more was written.
    End,
    /// Something that is no whole batch.
    Broken,
}

/// Checks the journals in `state`, and cuts the last one behind its last whole batch.
pub(super) fn check(state: &Path) -> Result<(), JournalError> {
    let journals = journals(state)?;
    let mut before: Option<u64> = None;
    for (at, (number, path)) in journals.iter().enumerate() {
        let failed = |error| JournalError::Io {
            path: path.clone(),
            error,
        };
        if at > 0 && journals[at - 1].0 + 1 != *number {
            let path = state.join(format!("{}.jnl", number - 1));
            return Err(JournalError::Missing { path });
        }
        let file = File::open(path).map_err(failed)?;
        let mut journal = Journal::new(BufReader::with_capacity(1 << 16, file));
        loop {
            match journal.next_batch().map_err(failed)? {
                Next::Batch(found) => {
                    if let Some(before) = before
                        && (found <= before || found - before > GAP_MAX)
                    {
                        let path = path.clone();
                        return Err(JournalError::OutOfLine { path, before, found });
                    }
                    before = Some(found);
                }
                Next::End => break,
                Next::Broken if at + 1 == journals.len() => {
                    cut(path, journal.whole_bytes).map_err(failed)?;
                    break;
                }
                Next::Broken => {
                    let (path, offset) = (path.clone(), journal.whole_bytes);
                    return Err(JournalError::Damaged { path, offset });
                }
            }
        }
    }
    Ok(())
}

/// The journals by number.
fn journals(state: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let failed = |error| JournalError::Io {
        path: state.to_owned(),
        error,
    };
    let files = match fs::read_dir(state) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for file in files {
        let path = file.map_err(failed)?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        found.extend(number.filter(|_| is_journal).map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    tracing::warn!(journal = %path.display(), bytes, "the end of the state's journal was not synced: the log is replayed instead");
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// A journal being followed.
struct Journal<R> {
    reader: R,
    /// Bytes read.
    bytes: u64,
    /// End of the last whole batch.
    whole_bytes: u64,
}

impl<R: BufRead> Journal<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            bytes: 0,
            whole_bytes: 0,
        }
    }

    fn next_batch(&mut self) -> io::Result<Next> {
        match self.take::<1>()? {
            None => return Ok(Next::End),
            Some([START]) => {}
            Some([UNWRITTEN]) => return self.unwritten(),
            Some(_) => return Ok(Next::Broken),
        }
        let (Some(items), Some(number)) = (self.take()?, self.take()?) else {
            return Ok(Next::Broken);
        };
        let mut checksum = Xxh3::new();
        for _ in 0..u32::from_le_bytes(items) {
            if !self.item(&mut checksum)? {
                return Ok(Next::Broken);
            }
        }
        let (Some([END]), Some(expected), Some(TRAILER)) = (self.take()?, self.take()?, self.take()?) else {
            return Ok(Next::Broken);
        };
        if checksum.digest() != u64::from_le_bytes(expected) {
            return Ok(Next::Broken);
        }
        self.whole_bytes = self.bytes;
        Ok(Next::Batch(u64::from_le_bytes(number)))
    }

    /// One item: kind, compression and keyspace; the lengths of key, value, and value as it is stored; key and value.
    fn item(&mut self, checksum: &mut Xxh3) -> io::Result<bool> {
        let (Some([ITEM]), Some(head)) = (self.take()?, self.take::<20>()?) else {
            return Ok(false);
        };
        checksum.update(&[ITEM]);
        checksum.update(&head);
        let key = u64::from(u16::from_le_bytes([head[10], head[11]]));
        let value = u64::from(u32::from_le_bytes([head[16], head[17], head[18], head[19]]));
        let mut left = key + value;
        while left > 0 {
            let there = self.reader.fill_buf()?;
            if there.is_empty() {
                return Ok(false);
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(there.len());
            checksum.update(&there[..step]);
            self.reader.consume(step);
            self.bytes += step as u64;
            left -= step as u64;
        }
        Ok(true)
    }

    /// Behind the last batch nothing but zeros is reserved.
    fn unwritten(&mut self) -> io::Result<Next> {
        loop {
            let there = self.reader.fill_buf()?;
            if there.is_empty() {
                return Ok(Next::End);
            }
            if there.iter().any(|byte| *byte != 0) {
                return Ok(Next::Broken);
            }
            let read = there.len();
            self.reader.consume(read);
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => {
                self.bytes += N as u64;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fjall_kv::FjallKv;
    use crate::store::key::Table;
    use crate::store::kv::{Kv, Write};

    const BATCHES: u8 = 20;

    /// A store of some batches, and its journal, without the room that fjall reserves behind them.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let kv = FjallKv::open(directory.path(), 8 << 20, 900).expect("an empty store");
        for batch in 0..BATCHES {
            let write = |table, key: &[u8]| Write {
                table,
                key: key.to_vec(),
                value: Some(vec![batch; 100]),
            };
            kv.commit(vec![write(Table::State, b"same"), write(Table::Due, &[batch])])
                .expect("there is room");
        }
        drop(kv);
        let journal = directory.path().join("0.jnl");
        let bytes = fs::read(&journal).expect("fjall's first journal");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        fs::write(&journal, &bytes[..used]).expect("writable");
        (directory, journal)
    }

    /// Offsets of the batches' sequence numbers, and the end of the last batch.
    fn numbers(bytes: &[u8]) -> (Vec<usize>, usize) {
        let mut journal = Journal::new(bytes);
        let mut found = Vec::new();
        let whole = |journal: &Journal<&[u8]>| usize::try_from(journal.whole_bytes).expect("it is in memory");
        loop {
            let start = whole(&journal);
            match journal.next_batch().expect("memory is readable") {
                Next::Batch(_) => found.push(start + 5),
                Next::End | Next::Broken => return (found, whole(&journal)),
            }
        }
    }

    #[test]
    fn a_journal_as_written_is_whole_and_in_line() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        assert!(check(directory.path()).is_ok());
        assert_eq!(fs::read(&journal).expect("there"), bytes, "nothing was cut");
        let (numbers, end) = numbers(&bytes);
        assert!(numbers.len() >= usize::from(BATCHES), "every batch is found");
        assert_eq!(end, bytes.len());
    }

    #[test]
    fn every_flipped_bit_that_changes_the_order_is_found() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        let (numbers, _) = numbers(&bytes);
        // The last batch hides nothing and is hidden by nothing, as long as its number is a higher one.
        for at in &numbers[1..numbers.len() - 1] {
            for bit in 0..64 {
                let mut damaged = bytes.clone();
                damaged[at + bit / 8] ^= 1 << (bit % 8);
                fs::write(&journal, damaged).expect("writable");
                let error = check(directory.path()).expect_err("out of line");
                assert!(matches!(error, JournalError::OutOfLine { .. }), "{error}");
            }
        }
    }

    #[test]
    fn the_last_journal_is_cut_behind_its_last_whole_batch() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        let (numbers, end) = numbers(&bytes);
        let tenth = numbers[10] - 5;
        let zeroed = |from: usize, to: usize| {
            let mut damaged = bytes.clone();
            damaged[from..to].fill(0);
            damaged
        };
        for (damaged, whole) in [
            (bytes[..tenth + 3].to_vec(), tenth),
            (bytes[..end - 1].to_vec(), numbers[numbers.len() - 1] - 5),
            (zeroed(tenth + 2, tenth + 60), tenth),
            (zeroed(tenth + 60, tenth + 61), tenth),
            (zeroed(tenth, tenth + 1), tenth),
        ] {
            fs::write(&journal, damaged).expect("writable");
            check(directory.path()).expect("an unsynced end");
            assert_eq!(fs::read(&journal).expect("there"), bytes[..whole]);
            FjallKv::open(directory.path(), 8 << 20, 900).expect("fjall follows what is left");
        }
        assert!(check(&directory.path().join("missing")).is_ok());
    }

    #[test]
    fn a_journal_with_others_behind_it_must_be_whole() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        let next = directory.path().join("1.jnl");
        fs::write(&next, []).expect("writable");
        assert!(check(directory.path()).is_ok());
        for at in [0, 4, 20, 40, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&journal, damaged).expect("writable");
            assert!(check(directory.path()).is_err(), "flipped at {at}");
        }
        fs::write(&journal, &bytes[..bytes.len() - 1]).expect("writable");
        assert!(matches!(check(directory.path()), Err(JournalError::Damaged { .. })));
        fs::write(&journal, &bytes).expect("writable");
        fs::rename(&next, directory.path().join("2.jnl")).expect("there");
        assert!(matches!(check(directory.path()), Err(JournalError::Missing { .. })));
    }
}
