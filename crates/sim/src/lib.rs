//! Swarms in virtual time: the real planner in every node, and a model of what is between them.
//!
//! `docs/simulation.md` describes the model. A scenario and its seed decide everything: the same ones give the same
//! outcome, to the byte.
#![forbid(unsafe_code)]

mod clock;
mod model;
mod scenario;
mod server;
mod tally;
mod world;

pub use scenario::{CHUNK_BYTES, PIECE_BYTES, Scenario};
pub use tally::Outcome;

/// Runs a scenario to its end.
pub fn run(scenario: Scenario) -> Outcome {
    world::World::new(scenario).run()
}
