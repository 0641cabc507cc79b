//! The cluster secret: what the nodes of one cluster know and nobody else. Owns the file's format and the keys derived
//! from it; reading the file is the caller's. `net` proves membership with the peer keys, gossip seals with its own.
//!
//! Several keys make a change without a stop possible: add the new one as the second line on every node, then make it the
//! first, then drop the old one.

use std::fmt;

use ring::hkdf::{HKDF_SHA256, Salt};

use crate::entropy::Entropy;

/// Fewest characters of a key: what is shorter can be guessed.
const KEY_CHARACTERS_MIN: usize = 16;
/// Most keys of a secret. Every key is tried on a stranger's first message.
const KEYS_MAX: usize = 8;
/// Changing any of these is another secret: nodes of before and after cannot talk.
const SALT: &[u8] = b"xcron cluster secret 1";
const PEER: &[u8] = b"peer connections";
const GOSSIP: &[u8] = b"gossip";

/// A key for a cipher, derived from a line of the secret.
pub type Key = [u8; 32];

/// Why a text is not a cluster secret. Never shows a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is no key in it.
    #[error("the secret file holds no key: put one of at least {KEY_CHARACTERS_MIN} characters on a line")]
    Empty,
    /// A key is too short.
    #[error(
        "line {line} of the secret file: the key has {characters} characters; use at least {KEY_CHARACTERS_MIN} random ones"
    )]
    Short {
        /// Where, from 1.
        line: usize,
        /// How many it has.
        characters: usize,
    },
    /// A key holds what no text holds: the file is probably something else.
    #[error("line {line} of the secret file holds a control character: it must be text, one key a line")]
    Control {
        /// Where, from 1.
        line: usize,
    },
    /// A key is there twice: a rotation went wrong.
    #[error("line {line} of the secret file repeats the key of line {first}: remove one of them")]
    Repeated {
        /// Where, from 1.
        line: usize,
        /// Where it stood before.
        first: usize,
    },
    /// There are too many keys.
    #[error("the secret file holds more than {KEYS_MAX} keys: drop those that no node uses any more")]
    TooMany,
}

/// The keys of a cluster; the first of each kind is used, the others are accepted.
#[derive(Clone)]
pub struct ClusterSecret {
    peer_keys: Vec<Key>,
    gossip_keys: Vec<Key>,
}

impl ClusterSecret {
    /// Reads a secret file's text: a key per line, without blanks around it; empty lines and lines that begin with `#` are
    /// left out.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let mut keys: Vec<(usize, &str)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (line, key) = (at + 1, line.trim());
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.chars().any(char::is_control) {
                return Err(SecretError::Control { line });
            }
            let characters = key.chars().count();
            if characters < KEY_CHARACTERS_MIN {
                return Err(SecretError::Short { line, characters });
            }
            if let Some(&(first, _)) = keys.iter().find(|(_, known)| *known == key) {
                return Err(SecretError::Repeated { line, first });
            }
            if keys.len() == KEYS_MAX {
                return Err(SecretError::TooMany);
            }
            keys.push((line, key));
        }
        if keys.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self {
            peer_keys: keys.iter().map(|(_, key)| derive(key, PEER)).collect(),
            gossip_keys: keys.iter().map(|(_, key)| derive(key, GOSSIP)).collect(),
        })
    }

    /// Makes a secret of one random key, and the text of its file.
    pub fn generate(entropy: &dyn Entropy) -> (String, Self) {
        let [a, b, c, d]: [u64; 4] = std::array::from_fn(|_| entropy.next_u64());
        let key = format!("{a:016x}{b:016x}{c:016x}{d:016x}");
        let text =
            format!("# The secret of an xcron cluster. Every node has the same; whoever has it is a node.\n{key}\n");
        let secret = Self::parse(&text).expect("a generated key is long enough");
        (text, secret)
    }

    /// Keys that peer connections are authenticated with, the one to use first.
    pub fn peer_keys(&self) -> &[Key] {
        &self.peer_keys
    }

    /// Keys that gossip is sealed with, the one to use first.
    pub fn gossip_keys(&self) -> &[Key] {
        &self.gossip_keys
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterSecret({} keys, not shown)", self.peer_keys.len())
    }
}

/// One key per purpose, so that what one protocol gives away is of no use in the other.
fn derive(line: &str, purpose: &[u8]) -> Key {
    let mut key = Key::default();
    let purposes = [purpose];
    Salt::new(HKDF_SHA256, SALT)
        .extract(line.as_bytes())
        .expand(&purposes, HKDF_SHA256)
        .and_then(|material| material.fill(&mut key))
        .expect("HKDF-SHA256 gives keys of its digest's length");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    const KEYS: [&str; KEYS_MAX + 1] = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    const OLD: &str = "correct horse battery staple";
    const NEW: &str = "0123456789abcdef";

    fn parse(text: &str) -> ClusterSecret {
        ClusterSecret::parse(text).expect("valid")
    }

    fn refusal(text: &str) -> String {
        ClusterSecret::parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn derived_keys_are_frozen() {
        let secret = parse(OLD);
        let halves = |key: Key| {
            let (high, low) = key.split_at(16);
            [high, low].map(|half| u128::from_be_bytes(half.try_into().expect("16 bytes")))
        };
        assert_eq!(halves(secret.peer_keys()[0]), PEER_HALVES);
        assert_eq!(halves(secret.gossip_keys()[0]), GOSSIP_HALVES);
    }

    // By an independent implementation of RFC 5869.
    const PEER_HALVES: [u128; 2] = [
        0x8209_af65_24c8_93a7_8bb3_ccda_9689_313c,
        0xc456_a062_3026_a657_b17f_d764_8802_1696,
    ];
    const GOSSIP_HALVES: [u128; 2] = [
        0x6572_d34d_beaf_2e11_2566_4b1a_240c_3782,
        0x9c66_25ca_577a_61d3_9b4d_19ac_8536_5e08,
    ];

    #[test]
    fn the_first_line_is_the_primary_key() {
        let both = parse(&format!("# keys\r\n\r\n  {NEW}  \r\n{OLD}\n\n# end"));
        assert_eq!(
            both.peer_keys(),
            [parse(NEW).peer_keys(), parse(OLD).peer_keys()].concat()
        );
        assert_eq!(
            both.gossip_keys(),
            [parse(NEW).gossip_keys(), parse(OLD).gossip_keys()].concat()
        );
        assert_ne!(both.peer_keys(), both.gossip_keys());
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line_and_never_shown() {
        for (text, what) in [
            (String::new(), "holds no key"),
            ("# only a comment\n\n".into(), "holds no key"),
            (
                format!("{OLD}\n\nshort-key\n"),
                "line 3 of the secret file: the key has 9 characters",
            ),
            ("fifteen-letters".into(), "line 1 of the secret file: the key has 15"),
            (format!("{OLD}\n{NEW}\0\n"), "line 2 of the secret file holds a control"),
            (
                format!("# a\n{NEW}\n{OLD}\n {NEW}\n"),
                "line 4 of the secret file repeats the key of line 2",
            ),
            (KEYS.map(|n| NEW.to_owned() + n).join("\n"), "more than 8 keys"),
        ] {
            let refusal = refusal(&text);
            assert!(refusal.contains(what), "{text:?}: {refusal}");
            assert!(!refusal.contains(OLD) && !refusal.contains(NEW), "{refusal}");
        }
        // Characters are counted, not bytes: this one has 15 of two bytes each.
        assert!(refusal(&"ü".repeat(15)).contains("15 characters"));
        assert_eq!(parse(&"ü".repeat(16)).peer_keys().len(), 1);
    }

    #[test]
    fn a_generated_secret_can_be_read_back_and_differs_each_time() {
        let entropy = SystemEntropy::default();
        let (text, secret) = ClusterSecret::generate(&entropy);
        assert_eq!(parse(&text).peer_keys(), secret.peer_keys());
        let (_, other) = ClusterSecret::generate(&entropy);
        assert_ne!(other.peer_keys(), secret.peer_keys());
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", parse(OLD)), "ClusterSecret(1 keys, not shown)");
    }
}
