//! Small swarms, as they run in each change's checks. What larger ones come to is in `docs/simulation.md`.

use sim::{Outcome, Scenario, run};

fn small() -> Scenario {
    Scenario { nodes: 30, pieces: 64, neighbours: 12, ..Scenario::default() }
}

/// Everybody is done, and nobody has got more than needed.
fn check(outcome: &Outcome, slowdown: f64, seeder_models: f64) {
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.slowdown() < slowdown, "{}", outcome.slowdown());
    assert!(outcome.seeder_models() < seeder_models, "{}", outcome.seeder_models());
    assert!(outcome.over_fetch() < 0.1, "{}", outcome.over_fetch());
}

#[test]
fn one_node_is_as_fast_as_its_line() {
    check(&run(Scenario { nodes: 1, ..small() }), 1.05, 1.01);
}

#[test]
fn a_flash_crowd_serves_itself() {
    check(&run(small()), 1.9, 2.0);
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let outcome =
        |seed| run(Scenario { nodes: 12, seed, lying_percent: 10, ..small() }).to_json().to_string();
    assert_eq!(outcome(3), outcome(3));
    assert_ne!(outcome(3), outcome(4));
}

#[test]
fn a_crowd_with_liars_and_stalled_ones_and_leavers_ends() {
    for seed in 1..4 {
        let outcome =
            run(Scenario { seed, leaving_percent: 20, lying_percent: 10, stalled_percent: 10, ..small() });
        assert_eq!(outcome.unfinished, 0);
        assert!(outcome.slowdown() < 6.0, "{}", outcome.slowdown());
    }
}

#[test]
fn a_slow_seeder_sends_each_piece_about_once() {
    let outcome = run(Scenario { seeder_bytes_per_s: 1_000_000, ..small() });
    check(&outcome, 1.4, 1.5);
}
