//! What came of swarms, for people.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::options::Options;
use crate::chart::bars::{self, Bar, Panel};
use crate::chart::lines::{self, Line, Plot};

/// A swarm and what it shows.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) swarm: Swarm,
}

/// What `sim` says of one.
pub(super) struct Swarm {
    nodes: u64,
    bound_s: f64,
    /// When each node was done, soonest first.
    done_s: Vec<f64>,
    p50_s: f64,
    p99_s: f64,
    seeder_models: f64,
    over_fetch: f64,
    unfinished: u64,
    sources: f64,
    first_read_s: Option<f64>,
}

impl Swarm {
    pub(super) fn parse(outcome: &Value) -> Result<Self> {
        let number =
            |name: &str| outcome[name].as_f64().with_context(|| format!("a simulation has no `{name}`"));
        let count =
            |name: &str| outcome[name].as_u64().with_context(|| format!("a simulation has no `{name}`"));
        let done_s = outcome["done_s"].as_array().context("a simulation has no `done_s`")?;
        Ok(Self {
            nodes: count("nodes")?,
            bound_s: number("bound_s")?,
            done_s: done_s.iter().filter_map(Value::as_f64).collect(),
            p50_s: number("p50_s")?,
            p99_s: number("p99_s")?,
            seeder_models: number("seeder_models")?,
            over_fetch: number("over_fetch")?,
            unfinished: count("unfinished")?,
            sources: number("sources")?,
            first_read_s: outcome["first_read_s"].as_f64(),
        })
    }
}

/// The tables.
pub(super) fn page(
    options: &Options,
    crowds: &[Case],
    hard: &[Case],
    small: &[Case],
    readers: &[Case],
) -> String {
    let mut page = format!("Seed {}.\n\nFlash crowds of equal nodes:\n\n", options.seed);
    table(&mut page, crowds);
    let _ = write!(page, "\n{} nodes of which not all is well:\n\n", options.hard_nodes);
    table(&mut page, hard);
    page.push_str("\n60 nodes that fetch a small model, all lines as fast as it says:\n\n");
    table(&mut page, small);
    let _ = write!(
        page,
        "\n{} nodes that read the weights from their start while they arrive:\n\n",
        options.hard_nodes
    );
    table(&mut page, readers);
    for Case { name, swarm } in readers {
        if let Some(first_read_s) = swarm.first_read_s {
            let _ = writeln!(page, "\n{name}: half of the nodes had read so many after {first_read_s:.1} s.");
        }
    }
    page
}

fn table(page: &mut String, cases: &[Case]) {
    page.push_str(
        "| | bound, s | 50 % done, s | 99 % done, s | × bound | seeder sent, models | over-fetch | sources | never done |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for Case { name, swarm } in cases {
        let _ = writeln!(
            page,
            "| {name} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} % | {:.0} | {} |",
            swarm.bound_s,
            swarm.p50_s,
            swarm.p99_s,
            swarm.p99_s / swarm.bound_s,
            swarm.seeder_models,
            100.0 * swarm.over_fetch,
            swarm.sources,
            swarm.unfinished,
        );
    }
}

/// How many nodes are done at which time.
pub(super) fn completion(crowds: &[Case]) -> String {
    let line = |case: &Case| {
        let total = case.swarm.nodes as f64;
        let done = case.swarm.done_s.iter().zip(1..);
        let points = done.map(|(at, count)| (at / case.swarm.bound_s, 100.0 * f64::from(count) / total));
        Line { label: case.name.clone(), points: thinned(points.collect()) }
    };
    lines::svg(&Plot {
        title: "Nodes that are done, in a flash crowd".into(),
        x_label: "time, in multiples of the fluid lower bound".into(),
        y_label: "%".into(),
        x_end: 2.0,
        y_end: 100.0,
        lines: crowds.iter().map(line).collect(),
    })
}

/// The first point, the last, and some hundred between.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(200).max(1);
    let last = points.len().saturating_sub(1);
    let is_kept = |at: usize| at.is_multiple_of(step) || at == last;
    points.into_iter().enumerate().filter(|(at, _)| is_kept(*at)).map(|(_, point)| point).collect()
}

/// What the crowds cost.
pub(super) fn cost(crowds: &[Case]) -> String {
    let panel = |title: &str, value: fn(&Swarm) -> f64| {
        let bar =
            |case: &Case| Bar { label: case.name.clone(), parts: [value(&case.swarm), 0.0], is_ours: true };
        Panel { title: title.into(), bars: crowds.iter().map(bar).collect() }
    };
    bars::svg(&[
        vec![panel("sent by the first seeder, in models", |swarm| swarm.seeder_models)],
        vec![panel("over-fetch, %", |swarm| 100.0 * swarm.over_fetch)],
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_and_plots_show_what_was_said() {
        let outcome = json!({
            "nodes": 2, "bound_s": 10.0, "done_s": [11.0, 12.0], "p50_s": 11.0, "p99_s": 12.0,
            "seeder_models": 1.25, "over_fetch": 0.031, "unfinished": 0, "sources": 41.2,
        });
        let case = Case { name: "two".into(), swarm: Swarm::parse(&outcome).unwrap() };
        let options = Options::parse(&[]).unwrap();
        let page = page(&options, &[case], &[], &[], &[]);
        assert!(page.contains("| two | 10.0 | 11.0 | 12.0 | 1.20 | 1.25 | 3.1 % | 41 | 0 |"), "{page}");
        let case = Case { name: "two".into(), swarm: Swarm::parse(&outcome).unwrap() };
        assert!(completion(&[case]).contains("L396.0 40.0"));
        assert!(Swarm::parse(&json!({})).is_err());
    }

    #[test]
    fn the_ends_of_a_curve_stay() {
        let points: Vec<_> = (0..5000).map(|x| (f64::from(x), 0.0)).collect();
        let thinned = thinned(points.clone());
        assert!(thinned.len() < 300 && thinned.last() == points.last() && thinned[0] == points[0]);
    }
}
