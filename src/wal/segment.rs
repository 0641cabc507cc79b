//! Segment files: their names, their header, the table of those that are open.
//!
//! A segment has its full size from the start, so a shorter one shows as damage. Owns no frames.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::error::WalError;
use super::files::{Files, LogFile};
use super::frame::{Reader, len32};

/// Bytes before the first frame of a segment.
pub const SEGMENT_HEADER_BYTES: u32 = 4096;
/// Largest size of a segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Version of the log's format, of frames and of the watermark. Raise it with every new kind of frame.
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"xcronWAL";
const ENCODED_BYTES: usize = 36;

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Format version.
    pub version: u32,
    /// The log it belongs to.
    pub log_id: u64,
    /// Its place in the log, from 1.
    pub number: u32,
    /// Size of the file.
    pub bytes: u32,
}

impl SegmentHeader {
    /// The bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.log_id.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it is unharmed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..ENCODED_BYTES)?;
        let mut reader = Reader(head);
        let magic = reader.take(MAGIC.len())?;
        let version = reader.u32()?;
        let log_id = reader.u64()?;
        let (number, bytes, _) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let whole = magic == MAGIC && reader.u32()? == crc32fast::hash(&head[..ENCODED_BYTES - 4]);
        whole.then_some(Self {
            version,
            log_id,
            number,
            bytes,
        })
    }
}

/// Name of the file of a segment.
pub fn name(number: u32) -> String {
    format!("segment-{number:010}")
}

/// The segment a file name stands for; `None` for any other file.
pub fn number(file: &str) -> Option<u32> {
    let number: u32 = file.strip_prefix("segment-")?.parse().ok()?;
    (number > 0 && name(number) == file).then_some(number)
}

/// One open segment.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// Its size in bytes.
    pub bytes: u32,
    /// Its file.
    pub file: Arc<dyn LogFile>,
}

/// Makes a segment, whole and durable, without frames.
pub fn create(files: &dyn Files, log_id: u64, number: u32, bytes: u64) -> Result<Segment, WalError> {
    let bytes = len32(usize::try_from(bytes).unwrap_or(usize::MAX));
    let name = name(number);
    let header = SegmentHeader {
        version: VERSION,
        log_id,
        number,
        bytes,
    };
    let file = files
        .create(&name, u64::from(bytes), &header.encode())
        .map_err(WalError::failed("allocate (is the disk full?)", &name))?;
    Ok(Segment { number, bytes, file })
}

/// The segments that have frames, by number. Cheap to clone, shared by readers and the writer.
#[derive(Debug, Clone, Default)]
pub struct Segments(Arc<RwLock<BTreeMap<u32, Arc<dyn LogFile>>>>);

impl Segments {
    /// The file of a segment.
    pub fn file(&self, number: u32) -> Option<Arc<dyn LogFile>> {
        self.0.read().get(&number).cloned()
    }

    /// Adds a segment.
    pub fn insert(&self, number: u32, file: Arc<dyn LogFile>) {
        self.0.write().insert(number, file);
    }

    /// Takes a segment away; readers that have its file keep it.
    pub fn remove(&self, number: u32) {
        self.0.write().remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_these_bytes_for_ever() {
        let header = SegmentHeader {
            version: 1,
            log_id: 0x1122_3344_5566_7788,
            number: 3,
            bytes: 32 << 20,
        };
        let encoded = header.encode();
        assert_eq!(
            encoded[..32],
            *b"xcronWAL\x01\0\0\0\x88\x77\x66\x55\x44\x33\x22\x11\x03\0\0\0\0\0\0\x02\0\0\0\0"
        );
        assert_eq!(SegmentHeader::decode(&encoded), Some(header));
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_are_read_back_and_others_ignored() {
        assert_eq!(number(&name(7)), Some(7));
        for other in [
            "segment-7",
            "segment-0000000000",
            "segment-00000000007",
            "watermark",
            "segment--000000001",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
