//! The seal on every gossip datagram: who does not know the secret can neither read nor write one. Owns the datagram's
//! bytes (doc/decisions/006-gossip.md); what is inside is chitchat's. Used by `transport.rs`.
//!
//! ```text
//! magic 3 | version 1 | key id 4 | cluster 16 | wall clock in ms 8 | nonce 12 | ciphertext | tag 16     (big-endian)
//! ```
//! Everything is checked from cheap to dear, and nothing inside is parsed before the seal has been found good.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use sha2::{Digest, Sha256};

use super::observe::Dropped;
use super::replay::{NONCE_BYTES, Replays};
use crate::clock::Clock;
use crate::entropy::Entropy;

/// Largest payload of a UDP datagram over IPv4, and chitchat's own bound.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

const MAGIC: [u8; 3] = *b"xcg";
const VERSION: u8 = 1;
const KEY_ID_AT: usize = 4;
const KEY_ID_BYTES: usize = 4;
const CLUSTER_AT: usize = KEY_ID_AT + KEY_ID_BYTES;
const TIME_AT: usize = CLUSTER_AT + 16;
const NONCE_AT: usize = TIME_AT + 8;
const HEADER_BYTES: usize = NONCE_AT + NONCE_BYTES;
const TAG_BYTES: usize = 16;
/// What the seal adds to a message.
pub const SEAL_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// In the place of the cluster's id: the sender has none yet.
const JOINING: u128 = 0;

/// Why keys cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is none.
    #[error("gossip needs at least one key: give the cluster's secret")]
    None,
    /// Two of them would be taken for each other.
    #[error("keys {first} and {second} of the secret (from 1) have the same key id: replace one of them")]
    SameId {
        /// The one that stands first, from 1.
        first: usize,
        /// The other.
        second: usize,
    },
}

struct SealKey {
    id: [u8; KEY_ID_BYTES],
    derive: hmac::Key,
}

impl SealKey {
    fn new(key: &[u8; 32]) -> Self {
        let digest = Sha256::digest(key);
        let mut id = [0; KEY_ID_BYTES];
        id.copy_from_slice(&digest[..KEY_ID_BYTES]);
        Self {
            id,
            derive: hmac::Key::new(hmac::HMAC_SHA256, key),
        }
    }

    /// The cipher of one datagram. Its key is derived from the header up to the nonce, so nonces need to differ only among
    /// the datagrams of one cluster and millisecond: random ones under one key of long life would run out in weeks.
    fn cipher(&self, header: &[u8; HEADER_BYTES]) -> LessSafeKey {
        let key = hmac::sign(&self.derive, &header[..NONCE_AT]);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("HMAC-SHA256 gives a key's 32 bytes");
        LessSafeKey::new(key)
    }
}

/// Seals what goes out and opens what comes in.
pub struct Sealer {
    /// The first seals, every one opens.
    keys: Vec<SealKey>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
}

struct State {
    /// The cluster this node belongs to; [`JOINING`] while it has none.
    cluster: u128,
    replays: Replays,
}

impl Sealer {
    /// Begins without memory of earlier datagrams.
    pub fn new(
        keys: &[[u8; 32]],
        cluster: Option<u128>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeysError> {
        if keys.is_empty() {
            return Err(KeysError::None);
        }
        let keys: Vec<SealKey> = keys.iter().map(SealKey::new).collect();
        for (second, key) in keys.iter().enumerate() {
            if let Some(first) = keys[..second].iter().position(|known| known.id == key.id) {
                let (first, second) = (first + 1, second + 1);
                return Err(KeysError::SameId { first, second });
            }
        }
        let replays = Replays::default();
        let cluster = cluster.unwrap_or(JOINING);
        Ok(Self {
            keys,
            clock,
            entropy,
            state: Mutex::new(State { cluster, replays }),
        })
    }

    /// From now on seals for `cluster`, and opens nothing of another one.
    pub fn adopt(&self, cluster: u128) {
        self.state.lock().cluster = cluster;
    }

    /// Seals `message` into `datagram`, whose contents are replaced.
    pub fn seal(&self, message: &[u8], datagram: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce);
        let key = self.keys.first().expect("a sealer has a key");
        let mut header = [0; HEADER_BYTES];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[MAGIC.len()] = VERSION;
        header[KEY_ID_AT..CLUSTER_AT].copy_from_slice(&key.id);
        header[CLUSTER_AT..TIME_AT].copy_from_slice(&self.state.lock().cluster.to_be_bytes());
        header[TIME_AT..NONCE_AT].copy_from_slice(&self.clock.wall_ms().to_be_bytes());
        header[NONCE_AT..].copy_from_slice(&nonce);
        datagram.clear();
        datagram.extend_from_slice(&header);
        datagram.extend_from_slice(message);
        let tag = key
            .cipher(&header)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&header),
                &mut datagram[HEADER_BYTES..],
            )
            .expect("a message is shorter than the cipher's 256 GB");
        datagram.extend_from_slice(tag.as_ref());
    }

    /// Opens `datagram` in place and returns the message inside.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<&'a [u8], Dropped> {
        let header = Header::parse(datagram)?;
        let key = self.keys.iter().find(|key| key.id == header.key_id);
        let key = key.ok_or(Dropped::UnknownKey)?;
        let now_ms = self.clock.wall_ms();
        {
            let state = self.state.lock();
            if state.cluster != JOINING && header.cluster != JOINING && header.cluster != state.cluster {
                return Err(Dropped::OtherCluster);
            }
            state.replays.check(now_ms, header.sealed_ms, header.nonce)?;
        }
        let message = key
            .cipher(&header.bytes)
            .open_in_place(
                Nonce::assume_unique_for_key(header.nonce),
                Aad::from(&header.bytes),
                &mut datagram[HEADER_BYTES..],
            )
            .map_err(|_| Dropped::Forged)?;
        let is_new = self
            .state
            .lock()
            .replays
            .remember(now_ms, header.sealed_ms, header.nonce);
        if is_new { Ok(message) } else { Err(Dropped::Replayed) }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.state.lock().replays.len()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys, not shown)", self.keys.len())
    }
}

/// The part of a datagram that is not encrypted, but authenticated.
struct Header {
    bytes: [u8; HEADER_BYTES],
    key_id: [u8; KEY_ID_BYTES],
    cluster: u128,
    sealed_ms: u64,
    nonce: [u8; NONCE_BYTES],
}

impl Header {
    fn parse(datagram: &[u8]) -> Result<Self, Dropped> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(Dropped::TooLarge);
        }
        if datagram.len() < SEAL_BYTES {
            return Err(Dropped::Truncated);
        }
        if !datagram.starts_with(&MAGIC) {
            return Err(Dropped::Magic);
        }
        if datagram[MAGIC.len()] != VERSION {
            return Err(Dropped::Version);
        }
        let bytes: [u8; HEADER_BYTES] = part(datagram, 0);
        Ok(Self {
            key_id: part(&bytes, KEY_ID_AT),
            cluster: u128::from_be_bytes(part(&bytes, CLUSTER_AT)),
            sealed_ms: u64::from_be_bytes(part(&bytes, TIME_AT)),
            nonce: part(&bytes, NONCE_AT),
            bytes,
        })
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the length of a header was checked")
}
