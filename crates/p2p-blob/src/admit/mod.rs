//! Admission: slots for handshakes, connections and streams, shared by the addresses that peers come from.
//!
//! Peer ids are free, addresses are not. So slots are shared by prefix first, then by address, then by peer: one that has
//! fewer than others is admitted, and the least useful slot of the one with the most is evicted.

mod door;
mod gate;
mod origin;
mod quota;

pub(crate) use door::{ConnectionLimiter, ConnectionSlots};
pub(crate) use gate::Gate;
pub(crate) use origin::{Asker, Origin};
pub(crate) use quota::{Decision, Quota, Slot};
