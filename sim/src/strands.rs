//! Threads of a node's process beside its runtime's: where the product does what may block.
//!
//! Each job has a thread of its own, and only one thread of the whole run is ever on: a job goes on when it is given a turn, up to
//! its next read or write of the disk. Turns are given by the node's runtime, as the job's work takes its time; in the middle of
//! the runtime's own reads and writes, as the dice fall; and by a thread that waits for a lock which a job holds (`os.rs` tells).
//! So everything that real threads may do between two operations on the disk happens here too, and follows from the seed.
//! Used by `disk/` and `host.rs`.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

/// What is done.
pub type Job = Box<dyn FnOnce() + Send>;

/// Turns in which nothing comes about: the threads wait for each other.
const TURNS_MAX: usize = 100_000;
/// A job that waits for a lock looks every microsecond at first, and after so many looks every millisecond.
const LOOKS: usize = 50_000;
/// Stack of a job's thread.
const STACK_BYTES: usize = 4 << 20;
/// Timers count in milliseconds: what is shorter is gathered.
const TIMER_US: u64 = 1_000;

thread_local! {
    /// The job that this thread does.
    static JOB: RefCell<Option<Arc<Strand>>> = const { RefCell::new(None) };
    /// The jobs of the node whose runtime this thread drives.
    static NODE: RefCell<Option<Strands>> = const { RefCell::new(None) };
    /// This thread hands a turn over: its waiting is real.
    static IS_HANDING_OVER: Cell<bool> = const { Cell::new(false) };
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It waits for a turn; what it did until then took so long.
    Paused { took_us: u64 },
    /// It has the turn.
    On,
    /// It is done.
    Done,
}

/// One job.
struct Strand {
    state: Mutex<State>,
    changed: Condvar,
}

/// The jobs of one run of a node's process that are not done.
#[derive(Clone, Default)]
pub struct Strands(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: Mutex<Vec<Arc<Strand>>>,
    has_panicked: AtomicBool,
}

impl fmt::Debug for Strands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strands").finish_non_exhaustive()
    }
}

/// Waits for real, as long as it lives.
struct HandingOver(bool);

impl HandingOver {
    fn begin() -> Self {
        Self(IS_HANDING_OVER.replace(true))
    }
}

impl Drop for HandingOver {
    fn drop(&mut self) {
        IS_HANDING_OVER.set(self.0);
    }
}

impl Strand {
    /// Gives the job a turn, and waits for its end; how long it took, or that the job is done.
    fn turn(&self) -> State {
        let _real = HandingOver::begin();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Done {
            return State::Done;
        }
        *state = State::On;
        self.changed.notify_all();
        while *state == State::On {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        *state
    }

    /// Ends the job's turn; returns when it is given the next.
    fn pause(&self, took_us: u64) {
        let _real = HandingOver::begin();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::Paused { took_us };
        self.changed.notify_all();
        while *state != State::On {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self) {
        let _real = HandingOver::begin();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Done;
        self.changed.notify_all();
    }
}

impl Strands {
    /// Begins a job, which is given its turns by the runtime that this is called in.
    pub fn begin(&self, job: Job) {
        let strand = Arc::new(Strand {
            state: Mutex::new(State::Paused { took_us: 0 }),
            changed: Condvar::new(),
        });
        let (strands, its, runtime) = (self.clone(), strand.clone(), Handle::current());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            JOB.set(Some(its.clone()));
            its.wait_for_the_first_turn();
            let _entered = runtime.enter();
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                strands.0.has_panicked.store(true, Ordering::SeqCst);
            }
            JOB.set(None);
            its.finish();
        });
        thread.expect("there is room for one more thread");
        self.locked(|open| open.push(strand.clone()));
        tokio::spawn(drive(Driven {
            strands: self.clone(),
            strand,
        }));
    }

    /// Whether a job has panicked.
    pub fn has_panicked(&self) -> bool {
        self.0.has_panicked.load(Ordering::SeqCst)
    }

    /// How many jobs are not done.
    pub fn count(&self) -> usize {
        self.locked(|open| open.len())
    }

    /// Gives one of the jobs a turn: the so-many-th, counted round.
    pub fn turn(&self, number: usize) {
        let strand = self.locked(|open| (!open.is_empty()).then(|| open[number % open.len()].clone()));
        if let Some(strand) = strand
            && strand.turn() == State::Done
        {
            self.forget(&strand);
        }
    }

    /// From now on, as long as the guard lives, this thread drives the node's runtime.
    pub fn driven_here(&self) -> impl Drop + use<> {
        struct Here;
        impl Drop for Here {
            fn drop(&mut self) {
                NODE.set(None);
            }
        }
        NODE.set(Some(self.clone()));
        Here
    }

    /// Lets every job come to its end: the process is gone, and so is all that a job could still read or write.
    pub fn end_all(&self) {
        for number in 0..TURNS_MAX {
            if self.count() == 0 {
                return;
            }
            self.turn(number);
        }
        panic!("jobs of a process that has ended do not end");
    }

    fn forget(&self, strand: &Arc<Strand>) {
        self.locked(|open| open.retain(|one| !Arc::ptr_eq(one, strand)));
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Vec<Arc<Strand>>) -> T) -> T {
        work(&mut self.0.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Strand {
    fn wait_for_the_first_turn(&self) {
        let _real = HandingOver::begin();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while *state != State::On {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A job and who gives it its turns: a runtime that ends ends all jobs.
struct Driven {
    strands: Strands,
    strand: Arc<Strand>,
}

impl Drop for Driven {
    fn drop(&mut self) {
        if self
            .strands
            .locked(|open| open.iter().any(|one| Arc::ptr_eq(one, &self.strand)))
        {
            self.strands.end_all();
        }
    }
}

async fn drive(driven: Driven) {
    let mut owed_us = 0;
    while let State::Paused { took_us } = driven.strand.turn() {
        owed_us += took_us;
        if owed_us >= TIMER_US {
            sleep(Duration::from_micros(std::mem::take(&mut owed_us))).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    driven.strands.forget(&driven.strand);
}

/// Whether this is a job's thread.
pub fn is_job() -> bool {
    JOB.with_borrow(Option::is_some)
}

/// A job ends its turn, and goes on in its next one; what it did took so long.
pub fn pause(took_us: u64) {
    if let Some(job) = JOB.with_borrow(Clone::clone) {
        job.pause(took_us);
    }
}

/// This thread waits for a lock; returns once it may be free. `false` if its waiting is real.
pub(crate) fn waits(is_held: impl Fn() -> bool) -> bool {
    if IS_HANDING_OVER.get() {
        return false;
    }
    // Threads that end have nothing of this any more.
    let job = JOB.try_with(|job| job.borrow().clone()).ok().flatten();
    let node = NODE.try_with(|node| node.borrow().clone()).ok().flatten();
    for number in 0..TURNS_MAX {
        if !is_held() {
            return true;
        }
        match (&job, &node) {
            (Some(job), _) => job.pause(if number < LOOKS { 1 } else { TIMER_US }),
            (None, Some(node)) if node.count() > 0 => node.turn(number),
            (None, _) => return false,
        }
    }
    panic!("a thread waits for a lock that nobody gives back");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let built = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        built.expect("nothing is asked of the machine")
    }

    /// Plays what is ordered to its end; what was seen.
    fn played(order: fn(&Strands, &Arc<parking_lot::Mutex<Vec<u32>>>)) -> Vec<u32> {
        let seen = Arc::<parking_lot::Mutex<Vec<u32>>>::default();
        let strands = Strands::default();
        let runtime = runtime();
        let _here = strands.driven_here();
        runtime.block_on(async {
            order(&strands, &seen);
            sleep(Duration::from_millis(50)).await;
        });
        assert_eq!(strands.count(), 0);
        seen.lock().clone()
    }

    #[test]
    fn jobs_take_turns() {
        let order = |strands: &Strands, seen: &Arc<parking_lot::Mutex<Vec<u32>>>| {
            for job in 0..2 {
                let seen = seen.clone();
                strands.begin(Box::new(move || {
                    for step in 0..3 {
                        seen.lock().push(10 * job + step);
                        pause(10);
                    }
                }));
            }
        };
        let seen = played(order);
        let of = |job: u32| seen.iter().copied().filter(move |step| step / 10 == job);
        assert!(of(0).eq([0, 1, 2]) && of(1).eq([10, 11, 12]), "{seen:?}");
        let place = |step: u32| seen.iter().position(|seen| *seen == step);
        assert!(
            place(10) < place(2) && place(0) < place(12),
            "neither waits for the other's end: {seen:?}"
        );
        assert_eq!(seen, played(order), "the same each time");
    }

    #[test]
    fn a_lock_that_a_job_holds_is_waited_for() {
        let seen = played(|strands, seen| {
            let (held, in_job) = (Arc::new(parking_lot::Mutex::new(())), seen.clone());
            let of_job = held.clone();
            strands.begin(Box::new(move || {
                let _held = of_job.lock();
                pause(1);
                pause(1);
                in_job.lock().push(1);
            }));
            strands.turn(0);
            // The job has the lock, and waits for its next turn: without one this would not end.
            let _held = held.lock();
            seen.lock().push(2);
        });
        assert_eq!(seen, [1, 2]);
    }

    #[test]
    fn a_runtime_that_ends_ends_its_jobs() {
        let strands = Strands::default();
        let runtime = runtime();
        let ended = Arc::new(AtomicBool::new(false));
        runtime.block_on(async {
            let ended = ended.clone();
            strands.begin(Box::new(move || {
                pause(1_000_000);
                ended.store(true, Ordering::SeqCst);
            }));
            sleep(Duration::from_millis(10)).await;
        });
        assert!(strands.count() == 1 && !ended.load(Ordering::SeqCst));
        drop(runtime);
        assert!(strands.count() == 0 && ended.load(Ordering::SeqCst));
    }
}
