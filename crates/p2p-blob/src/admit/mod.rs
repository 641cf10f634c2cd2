//! Who gets in: places for handshakes, connections and streams, shared by the addresses that peers come from.
//!
//! Names are free, addresses are not. So places are shared by prefix first, then by address, then by peer: whoever has
//! fewer than others finds room, and what goes for it is what is of the least use to the one that has most.

mod door;
mod gate;
mod origin;
mod quota;

pub(crate) use door::{Door, Doorkeeper};
pub(crate) use gate::Gate;
pub(crate) use origin::{Asker, Origin};
pub(crate) use quota::{Answer, Guest, Quota};
