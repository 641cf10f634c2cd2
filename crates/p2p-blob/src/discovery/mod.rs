//! Finding peers: by the DHT, by mDNS and by what other peers tell, at addresses that are of use.

pub(crate) mod address;
#[cfg(feature = "dht")]
pub(crate) mod dht;
pub(crate) mod lan;
pub(crate) mod record;
pub(crate) mod tracker;
