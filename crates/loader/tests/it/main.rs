//! Loading from sources in memory.

mod left;
mod load;
mod reuse;
mod single;
mod support;
mod tensors;
