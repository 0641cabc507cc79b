//! Values of settings about the cluster that TOML, flags and variables all write as one text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where the other nodes reach this one; none for a node alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerListen(pub Option<SocketAddr>);

/// Peer addresses of nodes to join: `host:port`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds(pub Vec<String>);

/// Why a text is no list of seeds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not host:port")]
pub struct NotASeed(String);

impl FromStr for PeerListen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address)))
    }
}

impl fmt::Display for PeerListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

impl FromStr for Seeds {
    type Err = NotASeed;

    fn from_str(text: &str) -> Result<Self, NotASeed> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let seed = |part: &str| {
            let (host, port) = part.rsplit_once(':').ok_or_else(|| NotASeed(part.to_owned()))?;
            let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
            if host.is_empty() || !is_port {
                return Err(NotASeed(part.to_owned()));
            }
            Ok(part.to_owned())
        };
        parts.map(seed).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(PeerListen);
as_text!(Seeds);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_list_of_host_and_port() {
        let seeds: Seeds = "10.0.0.1:8100, node-2:8100,[::1]:8100,".parse().expect("three seeds");
        assert_eq!(seeds.to_string(), "10.0.0.1:8100,node-2:8100,[::1]:8100");
        for wrong in ["node", "node:", ":80", "node:0", "node:99999"] {
            assert_eq!(wrong.parse::<Seeds>(), Err(NotASeed(wrong.to_owned())));
        }
    }

    #[test]
    fn a_node_alone_listens_to_no_peers() {
        assert_eq!("".parse(), Ok(PeerListen(None)));
        let listen: PeerListen = "127.0.0.1:8100".parse().expect("an address");
        assert_eq!(listen.to_string(), "127.0.0.1:8100");
    }
}
