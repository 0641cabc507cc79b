//! The position in a group's log, read from the bytes that the product stores with the state.
//!
//! The layout is stored data of the product (`raft/machine.rs`), so it does not change under this reader: version, whether there
//! is a position, then term, node and index as varints, then the membership: whether it has a position, that position, and the sets
//! of voters, of which there are two while a change is not finished.

use std::collections::BTreeSet;

/// Where in its log a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the entry.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// That leader.
    pub node: u64,
}

impl Position {
    /// Reads it; `Ok(None)` before the first entry.
    pub fn decode(applied: &[u8]) -> Result<Option<Self>, String> {
        let bad = || format!("the stored position {applied:?} is of another layout");
        match applied {
            [] | [1, 0, ..] => Ok(None),
            [1, 1, rest @ ..] => {
                let mut rest = rest;
                let mut number = || varint(&mut rest).ok_or_else(bad);
                let (term, node, index) = (number()?, number()?, number()?);
                Ok(Some(Self { index, term, node }))
            }
            _ => Err(bad()),
        }
    }
}

/// Who votes in a group, from an entry of its log on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters {
    /// The entry.
    pub index: u64,
    /// The voters; before an unfinished change, and after it.
    pub sets: Vec<BTreeSet<u64>>,
}

impl Voters {
    /// Reads them; `None` before the first.
    pub fn decode(applied: &[u8]) -> Option<Self> {
        let [1, 1, rest @ ..] = applied else { return None };
        let mut rest = rest;
        let mut number = || varint(&mut rest);
        let (_term, _node, _index) = (number()?, number()?, number()?);
        if number()? == 0 {
            return None;
        }
        let (_term, _node, index) = (number()?, number()?, number()?);
        let sets = (0..number()?).map(|_| (0..number()?).map(|_| number()).collect::<Option<BTreeSet<u64>>>());
        let sets = sets.collect::<Option<Vec<_>>>()?;
        Some(Self { index, sets })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
