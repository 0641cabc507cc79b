//! Divides the files that the process may have open among the store, peers, API connections and callbacks.
//!
//! A store that cannot open a file ends the node, so nobody else may take the last one: each of the others is bounded by
//! its share. Pure: what the process may have is asked of the machine by `cli/process.rs`, which raises it first.
//! Used by `cli/serve.rs`; the shares travel in [`crate::config::Config`].

use crate::limits::CONNECTIONS_LEAVING_MAX;

/// Files that belong to nobody in particular: standard streams, pollers, listeners, gossip's sockets, locks, and
/// connections that are about to be refused or closed.
const FIXED: u64 = 48 + CONNECTIONS_LEAVING_MAX as u64;
/// Files of one callback in flight: two that ask for its name, or its connection and a second address that is tried meanwhile.
const PER_CALLBACK: u64 = 2;
/// Files that the store has open besides tables: journals, segments of the log, what compactions read and write,
/// snapshots that come in.
const STORE_FILES: u64 = 96;
/// Tables of the store that stay open, at least; fjall takes no fewer.
const TABLES_MIN: u64 = 16;
/// Tables that stay open where there is room.
const TABLES_WANTED: u64 = 900;
/// Connections to and from peers: enough for a small cluster whose nodes connect again before the old ones have ended.
const PEERS_MIN: u64 = 24;
/// A thousand peers, in and out, and as many strangers as [`crate::net`] lets in.
const PEERS_WANTED: u64 = 2_304;
/// Connections to the API that a node must be able to have.
const CONNECTIONS_MIN: u64 = 16;
/// Callbacks in flight that a node must be able to have.
const IN_FLIGHT_MIN: u64 = 8;

/// What each part may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Tables of the store that stay open.
    pub tables: u32,
    /// Connections with other nodes, in either direction, proved or not.
    pub peers: u32,
    /// Connections to the API.
    pub connections: u32,
    /// Callbacks in flight.
    pub in_flight: u32,
    /// Idle connections to all targets of callbacks together.
    pub idle: u32,
}

/// What the settings ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Connections to the API.
    pub connections: u32,
    /// Callbacks in flight.
    pub in_flight: u32,
    /// Whether there are to be other nodes.
    pub has_peers: bool,
}

/// The process may have too few files open for any division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may have {limit} files open at once, and a node needs {needed} at least: raise the hard limit \
     (LimitNOFILE= in a systemd unit, ulimit -Hn in a shell, nofile in /etc/security/limits.conf)"
)]
pub struct TooFew {
    /// What it may have.
    pub limit: u64,
    /// What the smallest node needs.
    pub needed: u64,
}

/// One of those who share.
#[derive(Clone, Copy)]
struct Part {
    got: u64,
    wanted: u64,
    /// Files of one.
    cost: u64,
    /// How much it is given in comparison with the others.
    weight: u64,
}

impl Default for Shares {
    /// Where nothing is short.
    fn default() -> Self {
        Self {
            tables: count(TABLES_WANTED),
            peers: count(PEERS_WANTED),
            connections: u32::MAX,
            in_flight: u32::MAX,
            idle: u32::MAX,
        }
    }
}

/// Divides `limit` files: everybody gets the least it can do with, then by weight what is left, up to what it wants.
pub fn divide(limit: u64, wanted: &Wanted) -> Result<Shares, TooFew> {
    let part = |least: u64, wanted: u64, cost, weight| Part {
        got: least.min(wanted),
        wanted,
        cost,
        weight,
    };
    let peers = if wanted.has_peers { PEERS_WANTED } else { 0 };
    let mut parts = [
        part(TABLES_MIN, TABLES_WANTED, 1, 4),
        part(PEERS_MIN, peers, 1, 2),
        part(CONNECTIONS_MIN, wanted.connections.into(), 1, 8),
        part(IN_FLIGHT_MIN, wanted.in_flight.into(), PER_CALLBACK, 6),
        // As many as attempts that end together leave behind.
        part(0, wanted.in_flight.into(), 1, 2),
    ];
    let needed = FIXED + STORE_FILES + parts.iter().map(|part| part.got * part.cost).sum::<u64>();
    let Some(mut left) = limit.checked_sub(needed) else {
        return Err(TooFew { limit, needed });
    };
    // In each round somebody is satisfied, or everybody has had a share of what is left.
    for _ in 0..=parts.len() {
        let weights: u64 = parts
            .iter()
            .filter(|part| part.got < part.wanted)
            .map(|part| part.weight)
            .sum();
        let Some(of_one) = left.checked_div(weights) else { break };
        for part in &mut parts {
            let more = (of_one * part.weight / part.cost).min(part.wanted - part.got);
            part.got += more;
            left -= more * part.cost;
        }
    }
    let [tables, peers, connections, in_flight, idle] = parts.map(|part| count(part.got));
    Ok(Shares {
        tables,
        peers,
        connections,
        in_flight,
        idle,
    })
}

fn count(files: u64) -> u32 {
    u32::try_from(files).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULTS: Wanted = Wanted {
        connections: 10_000,
        in_flight: 1_024,
        has_peers: true,
    };

    fn files(shares: &Shares) -> u64 {
        let of = |count: u32| u64::from(count);
        FIXED
            + STORE_FILES
            + of(shares.tables)
            + of(shares.peers)
            + of(shares.connections)
            + of(shares.in_flight) * PER_CALLBACK
            + of(shares.idle)
    }

    #[test]
    fn a_usual_hard_limit_gives_the_defaults_what_they_want() {
        let shares = divide(20_000, &DEFAULTS).expect("it fits");
        assert_eq!((shares.connections, shares.in_flight), (10_000, 1_024));
        assert_eq!((shares.tables, shares.peers, shares.idle), (900, 2_304, 1_024));
    }

    #[test]
    fn a_small_limit_serves_and_a_tiny_one_is_refused() {
        for limit in [256, 1_024] {
            let shares = divide(limit, &DEFAULTS).expect("it serves");
            assert!(shares.connections >= 16 && shares.in_flight >= 8, "{limit}: {shares:?}");
        }
        let refused = divide(200, &DEFAULTS).expect_err("too few");
        assert!(refused.to_string().contains("200 files") && refused.to_string().contains("LimitNOFILE"));
        let alone = Wanted {
            has_peers: false,
            ..DEFAULTS
        };
        assert_eq!(divide(1_024, &alone).expect("it serves").peers, 0);
    }

    proptest! {
        #[test]
        fn the_shares_fit_and_nobody_gets_more_than_it_wants(
            limit in 0..100_000_u64, connections in 1..50_000_u32, in_flight in 1..50_000_u32, has_peers: bool,
        ) {
            let wanted = Wanted { connections, in_flight, has_peers };
            let Ok(shares) = divide(limit, &wanted) else {
                prop_assert!(limit < 256);
                return Ok(());
            };
            prop_assert!(files(&shares) <= limit);
            prop_assert!((1..=connections).contains(&shares.connections));
            prop_assert!((1..=in_flight).contains(&shares.in_flight));
            prop_assert!(shares.idle <= in_flight && u64::from(shares.tables) >= TABLES_MIN);
            // More files never give anybody less in all.
            let more = divide(limit + 1_000, &wanted).expect("it fitted with less");
            prop_assert!(files(&more) >= files(&shares));
        }
    }
}
