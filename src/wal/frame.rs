//! The bytes of a frame, the log's unit of writing: encode, decode, and the search for frames behind a bad one.
//!
//! Pure: slices in, values out, no file. Owns every byte of a frame; what the frames of a log mean together is
//! `recover.rs`. The layout is described in `mod.rs`; golden bytes in the tests hold it fast.

use bytes::Bytes;

use super::group::{GroupState, Span};

/// First bytes of every frame.
pub const MAGIC: u32 = u32::from_le_bytes(*b"xWf1");
/// Size of a frame without its payload.
pub const HEADER_BYTES: usize = 40;
/// Frames start at multiples of this.
pub const ALIGN: usize = 8;
/// Bytes of a payload of entries before the first record.
pub const ENTRIES_BYTES: usize = 16;
/// Bytes of an entry's record before the entry itself: length, checksum.
pub const RECORD_BYTES: usize = 8;
/// Bytes of a group in a head frame, without its opaque values.
const HEAD_GROUP_BYTES: usize = 40;

/// What a frame is. The numbers are on disk: never change one, only add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// New entries of one group.
    Entries = 1,
    /// A group's vote.
    Vote = 2,
    /// A group's entries from an index on are gone.
    Truncate = 3,
    /// A group's entries up to an index are gone.
    Purge = 4,
    /// A group's committed point.
    Committed = 5,
    /// Everything about a group is gone.
    DropGroup = 6,
    /// First frame of each segment: the state of all groups at this point of the stream.
    Head = 7,
    /// Entries written before, written again so that an old segment can go.
    Moved = 8,
}

impl Kind {
    fn from_ordinal(ordinal: u8) -> Option<Self> {
        [
            Self::Entries,
            Self::Vote,
            Self::Truncate,
            Self::Purge,
            Self::Committed,
            Self::DropGroup,
            Self::Head,
            Self::Moved,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == ordinal)
    }
}

/// Start value of all checksums of one log: bytes of another log, or of a client who imitates frames, never pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt(u32);

impl Salt {
    /// The salt of the log with this identity.
    pub fn new(log_id: u64) -> Self {
        Self(crc32fast::hash(&log_id.to_le_bytes()))
    }

    fn crc(self, parts: [&[u8]; 2]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }

    /// Checksum of one entry; it names group and index, so that an entry read from a wrong place does not pass.
    pub fn entry_crc(self, group: u16, index: u64, entry: &[u8]) -> u32 {
        let mut place = [0; 10];
        place[..2].copy_from_slice(&group.to_le_bytes());
        place[2..].copy_from_slice(&index.to_le_bytes());
        self.crc([&place, entry])
    }
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The group it belongs to; 0 in a head frame.
    pub group: u16,
    /// Number of the frame in the stream, from 1, without gaps.
    pub lsn: u64,
    /// The frame up to which everything was known to be synced when this one was written.
    pub durable: u64,
}

/// A frame whose checksums hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the frame in its segment, padding included.
    pub fn bytes(&self) -> usize {
        frame_bytes(self.payload.len())
    }
}

/// Bytes in a segment of a frame with a payload of this size.
pub fn frame_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(ALIGN)
}

/// A length that the size of a segment (at most 1 GiB) keeps inside 32 bits.
pub fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Appends one frame to `out`, which must be aligned; `payload` appends the payload.
pub fn encode(out: &mut Vec<u8>, salt: Salt, header: Header, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    payload(out);
    let body = start + HEADER_BYTES;
    let length = len32(out.len() - body);
    let payload_crc = salt.crc([&out[body..], &[]]);
    let head = &mut out[start..body];
    head[..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[8..12].copy_from_slice(&payload_crc.to_le_bytes());
    head[12..16].copy_from_slice(&length.to_le_bytes());
    head[16] = header.kind as u8;
    head[18..20].copy_from_slice(&header.group.to_le_bytes());
    head[24..32].copy_from_slice(&header.lsn.to_le_bytes());
    head[32..40].copy_from_slice(&header.durable.to_le_bytes());
    let header_crc = salt.crc([&head[8..], &[]]);
    head[4..8].copy_from_slice(&header_crc.to_le_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
}

/// The header at the start of `bytes` with its payload's length and checksum, if the header's own checksum holds.
fn decode_header(bytes: &[u8], salt: Salt) -> Option<(Header, usize, u32)> {
    let head = bytes.get(..HEADER_BYTES)?;
    let mut reader = Reader(head);
    if reader.u32()? != MAGIC || reader.u32()? != salt.crc([&head[8..], &[]]) {
        return None;
    }
    let (payload_crc, length) = (reader.u32()?, reader.u32()?);
    let kind = Kind::from_ordinal(reader.u8()?)?;
    reader.u8()?;
    let group = reader.u16()?;
    reader.u32()?;
    let header = Header {
        kind,
        group,
        lsn: reader.u64()?,
        durable: reader.u64()?,
    };
    Some((header, usize::try_from(length).ok()?, payload_crc))
}

/// The frame at the start of `bytes`, if all of it is there and unharmed.
pub fn decode(bytes: &[u8], salt: Salt) -> Option<Frame<'_>> {
    let (header, length, payload_crc) = decode_header(bytes, salt)?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    (salt.crc([payload, &[]]) == payload_crc).then_some(Frame { header, payload })
}

/// All headers in `bytes` (whose start is aligned) that are unharmed, wherever they stand. A header alone is proof that
/// its durable number was reached, whatever became of its payload.
pub fn headers(bytes: &[u8], salt: Salt) -> impl Iterator<Item = Header> {
    let magic = MAGIC.to_le_bytes();
    (0..bytes.len()).step_by(ALIGN).filter_map(move |at| {
        let rest = &bytes[at..];
        rest.starts_with(&magic)
            .then(|| decode_header(rest, salt))
            .flatten()
            .map(|(header, ..)| header)
    })
}

/// The meaning of a payload.
#[derive(Debug)]
pub enum Record<'a> {
    /// New or moved entries.
    Entries(Entries<'a>),
    /// A vote.
    Vote(&'a [u8]),
    /// Entries from this index on are gone.
    Truncate(u64),
    /// Entries up to this index are gone; the mark tells where the log starts.
    Purge(u64, &'a [u8]),
    /// A committed point.
    Committed(&'a [u8]),
    /// The group is gone.
    DropGroup,
    /// State of all groups.
    Head(Vec<(u16, GroupState)>),
}

/// Reads a frame's payload; `None` if it is not what its kind says (which the checksums make impossible but for a bug).
pub fn record<'a>(frame: &Frame<'a>) -> Option<Record<'a>> {
    let mut reader = Reader(frame.payload);
    Some(match frame.header.kind {
        Kind::Entries | Kind::Moved => Record::Entries(Entries::parse(frame.payload)?),
        Kind::Vote => Record::Vote(frame.payload),
        Kind::Truncate => Record::Truncate(reader.u64()?),
        Kind::Purge => Record::Purge(reader.u64()?, reader.0),
        Kind::Committed => Record::Committed(frame.payload),
        Kind::DropGroup => Record::DropGroup,
        Kind::Head => Record::Head(decode_head(frame.payload)?),
    })
}

/// The entries of a payload, checked to be whole.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// Index of the first one.
    pub first_index: u64,
    /// How many.
    pub count: u32,
    records: &'a [u8],
}

impl<'a> Entries<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (first_index, count) = (reader.u64()?, reader.u32()?);
        reader.u32()?;
        let entries = Self {
            first_index,
            count,
            records: reader.0,
        };
        let whole = entries.iter().count() == usize::try_from(count).ok()?;
        (whole && first_index.checked_add(u64::from(count)).is_some()).then_some(entries)
    }

    /// Each entry: where its record starts in the payload, and its bytes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let mut reader = Reader(self.records);
        let all = self.records.len();
        (0..self.count).map_while(move |_| {
            let at = ENTRIES_BYTES + (all - reader.0.len());
            let length = usize::try_from(reader.u32()?).ok()?;
            reader.u32()?;
            Some((at, reader.take(length)?))
        })
    }
}

/// Size of the payload of these entries.
pub fn entries_payload_bytes(entries: &[Bytes]) -> usize {
    ENTRIES_BYTES + entries.iter().map(|entry| RECORD_BYTES + entry.len()).sum::<usize>()
}

/// Appends the payload of an entries (or moved) frame.
pub fn encode_entries(out: &mut Vec<u8>, salt: Salt, group: u16, first_index: u64, entries: &[Bytes]) {
    out.extend_from_slice(&first_index.to_le_bytes());
    out.extend_from_slice(&len32(entries.len()).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (index, entry) in (first_index..).zip(entries) {
        out.extend_from_slice(&len32(entry.len()).to_le_bytes());
        out.extend_from_slice(&salt.entry_crc(group, index, entry).to_le_bytes());
        out.extend_from_slice(entry);
    }
}

/// The entry of a record as read from the disk, if it is the one that was written for this group and index.
pub fn entry_of_record(record: &[u8], salt: Salt, group: u16, index: u64) -> Option<&[u8]> {
    let mut reader = Reader(record);
    let (length, crc) = (reader.u32()?, reader.u32()?);
    let entry = reader.0;
    (entry.len() == usize::try_from(length).ok()? && salt.entry_crc(group, index, entry) == crc).then_some(entry)
}

/// Bytes a group takes in a head frame.
pub fn head_group_bytes(state: &GroupState) -> usize {
    let [vote, committed, mark] = opaque(state);
    HEAD_GROUP_BYTES
        + [vote, committed, mark]
            .into_iter()
            .flatten()
            .map(Bytes::len)
            .sum::<usize>()
}

fn opaque(state: &GroupState) -> [Option<&Bytes>; 3] {
    [
        state.vote.as_ref(),
        state.committed.as_ref(),
        state.purged.as_ref().map(|(_, mark)| mark),
    ]
}

/// Appends the payload of a head frame; `groups` in ascending order.
pub fn encode_head<'a>(out: &mut Vec<u8>, groups: impl ExactSizeIterator<Item = (u16, &'a GroupState)>) {
    out.extend_from_slice(&len32(groups.len()).to_le_bytes());
    for (group, state) in groups {
        let values = opaque(state);
        let mut flags = u16::from(state.span.is_some()) << 3;
        for (bit, value) in values.iter().enumerate() {
            flags |= u16::from(value.is_some()) << bit;
        }
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        for value in values {
            out.extend_from_slice(&len32(value.map_or(0, Bytes::len)).to_le_bytes());
        }
        let span = state.span.unwrap_or_default();
        for number in [
            state.purged.as_ref().map_or(0, |(upto, _)| *upto),
            span.first,
            span.next,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        values
            .into_iter()
            .flatten()
            .for_each(|value| out.extend_from_slice(value));
    }
}

fn decode_head(payload: &[u8]) -> Option<Vec<(u16, GroupState)>> {
    let mut reader = Reader(payload);
    let count = reader.u32()?;
    let mut groups = Vec::new();
    for _ in 0..count {
        let (group, flags) = (reader.u16()?, reader.u16()?);
        let lengths = [reader.u32()?, reader.u32()?, reader.u32()?];
        let (upto, first, next) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let mut values = [None, None, None];
        for (bit, (value, length)) in values.iter_mut().zip(lengths).enumerate() {
            let bytes = reader.take(usize::try_from(length).ok()?)?;
            *value = (flags & (1 << bit) != 0).then(|| Bytes::copy_from_slice(bytes));
        }
        let [vote, committed, mark] = values;
        let span = (flags & 8 != 0).then_some(Span { first, next });
        if first > next {
            return None;
        }
        groups.push((
            group,
            GroupState {
                vote,
                committed,
                purged: mark.map(|mark| (upto, mark)),
                span,
            },
        ));
    }
    reader.0.is_empty().then_some(groups)
}

/// Takes little-endian numbers off the front of a slice; `None` at its end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
