//! The queue of jobs and the one thread that empties it: many jobs, one write, one sync, then all are told.
//!
//! Owns what handles and writer share, the order of acknowledgements, and what a failure means for everyone who waits.
//! Frames and files are `stream.rs`.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::error::WalError;
use super::frame::{Kind, Salt};
use super::index::Index;
use super::position::{Piece, Placed, Was};
use super::read::fetch;
use super::segment::Segments;
use super::stream::{Op, Stream};
use super::{Options, entry_bytes_max};

/// Told once, on the writer's thread (or at once, if the job is refused): `Ok` = durable. Must be quick and not block.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// One submitted operation.
struct Job {
    group: u16,
    op: Op,
    ticket: u64,
    done: Option<Done>,
}

impl Job {
    fn bytes(&self) -> usize {
        match &self.op {
            Op::Entries(_, entries) => entries.iter().map(Bytes::len).sum(),
            Op::Vote(value) | Op::Committed(value) | Op::Purge(_, value) => value.len(),
            Op::Truncate(_) | Op::Drop => 0,
        }
    }
}

/// What handles and writer share.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Told as well when there is something to do: [`Writer::on_work`].
    on_work: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub(super) segments: Segments,
    pub(super) salt: Salt,
    pub(super) log_id: u64,
}

struct State {
    index: Index,
    queue: VecDeque<Job>,
    ticket: u64,
    failure: Option<WalError>,
    /// Every handle is gone.
    closed: bool,
}

impl Shared {
    pub(super) fn new(index: Index, segments: Segments, log_id: u64) -> Self {
        let state = State {
            index,
            queue: VecDeque::new(),
            ticket: 0,
            failure: None,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            wake: Condvar::new(),
            on_work: OnceLock::new(),
            segments,
            salt: Salt::new(log_id),
            log_id,
        }
    }

    /// Applies an operation to the index and queues it; refuses it at once if it cannot be.
    pub(super) fn submit(&self, group: u16, op: Op, done: Option<Done>) {
        let mut state = self.state.lock();
        let ticket = state.ticket;
        let applied = match (&state.failure, &op) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Op::Entries(first, entries)) => state.index.append(group, *first, entries, ticket),
            (None, Op::Vote(vote)) => state.index.vote(group, vote.clone()),
            (None, Op::Committed(at)) => state.index.committed(group, at.clone()),
            (None, Op::Truncate(from)) => state.index.truncate(group, *from),
            (None, Op::Purge(upto, mark)) => state.index.purge(group, *upto, mark.clone()),
            (None, Op::Drop) => {
                state.index.drop_group(group);
                Ok(())
            }
        };
        match applied {
            Ok(()) => {
                state.ticket += 1;
                state.queue.push_back(Job {
                    group,
                    op,
                    ticket,
                    done,
                });
                let first = state.queue.len() == 1;
                drop(state);
                if first {
                    self.wake_writer();
                }
            }
            Err(error) => {
                drop(state);
                if let Some(done) = done {
                    done(Err(error));
                }
            }
        }
    }

    /// Looks at the index under the lock.
    pub(super) fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.state.lock().index)
    }

    pub(super) fn failure(&self) -> Option<WalError> {
        self.state.lock().failure.clone()
    }

    /// Every handle is gone: the writer ends when the queue is empty.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake_writer();
    }

    fn wake_writer(&self) {
        self.wake.notify_one();
        if let Some(on_work) = self.on_work.get() {
            on_work();
        }
    }

    /// From now on every job gets `error`, beginning with those that wait.
    fn fail(&self, error: WalError) {
        let mut state = self.state.lock();
        let error = state.failure.get_or_insert(error).clone();
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        for done in waiting.into_iter().filter_map(|job| job.done) {
            done(Err(error.clone()));
        }
    }
}

/// What one step of the writer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wrote and acknowledged this many jobs.
    Worked(usize),
    /// Nothing was waiting; did what is better done when nobody waits.
    Idle,
    /// All handles are gone, or the log has failed: there is nothing more to do.
    Ended,
}

/// The writing end of the log; give it a thread of its own.
pub struct Writer {
    shared: Arc<Shared>,
    stream: Stream,
    options: Options,
    placed: Vec<Placed>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, stream: Stream, options: Options) -> Self {
        Self {
            shared,
            stream,
            options,
            placed: Vec::new(),
        }
    }

    /// Writes until every handle is gone (all that was submitted is then written and synced) or the log has failed (all
    /// jobs, waiting and later, are then answered with the error). Returns the failure, if there was one. Blocks.
    pub fn run(mut self) -> Option<WalError> {
        while self.step(self.due_in()) != Step::Ended {}
        self.finish()
    }

    /// How soon there is something to do although no job comes; `None` if there is nothing.
    pub fn due_in(&self) -> Option<Duration> {
        let at_once = self.stream.wants_segment().then_some(Duration::ZERO);
        at_once.or_else(|| self.stream.due_in())
    }

    /// Has `hook` called whenever a job comes while none waits, and when the last handle is gone: for who gives the writer
    /// its turns without a thread that could wait in [`Self::step`]. Must not block; the first hook stays.
    pub fn on_work(&self, hook: impl Fn() + Send + Sync + 'static) {
        // A second hook is ignored.
        drop(self.shared.on_work.set(Box::new(hook)));
    }

    /// The last turn, after [`Step::Ended`]: the failure, if there was one.
    pub fn finish(mut self) -> Option<WalError> {
        if self.shared.failure().is_none()
            && let Err(error) = self.stream.finish()
        {
            self.shared.fail(error);
        }
        self.shared.failure()
    }

    /// One batch: collects what waits (for at most `wait` until something does; `None` = as long as it takes), writes,
    /// syncs, completes in order. The watermark needs a step about once a second while jobs come.
    pub fn step(&mut self, wait: Option<Duration>) -> Step {
        let Some(batch) = self.collect(wait) else {
            return Step::Ended;
        };
        let (jobs, idle) = (batch.len(), batch.is_empty());
        let mut dones = Vec::with_capacity(jobs);
        let written = if idle { Ok(()) } else { self.write(batch, &mut dones) };
        self.placed.clear();
        if let Err(error) = &written {
            // Before anyone is told, so that whoever is told finds it.
            self.shared.state.lock().failure.get_or_insert_with(|| error.clone());
        }
        for done in dones {
            done(written.clone());
        }
        match written.and_then(|()| self.stream.maintain(idle)) {
            Ok(()) if idle => Step::Idle,
            Ok(()) => Step::Worked(jobs),
            Err(error) => {
                self.shared.fail(error);
                Step::Ended
            }
        }
    }

    /// The next batch, empty if nothing came; `None` at the end.
    fn collect(&self, wait: Option<Duration>) -> Option<Vec<Job>> {
        let mut state = self.shared.state.lock();
        if state.queue.is_empty() && !state.closed && state.failure.is_none() {
            match wait {
                Some(wait) if wait.is_zero() => {}
                Some(wait) => {
                    self.shared.wake.wait_for(&mut state, wait);
                }
                None => self.shared.wake.wait(&mut state),
            }
        }
        if state.failure.is_some() || (state.closed && state.queue.is_empty()) {
            return None;
        }
        let mut bytes = 0;
        let fitting = state.queue.iter().take(self.options.batch_jobs_max).take_while(|job| {
            let fits = bytes < self.options.batch_bytes_max;
            bytes += job.bytes();
            fits
        });
        let count = fitting.count();
        Some(state.queue.drain(..count).collect())
    }

    fn write(&mut self, batch: Vec<Job>, dones: &mut Vec<Done>) -> Result<(), WalError> {
        let mut ops = Vec::with_capacity(batch.len());
        for job in batch {
            dones.extend(job.done);
            ops.push((job.group, job.op, job.ticket));
        }
        let mut sync = self.carry()?;
        for (group, op, ticket) in ops {
            sync |= self.stream.put(group, op, ticket, &mut self.placed)?;
        }
        self.stream.write()?;
        if sync {
            self.stream.sync()?;
        }
        let mut state = self.shared.state.lock();
        self.placed.iter().for_each(|placed| state.index.place(placed));
        Ok(())
    }

    /// Writes the few live entries of an old segment again, so that it can go; a batch's worth at a time. Only while
    /// less than half of the log is alive: otherwise the room gained is not worth the writing. True if any was written.
    fn carry(&mut self) -> Result<bool, WalError> {
        let Some(oldest) = self.stream.lagging(self.options.segments_behind_max) else {
            return Ok(false);
        };
        let Some(file) = self.shared.segments.file(oldest) else {
            return Ok(false);
        };
        let mut stretches: Vec<(u16, u64, Vec<Piece>)> = Vec::new();
        self.shared.with_index(|index| {
            if index.live_bytes().saturating_mul(2) > self.stream.disk_bytes() {
                return;
            }
            let mut bytes = 0;
            let live = self
                .stream
                .ledger()
                .runs_in(oldest)
                .flat_map(|(group, run)| (run.first..run.end).map(move |at| (group, at)));
            for (group, at) in live {
                // Gone or replaced since, by a job that still waits: not worth moving.
                let Some(position) = index.position(group, at).filter(|position| position.segment == oldest) else {
                    continue;
                };
                if u64::from(position.bytes) > entry_bytes_max(self.options.segment_bytes) as u64 {
                    // From a time of larger segments: it fits in none of today's, so its segment stays.
                    stretches.clear();
                    return;
                }
                let piece = Piece::Disk {
                    index: at,
                    position,
                    file: Arc::clone(&file),
                };
                match stretches.last_mut() {
                    Some((last, first, pieces)) if *last == group && *first + pieces.len() as u64 == at => {
                        pieces.push(piece);
                    }
                    _ => stretches.push((group, at, vec![piece])),
                }
                bytes += u64::from(position.bytes);
                if bytes >= self.options.batch_bytes_max as u64 {
                    break;
                }
            }
        });
        let any = !stretches.is_empty();
        for (group, first, pieces) in stretches {
            let entries = fetch(pieces, self.shared.salt, group)?;
            self.stream
                .put_entries(Kind::Moved, group, first, &entries, Was::In(oldest), &mut self.placed)?;
        }
        Ok(any)
    }
}

impl Drop for Writer {
    /// Nobody waits for ever for a writer that is gone, however it went.
    fn drop(&mut self) {
        self.shared.fail(WalError::Stopped);
    }
}
