//! Gossip on a network in memory, on tokio's paused time: who is found, who is dead, who stays out.
mod cluster;
mod hostile;
mod hub;
mod parts;
mod seal;
mod udp;
