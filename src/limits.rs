//! Every fixed bound of the product, by name, with the relations between them checked by the compiler.
//!
//! Owns numbers only. A bound that an operator may want to move is a setting in `config.rs`, whose default stands here.

/// Number of shards a cluster's tasks are divided into. Part of every stored key: it can never change.
pub const SHARDS: u16 = 10_240;
/// Default number of Raft groups a new cluster is born with; a divisor of [`SHARDS`]. See doc/decisions/003-groups.md.
pub const GROUPS_DEFAULT: u16 = 32;

/// Copies of every task in a cluster that has so many nodes.
pub const REPLICAS_DEFAULT: u8 = 3;
/// Most copies of a task.
pub const REPLICAS_MAX: u8 = 7;
/// Longest name of a zone, in bytes: it is gossiped.
pub const ZONE_BYTES_MAX: usize = 64;

/// Longest task id a client may choose, in bytes.
pub const TASK_ID_BYTES_MAX: usize = 64;
/// Longest callback URL, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest crontab line, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// Longest time-zone name, in bytes.
pub const TIMEZONE_BYTES_MAX: usize = 64;
/// Largest callback body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Largest request to the API, in bytes.
pub const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Furthest instant a task may name: 9999-12-30T22:00:00Z, the last one that every time zone can show.
pub const INSTANT_MS_MAX: u64 = 253_402_207_200_000;

/// Largest encoded command of one log entry, in bytes: a batch is closed before it passes this.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;
/// Most bytes of entries in one message to a follower; a single entry may be larger. Small: a heartbeat may have to wait for
/// as much, and a lease for the heartbeat.
pub const APPEND_BYTES_MAX: usize = 512 << 10;
/// Most that the encoding of an entry, and of the message that carries it, adds to its command.
pub const ENTRY_OVERHEAD_BYTES_MAX: usize = 4 << 10;
/// Most operations in one log entry.
pub const ENTRY_OPS_MAX: usize = 512;
/// Largest request or answer between nodes, in bytes; whoever has more cuts it.
pub const PEER_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Proposals one group holds (waiting and in its current round) before it refuses further ones.
pub const PROPOSALS_PER_GROUP_MAX: usize = 4_096;

/// Fires of one task that may be waiting for a retry at the same time; one more ends the oldest as failed.
pub const OPEN_FIRES_MAX: usize = 8;
/// Final outcomes kept with a task for queries; counts are kept for all of them.
pub const OUTCOMES_KEPT: usize = 8;
/// Most of a target's answer that is read, in bytes; the rest is dropped with the connection.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most headers of a target's answer. One that has more, or whose head is larger than the HTTP client's buffer (some 400 KiB), is no
/// answer, whatever its status line says.
pub const ANSWER_HEADERS_MAX: usize = 512;
/// How long an unused connection to a target is kept, in milliseconds. Servers close theirs after 2 s and more; a request that
/// meets the closing is lost.
pub const KEPT_CONNECTION_IDLE_MS: u64 = 1_000;
/// How long the connections to targets are used again at least, in milliseconds, so that a changed address is noticed.
pub const KEPT_CONNECTION_MS_MIN: u64 = 45_000;
/// The same, at most.
pub const KEPT_CONNECTION_MS_MAX: u64 = 60_000;
/// Longest time for a lookup of a target's name, in milliseconds; it gets four fifths of the time for a connection at most.
pub const LOOKUP_MS_MAX: u64 = 4_000;
/// Longest time for one of its three tries.
pub const LOOKUP_TRY_MS_MAX: u64 = 1_200;
/// Names of targets whose addresses are kept.
pub const NAMES_MAX: usize = 4_096;
/// How long an address holds at least before its name is asked for again, in milliseconds, whatever the name server says.
pub const NAME_FRESH_MS_MIN: u64 = 1_000;
/// The same, at most, so that a changed address is noticed.
pub const NAME_FRESH_MS_MAX: u64 = 60_000;
/// How long an address is used after that while no name server answers, in milliseconds.
pub const NAME_STALE_MS: u64 = 3_600_000;
/// How long an attempt waits for a new answer where it has such an old address, in milliseconds.
pub const STALE_PATIENCE_MS: u64 = 300;
/// How long a name is not asked for again after a lookup that failed, in milliseconds.
pub const NAME_FAILED_MS: u64 = 1_000;
/// How far a node's wall clock may be from its peers' median before it stops leading, in milliseconds.
pub const CLOCK_OFFSET_MS_MAX: u64 = 500;
/// A wall clock that moves by more against the monotonic one has jumped far, in milliseconds: it is held until somebody confirms
/// it, or until it has lasted. By no more may it lie before the last trusted time when a node starts.
pub const CLOCK_STEP_MS_MAX: u64 = 5 * 60_000;
/// Nor by more behind that, in milliseconds: a node may have been stopped for so long without anybody being asked.
pub const CLOCK_LATE_START_MS: u64 = 24 * 3_600_000;
/// How long a large jump of the clock is held that nobody can confirm, in seconds, unless the setting says otherwise.
pub const CLOCK_HOLD_SECS_DEFAULT: u64 = 15 * 60;
/// Connections that may wait to be accepted. With the usual 128, the clients of a burst see their first packet dropped and
/// send it again after a whole second.
pub const ACCEPT_BACKLOG: u32 = 4_096;
/// Idle connections that are being closed for new ones at the same time: so many more than the bound are open then.
pub const CONNECTIONS_LEAVING_MAX: usize = 16;
/// Memory for the bodies of all requests together, in bytes, from their first byte to their answer.
pub const REQUEST_BODIES_BYTES_MAX: usize = 64 << 20;
/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// Longest time one attempt may be given, in milliseconds.
pub const ATTEMPT_TIMEOUT_MS_MAX: u64 = 600_000;
/// Most idle connections kept to one target.
pub const IDLE_PER_TARGET_MAX: usize = 1_024;

const _: () = assert!(BODY_BYTES_MAX + URL_BYTES_MAX + CRON_BYTES_MAX + 1_024 < ENTRY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(64 * REQUEST_BYTES_MAX <= REQUEST_BODIES_BYTES_MAX);
// The largest entry, and the most entries that are read at once, fit in one message.
const _: () = assert!(ENTRY_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
// A forwarded request, and the answer with a whole task in it, fit in one message.
const _: () = assert!(REQUEST_BYTES_MAX + ENTRY_OVERHEAD_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
// Each try of a lookup has its time, and an old address is used well before.
const _: () = assert!(3 * LOOKUP_TRY_MS_MAX < LOOKUP_MS_MAX && STALE_PATIENCE_MS < LOOKUP_TRY_MS_MAX);
const _: () = assert!(NAME_FRESH_MS_MIN < NAME_FRESH_MS_MAX && NAME_FRESH_MS_MAX < NAME_STALE_MS);
const _: () = assert!(CLOCK_OFFSET_MS_MAX < CLOCK_STEP_MS_MAX && CLOCK_STEP_MS_MAX < CLOCK_LATE_START_MS);
const _: () = assert!(SHARDS.is_multiple_of(GROUPS_DEFAULT));
const _: () =
    assert!(KEPT_CONNECTION_IDLE_MS < KEPT_CONNECTION_MS_MIN && KEPT_CONNECTION_MS_MIN <= KEPT_CONNECTION_MS_MAX);
