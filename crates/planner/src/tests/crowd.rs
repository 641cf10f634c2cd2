//! Sources that are fetching themselves: they get more while they are asked, and come and go.

use proptest::prelude::*;

use super::*;

fn run(model: &Model, peers: Vec<Peer>) -> Net {
    Net::new(model, true, peers).finish()
}

#[test]
fn what_few_hold_is_asked_for_first() {
    let model = Model::columns(40);
    // Shard 7 is at one source alone.
    let most = peer(&model, 20).holding((0..10).filter(|shard| *shard != 7));
    let mut net = Net::new(&model, true, vec![peer(&model, 20), most.clone(), most]);
    net.stop_at = Some(ms(1_500));
    let net = net.stopped();
    let rare = net.tally.arrived.keys().filter(|piece| piece.shard == 7).count();
    let of_first = net.tally.sent[0] / PIECE;
    assert!(rare as u64 + 1 >= of_first, "{rare} of {of_first}");
}

#[test]
fn a_source_that_grows_is_asked_for_what_it_gets() {
    let model = Model::columns(12);
    let net = run(&model, vec![peer(&model, 2), peer(&model, 50).growing(20), peer(&model, 50).growing(30)]);
    assert!(net.tally.sent[0] < model.total_bytes / 3, "{:?}", net.tally.sent);
    assert!(net.excess_bytes() < model.total_bytes / 10, "{}", net.excess_bytes());
}

#[test]
fn sources_that_only_have_a_part_are_waited_for() {
    let model = Model::columns(6);
    let net = run(&model, vec![peer(&model, 50).growing(100)]);
    assert_eq!(net.excess_bytes(), 0);
    assert!(net.tally.elapsed >= ms(6_000), "the last piece was not there before");
}

#[test]
fn the_last_holder_of_a_piece_leaves_and_parity_takes_its_place() {
    let model = Model::columns(20);
    let others = peer(&model, 20).holding((0..14).filter(|shard| *shard != 3));
    let leaves = peer(&model, 20).holding([3]).up(&[(0, 500)]);
    let net = run(&model, vec![others.clone(), others, leaves]);
    let of_three = net.tally.arrived.keys().filter(|piece| piece.shard == 3).count();
    assert_eq!(net.tally.rebuilt.len() + of_three, 20, "what it did not send is rebuilt");
    assert!(of_three > 0 && of_three < 20);
}

#[test]
fn the_last_holder_of_a_piece_leaves_and_comes_back() {
    let model = Model { parity: 0, ..Model::columns(20) };
    let others = peer(&model, 50).holding((0..10).filter(|shard| *shard != 3));
    let leaves = peer(&model, 20).holding([3]).up(&[(0, 500), (40_000, 1_000_000)]);
    let net = run(&model, vec![others.clone(), leaves]);
    assert!(net.tally.elapsed > ms(40_000));
    let gone = peer(&model, 20).holding([3]).up(&[(0, 500)]);
    let (_, missing) = Net::new(&model, true, vec![others, gone]).stick();
    assert_eq!(missing, [3], "it is stuck, and says where");
}

#[test]
fn one_that_sends_the_first_bytes_and_stops_costs_half_a_second() {
    let model = Model::columns(40);
    // Only they have these four shards; the other source has parity for them.
    let stops = |shard| peer(&model, 20).holding([shard]).silent(30, 3_000_000);
    let mut peers: Vec<Peer> = (0..4).map(stops).collect();
    peers.extend((4..14).map(|shard| peer(&model, 20).holding([shard])));
    let net = run(&model, peers);
    let clean = 40.0 * PIECE as f64 / 20e6;
    assert!(net.tally.elapsed.as_secs_f64() < clean + 1.0, "{:?}, clean {clean}", net.tally.elapsed);
}

#[test]
fn many_slow_sources_leave_memory_to_a_fast_one() {
    let model = Model::columns(200);
    let mut peers = vec![peer(&model, 1); 41];
    peers[0] = peer(&model, 200);
    let mut net = Net::new(&model, true, peers);
    net.audits = false;
    let net = net.finish();
    let ideal = model.total_bytes as f64 / 240e6;
    assert!(net.tally.elapsed.as_secs_f64() < 1.3 * ideal, "{:?}, ideal {ideal}", net.tally.elapsed);
    assert!(net.excess_bytes() < model.total_bytes / 20, "{}", net.excess_bytes());
}

#[test]
fn a_slow_source_of_five_costs_little_and_little_comes_twice() {
    let model = Model::columns(100);
    let mut peers = vec![peer(&model, 20); 4];
    peers.push(peer(&model, 2));
    let slow = run(&model, peers);
    let equal = run(&model, vec![Peer { bytes_per_s: 82e6 / 5.0, ..peer(&model, 1) }; 5]);
    let ratio = slow.tally.elapsed.as_secs_f64() / equal.tally.elapsed.as_secs_f64();
    assert!(ratio < 1.15, "{ratio}");
    assert!(slow.excess_bytes() < model.total_bytes / 20, "{}", slow.excess_bytes());
}

#[test]
fn two_planners_begin_with_different_pieces_and_one_always_with_the_same() {
    let first = |seed| {
        let config = PlanConfig { seed, ..PlanConfig::default() };
        let (start, geometry) = (Instant::now(), Model::columns(100).geometry());
        let manifest = geometry.manifest();
        let all = (0..).zip(manifest.shards()).map(|(shard, _)| PieceSet::all(manifest.piece_count(shard)));
        let shards = all.collect();
        let mut planner = Planner::new(geometry, true, config, start);
        planner.on_event(PlanEvent::Up { source: SourceKey(0), ranges: true }, start);
        planner.on_event(PlanEvent::Holds { source: SourceKey(0), shards }, start);
        match planner.poll_action(start) {
            Some(PlanAction::Request { shard, pieces, .. }) => (shard, pieces.start),
            other => panic!("{other:?}"),
        }
    };
    let firsts: BTreeSet<_> = (0..50).map(first).collect();
    assert!(firsts.len() > 40, "{}", firsts.len());
    assert_eq!(first(7), first(7));
}

fn swarm() -> impl Strategy<Value = (Model, Vec<Peer>)> {
    let one = (1_u32..60, 0_u64..200, 5_u64..200, prop::option::of((0_u64..3_000, 1_u64..5_000)), 0_u32..8);
    (1_u64..8, prop::collection::vec(one, 1..8)).prop_map(|(columns, others)| {
        let model = Model::columns(columns);
        let mut peers = vec![peer(&model, 10)];
        for (mb_per_s, latency, every, away, kind) in others {
            let mut other = Peer { latency: ms(latency), ..peer(&model, mb_per_s).holding(0..10) };
            if kind > 0 {
                other = other.growing(every);
            }
            if kind == 1 {
                other = other.lying(0..10, u64::from(mb_per_s));
            }
            if kind == 2 {
                other = other.silent(latency, 3_000_000);
            }
            if let Some((from, len)) = away {
                other.up = vec![Duration::ZERO..ms(from), ms(from + len)..Duration::MAX];
            }
            peers.push(other);
        }
        (model, peers)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// With one honest source of everything, whoever grows, lies, stalls, leaves and comes back beside it.
    #[test]
    fn any_crowd_ends((model, peers) in swarm()) {
        let net = Net::new(&model, true, peers).finish();
        prop_assert!(!net.is_banned(0));
    }
}
