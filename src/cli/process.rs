//! What a node asks of its process before it does anything: how many files it may have open, and who may read those it
//! makes. Called by `cli/serve.rs`; how the files are divided is `open_files.rs`.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tracing::warn;

use crate::config::Config;
use crate::open_files::{self, TooFew, Wanted};

/// Raises the soft limit of open files to the hard one, and tells what the process may have then.
pub(super) fn raise_open_files() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        // It is divided all the same.
        Err(_) => current.unwrap_or(u64::MAX),
    }
}

/// What the process makes from now on is its user's alone, whatever the umask was: tasks carry other people's data.
pub(super) fn make_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Lowers the settings that ask for more than `limit` files, with a warning for each.
pub(super) fn fit(config: &mut Config, limit: u64) -> Result<(), TooFew> {
    let shares = open_files::divide(
        limit,
        &Wanted {
            connections: config.connections_max,
            in_flight: config.fire.in_flight_max,
            has_peers: config.peer_listen.0.is_some(),
        },
    )?;
    let fire = &mut config.fire;
    for (setting, value, share) in [
        ("connections_max", &mut config.connections_max, shares.connections),
        ("fire.in_flight_max", &mut fire.in_flight_max, shares.in_flight),
        (
            "fire.in_flight_per_target_max",
            &mut fire.in_flight_per_target_max,
            shares.in_flight,
        ),
    ] {
        if *value > share {
            warn!(
                setting,
                from = *value,
                to = share,
                open_files = limit,
                "lowered: the process may not have so many files open; raise the hard limit of open files \
                 (LimitNOFILE= in a systemd unit, ulimit -Hn in a shell), or lower the setting"
            );
            *value = share;
        }
    }
    config.files = shares;
    Ok(())
}
