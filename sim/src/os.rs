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

/// A call of the kernel: the waiting of a thread for a lock is told to the simulation, which gives a turn to whoever holds it.
/// Declared with all arguments that the kernel takes: callers pass what they have in the same registers.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: i64,
    one: usize,
    two: usize,
    three: usize,
    four: usize,
    five: usize,
    six: usize,
) -> i64 {
    // Numbers of 32 bits come with whatever is in the other half of the register.
    let low = |argument: usize| u32::try_from(argument & 0xffff_ffff).unwrap_or_default();
    let flags = (libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME).cast_unsigned();
    let operation = (low(two) & !flags).cast_signed();
    let is_wait = matches!(operation, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET);
    if number == libc::SYS_futex && is_wait && four == 0 {
        // SAFETY: the word that the caller waits for, valid as long as it waits, and only ever used atomically.
        let word = unsafe { &*(one as *const std::sync::atomic::AtomicU32) };
        if super::strands::waits(|| word.load(Ordering::SeqCst) == low(three)) {
            return 0;
        }
    }
    // SAFETY: the caller's own arguments go to the kernel, which checks them.
    let result = unsafe { kernel(number, [one, two, three, four, five, six]) };
    if (-4_095..0).contains(&result) {
        // SAFETY: the C library gives each thread a place of its own for it.
        unsafe { *libc::__errno_location() = i32::try_from(-result).unwrap_or(libc::EINVAL) };
        return -1;
    }
    result
}

#[cfg(target_arch = "x86_64")]
unsafe fn kernel(number: i64, arguments: [usize; 6]) -> i64 {
    let result;
    // SAFETY: the kernel changes the result and the two registers that are said, and what the arguments point to.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") number => result, in("rdi") arguments[0], in("rsi") arguments[1],
            in("rdx") arguments[2], in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn kernel(number: i64, arguments: [usize; 6]) -> i64 {
    let result;
    // SAFETY: the kernel changes the result, and what the arguments point to.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") arguments[0] => result, in("x1") arguments[1],
            in("x2") arguments[2], in("x3") arguments[3], in("x4") arguments[4], in("x5") arguments[5], options(nostack));
    }
    result
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
