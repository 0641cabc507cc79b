//! Where an entry stands: the 12 bytes kept for each live entry, and what writer and readers say about them.
//!
//! Owns no list of entries; that is `index.rs`.

use std::sync::Arc;

use bytes::Bytes;

use super::files::LogFile;
use super::frame::RECORD_BYTES;
use super::ledger::NO_SEGMENT;

/// Segment number of an entry that is not written yet; its ticket stands in the other fields.
const PENDING: u32 = u32::MAX;

/// Where an entry's record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment.
    pub segment: u32,
    /// Where the record starts in it.
    pub offset: u32,
    /// Bytes of the entry, without the record's own.
    pub bytes: u32,
}

impl Position {
    /// Not written yet: submitted with this ticket.
    pub fn pending(ticket: u64) -> Self {
        let [offset, bytes] = [ticket >> 32, ticket & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        Self {
            segment: PENDING,
            offset,
            bytes,
        }
    }

    /// Whether it is on the disk.
    pub fn is_placed(self) -> bool {
        self.segment != PENDING && self.segment != NO_SEGMENT
    }

    /// Bytes it takes on the disk.
    pub fn live_bytes(self) -> u64 {
        if self.is_placed() {
            u64::from(self.bytes) + RECORD_BYTES as u64
        } else {
            0
        }
    }
}

/// Where an entry stood before it was placed; if it no longer stands there, it has been replaced or is gone.
#[derive(Debug, Clone, Copy)]
pub enum Was {
    /// Submitted with this ticket.
    Pending(u64),
    /// In this (old) segment.
    In(u32),
}

impl Was {
    /// Whether the entry still stands there.
    pub fn matches(self, position: Position) -> bool {
        match self {
            Self::Pending(ticket) => position == Position::pending(ticket),
            Self::In(segment) => position.segment == segment,
        }
    }
}

/// Consecutive entries that have been written.
#[derive(Debug)]
pub struct Placed {
    /// Their group.
    pub group: u16,
    /// Index of the first.
    pub first_index: u64,
    /// Where each stood before.
    pub was: Was,
    /// Number of the segment.
    pub segment: u32,
    /// Where the first record starts in it.
    pub offset: u32,
    /// Bytes of each entry.
    pub lengths: Vec<u32>,
}

/// One entry of a read.
#[derive(Debug)]
pub enum Piece {
    /// From the cache.
    Cached(Bytes),
    /// To be read.
    Disk {
        /// Index of the entry.
        index: u64,
        /// Where it stands.
        position: Position,
        /// The file of that segment.
        file: Arc<dyn LogFile>,
    },
}

impl Piece {
    /// Bytes of the entry.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Cached(entry) => entry.len(),
            Self::Disk { position, .. } => usize::try_from(position.bytes).unwrap_or(usize::MAX),
        }
    }
}
