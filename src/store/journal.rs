//! Looks at fjall's journal before fjall does: its checksums leave out the one number that orders a batch among the others.
//!
//! A flipped bit in a batch's sequence number makes its rows hide newer ones, or be hidden by older ones, without a word.
//! The numbers of a journal rise from batch to batch, so such a batch stands out of line. Knows the layout of the pinned
//! release's journal (one file `N.jnl` each): a batch is a start (count, sequence number), items, and an end with checksum.
//! Everything else in it is fjall's own to check. Called by `fjall_kv.rs`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Numbers that may lie between two batches: flushes and the like draw a few as well.
const GAP_MAX: u64 = 1 << 20;

/// Why the journal is not what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum JournalError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
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
}

/// Checks every journal in `state`. Stops in each where it cannot follow: what is there is fjall's to judge.
pub(super) fn check(state: &Path) -> Result<(), JournalError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| JournalError::Io { path, error }
    };
    let files = match fs::read_dir(state) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(state)(error)),
    };
    for file in files {
        let path = file.map_err(failed(state))?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let mut journal = BufReader::with_capacity(1 << 16, File::open(&path).map_err(failed(&path))?);
            let mut before = None;
            while let Some(found) = next_batch(&mut journal).map_err(failed(&path))? {
                if let Some(before) = before
                    && (found <= before || found - before > GAP_MAX)
                {
                    return Err(JournalError::OutOfLine { path, before, found });
                }
                before = Some(found);
            }
        }
    }
    Ok(())
}

/// The sequence number of the next batch; `None` where the journal ends or cannot be followed.
fn next_batch(journal: &mut impl BufRead) -> io::Result<Option<u64>> {
    loop {
        let Some([tag]) = take(journal)? else { return Ok(None) };
        let is_there = match tag {
            START => {
                let Some(_items) = take::<4>(journal)? else {
                    return Ok(None);
                };
                return Ok(take(journal)?.map(u64::from_le_bytes));
            }
            // Kind, compression and keyspace; then the lengths of key, value, and value as it is stored.
            ITEM => match take::<20>(journal)? {
                None => false,
                Some(head) => {
                    let key = u64::from(u16::from_le_bytes([head[10], head[11]]));
                    let value = u64::from(u32::from_le_bytes([head[16], head[17], head[18], head[19]]));
                    skip(journal, key + value)?
                }
            },
            // Checksum and trailer.
            END => take::<12>(journal)?.is_some(),
            CLEAR => take::<8>(journal)?.is_some(),
            _ => false,
        };
        if !is_there {
            return Ok(None);
        }
    }
}

fn take<const N: usize>(journal: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match journal.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn skip(journal: &mut impl BufRead, mut bytes: u64) -> io::Result<bool> {
    while bytes > 0 {
        let there = journal.fill_buf()?.len();
        if there == 0 {
            return Ok(false);
        }
        let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(there);
        journal.consume(step);
        bytes -= step as u64;
    }
    Ok(true)
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
        let kv = FjallKv::open(directory.path(), 8 << 20).expect("an empty store");
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

    /// Offsets of the batches' sequence numbers.
    fn numbers(bytes: &[u8]) -> Vec<usize> {
        let mut rest = bytes;
        let mut found = Vec::new();
        while next_batch(&mut rest).expect("memory is readable").is_some() {
            found.push(bytes.len() - rest.len() - 8);
        }
        found
    }

    #[test]
    fn a_journal_as_written_is_in_line() {
        let (directory, journal) = written();
        assert!(check(directory.path()).is_ok());
        let bytes = fs::read(journal).expect("just written");
        assert!(numbers(&bytes).len() >= usize::from(BATCHES), "every batch is found");
    }

    #[test]
    fn every_flipped_bit_that_changes_the_order_is_found() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        let numbers = numbers(&bytes);
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
    fn what_cannot_be_followed_is_left_to_fjall() {
        let (directory, journal) = written();
        let bytes = fs::read(&journal).expect("just written");
        for cut in [0, 1, 7, 40, 200] {
            fs::write(&journal, &bytes[..cut]).expect("writable");
            assert!(check(directory.path()).is_ok(), "cut at {cut}");
        }
        fs::write(&journal, [0xff; 64]).expect("writable");
        assert!(check(directory.path()).is_ok());
        assert!(check(&directory.path().join("missing")).is_ok());
    }
}
