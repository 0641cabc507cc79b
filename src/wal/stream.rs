//! The end of the log: turns jobs into frames, puts them into segments, syncs, and lets old segments go.
//!
//! Owned by the writer's thread; nothing here is shared but the table of segments. Every error is final for the log.
//! Knows no queue and completes no job: that is `writer.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::WalError;
use super::files::Files;
use super::frame::{self, HEADER_BYTES, Header, Kind, Salt, encode, encode_entries, frame_bytes, len32};
use super::ledger::Ledger;
use super::position::{Placed, Was};
use super::segment::{self, SEGMENT_HEADER_BYTES, Segment, Segments};
use super::watermark::Watermark;
use super::{Observe, entry_bytes_max};
use crate::clock::Clock;

/// A write buffer larger than this is given back after its batch.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// One operation on one group.
#[derive(Debug)]
pub enum Op {
    /// New entries from this index on.
    Entries(u64, Vec<Bytes>),
    /// A vote.
    Vote(Bytes),
    /// A committed point; the only one that needs no sync.
    Committed(Bytes),
    /// Entries from this index on are gone.
    Truncate(u64),
    /// Entries up to this index are gone, with the mark of the purge.
    Purge(u64, Bytes),
    /// The group is gone.
    Drop,
}

/// Where recovery left the log.
#[derive(Debug)]
pub struct Resume {
    /// Identity of the log.
    pub log_id: u64,
    /// Groups as written.
    pub ledger: Ledger,
    /// Segment of the last frame.
    pub tail: Segment,
    /// End of the last frame in it.
    pub offset: u32,
    /// A segment made ahead.
    pub next: Option<Segment>,
    /// Number of the last frame; all up to it is synced.
    pub lsn: u64,
    /// The watermark file.
    pub watermark: Watermark,
}

/// The end of the log.
#[derive(Debug)]
pub struct Stream {
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
    observe: Arc<dyn Observe>,
    segments: Segments,
    log_id: u64,
    salt: Salt,
    segment_bytes: u64,
    frame_bytes_max: usize,
    ledger: Ledger,
    tail: Segment,
    /// Where the buffer goes in the tail.
    offset: u32,
    /// Frames that are not written yet.
    buffer: Vec<u8>,
    next: Option<Segment>,
    /// Number of the last frame.
    lsn: u64,
    durable: u64,
    watermark: Watermark,
    jobs_unsynced: usize,
    bytes_unsynced: usize,
}

impl Stream {
    /// Goes on where recovery left off. A segment without its head frame gets it, synced.
    pub fn new(
        files: Arc<dyn Files>,
        clock: Arc<dyn Clock>,
        observe: Arc<dyn Observe>,
        segments: Segments,
        (segment_bytes, batch_bytes): (u64, usize),
        resume: Resume,
    ) -> Result<Self, WalError> {
        let Resume {
            log_id,
            ledger,
            tail,
            offset,
            next,
            lsn,
            watermark,
        } = resume;
        segments.insert(tail.number, Arc::clone(&tail.file));
        let mut stream = Self {
            files,
            clock,
            observe,
            segments,
            log_id,
            salt: Salt::new(log_id),
            segment_bytes,
            frame_bytes_max: entry_bytes_max(segment_bytes).min(batch_bytes),
            ledger,
            tail,
            offset,
            buffer: Vec::new(),
            next,
            lsn,
            durable: lsn,
            watermark,
            jobs_unsynced: 0,
            bytes_unsynced: 0,
        };
        if stream.offset == SEGMENT_HEADER_BYTES {
            stream.put_head();
            stream.write()?;
        }
        stream.sync()?;
        stream.watermark.advance(stream.durable, stream.tail.number)?;
        stream.watermark.sync(stream.clock.monotonic())?;
        Ok(stream)
    }

    /// Adds a job's frames to the stream and tells where its entries are. True if the job needs a sync.
    pub fn put(&mut self, group: u16, op: Op, ticket: u64, placed: &mut Vec<Placed>) -> Result<bool, WalError> {
        let sync = match op {
            Op::Entries(first, entries) => {
                self.put_entries(Kind::Entries, group, first, &entries, Was::Pending(ticket), placed)?;
                !entries.is_empty()
            }
            Op::Vote(vote) => {
                self.put_frame(Kind::Vote, group, vote.len(), |out| out.extend_from_slice(&vote))?;
                self.ledger.vote(group, vote);
                true
            }
            Op::Committed(at) => {
                self.put_frame(Kind::Committed, group, at.len(), |out| out.extend_from_slice(&at))?;
                self.ledger.committed(group, at);
                false
            }
            Op::Truncate(from) => {
                self.put_frame(Kind::Truncate, group, 8, |out| {
                    out.extend_from_slice(&from.to_le_bytes());
                })?;
                self.ledger.truncate(group, from);
                true
            }
            Op::Purge(upto, mark) => {
                self.put_frame(Kind::Purge, group, 8 + mark.len(), |out| {
                    out.extend_from_slice(&upto.to_le_bytes());
                    out.extend_from_slice(&mark);
                })?;
                self.ledger.purge(group, upto, mark);
                true
            }
            Op::Drop => {
                self.put_frame(Kind::DropGroup, group, 0, |_| {})?;
                self.ledger.drop_group(group);
                true
            }
        };
        self.jobs_unsynced += 1;
        Ok(sync)
    }

    /// Adds entries as frames of new or moved entries, each as large as allowed.
    pub fn put_entries(
        &mut self,
        kind: Kind,
        group: u16,
        first_index: u64,
        entries: &[Bytes],
        was: Was,
        placed: &mut Vec<Placed>,
    ) -> Result<(), WalError> {
        let (mut rest, mut first) = (entries, first_index);
        while !rest.is_empty() {
            let mut bytes = frame::ENTRIES_BYTES;
            let fitting = rest.iter().take_while(|entry| {
                bytes += frame::RECORD_BYTES + entry.len();
                bytes <= self.frame_bytes_max
            });
            let (part, after) = rest.split_at(fitting.count().max(1));
            let salt = self.salt;
            let start = self.put_frame(kind, group, frame::entries_payload_bytes(part), |out| {
                encode_entries(out, salt, group, first, part);
            })?;
            let count = part.len() as u64;
            let segment = self.tail.number;
            match kind {
                Kind::Moved => self.ledger.relocate(group, first, count, segment),
                _ => self.ledger.append(group, first, count, segment),
            }
            placed.push(Placed {
                group,
                first_index: first,
                was,
                segment,
                offset: start + len32(HEADER_BYTES + frame::ENTRIES_BYTES),
                lengths: part.iter().map(|entry| len32(entry.len())).collect(),
            });
            first += count;
            rest = after;
        }
        Ok(())
    }

    /// Adds one frame, in the next segment if this one has no room for it; where it starts in its segment.
    fn put_frame(
        &mut self,
        kind: Kind,
        group: u16,
        payload_bytes: usize,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u32, WalError> {
        let used = self.offset.saturating_add(len32(self.buffer.len()));
        let room = self.tail.bytes.saturating_sub(used);
        if len32(frame_bytes(payload_bytes)) > room {
            self.switch()?;
        }
        Ok(self.append_frame(kind, group, payload))
    }

    fn append_frame(&mut self, kind: Kind, group: u16, payload: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let start = self.offset + len32(self.buffer.len());
        self.lsn += 1;
        let header = Header {
            kind,
            group,
            lsn: self.lsn,
            durable: self.durable,
        };
        encode(&mut self.buffer, self.salt, header, payload);
        start
    }

    /// First frame of a segment: all that would be lost with the segments before it, but for their entries.
    fn put_head(&mut self) {
        let mut payload = Vec::with_capacity(self.ledger.head_bytes());
        self.ledger.encode_head(&mut payload);
        self.append_frame(Kind::Head, 0, |out| out.extend_from_slice(&payload));
    }

    /// Goes on in the next segment. All of this one is synced first: whatever is in the next vouches for it.
    fn switch(&mut self) -> Result<(), WalError> {
        self.write()?;
        self.sync()?;
        self.watermark.sync(self.clock.monotonic())?;
        let next = match self.next.take() {
            Some(next) => next,
            None => self.create_next()?,
        };
        self.segments.insert(next.number, Arc::clone(&next.file));
        self.tail = next;
        self.offset = SEGMENT_HEADER_BYTES;
        self.put_head();
        Ok(())
    }

    fn create_next(&self) -> Result<Segment, WalError> {
        segment::create(
            self.files.as_ref(),
            self.log_id,
            self.tail.number.saturating_add(1),
            self.segment_bytes,
        )
    }

    /// Writes the buffer, without a sync.
    pub fn write(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.tail.file.write_at(u64::from(self.offset), &self.buffer);
        written.map_err(WalError::failed("write", &segment::name(self.tail.number)))?;
        self.offset += len32(self.buffer.len());
        self.bytes_unsynced += self.buffer.len();
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    /// Makes everything written durable, and says so in the watermark.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if self.bytes_unsynced == 0 {
            return Ok(());
        }
        let start = self.clock.monotonic();
        self.tail
            .file
            .sync_data()
            .map_err(WalError::failed("sync", &segment::name(self.tail.number)))?;
        let duration = self.clock.monotonic().saturating_sub(start);
        self.durable = self.lsn;
        self.watermark.advance(self.durable, self.tail.number)?;
        self.observe
            .synced(self.durable, self.jobs_unsynced, self.bytes_unsynced, duration);
        (self.jobs_unsynced, self.bytes_unsynced) = (0, 0);
        Ok(())
    }

    /// What need not be done before jobs are acknowledged: sync the watermark when due, make the next segment ahead of
    /// need, let segments go that no group needs. `idle` = nothing waits, so it may take its time.
    pub fn maintain(&mut self, idle: bool) -> Result<(), WalError> {
        let now = self.clock.monotonic();
        if self.watermark.due_in(now).is_some_and(|due| due.is_zero()) {
            self.watermark.sync(now)?;
        }
        if self.next.is_none() && (idle || self.offset > self.tail.bytes / 2) {
            self.next = Some(self.create_next()?);
        }
        let oldest = self.ledger.oldest_segment().unwrap_or(self.tail.number);
        let first = self.watermark.mark().first;
        // What made the old segments superfluous must itself be synced before they go.
        if oldest > first && self.lsn == self.durable {
            self.watermark.settle(oldest, now)?;
            for number in first..oldest {
                self.segments.remove(number);
                let name = segment::name(number);
                self.files.remove(&name).map_err(WalError::failed("remove", &name))?;
            }
        }
        Ok(())
    }

    /// Last work of an orderly end: everything synced, the watermark as well.
    pub fn finish(&mut self) -> Result<(), WalError> {
        self.sync()?;
        self.watermark.sync(self.clock.monotonic())
    }

    /// Time until [`Stream::maintain`] should be called again though nothing was submitted.
    pub fn due_in(&self) -> Option<Duration> {
        self.watermark.due_in(self.clock.monotonic())
    }

    /// Whether the next segment is still to be made.
    pub fn wants_segment(&self) -> bool {
        self.next.is_none()
    }

    /// The oldest segment, if it is `behind` or more segments behind the tail.
    pub fn lagging(&self, behind: u32) -> Option<u32> {
        let first = self.watermark.mark().first;
        (self.tail.number - first >= behind).then_some(first)
    }

    /// Bytes of all segments that are part of the log.
    pub fn disk_bytes(&self) -> u64 {
        (u64::from(self.tail.number - self.watermark.mark().first) + 1) * self.segment_bytes
    }

    /// The groups as written.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}
