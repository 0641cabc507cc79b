//! Values of settings about the API's address: where it listens, and what clients may call it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAListen {
    /// No port.
    #[error("{0:?} has no port: write IP:PORT, such as 127.0.0.1:8000 or [::1]:8000")]
    NoPort(String),
    /// A name.
    #[error(
        "{0:?} is no IP address: write one of this machine's, such as 127.0.0.1:8000 or [::1]:8000; of host names only \
         localhost is known here"
    )]
    Name(String),
}

/// Reads `IP:PORT`; `localhost` is 127.0.0.1.
pub(super) fn parse(text: &str) -> Result<SocketAddr, NotAListen> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match port {
        Some((host, port)) if host.eq_ignore_ascii_case("localhost") => {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        Some(_) => Err(NotAListen::Name(text.to_owned())),
        None => Err(NotAListen::NoPort(text.to_owned())),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Names that clients may have in `Host`, in lower case, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub Vec<String>);

/// Why a text is no list of host names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host name: write names alone, without scheme and port, such as timer.example.com")]
pub struct NotAName(String);

impl FromStr for HostNames {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let name = |part: &str| {
            let is_name = part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
            if is_name && part.bytes().any(|b| b != b'.') {
                Ok(part.to_ascii_lowercase())
            } else {
                Err(NotAName(part.to_owned()))
            }
        };
        parts.map(name).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for HostNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_an_address_and_other_names_are_told_what_to_write() {
        assert_eq!(parse("localhost:8000"), Ok(SocketAddr::from(([127, 0, 0, 1], 8_000))));
        assert_eq!(parse("[::1]:0"), Ok("[::1]:0".parse().expect("an address")));
        for (text, part) in [
            ("timer:8000", "127.0.0.1:8000"),
            ("127.0.0.1", "no port"),
            ("localhost:x", "no port"),
        ] {
            let error = parse(text).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn host_names_are_names_alone() {
        let names: HostNames = "Timer.Example, .inner.example,".parse().expect("two names");
        assert_eq!(names.to_string(), "timer.example,.inner.example");
        for wrong in ["http://a", "a:80", "a b", "."] {
            assert_eq!(wrong.parse::<HostNames>(), Err(NotAName(wrong.to_owned())));
        }
    }
}
