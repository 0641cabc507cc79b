//! The operating system's clock and entropy, overridden: what libraries read behind our back is virtual and seeded as well.
//!
//! tokio's base instant, its `select!`, hash maps, and openraft's election timeouts draw from these two functions of the C
//! library. Until [`enter`] is called they are the real ones. One run per process: other process-wide counters (of tokio, of
//! `futures`) are not reset. Used by `world.rs` alone.
#![expect(unsafe_code, reason = "the C library's functions can only be overridden as such")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static IS_SIMULATED: AtomicBool = AtomicBool::new(false);
static RANDOM: AtomicU64 = AtomicU64::new(0);
static NOW_US: AtomicU64 = AtomicU64::new(0);

/// What the monotonic clock shows when a run begins: some time after the machine's start, in seconds.
const MONOTONIC_START_S: u64 = 1_000;
/// What the wall clock shows then; the nodes have clocks of their own.
const WALL_START_S: u64 = super::history::START_WALL_MS / 1_000;

/// From now on this process lives in virtual time, and its random numbers follow from `seed`.
pub fn enter(seed: u64) {
    RANDOM.store(seed, Ordering::SeqCst);
    IS_SIMULATED.store(true, Ordering::SeqCst);
}

/// Sets the virtual time, in microseconds since the run began.
pub fn set_now_us(now_us: u64) {
    NOW_US.store(now_us, Ordering::SeqCst);
}

/// The virtual time, in microseconds since the run began.
pub fn now_us() -> u64 {
    NOW_US.load(Ordering::SeqCst)
}

/// Splitmix64.
fn draw() -> u64 {
    let state = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(into: *mut u8, bytes: usize, flags: u32) -> isize {
    if !IS_SIMULATED.load(Ordering::SeqCst) {
        // SAFETY: the caller's own arguments go to the kernel, which checks them.
        let filled = unsafe { libc::syscall(libc::SYS_getrandom, into, bytes, flags) };
        return isize::try_from(filled).unwrap_or(-1);
    }
    // SAFETY: the caller gives `bytes` writable bytes at `into`, as getrandom(2) asks.
    let into = unsafe { std::slice::from_raw_parts_mut(into, bytes) };
    for chunk in into.chunks_mut(8) {
        chunk.copy_from_slice(&draw().to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> i32 {
    let start_s = match clock {
        libc::CLOCK_REALTIME => WALL_START_S,
        _ => MONOTONIC_START_S,
    };
    if !IS_SIMULATED.load(Ordering::SeqCst) {
        // SAFETY: the caller's own arguments go to the kernel, which checks them.
        let code = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) };
        return i32::try_from(code).unwrap_or(-1);
    }
    let now_us = NOW_US.load(Ordering::SeqCst);
    let seconds = start_s + now_us / 1_000_000;
    let nanos = (now_us % 1_000_000) * 1_000;
    // SAFETY: the caller gives room for one timespec, as clock_gettime(2) asks.
    unsafe {
        (*into).tv_sec = libc::time_t::try_from(seconds).unwrap_or(libc::time_t::MAX);
        (*into).tv_nsec = libc::c_long::try_from(nanos).unwrap_or(0);
    }
    0
}
