//! One test for each thing the planner must do where pieces are checked one by one.

use manifest::Codec;

use super::*;

const ALL_DATA: Range<u32> = 0..10;

fn run(model: &Model, peers: Vec<Peer>) -> Net {
    Net::new(model, true, peers).finish()
}

/// Time to send the model at so many MB/s.
fn ideal(model: &Model, mb_per_s: u32) -> f64 {
    model.total_bytes as f64 / 1e6 / f64::from(mb_per_s)
}

#[test]
fn one_source_sends_each_piece_once() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 100)]);
    assert_eq!(net.excess_bytes(), 0);
    assert!(net.tally.rebuilt.is_empty());
    assert!(net.tally.elapsed.as_secs_f64() < 1.15 * ideal(&model, 100), "{:?}", net.tally.elapsed);
}

#[test]
fn five_sources_share_the_work() {
    let model = Model::columns(40);
    let net = run(&model, vec![peer(&model, 40); 5]);
    assert!(net.excess_bytes() < model.total_bytes / 50, "{}", net.excess_bytes());
    assert!(net.tally.elapsed.as_secs_f64() < 1.15 * ideal(&model, 200), "{:?}", net.tally.elapsed);
    assert!(net.tally.sent.iter().all(|sent| *sent > model.total_bytes / 8), "{:?}", net.tally.sent);
}

#[test]
fn a_long_round_trip_does_not_starve_a_source() {
    let model = Model::columns(60);
    let far = Peer { latency: ms(800), ..peer(&model, 15) };
    let net = run(&model, vec![far]);
    assert!(net.tally.elapsed.as_secs_f64() < 1.3 * ideal(&model, 15), "{:?}", net.tally.elapsed);
}

#[test]
fn the_window_grows_with_each_round_trip_until_the_line_is_full() {
    let model = Model::columns(40);
    let round_trip = ms(150);
    let far = Peer { latency: round_trip, ..peer(&model, 500) };
    let elapsed = run(&model, vec![far.clone()]).tally.elapsed;
    assert!(elapsed.as_secs_f64() < ideal(&model, 500) + 8.0 * round_trip.as_secs_f64(), "{elapsed:?}");
    // The memory that it takes is bounded.
    let config = PlanConfig { max_in_flight_bytes: 16 * PIECE, ..PlanConfig::default() };
    let bounded = Net::with(config, &model, true, vec![far]).finish().tally.elapsed;
    assert!(bounded > round_trip * 400 / 16, "{bounded:?}");
}

#[test]
fn who_sent_the_manifest_is_asked_for_some_small_pieces_at_once() {
    let model = Model::columns(1);
    let begun = |has_sent_manifest: bool| {
        let now = Instant::now();
        let mut planner = Planner::new(model.geometry(), true, PlanConfig::default(), now);
        let source = SourceKey(0);
        planner.on_event(PlanEvent::Up { source, ranges: true }, now);
        if has_sent_manifest {
            planner.on_event(PlanEvent::SentManifest { source }, now);
        }
        let counts = model.geometry().manifest().shards().len();
        let shards = (0..counts).map(|_| manifest::PieceSet::all(1)).collect();
        planner.on_event(PlanEvent::Holds { source, shards }, now);
        std::iter::from_fn(|| planner.poll_action(now)).count()
    };
    assert_eq!(begun(false), 1, "a stranger sends one piece first");
    assert_eq!(begun(true), 2, "of a MiB each");
}

#[test]
fn different_shards_at_different_sources() {
    let model = Model::columns(10);
    let peers = (0..10).map(|shard| peer(&model, 20).holding([shard])).collect();
    let net = run(&model, peers);
    assert_eq!(net.excess_bytes(), 0);
    assert!(net.tally.rebuilt.is_empty());
}

#[test]
fn four_of_fourteen_shards_nowhere_are_rebuilt() {
    let model = Model::columns(20);
    let held = [0, 2, 4, 5, 6, 8, 10, 11, 12, 13];
    let net = run(&model, vec![peer(&model, 100).holding(held), peer(&model, 50).holding(held)]);
    assert_eq!(net.tally.arrived.len(), 20 * 10, "ten pieces of each column");
    assert_eq!(net.tally.rebuilt.len(), 20 * 4);
    assert!(net.excess_bytes() <= 8 * PIECE, "{}", net.excess_bytes());
}

#[test]
fn columns_are_completed_one_after_the_other_and_parity_is_dropped_then() {
    for model in [Model::columns(60), Model::layers(&[150, 150, 150, 150])] {
        let lost: u32 = if model.layers.is_empty() { 4 } else { 1 };
        let shards = model.geometry().manifest().shards().len() as u32;
        let held = lost..shards;
        let net = run(&model, vec![peer(&model, 100).holding(held.clone()), peer(&model, 50).holding(held)]);
        let arrived = net.tally.arrived.keys().filter(|piece| piece.shard >= shards - 4).count();
        // Those of the last column may still be held at the end.
        assert!(net.tally.dropped_parity + 4 >= arrived, "{} of {arrived}", net.tally.dropped_parity);
        // What is under way, of 140 or 240.
        assert!(net.tally.held_parity <= 16, "{model:?}: {}", net.tally.held_parity);
    }
}

#[test]
fn parity_is_fetched_only_where_it_is_needed() {
    let model = Model::columns(20);
    let peers = vec![peer(&model, 50).holding(0..9), peer(&model, 50).holding(10..14)];
    let net = run(&model, peers);
    let parity = net.tally.arrived.keys().filter(|piece| piece.shard >= 10).count();
    assert_eq!(parity, 20);
}

#[test]
fn five_shards_nowhere_until_a_source_comes_up() {
    let model = Model::columns(10);
    let held = (5..10).chain(10..14);
    let peers = vec![peer(&model, 100).holding(held.clone())];
    let (net, missing) = Net::new(&model, true, peers.clone()).stick();
    assert_eq!(missing, [0, 1, 2, 3, 4]);
    assert_eq!(net.sent_bytes(), 50 * PIECE, "no parity is fetched in vain");

    let late = peer(&model, 100).holding([3]).up(&[(60_000, 1_000_000)]);
    let net = run(&model, vec![peers[0].clone(), late]);
    assert!(net.tally.elapsed > ms(60_000));
    assert_eq!(net.tally.rebuilt.len(), 40);
}

#[test]
fn parity_waits_for_sources_that_are_being_connected_to() {
    let model = Model::columns(4);
    let late = peer(&model, 100).holding([9]).up(&[(500, 1_000_000)]);
    let mut net = Net::new(&model, true, vec![peer(&model, 100).holding((0..9).chain(10..14)), late]);
    net.tell(PlanEvent::Connecting { pending: true });
    assert!(net.finish().tally.rebuilt.is_empty());
}

#[test]
fn a_liar_is_banned_and_wastes_little() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 100), peer(&model, 100).lying(ALL_DATA, 7)]);
    assert!(net.is_banned(1) && !net.is_banned(0));
    assert!(net.planner.source_state(SourceKey(1)).unwrap().lied);
    assert!(net.tally.sent[1] <= 3 * PIECE, "{:?}", net.tally);
    assert!(net.planner.source_state(SourceKey(1)).unwrap().bad_pieces > 0);
}

#[test]
fn a_liar_that_was_honest_wastes_its_window_at_most() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 50), peer(&model, 50).lying([7], 7)]);
    assert!(net.is_banned(1));
    assert!(net.tally.bad[1] <= 16 * PIECE, "{}", net.tally.bad[1]);
}

#[test]
fn one_that_lied_in_an_earlier_run_is_not_asked() {
    let model = Model::columns(4);
    let mut net = Net::new(&model, true, vec![peer(&model, 50), peer(&model, 50)]);
    net.tell(PlanEvent::Banned { source: SourceKey(0) });
    let net = net.finish();
    assert_eq!(net.tally.sent[0], 0);
    let state = net.planner.source_state(SourceKey(0)).unwrap();
    assert!(state.banned && !state.lied, "it is not convicted anew");
}

#[test]
fn a_lone_liar_is_suspended_and_proves_nothing() {
    let model = Model::columns(4);
    let (net, missing) =
        Net::new(&model, true, vec![peer(&model, 50).lying([2, 11], 7).holding((0..8).chain([11]))]).stick();
    assert_eq!(missing, [2, 8, 9]);
    assert!(!net.is_banned(0), "nothing else has verified");
}

#[test]
fn equal_lies_start_a_trial_that_convicts_those_who_told_them() {
    let model = Model::columns(6);
    // Without parity, which would stand in for the shard.
    let liar = peer(&model, 100).lying([3], 7).holding(ALL_DATA);
    let honest = peer(&model, 20).up(&[(1_000, 1_000_000)]);
    let net = run(&model, vec![liar.clone(), liar, honest]);
    assert!(net.tally.asked[&Why::SecondOpinion] > 0);
    assert!(!net.is_banned(2));
    assert_eq!(net.tally.dismissed, [SourceKey(0), SourceKey(1)].into());
    assert!(net.planner.is_indexed(0), "the index is not believed less for that");
    assert!(net.tally.bad.iter().sum::<u64>() <= 4 * 6 * PIECE, "{:?}", net.tally.bad);
}

#[test]
fn many_liars_with_equal_bytes_cost_two_models_at_most_and_hardly_any_time() {
    let model = Model::columns(6);
    let alone = run(&model, vec![peer(&model, 50)]).tally.elapsed;
    for count in [2, 8, 49, 100] {
        for shards in [0..14, 3..4] {
            // They come up first; the honest one is one among many.
            let liar = peer(&model, 50).lying(shards.clone(), 7);
            let mut peers = vec![liar; count];
            peers.insert(count / 2, peer(&model, 50));
            let net = run(&model, peers);
            let bad: u64 = net.tally.bad.iter().sum();
            assert!(bad <= 2 * model.total_bytes, "{count} {shards:?}: {bad}");
            assert!(!net.is_banned(count as u32 / 2));
            assert!(net.planner.is_indexed(0), "{count} {shards:?}");
            let elapsed = net.tally.elapsed.as_secs_f64();
            assert!(
                elapsed <= 1.3 * alone.as_secs_f64() + 0.5,
                "{count} {shards:?}: {elapsed} s, {alone:?} alone"
            );
        }
    }
}

#[test]
fn what_a_trial_leaves_when_its_source_is_gone_is_fetched_again() {
    let model = Model::columns(6);
    // At any moment of the trial, also while a piece is on its way to the disk.
    for gone_ms in 1..100 {
        let liar = peer(&model, 50).lying(0..14, 7).up(&[(0, gone_ms)]);
        let net = run(&model, vec![liar.clone(), liar, peer(&model, 50).up(&[(1_000, 1_000_000)])]);
        assert!(!net.is_banned(2), "{gone_ms}");
    }
}

#[test]
fn a_wrong_index_bans_nobody_and_is_found_out_by_one_trial() {
    let model = Model::columns(6);
    for count in [1, 3] {
        for wrong in [vec![4], (0..14).collect()] {
            let mut net = Net::new(&model, true, vec![peer(&model, 50); count]);
            net.wrong_index.extend(wrong);
            let net = net.finish();
            assert!((0..count as u32).all(|source| !net.is_banned(source)));
            assert!(!net.planner.is_indexed(0) && net.tally.checked_shards >= 1);
        }
    }
}

#[test]
fn a_wrong_index_is_found_out_among_liars() {
    let model = Model::columns(6);
    // As many as trials may come to nothing, and one less: nobody has sent anything that the index calls right.
    let mut peers = vec![peer(&model, 50).lying(0..14, 7); 2];
    peers.extend([peer(&model, 50), peer(&model, 50)]);
    let mut net = Net::new(&model, true, peers);
    net.wrong_index.extend(0..14);
    let net = net.finish();
    assert!((2..4).all(|source| !net.is_banned(source)));
}

#[test]
fn trials_that_come_to_nothing_end() {
    let model = Model { parity: 0, ..Model::columns(6) };
    let (net, missing) = Net::new(&model, true, vec![peer(&model, 50).lying(0..10, 7); 6]).stick();
    assert_eq!(missing.len(), 10);
    assert!(net.tally.checked_shards <= 3, "{}", net.tally.checked_shards);
    let bad: u64 = net.tally.bad.iter().sum();
    assert!(bad <= model.total_bytes, "{bad}");
}

#[test]
fn rebuilt_bytes_that_are_wrong_blame_nobody_and_are_not_tried_again() {
    let model = Model::columns(4);
    let held = (1..14).filter(|shard| *shard != 12);
    let mut net = Net::new(&model, true, vec![peer(&model, 50).holding(held)]);
    net.wrong_parity = true;
    let (net, missing) = net.stick();
    assert_eq!(missing, [0]);
    assert_eq!(net.tally.rebuilt.len(), 4);
    assert_eq!(net.planner.source_state(SourceKey(0)).unwrap().bad_pieces, 0);
}

#[test]
fn a_source_that_falls_silent_does_not_hold_the_fetch() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 50), peer(&model, 50).silent(300, 3_000_000)]);
    let without = ideal(&model, 50);
    assert!(net.tally.elapsed.as_secs_f64() < without + 2.0, "{:?}", net.tally.elapsed);
}

#[test]
fn a_source_that_falls_silent_and_goes_on_is_used_again() {
    let model = Model::columns(60);
    let net = run(&model, vec![peer(&model, 50), peer(&model, 50).silent(300, 4_000)]);
    assert!(net.tally.sent[1] > model.total_bytes / 4, "{:?}", net.tally.sent);
    assert!(net.excess_bytes() < 20 * PIECE);
}

#[test]
fn the_only_source_falls_silent_and_goes_on() {
    let model = Model::columns(6);
    let net = run(&model, vec![peer(&model, 50).silent(100, 20_000)]);
    assert!(net.excess_bytes() < PIECE);
}

#[test]
fn many_silent_sources_do_not_take_all_the_memory() {
    let model = Model::columns(6);
    let mut peers = vec![peer(&model, 50).silent(0, 3_000_000); 60];
    peers.push(peer(&model, 50).up(&[(60_000, 1_000_000)]));
    run(&model, peers);
}

#[test]
fn only_silent_sources_are_stuck() {
    let model = Model::columns(2);
    let (_, missing) = Net::new(&model, true, vec![peer(&model, 50).silent(30, 3_000_000); 2]).stick();
    assert!(!missing.is_empty());
}

#[test]
fn a_slow_source_costs_little() {
    let model = Model::columns(60);
    let net = run(&model, vec![peer(&model, 100), peer(&model, 10)]);
    assert!(net.excess_bytes() < model.total_bytes / 20, "{}", net.excess_bytes());
    assert!(net.tally.elapsed.as_secs_f64() < 1.15 * ideal(&model, 110), "{:?}", net.tally.elapsed);
}

#[test]
fn parity_stands_in_for_the_only_holder_of_a_shard_when_it_is_slow() {
    let model = Model::columns(20);
    let net =
        run(&model, vec![peer(&model, 100).holding((0..9).chain(10..14)), peer(&model, 1).holding([9])]);
    assert!(net.tally.elapsed.as_secs_f64() < 5.0, "{:?}", net.tally.elapsed);
}

#[test]
fn a_source_gone_halfway_and_back() {
    let model = Model::columns(40);
    let flaky = peer(&model, 50).up(&[(0, 1_000), (2_000, 3_000), (5_000, 3_000_000)]);
    let net = run(&model, vec![flaky.clone()]);
    assert!(net.excess_bytes() < 2 * PIECE, "what was under way is lost, no more");
    let net = run(&model, vec![flaky, peer(&model, 50)]);
    assert!(net.excess_bytes() < 20 * PIECE);
}

#[test]
fn busy_sources_are_asked_again() {
    let model = Model::columns(10);
    let busy = peer(&model, 50).failing(200, 4_000, BUSY);
    let net = run(&model, vec![busy.clone(), busy]);
    assert!(net.tally.requests < 400, "{}", net.tally.requests);
}

#[test]
fn sources_that_always_fail_are_stuck() {
    let model = Model::columns(2);
    for how in [BUSY, Failure::Lost, Failure::Refused, Failure::Misbehaved] {
        let fails = peer(&model, 50).failing(0, 3_000_000, how);
        let (net, missing) = Net::new(&model, true, vec![fails; 3]).stick();
        assert_eq!(missing.len(), 10);
        assert!(net.tally.requests < 1_200, "{}", net.tally.requests);
    }
}

#[test]
fn sources_that_do_not_say_that_they_hold_nothing_are_stuck() {
    let model = Model::columns(2);
    let refuses = Peer { tells: false, ..peer(&model, 50).holding([]) };
    let (net, missing) = Net::new(&model, true, vec![refuses.clone(), refuses.v1()]).stick();
    assert_eq!(missing.len(), 10);
    assert!(net.tally.requests < 500);
}

#[test]
fn a_source_that_holds_less_than_it_says_is_not_asked_for_ever() {
    let model = Model::columns(4);
    let less = Peer { tells: false, ..peer(&model, 50).holding([0, 1, 2]) };
    let net = run(&model, vec![less, peer(&model, 50).holding(2..14)]);
    assert!(net.planner.source_state(SourceKey(0)).unwrap().refusals <= 3 * 14);
}

#[test]
fn replicas_are_one_shard_at_whoever_has_any() {
    let model = Model { codec: Codec::Replica, ..Model::columns(8) };
    let net = run(&model, vec![peer(&model, 50).holding(3..10), peer(&model, 50).holding([10, 11, 12])]);
    assert_eq!(net.excess_bytes(), 0);
    assert!(net.tally.rebuilt.is_empty(), "the copies are the shards themselves");
}

#[test]
fn layers_from_copies_of_rows() {
    let model = Model { codec: Codec::Replica, ..Model::layers(&[7, 13, 1, 30, 9, 20]) };
    // Rows of 8 MiB, of which 0 to 3 have copies; the first two layers are 20 MiB of these.
    let net = run(&model, vec![peer(&model, 50).holding([2, 3, 4, 5, 6, 7, 8, 9])]);
    assert_eq!(net.tally.rebuilt.len(), 20);
}

#[test]
fn a_layer_as_long_as_all_parity_is_rebuilt() {
    // Rows of 10 MiB, four parity shards: 40 MiB can be lost in one stretch.
    let model = Model::layers(&[15, 40, 3, 42]);
    let net = run(&model, vec![peer(&model, 50).holding([0, 2, 3, 4, 5, 6, 7])]);
    assert_eq!(net.tally.rebuilt.len(), 40);
    assert_eq!(net.excess_bytes(), 0);
}

#[test]
fn a_layer_longer_than_all_parity_is_missing() {
    let model = Model::layers(&[15, 51, 3, 31]);
    let (_, missing) = Net::new(&model, true, vec![peer(&model, 50).holding([0, 2, 3, 4, 5, 6, 7])]).stick();
    assert_eq!(missing, [1]);
}

#[test]
fn layers_of_odd_sizes() {
    let mut model = Model::layers(&[3, 5, 2, 4, 6]);
    model.layers[1] += 12_345;
    model.layers[4] -= 777_777;
    model.total_bytes = model.layers.iter().sum();
    let net = run(&model, vec![peer(&model, 50).holding([0, 2, 3, 4, 5, 6, 7, 8])]);
    assert!(net.tally.rebuilt.iter().all(|piece| piece.shard == 1));
}

#[test]
fn only_parity_is_left_of_some_shards() {
    let model = Model::columns(10);
    let net = run(&model, vec![peer(&model, 50).holding(4..14)]);
    assert_eq!(net.tally.rebuilt.len(), 40);
    assert_eq!(net.tally.arrived.len(), 100);
}

#[test]
fn no_parity_and_one_byte() {
    let model = Model { parity: 0, ..Model::columns(3) };
    run(&model, vec![peer(&model, 50)]);
    let (_, missing) = Net::new(&model, true, vec![peer(&model, 50).holding(1..10)]).stick();
    assert_eq!(missing, [0]);
    let byte = Model { total_bytes: 1, ..Model::columns(1) };
    assert_eq!(run(&byte, vec![peer(&byte, 50)]).sent_bytes(), 1);
    let net = run(&byte, vec![peer(&byte, 50).holding([12])]);
    assert_eq!(net.tally.rebuilt.len(), 1);
}

#[test]
fn what_was_there_is_not_fetched_again() {
    let model = Model::columns(6);
    let mut net = Net::new(&model, true, vec![peer(&model, 50)]);
    net.planner.resume((0..5).map(|shard| PieceId { shard, piece: 2 }));
    let net = net.finish();
    assert_eq!(net.sent_bytes(), 55 * PIECE);
}

#[test]
fn what_an_earlier_run_claims_is_not_asked_for_and_counts_once_it_was_hashed() {
    let model = Model::columns(6);
    let mut net = Net::new(&model, true, vec![peer(&model, 50)]);
    // All of shard 0 and a piece of parity; two pieces turn out wrong, long after the rest has come.
    net.claim(
        (0..6).map(|piece| PieceId { shard: 0, piece }).chain([PieceId { shard: 10, piece: 1 }]),
        |piece| piece.piece < 2,
    );
    assert!(!net.planner.is_good(PieceId { shard: 0, piece: 5 }));
    let net = net.finish();
    assert_eq!(net.sent_bytes(), 56 * PIECE, "nobody is blamed, and nothing else is fetched");
    assert!(!net.is_banned(0));
}

#[test]
fn claims_that_nobody_else_has_end_it_when_they_are_right_and_stick_when_they_are_not() {
    let model = Model { parity: 0, ..Model::columns(3) };
    let claimed = || (0..3).map(|piece| PieceId { shard: 4, piece });
    let lacking = || vec![peer(&model, 50).holding((0..10).filter(|shard| *shard != 4))];
    let mut net = Net::new(&model, true, lacking());
    net.claim(claimed(), |_| false);
    net.finish();
    let mut net = Net::new(&model, true, lacking());
    net.claim(claimed(), |piece| piece.piece == 1);
    let (_, missing) = net.stick();
    assert_eq!(missing, [4]);
}

#[test]
fn a_rebuild_that_fails_has_its_inputs_hashed_again_and_is_tried_once_more() {
    let model = Model::columns(4);
    // Nobody has shard 0; a piece on the disk has rotted since it was verified.
    let mut net = Net::new(&model, true, vec![peer(&model, 50).holding(1..14)]);
    let rotten = PieceId { shard: 3, piece: 2 };
    net.rot(rotten);
    let net = net.finish();
    assert!(net.tally.rebuilt.iter().filter(|piece| piece.shard == 0).count() >= 4);
    assert!(net.tally.rechecked.contains(&rotten) && !net.is_banned(0));
    // One column, and no more than the cells it can have been made of.
    assert!(net.tally.rechecked.len() <= 14 && net.tally.rechecked.iter().all(|piece| piece.piece == 2));

    // Parity that was published wrong: each input is hashed again once, and then it is given up.
    let mut net = Net::new(&model, true, vec![peer(&model, 50).holding(1..14)]);
    net.wrong_parity = true;
    let (net, missing) = net.stick();
    assert_eq!(missing, [0]);
    assert!(net.tally.rechecked.len() <= 4 * 14, "{}", net.tally.rechecked.len());
}

#[test]
fn two_wakeups_never_coincide_with_nothing_to_do() {
    let model = Model::columns(20);
    let net = run(&model, vec![peer(&model, 100), peer(&model, 3).silent(500, 9_000)]);
    assert!(net.tally.polls < 4_000, "{}", net.tally.polls);
}

#[test]
fn peers_that_trickle_hold_nothing_up_for_long() {
    // More than there are places for unproven ones; so many, once proven, that all memory waits for them; more than there
    // are pieces, so that nothing is left to ask for; and those that serve whole shards only.
    for (columns, count, from_ms, ranges) in
        [(20, 40, 0, true), (20, 30, 800, true), (1, 12, 0, true), (4, 14, 0, false), (4, 14, 300, false)]
    {
        let model = Model::columns(columns);
        let trickling = Peer { ranges, tells: ranges, ..peer(&model, 4).trickling(from_ms) };
        let mut peers = vec![trickling; count];
        peers.push(peer(&model, 50).up(&[(1_000, 3_600_000)]));
        for indexed in [true, false] {
            let elapsed = Net::new(&model, indexed, peers.clone()).finish().tally.elapsed;
            // At their speed one piece takes nine minutes.
            assert!(elapsed < Duration::from_secs(100), "{count}, {indexed}: {elapsed:?}");
        }
    }
}

#[test]
fn the_supply_is_that_of_the_scarcest_column() {
    let supply = |codec: Codec, held: &[u32]| {
        let model = Model { codec, ..Model::columns(2) };
        let holds = (0..14).map(|shard| held.contains(&shard)).collect();
        let mut net = Net::new(&model, true, vec![Peer { holds, ..peer(&model, 100) }]);
        net.tell(PlanEvent::Up { source: SourceKey(0), ranges: true });
        let sets =
            (0..14).map(|shard| if held.contains(&shard) { PieceSet::all(2) } else { PieceSet::none(2) });
        net.tell(PlanEvent::Holds { source: SourceKey(0), shards: sets.collect() });
        let supply = net.planner.supply();
        assert_eq!(supply.needed, 10);
        supply.rarest
    };
    let all: Vec<u32> = (0..14).collect();
    assert_eq!(supply(Codec::Rs, &all), 14);
    assert_eq!(supply(Codec::Rs, &all[..12]), 12);
    assert_eq!(supply(Codec::Rs, &[]), 0);
    // A copy stands for its row only.
    assert_eq!(supply(Codec::Replica, &all), 10);
    assert_eq!(supply(Codec::Replica, &all[4..]), 10);
    assert_eq!(supply(Codec::Replica, &all[5..]), 9);
    // What is here counts, too.
    let model = Model::columns(2);
    let mut planner = Planner::new(model.geometry(), true, PlanConfig::default(), Instant::now());
    planner.resume((0..3).map(|shard| PieceId { shard, piece: 0 }));
    assert_eq!(planner.supply().rarest, 0, "of the other column nobody has anything");
    planner.resume((0..3).map(|shard| PieceId { shard, piece: 1 }));
    assert_eq!(planner.supply().rarest, 3);
    // Who has not told what it holds may hold anything, but what it has refused.
    let mut planner = Planner::new(model.geometry(), true, PlanConfig::default(), Instant::now());
    planner.on_event(PlanEvent::Up { source: SourceKey(0), ranges: true }, Instant::now());
    assert_eq!(planner.supply().rarest, 14);
    let Some(PlanAction::Request { request, .. }) = planner.poll_action(Instant::now()) else {
        panic!("no request")
    };
    let failure = Some(Failure::Refused);
    planner.on_event(PlanEvent::Ended { request, failure }, Instant::now());
    assert_eq!(planner.supply().rarest, 13);
}
