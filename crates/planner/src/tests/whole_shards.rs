//! Shards that are sent or checked as a whole.

use manifest::Codec;

use super::*;

fn run(model: &Model, peers: Vec<Peer>) -> Net {
    Net::new(model, true, peers).finish()
}

fn run_unindexed(model: &Model, peers: Vec<Peer>) -> Net {
    Net::new(model, false, peers).finish()
}

#[test]
fn sources_of_whole_shards_only() {
    let model = Model::columns(10);
    let net = run(&model, vec![peer(&model, 50).v1()]);
    assert_eq!(net.excess_bytes(), 0);
    let net = run(&model, vec![peer(&model, 50).v1(); 4]);
    assert!(net.excess_bytes() <= 40 * PIECE, "{}", net.excess_bytes());
}

#[test]
fn sources_of_whole_shards_that_hold_some() {
    let model = Model::columns(10);
    let peers = vec![peer(&model, 50).holding(0..6).v1(), peer(&model, 50).holding(8..14).v1()];
    let net = run(&model, peers);
    assert_eq!(net.tally.rebuilt.len(), 20);
    assert!(net.excess_bytes() <= 20 * PIECE, "{}", net.excess_bytes());
}

#[test]
fn sources_of_whole_shards_next_to_sources_of_ranges() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 50), peer(&model, 50).v1()]);
    assert!(net.tally.sent[1] >= 20 * PIECE);
    assert!(net.excess_bytes() < model.total_bytes / 5, "{}", net.excess_bytes());
}

#[test]
fn a_lying_source_of_whole_shards_wastes_one_shard_at_most() {
    let model = Model::columns(10);
    let net = run(&model, vec![peer(&model, 50).v1(), peer(&model, 50).v1().lying(0..14, 7)]);
    assert!(net.is_banned(1));
    assert!(net.tally.bad[1] <= 10 * PIECE, "{}", net.tally.bad[1]);
}

#[test]
fn a_source_of_whole_shards_that_falls_silent() {
    let model = Model::columns(10);
    let net = run(&model, vec![peer(&model, 50).v1().silent(150, 3_000_000), peer(&model, 50).v1()]);
    assert!(net.excess_bytes() <= 20 * PIECE);
    let net = run(&model, vec![peer(&model, 50).v1().silent(150, 8_000), peer(&model, 5)]);
    assert!(net.tally.sent[0] > 10 * PIECE);
}

#[test]
fn without_index_from_honest_sources() {
    let model = Model::columns(10);
    for peers in [vec![peer(&model, 50); 3], vec![peer(&model, 50).v1(); 3]] {
        let net = run_unindexed(&model, peers);
        assert_eq!(net.tally.checked_shards, 10);
        assert!(net.tally.rebuilt.is_empty());
    }
}

#[test]
fn without_index_a_liar_is_traced() {
    let model = Model::columns(20);
    let peers = vec![peer(&model, 20), peer(&model, 20).lying(0..14, 7), peer(&model, 20)];
    let net = run_unindexed(&model, peers);
    assert!(net.is_banned(1) && !net.is_banned(0) && !net.is_banned(2));
    assert!(net.excess_bytes() <= 6 * 20 * PIECE, "{}", net.excess_bytes());
}

#[test]
fn without_index_two_liars_are_traced() {
    let model = Model::columns(5);
    let peers = vec![peer(&model, 50).lying(0..14, 7), peer(&model, 50).lying(0..14, 8), peer(&model, 50)];
    let net = run_unindexed(&model, peers);
    assert!(net.is_banned(0) && net.is_banned(1) && !net.is_banned(2));
}

#[test]
fn without_index_lost_shards_are_rebuilt_from_whole_parity() {
    let model = Model::columns(8);
    for peers in [
        vec![peer(&model, 50).holding(4..14)],
        vec![
            peer(&model, 50).holding(4..10),
            peer(&model, 50).holding([10, 12]),
            peer(&model, 9).holding(10..14),
        ],
        vec![peer(&model, 50).holding(4..14).v1(); 2],
    ] {
        let net = run_unindexed(&model, peers);
        assert_eq!(net.tally.rebuilt.len(), 4 * 8);
        assert!(net.tally.arrived.len() <= 14 * 8, "{}", net.tally.arrived.len());
    }
}

#[test]
fn without_index_a_shard_whose_only_holder_leaves_is_completed_from_parity() {
    let model = Model::columns(20);
    let leaves = peer(&model, 20).holding([3]).up(&[(0, 700)]);
    let net = run_unindexed(&model, vec![peer(&model, 50).holding((0..14).filter(|s| *s != 3)), leaves]);
    assert!(!net.tally.rebuilt.is_empty() && net.tally.rebuilt.len() < 20);
    let parity = net.tally.arrived.keys().filter(|piece| piece.shard >= 10).count();
    assert_eq!(parity, 20, "one parity shard, whole");
}

#[test]
fn without_index_a_liar_that_is_the_only_holder_is_replaced_by_parity() {
    let model = Model::columns(5);
    let peers = vec![
        peer(&model, 50).lying([3], 7).holding([3]),
        peer(&model, 50).holding((0..14).filter(|s| *s != 3)),
    ];
    let net = run_unindexed(&model, peers);
    assert!(net.is_banned(0));
    assert_eq!(net.tally.rebuilt.len(), 5);
}

#[test]
fn without_index_a_lone_source_falls_silent_while_it_is_the_only_one_asked() {
    let model = Model::columns(10);
    let peers = vec![
        peer(&model, 50).lying([2], 7),
        peer(&model, 50).silent(1_200, 3_000_000),
        peer(&model, 20).up(&[(800, 3_000_000)]),
    ];
    let net = run_unindexed(&model, peers);
    assert!(!net.is_banned(1) && !net.is_banned(2));
}

#[test]
fn without_index_wrong_parity_is_not_used_again() {
    let model = Model::columns(3);
    let mut net = Net::new(&model, false, vec![peer(&model, 50).holding(1..14)]);
    net.wrong_parity = true;
    let (net, missing) = net.stick();
    assert_eq!(missing, [0]);
    assert_eq!(net.tally.checked_shards, 9 + 1 + 1, "the data, one parity shard, what was rebuilt");
}

#[test]
fn without_index_copies_of_rows() {
    let model = Model { codec: Codec::Replica, ..Model::layers(&[7, 13, 1, 30, 9, 20]) };
    let net = run_unindexed(&model, vec![peer(&model, 50).holding([2, 3, 4, 5, 6, 7, 8, 9])]);
    assert_eq!(net.tally.rebuilt.len(), 20);
}

#[test]
fn two_liars_and_nobody_else_come_to_an_end() {
    let model = Model::columns(6);
    for held in [0..1, 0..10] {
        let liar = |fingerprint| peer(&model, 50).lying(held.clone(), fingerprint).holding(held.clone());
        // Room for two pieces, so that moments come in which a source has none under way.
        let config = PlanConfig { max_in_flight_bytes: 2 * PIECE, ..PlanConfig::default() };
        let (net, missing) = Net::with(config, &model, false, vec![liar(1), liar(2)]).stick();
        assert_eq!(missing.len(), 10);
        // Once together, and once each alone.
        assert!(net.tally.checked_shards <= 3 * held.len(), "{}", net.tally.checked_shards);
    }
}
