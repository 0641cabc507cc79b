//! The watermark file: up to which frame the log is synced, and which segments it has.
//!
//! Two slots, written in turn, so that a torn write leaves the other. Written after every sync of the log before
//! anything is acknowledged; synced itself only now and then. Recovery compares the log with it.

use std::sync::Arc;
use std::time::Duration;

use super::error::WalError;
use super::files::{Files, LogFile};
use super::frame::Reader;

/// Name of the file.
pub const NAME: &str = "watermark";
/// Its size, in bytes.
pub const FILE_BYTES: u64 = 2 * SLOT_SPACING;
/// Distance of the two slots: a disk block each.
const SLOT_SPACING: u64 = 4096;
const MAGIC: [u8; 8] = *b"xcronMRK";
const SLOT_BYTES: usize = 44;
/// How long a written slot may wait for its sync.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The log it belongs to.
    pub log_id: u64,
    /// Counts the writes of the file; the higher of two slots is the later one.
    pub sequence: u64,
    /// Last frame known to be synced; 0 = none.
    pub lsn: u64,
    /// The oldest segment that is still needed.
    pub first: u32,
    /// The segment of the last synced frame.
    pub current: u32,
}

impl Mark {
    /// The bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for number in [self.log_id, self.sequence, self.lsn] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.current.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// The slot at the start of `bytes`, if it is unharmed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let slot = bytes.get(..SLOT_BYTES)?;
        let mut reader = Reader(slot);
        let magic = reader.take(MAGIC.len())?;
        let (log_id, sequence, lsn) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (first, current) = (reader.u32()?, reader.u32()?);
        let whole = magic == MAGIC && reader.u32()? == crc32fast::hash(&slot[..SLOT_BYTES - 4]);
        whole.then_some(Self {
            log_id,
            sequence,
            lsn,
            first,
            current,
        })
    }

    /// The later of the two slots of a file, with the highest frame that either names.
    pub fn latest(file: &[u8]) -> Option<Self> {
        let spacing = usize::try_from(SLOT_SPACING).unwrap_or(usize::MAX);
        let slots = [file, file.get(spacing..).unwrap_or_default()];
        let slots = slots.into_iter().filter_map(Self::decode);
        slots.reduce(|a, b| {
            let (later, earlier) = if a.sequence >= b.sequence { (a, b) } else { (b, a) };
            Self {
                lsn: later.lsn.max(earlier.lsn),
                ..later
            }
        })
    }
}

/// The open watermark file.
#[derive(Debug)]
pub struct Watermark {
    file: Arc<dyn LogFile>,
    mark: Mark,
    /// Written since the last sync.
    dirty: bool,
    synced_at: Option<Duration>,
}

impl Watermark {
    /// Makes the file of a new log, whole and durable.
    pub fn create(files: &dyn Files, log_id: u64) -> std::io::Result<Self> {
        let mark = Mark {
            log_id,
            sequence: 1,
            lsn: 0,
            first: 1,
            current: 1,
        };
        let mut head = Mark { sequence: 0, ..mark }.encode();
        head.resize(usize::try_from(SLOT_SPACING).unwrap_or(usize::MAX), 0);
        head.extend(mark.encode());
        let file = files.create(NAME, FILE_BYTES, &head)?;
        Ok(Self {
            file,
            mark,
            dirty: false,
            synced_at: None,
        })
    }

    /// Takes over a file whose later slot is `mark`.
    pub fn resume(file: Arc<dyn LogFile>, mark: Mark) -> Self {
        Self {
            file,
            mark,
            dirty: false,
            synced_at: None,
        }
    }

    /// What was written last.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Everything up to frame `lsn` is synced; that frame is in segment `current`. Not synced itself, but for the first.
    pub fn advance(&mut self, lsn: u64, current: u32) -> Result<(), WalError> {
        self.write(Mark {
            lsn,
            current,
            ..self.mark
        })
    }

    fn write(&mut self, mark: Mark) -> Result<(), WalError> {
        self.mark = Mark {
            sequence: self.mark.sequence + 1,
            ..mark
        };
        // Two in sequence never go to the same slot, so the one before stays whole.
        let offset = (self.mark.sequence % 2) * SLOT_SPACING;
        self.file
            .write_at(offset, &self.mark.encode())
            .map_err(WalError::failed("write", NAME))?;
        self.dirty = true;
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&mut self, now: Duration) -> Result<(), WalError> {
        if self.dirty {
            self.file.sync_data().map_err(WalError::failed("sync", NAME))?;
        }
        self.dirty = false;
        self.synced_at = Some(now);
        Ok(())
    }

    /// Time until a sync is due; `None` when there is nothing to sync.
    pub fn due_in(&self, now: Duration) -> Option<Duration> {
        let due = self.synced_at.map_or(now, |synced| synced + SYNC_EVERY);
        self.dirty.then(|| due.saturating_sub(now))
    }

    /// From now on `first` is the oldest segment, durably and in both slots: older ones may go.
    pub fn settle(&mut self, first: u32, now: Duration) -> Result<(), WalError> {
        for _ in 0..2 {
            self.write(Mark { first, ..self.mark })?;
            self.sync(now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        log_id: 0x1122_3344_5566_7788,
        sequence: 2,
        lsn: 300,
        first: 4,
        current: 5,
    };

    #[test]
    fn a_slot_is_these_bytes_for_ever() {
        let encoded = MARK.encode();
        let golden =
            b"xcronMRK\x88\x77\x66\x55\x44\x33\x22\x11\x02\0\0\0\0\0\0\0\x2c\x01\0\0\0\0\0\0\x04\0\0\0\x05\0\0\0";
        assert_eq!(encoded[..40], *golden);
        assert_eq!(encoded.len(), SLOT_BYTES);
        assert_eq!(Mark::decode(&encoded), Some(MARK));
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn one_bad_slot_is_tolerated_two_are_not() {
        let mut file = MARK.encode();
        file.resize(4096, 0);
        file.extend(
            Mark {
                sequence: 3,
                lsn: 290,
                first: 5,
                ..MARK
            }
            .encode(),
        );
        file.resize(8192, 0);
        let latest = Mark::latest(&file).expect("both slots are whole");
        assert_eq!((latest.sequence, latest.first, latest.lsn), (3, 5, 300));
        file[4096] ^= 1;
        assert_eq!(Mark::latest(&file), Some(MARK));
        file[0] ^= 1;
        assert_eq!(Mark::latest(&file), None);
    }
}
