//! Loading from sources in memory.

mod load;
mod reuse;
mod single;
mod support;
