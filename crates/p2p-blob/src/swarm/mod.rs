//! The libp2p swarm and the task that owns it: its behaviours, its connections, and the streams on them.

pub(crate) mod behaviour;
pub(crate) mod builder;
pub(crate) mod handler;
pub(crate) mod listen;
pub(crate) mod task;
