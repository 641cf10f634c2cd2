//! Any network at all, and a large one.

use manifest::Codec;
use proptest::prelude::*;

use super::*;

/// Peers that do anything; those that trickle do so when that says.
fn peers(
    model: Model,
    trickles: impl Strategy<Value = Duration> + 'static,
) -> impl Strategy<Value = Vec<Peer>> {
    let shards = model.geometry().manifest().shards().len();
    let time = || (0_u64..8_000, 1_u64..8_000).prop_map(|(from, len)| ms(from)..ms(from + len));
    let time = move || prop_oneof![Just(NEVER), time()];
    let one = (
        (any::<bool>(), 2_u32..200, 0_u64..300, any::<bool>()),
        prop::collection::vec(any::<bool>(), shards),
        prop_oneof![Just(Vec::new()), prop::collection::vec(0..shards as u32, 1..4)],
        (time(), time(), time(), trickles),
        1_u64..3,
        prop_oneof![Just(BUSY), Just(Failure::Lost), Just(Failure::Refused), Just(Failure::Misbehaved)],
    );
    let one = one.prop_map(move |((ranges, mb_per_s, latency, tells), holds, lies, times, lie, how)| {
        let (silent, fails, down, trickles_from) = times;
        Peer {
            ranges,
            bytes_per_s: f64::from(mb_per_s) * 1e6,
            latency: ms(latency),
            holds,
            tells: tells && ranges,
            lies,
            lie,
            trickles_from,
            silent,
            up: vec![Duration::ZERO..down.start, down.end..Duration::MAX],
            fails: (fails, how),
            grows: None,
        }
    });
    prop::collection::vec(one, 0..6)
}

fn may_trickle() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => Just(Duration::MAX), 1 => (0_u64..4_000).prop_map(ms)]
}

fn models() -> impl Strategy<Value = Model> {
    let codec = prop_oneof![Just(Codec::Rs), Just(Codec::Replica)];
    let layers = prop_oneof![Just(Vec::new()), prop::collection::vec(1_u64..(5 * PIECE), 11..14)];
    (1_u64..(40 * PIECE), 0_u32..5, codec, layers).prop_map(|(total, parity, codec, layers)| {
        let total_bytes = if layers.is_empty() { total } else { layers.iter().sum() };
        Model { total_bytes, data: 10, parity, codec, layers }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// One honest source of everything is enough, whatever the others do, and it is never blamed.
    #[test]
    fn one_honest_source_is_enough(
        (model, others) in models().prop_flat_map(|model| (Just(model.clone()), peers(model, may_trickle()))),
        indexed: bool,
        ranges: bool,
    ) {
        let mut peers = others;
        let honest = peer(&model, 30);
        peers.push(if ranges { honest } else { honest.v1() });
        let honest = peers.len() as u32 - 1;
        let net = Net::new(&model, indexed, peers).finish();
        prop_assert!(!net.is_banned(honest));
    }

    /// Enough honest sources together are enough: any ten shards of fourteen.
    #[test]
    fn any_ten_shards_are_enough(
        columns in 1_u64..6,
        held in Just((0..14).collect::<Vec<u32>>()).prop_shuffle(),
        split in 0_usize..10,
        indexed: bool,
        ranges: bool,
    ) {
        let model = Model::columns(columns);
        let one = peer(&model, 30).holding(held[..split].iter().copied());
        let other = peer(&model, 80).holding(held[split..10].iter().copied());
        let other = if ranges { other } else { other.v1() };
        let net = Net::new(&model, indexed, vec![one, other]).finish();
        prop_assert_eq!(net.tally.rebuilt.len() as u64, held[10..].iter().filter(|s| **s < 10).count() as u64 * columns);
    }

    /// Whatever the network: it ends.
    #[test]
    fn it_ends(
        (model, peers) in models().prop_flat_map(|model| (Just(model.clone()), peers(model, Just(Duration::MAX)))),
        indexed: bool,
    ) {
        Net::new(&model, indexed, peers).run();
    }
}

#[test]
fn a_large_model_is_planned_quickly() {
    let model = Model::columns(2048);
    let mut net = Net::new(&model, true, vec![peer(&model, 400); 5]);
    net.audits = false;
    let net = net.finish();
    assert!(net.excess_bytes() < model.total_bytes / 100);
}

#[test]
fn a_large_model_is_planned_quickly_from_many_that_hold_some() {
    let model = Model::columns(2048);
    let held = |source: u32| {
        (0..14).filter(move |shard| ![1, 4, 9, 11].contains(shard) && !(shard + source).is_multiple_of(4))
    };
    let peers = (0..20).map(|source| peer(&model, 20 + 5 * source).holding(held(source))).collect();
    let mut net = Net::new(&model, true, peers);
    net.audits = false;
    let net = net.finish();
    assert_eq!(net.tally.rebuilt.len(), 3 * 2048);
}
