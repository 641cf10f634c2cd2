//! Loading from sources in memory.

mod load;
mod reuse;
mod support;
