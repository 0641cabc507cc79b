//! The position in a group's log, read from the bytes that the product stores with the state.
//!
//! The layout is stored data of the product (`raft/machine.rs`), so it does not change under this reader: version, whether there
//! is a position, then term, node and index as varints, then the membership, which is not looked at.

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
