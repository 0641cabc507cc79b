//! What the black-box tests share: a node as a process, a client, a target for callbacks, and the oracle that judges.
//!
//! Knows the program by its command line, its HTTP and its data directory alone, never by its source. Used by the
//! modules beside it.

pub mod checker;
pub mod client;
pub mod cluster;
pub mod image;
pub mod namespace;
pub mod node;
pub mod oracle;
pub mod shim;
pub mod sink;
pub mod view;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Longest that anything may take before a test gives up on it: far beyond what any of it needs, so that a slow machine
/// fails no test.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Time between two looks at what is waited for.
pub const POLL: Duration = Duration::from_millis(20);

/// Milliseconds since the Unix epoch, rounded down, by the machine's clock: the one that callbacks are judged by.
#[expect(
    clippy::disallowed_methods,
    reason = "the judge has a clock of its own, not the product's"
)]
pub fn wall_ms() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the machine's clock is past 1970");
    u64::try_from(since_epoch.as_millis()).expect("milliseconds of this era fit")
}

/// Seconds since the Unix epoch, rounded down.
pub fn wall_secs() -> u64 {
    wall_ms() / 1_000
}

/// A number that a variable of the environment may raise: gates run the default, longer runs say more.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")),
        Err(_) => default,
    }
}

/// Random numbers that the same seed gives again. `XCRON_TEST_SEED` replaces the test's own seed.
pub fn random(seed: u64) -> StdRng {
    let seed = setting("XCRON_TEST_SEED", seed);
    println!("seed {seed} (repeat with XCRON_TEST_SEED={seed})");
    StdRng::seed_from_u64(seed)
}

/// Waits until `condition` gives a value; panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("gave up after {PATIENCE:?}: {what}"))
}
