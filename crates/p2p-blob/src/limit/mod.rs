//! Rate limits, fair queueing and stall timeouts.

mod bucket;
mod download;
mod fair;
mod rate;
mod share;
pub(crate) mod stall;

pub(crate) use bucket::Bucket;
pub(crate) use download::Download;
pub(crate) use fair::{FairQueue, Flow};
pub(crate) use rate::RateLimit;
pub(crate) use share::Share;
