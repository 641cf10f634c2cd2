//! Peer discovery: the DHT, mDNS and peer exchange (PEERS), and the scope of addresses.

pub(crate) mod address;
#[cfg(feature = "dht")]
pub(crate) mod dht;
pub(crate) mod lan;
pub(crate) mod record;
pub(crate) mod tracker;
