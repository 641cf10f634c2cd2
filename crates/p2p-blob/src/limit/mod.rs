//! Who may send or receive how much when: rates, and equal shares for peers.

mod bucket;
mod download;
mod fair;
mod rate;
mod share;

pub(crate) use bucket::Bucket;
pub(crate) use download::Download;
pub(crate) use fair::{FairQueue, Party};
pub(crate) use rate::RateLimit;
pub(crate) use share::Share;
