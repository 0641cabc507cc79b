//! Opening a log: reads every segment once, judges what it finds, and cuts an honest torn tail for good.
//!
//! The rule: a frame up to the highest one that anything vouches for (the watermark, or a number inside any frame found
//! anywhere) must be there and whole, or the log is refused. What lies beyond was never acknowledged and may go.
//! Nothing is written before the judgement.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::error::OpenError;
use super::files::Files;
use super::frame::{Frame, Kind, Record, Salt, decode, headers, len32, record};
use super::index::Index;
use super::ledger::Ledger;
use super::segment::{self, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Segments, VERSION};
use super::stream::Resume;
use super::watermark::{self, Mark, Watermark};

/// Opens the log in `files`, or makes one with identity `new_log_id` if there is none.
pub fn open(
    files: &dyn Files,
    new_log_id: u64,
    segment_bytes: u64,
    segments: &Segments,
    now: Duration,
) -> Result<(Index, Resume), OpenError> {
    let names = files.list().map_err(OpenError::io("list", "the log's directory"))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut watermark = if names.iter().any(|name| name == watermark::NAME) {
        load_watermark(files, &numbers)?
    } else if numbers.is_empty() {
        Watermark::create(files, new_log_id).map_err(OpenError::io("create", watermark::NAME))?
    } else {
        return Err(watermark_damage(
            files,
            &numbers,
            "the file is missing, though there are segments",
        ));
    };
    let mark = watermark.mark();
    // Left over from a purge that a crash interrupted: the watermark no longer counts them.
    let leftovers: Vec<u32> = numbers.extract_if(.., |number| *number < mark.first).collect();
    if numbers.is_empty() && mark.lsn == 0 {
        // A new log, or a crash while one was made.
        segment::create(files, mark.log_id, mark.first, segment_bytes)?;
        numbers.push(mark.first);
    }
    check_numbers(files, &numbers, &mark)?;

    let mut replay = Replay::new(mark);
    for number in &numbers {
        replay.segment(files, *number)?;
    }
    replay.judge(files)?;
    let next = replay.drop_later(files, segment_bytes)?;
    let tail = replay.cut()?;
    if !leftovers.is_empty() {
        // The mark that does not count them may never have been synced.
        watermark.settle(mark.first, now)?;
    }
    for number in leftovers {
        let name = segment::name(number);
        files.remove(&name).map_err(OpenError::io("remove", &name))?;
    }
    for scanned in replay
        .scanned
        .iter()
        .filter(|scanned| scanned.segment.number <= tail.segment.number)
    {
        segments.insert(scanned.segment.number, Arc::clone(&scanned.segment.file));
    }
    let Replay { index, ledger, lsn, .. } = replay;
    let resume = Resume {
        log_id: mark.log_id,
        ledger,
        tail: tail.segment,
        offset: len32(tail.end),
        next,
        lsn,
        watermark,
    };
    Ok((index, resume))
}

fn load_watermark(files: &dyn Files, numbers: &[u32]) -> Result<Watermark, OpenError> {
    let io = |action| OpenError::io(action, watermark::NAME);
    let file = files.open(watermark::NAME).map_err(io("open"))?;
    let bytes = file.size_bytes().map_err(io("measure"))?;
    if bytes != watermark::FILE_BYTES {
        let what = format!("the file has {bytes} bytes in place of {}", watermark::FILE_BYTES);
        return Err(watermark_damage(files, numbers, &what));
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_at(0, &mut content).map_err(io("read"))?;
    let Some(mark) = Mark::latest(&content) else {
        return Err(watermark_damage(files, numbers, "neither of its two slots is whole"));
    };
    Ok(Watermark::resume(file, mark))
}

fn watermark_damage(files: &dyn Files, numbers: &[u32], what: &str) -> OpenError {
    let groups = groups_in(files, numbers, None, true);
    OpenError::Damaged {
        file: watermark::NAME.to_owned(),
        offset: 0,
        groups,
        what: what.to_owned(),
    }
}

/// The segments must be those from the first needed one to the last, without gaps.
fn check_numbers(files: &dyn Files, numbers: &[u32], mark: &Mark) -> Result<(), OpenError> {
    let last = numbers.last().copied().unwrap_or(0).max(mark.current);
    let mut present = numbers.iter().copied();
    let Some(missing) = (mark.first..=last).find(|wanted| present.next() != Some(*wanted)) else {
        return Ok(());
    };
    Err(OpenError::Damaged {
        file: segment::name(missing),
        offset: 0,
        groups: groups_in(files, numbers, None, true),
        what: format!("the file is missing; the log has segments {} to {last}", mark.first),
    })
}

/// The groups that have frames in these segments (with `heads`, also those known from segments before them), as far as
/// can be read. Only for a message: reads everything again.
fn groups_in(files: &dyn Files, numbers: &[u32], salt: Option<Salt>, heads: bool) -> Vec<u16> {
    let mut groups = BTreeSet::new();
    for number in numbers {
        let Ok((_, content)) = load(files, *number) else {
            continue;
        };
        let own_salt = || SegmentHeader::decode(&content).map(|header| Salt::new(header.log_id));
        let Some(salt) = salt.or_else(own_salt) else { continue };
        let frames = content.get(SEGMENT_HEADER_BYTES as usize..).unwrap_or_default();
        let of_groups = headers(frames, salt).filter(|header| header.kind != Kind::Head);
        groups.extend(of_groups.map(|header| header.group));
        if let Some(frame) = decode(frames, salt).filter(|_| heads)
            && let Some(Record::Head(head)) = record(&frame)
        {
            groups.extend(head.iter().map(|(group, _)| *group));
        }
    }
    groups.into_iter().collect()
}

/// A whole segment file.
fn load(files: &dyn Files, number: u32) -> Result<(Segment, Vec<u8>), OpenError> {
    let name = segment::name(number);
    let file = files.open(&name).map_err(OpenError::io("open", &name))?;
    let bytes = file.size_bytes().map_err(OpenError::io("measure", &name))?;
    if bytes > SEGMENT_BYTES_MAX {
        let what = format!("the file has {bytes} bytes, more than any segment");
        return Err(OpenError::Damaged {
            file: name,
            offset: SEGMENT_BYTES_MAX,
            groups: Vec::new(),
            what,
        });
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_at(0, &mut content).map_err(OpenError::io("read", &name))?;
    Ok((
        Segment {
            number,
            bytes: len32(content.len()),
            file,
        },
        content,
    ))
}

/// A segment that has been read.
#[derive(Debug, Clone)]
struct Scanned {
    segment: Segment,
    /// End of the last frame that follows those before it.
    end: usize,
    /// End of the last frame that the watermark vouches for.
    vouched_end: usize,
    /// End of the last block that is not zeros.
    dirty_end: usize,
}

impl Scanned {
    fn damaged(&self, groups: Vec<u16>, what: String) -> OpenError {
        OpenError::Damaged {
            file: segment::name(self.segment.number),
            offset: self.end as u64,
            groups,
            what,
        }
    }
}

/// The log as read so far.
struct Replay {
    mark: Mark,
    salt: Salt,
    index: Index,
    ledger: Ledger,
    /// Last frame of the unbroken row; 0 = none yet.
    lsn: u64,
    /// A segment did not go on where the one before it ended: from there on, frames only vouch for others.
    broken: bool,
    /// Highest frame that any frame says to be synced.
    known: u64,
    scanned: Vec<Scanned>,
}

impl Replay {
    fn new(mark: Mark) -> Self {
        let (index, ledger) = (Index::new(), Ledger::default());
        Self {
            mark,
            salt: Salt::new(mark.log_id),
            index,
            ledger,
            lsn: 0,
            broken: false,
            known: 0,
            scanned: Vec::new(),
        }
    }

    /// Reads the next segment.
    fn segment(&mut self, files: &dyn Files, number: u32) -> Result<(), OpenError> {
        let (segment, content) = load(files, number)?;
        let salt = self.salt;
        let damaged = |offset: usize, what: String| OpenError::Damaged {
            file: segment::name(number),
            offset: offset as u64,
            groups: groups_in(files, &[number], Some(salt), false),
            what,
        };
        if let Err((offset, what)) = check_header(&content, number, self.mark.log_id)? {
            return Err(damaged(offset, what));
        }
        let start = SEGMENT_HEADER_BYTES as usize;
        let (mut end, mut vouched_end) = (start, start);
        while !self.broken
            && let Some(frame) = decode(&content[end..], self.salt)
            && self.follows(&frame, end == start)
        {
            if let Err(what) = self.apply(&frame, number, len32(end)) {
                return Err(damaged(end, what));
            }
            end = (end + frame.bytes()).min(content.len());
            if self.lsn <= self.mark.lsn {
                vouched_end = end;
            }
        }
        self.broken |= end == start;
        let dirty_end = dirty_end(&content).max(end);
        let beyond = headers(&content[end..dirty_end], self.salt).map(|header| header.durable);
        self.known = beyond.max().unwrap_or(0).max(self.known);
        self.scanned.push(Scanned {
            segment,
            end,
            vouched_end,
            dirty_end,
        });
        Ok(())
    }

    /// Whether the frame is the next of the row. Each segment begins with a head frame, and has only that one.
    fn follows(&self, frame: &Frame<'_>, first_of_segment: bool) -> bool {
        let Frame { header, .. } = frame;
        (header.kind == Kind::Head) == first_of_segment
            && header.durable < header.lsn
            && (self.scanned.is_empty() && first_of_segment || header.lsn == self.lsn + 1)
    }

    fn apply(&mut self, frame: &Frame<'_>, number: u32, offset: u32) -> Result<(), String> {
        let record = record(frame).ok_or("the frame is whole, but not what its kind says")?;
        let header = frame.header;
        match &record {
            Record::Head(head) if self.lsn == 0 => {
                self.ledger.start(head);
                self.index.start(head)?;
            }
            _ => {
                let moved = header.kind == Kind::Moved;
                self.ledger.replay(header.group, &record, moved, number)?;
                let replayed = self.index.replay(header.group, &record, moved, (number, offset));
                replayed.map_err(|error| error.to_string())?;
            }
        }
        self.lsn = header.lsn;
        Ok(())
    }

    /// Position in `scanned` of the segment that the row of frames ends in.
    fn tail(&self) -> usize {
        let start = SEGMENT_HEADER_BYTES as usize;
        self.scanned
            .iter()
            .rposition(|scanned| scanned.end > start)
            .unwrap_or(0)
    }

    /// Refuses a log that lacks anything that was synced.
    fn judge(&self, files: &dyn Files) -> Result<(), OpenError> {
        let known = self.known.max(self.mark.lsn);
        if self.lsn < known {
            let later = &self.scanned[self.tail()..];
            let numbers: Vec<u32> = later.iter().map(|scanned| scanned.segment.number).collect();
            let mut groups = groups_in(files, &numbers, Some(self.salt), false);
            if groups.is_empty() {
                groups = self.ledger.states().map(|(group, _)| group).collect();
            }
            let bad = later
                .iter()
                .find(|scanned| scanned.dirty_end > scanned.end)
                .unwrap_or(&later[0]);
            let what = format!(
                "frame {} should be here and is missing or has bad bytes; everything up to frame {known} was synced",
                self.lsn + 1
            );
            return Err(bad.damaged(groups, what));
        }
        if let Some((group, index)) = self.ledger.missing() {
            let what = format!("entry {index} of group {group} is in no segment");
            return Err(self.scanned[0].damaged(vec![group], what));
        }
        Ok(())
    }

    /// Removes the segments behind the end, but for one that was made ahead and not used: that one is the result.
    fn drop_later(&self, files: &dyn Files, segment_bytes: u64) -> Result<Option<Segment>, OpenError> {
        let ahead = self.tail() + 1;
        let mut next = None;
        let mut removed = false;
        for (at, scanned) in self.scanned.iter().enumerate().skip(ahead).rev() {
            let unused = scanned.dirty_end == SEGMENT_HEADER_BYTES as usize;
            if at == ahead && unused && u64::from(scanned.segment.bytes) == segment_bytes {
                next = Some(scanned.segment.clone());
                continue;
            }
            let name = segment::name(scanned.segment.number);
            files.remove(&name).map_err(OpenError::io("remove", &name))?;
            removed = true;
        }
        if removed {
            files.sync_dir().map_err(OpenError::io("sync", "the log's directory"))?;
        }
        Ok(next)
    }

    /// Makes the judged end the durable end, with zeros behind the last frame. Frames beyond the watermark are written
    /// again: a sync of them that failed may have left them readable, never to reach the disk.
    fn cut(&self) -> Result<Scanned, OpenError> {
        let tail = &self.scanned[self.tail()];
        let name = segment::name(tail.segment.number);
        let file = &tail.segment.file;
        if tail.vouched_end < tail.dirty_end {
            let mut rest = vec![0; tail.dirty_end - tail.vouched_end];
            let kept = &mut rest[..tail.end - tail.vouched_end];
            file.read_at(tail.vouched_end as u64, kept)
                .map_err(OpenError::io("read", &name))?;
            file.write_at(tail.vouched_end as u64, &rest)
                .map_err(OpenError::io("write", &name))?;
        }
        file.sync_data().map_err(OpenError::io("sync", &name))?;
        Ok(tail.clone())
    }
}

/// A segment's header is written before the file gets its name, so it is never torn.
fn check_header(content: &[u8], number: u32, log_id: u64) -> Result<Result<(), (usize, String)>, OpenError> {
    let Some(header) = SegmentHeader::decode(content) else {
        return Ok(Err((
            0,
            format!(
                "the header of the segment is not whole ({} bytes in the file)",
                content.len()
            ),
        )));
    };
    if header.version > VERSION {
        return Err(OpenError::Version {
            file: segment::name(number),
            version: header.version,
            known: VERSION,
        });
    }
    if header.log_id != log_id || header.number != number {
        let what = format!(
            "this is segment {} of log {:016x}, not of this log ({log_id:016x})",
            header.number, header.log_id
        );
        return Ok(Err((0, what)));
    }
    if header.bytes as usize != content.len() || content.len() < SEGMENT_HEADER_BYTES as usize {
        let what = format!("the file has {} bytes in place of {}", content.len(), header.bytes);
        return Ok(Err((content.len(), what)));
    }
    Ok(Ok(()))
}

/// End of the last block that holds anything but zeros.
fn dirty_end(content: &[u8]) -> usize {
    const ZEROS: [u8; 512] = [0; 512];
    let blocks = content.chunks(ZEROS.len());
    let last = blocks.clone().rposition(|block| *block != ZEROS[..block.len()]);
    last.map_or(0, |last| ((last + 1) * ZEROS.len()).min(content.len()))
}
