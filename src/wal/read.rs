//! Entries read back from segments. Each is checked against its checksum, its group and its index again.
//!
//! Called by readers on their own threads and by the writer when it moves entries; holds no lock.

use std::sync::Arc;

use bytes::Bytes;

use super::error::WalError;
use super::files::LogFile;
use super::frame::{RECORD_BYTES, Salt, entry_of_record};
use super::position::{Piece, Position};
use super::segment;

/// Records this close to each other are fetched with one read.
const GAP_BYTES_MAX: u64 = 1 << 10;
/// Most bytes of one read.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Turns the pieces of a plan into entries, in order.
pub fn fetch(pieces: Vec<Piece>, salt: Salt, group: u16) -> Result<Vec<Bytes>, WalError> {
    let mut entries = Vec::with_capacity(pieces.len());
    let mut near: Vec<(u64, Position)> = Vec::new();
    let mut near_file: Option<Arc<dyn LogFile>> = None;
    for piece in pieces {
        let joins = match (&piece, near.first(), near.last()) {
            (Piece::Disk { position, .. }, Some((_, first)), Some((_, last))) => is_near(*first, *last, *position),
            _ => false,
        };
        if !joins && let Some(file) = near_file.take() {
            read_near(file.as_ref(), &near, salt, group, &mut entries)?;
            near.clear();
        }
        match piece {
            Piece::Cached(entry) => entries.push(entry),
            Piece::Disk { index, position, file } => {
                near.push((index, position));
                near_file = Some(file);
            }
        }
    }
    if let Some(file) = near_file {
        read_near(file.as_ref(), &near, salt, group, &mut entries)?;
    }
    Ok(entries)
}

fn end_of(position: Position) -> u64 {
    u64::from(position.offset) + RECORD_BYTES as u64 + u64::from(position.bytes)
}

fn is_near(first: Position, last: Position, next: Position) -> bool {
    let gap = u64::from(next.offset).checked_sub(end_of(last));
    next.segment == first.segment
        && gap.is_some_and(|gap| gap <= GAP_BYTES_MAX)
        && end_of(next) - u64::from(first.offset) <= READ_BYTES_MAX
}

/// Reads entries that stand close together in one segment, ascending.
fn read_near(
    file: &dyn LogFile,
    near: &[(u64, Position)],
    salt: Salt,
    group: u16,
    entries: &mut Vec<Bytes>,
) -> Result<(), WalError> {
    let (Some((index, first)), Some((_, last))) = (near.first(), near.last()) else {
        return Ok(());
    };
    let start = u64::from(first.offset);
    let mut span = vec![0; usize::try_from(end_of(*last) - start).unwrap_or(usize::MAX)];
    file.read_at(start, &mut span).map_err(|error| WalError::Read {
        group,
        index: *index,
        file: segment::name(first.segment),
        message: error.to_string(),
    })?;
    let span = Bytes::from(span);
    for (index, position) in near {
        let at = usize::try_from(position.offset - first.offset).unwrap_or(usize::MAX);
        let record = &span[at..][..RECORD_BYTES + usize::try_from(position.bytes).unwrap_or(usize::MAX)];
        let entry = entry_of_record(record, salt, group, *index).ok_or_else(|| WalError::Damaged {
            group,
            index: *index,
            file: segment::name(position.segment),
            offset: u64::from(position.offset),
        })?;
        entries.push(span.slice_ref(entry));
    }
    Ok(())
}
