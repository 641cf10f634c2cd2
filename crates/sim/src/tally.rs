//! What came of a run.

use std::collections::BTreeMap;

use planner::Why;
use serde_json::{Value, json};

use crate::scenario::Scenario;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run.
    pub scenario: Scenario,
    /// The fluid lower bound, in seconds.
    pub bound_s: f64,
    /// When each node was done, in seconds from the beginning, soonest first.
    pub done_s: Vec<f64>,
    /// When each node had read as much as it reads ahead, soonest first.
    pub began_reading_s: Vec<f64>,
    /// Honest nodes that stayed and were not done.
    pub unfinished: u32,
    /// The size of the model.
    pub model_bytes: u64,
    /// What the first seeder sent.
    pub seeder_sent_bytes: u64,
    /// What arrived at all fetchers.
    pub received_bytes: u64,
    /// Of this, what was right and needed.
    pub good_bytes: u64,
    /// How often a server was busy.
    pub busy_answers: u64,
    /// Sources that each fetcher has connected to, on average.
    pub sources: f64,
    /// How many requests were made for which reason.
    pub asked: BTreeMap<Why, u64>,
    /// Events of the simulation.
    pub events: u64,
}

impl Outcome {
    /// When so many percent of the nodes that were done at the end were done, in seconds.
    pub fn percentile_s(&self, percent: usize) -> f64 {
        let at = (self.done_s.len() * percent).div_ceil(100);
        self.done_s.get(at.saturating_sub(1)).copied().unwrap_or(f64::INFINITY)
    }

    /// When half of the nodes had read as much as they read ahead, if they read while they fetch.
    pub fn first_read_s(&self) -> Option<f64> {
        self.began_reading_s.get(self.began_reading_s.len() / 2).copied()
    }

    /// When 99 % were done, as a multiple of the lower bound.
    pub fn slowdown(&self) -> f64 {
        self.percentile_s(99) / self.bound_s
    }

    /// What the first seeder sent, as a multiple of the model.
    pub fn seeder_models(&self) -> f64 {
        self.seeder_sent_bytes as f64 / self.model_bytes as f64
    }

    /// What arrived without need, as a part of what was needed.
    pub fn over_fetch(&self) -> f64 {
        self.received_bytes.saturating_sub(self.good_bytes) as f64 / self.good_bytes.max(1) as f64
    }

    /// For a program that makes tables and plots of it.
    pub fn to_json(&self) -> Value {
        json!({
            "nodes": self.scenario.nodes,
            "seed": self.scenario.seed,
            "model_bytes": self.model_bytes,
            "bound_s": self.bound_s,
            "done_s": self.done_s,
            "p50_s": self.percentile_s(50),
            "p99_s": self.percentile_s(99),
            "first_read_s": self.first_read_s(),
            "slowdown": self.slowdown(),
            "seeder_models": self.seeder_models(),
            "over_fetch": self.over_fetch(),
            "unfinished": self.unfinished,
            "busy_answers": self.busy_answers,
            "sources": self.sources,
            "asked": self.asked.iter().map(|(why, count)| (format!("{why:?}"), *count)).collect::<BTreeMap<_, _>>(),
            "events": self.events,
        })
    }
}
