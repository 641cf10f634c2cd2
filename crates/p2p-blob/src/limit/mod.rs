//! Who may send or receive how much when: rates, equal shares for peers, and the end of patience with a stream.

mod bucket;
mod download;
mod fair;
mod rate;
mod share;
pub(crate) mod stall;

pub(crate) use bucket::Bucket;
pub(crate) use download::Download;
pub(crate) use fair::{FairQueue, Party};
pub(crate) use rate::RateLimit;
pub(crate) use share::Share;
