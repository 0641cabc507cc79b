//! The target of a URL: scheme, host and port. Fires share their limits by it.
//!
//! Stored beside every due, so that whose due it is is known without a look at its task. What is stored is a digest, long
//! enough to stand for the name: nobody can make a URL that is taken for another's target (doc/decisions/018-targets.md).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

/// Whose due it is: the first half of the SHA-256 of a callback's scheme, host and port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target(pub [u8; 16]);

/// The target of a callback URL. Two spellings of one host (case, IDN, default port) have one target. A URL that does not
/// parse is refused long before; here it has the default target.
pub fn target_of(url: &str) -> Target {
    let Ok(url) = Url::parse(url) else {
        return Target::default();
    };
    let mut hasher = Sha256::new();
    hasher.update(url.scheme());
    hasher.update([0]);
    hasher.update(url.host_str().unwrap_or_default());
    hasher.update(url.port_or_known_default().unwrap_or(0).to_be_bytes());
    let mut target = Target::default();
    target.0.copy_from_slice(&hasher.finalize()[..16]);
    target
}

/// Whether callbacks can go to such a URL: http or https, without user name and password.
pub fn is_callable(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_target() {
        for (one, other) in [
            ("http://A.example/x", "http://a.example:80/y?z"),
            ("https://bücher.example/", "https://xn--bcher-kva.example:443/"),
            ("http://[::1]:9/", "http://[0:0:0:0:0:0:0:1]:9/a"),
        ] {
            assert_eq!(target_of(one), target_of(other), "{one} {other}");
        }
    }

    #[test]
    fn scheme_host_and_port_tell_targets_apart() {
        let base = target_of("http://a.example/");
        for other in ["https://a.example/", "http://b.example/", "http://a.example:81/"] {
            assert_ne!(base, target_of(other), "{other}");
        }
    }

    #[test]
    fn only_plain_http_urls_are_callable() {
        for (url, wanted) in [
            ("http://a.example/", true),
            ("https://[::1]:9/x", true),
            ("ftp://a.example/", false),
            ("http://user@a.example/", false),
            ("http://:secret@a.example/", false),
        ] {
            assert_eq!(is_callable(&Url::parse(url).expect("a URL")), wanted, "{url}");
        }
    }

    #[test]
    fn the_hash_is_frozen() {
        // The due index stores it.
        let name = [&b"http\x00127.0.0.1"[..], &9_000_u16.to_be_bytes()].concat();
        assert_eq!(target_of("http://127.0.0.1:9000/x").0, Sha256::digest(name)[..16]);
        assert_eq!(
            target_of("http://127.0.0.1:9000/x").0[..4],
            2_957_903_762_u32.to_be_bytes()
        );
    }
}
