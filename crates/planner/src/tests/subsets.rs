//! Only some pieces are wanted.

use manifest::Codec;

use super::*;

fn of(shard: u32, pieces: Range<u32>) -> impl Iterator<Item = PieceId> {
    pieces.map(move |piece| PieceId { shard, piece })
}

fn wanting(model: &Model, indexed: bool, peers: Vec<Peer>, wanted: &[PieceId]) -> Net {
    let mut net = Net::new(model, indexed, peers);
    net.planner.want(wanted.iter().copied());
    net
}

#[test]
fn only_what_is_wanted_is_fetched() {
    let model = Model::columns(20);
    let wanted: Vec<PieceId> = of(0, 0..3).chain(of(7, 19..20)).collect();
    let net = wanting(&model, true, vec![peer(&model, 50); 2], &wanted).finish();
    assert_eq!(net.tally.arrived.keys().copied().collect::<Vec<_>>(), wanted);
    assert!(net.tally.rebuilt.is_empty());
}

#[test]
fn nothing_wanted_is_done_at_once_and_more_can_be_wanted_later() {
    let model = Model::columns(4);
    let mut net = wanting(&model, true, vec![peer(&model, 50)], &[]);
    assert!(net.planner.is_done());
    net.planner.want(of(3, 0..2));
    assert!(!net.planner.is_done());
    let net = net.finish();
    assert_eq!(net.tally.arrived.keys().copied().collect::<Vec<_>>(), of(3, 0..2).collect::<Vec<_>>());
}

#[test]
fn every_other_request_is_for_what_is_wanted_soon() {
    let model = Model::columns(40);
    let soon: Vec<PieceId> = of(3, 30..36).chain(of(4, 0..4)).collect();
    let mut net = Net::new(&model, true, vec![peer(&model, 50); 2]);
    net.planner.want_soon(soon.iter().copied());
    let net = net.finish();
    let (first, rest) = net.tally.requested.split_at(2 * soon.len() + 2);
    assert!(soon.iter().all(|piece| first.contains(piece)), "{first:?}");
    assert_eq!(first.len() + rest.len(), 10 * 40);
}

#[test]
fn a_lost_piece_costs_its_column_and_no_other() {
    for model in [Model::columns(20), Model::layers(&[55, 45, 60, 40])] {
        let shards = model.geometry().manifest().shard_count();
        let wanted: Vec<PieceId> = of(0, 4..5).chain(of(1, 0..2)).collect();
        // Nobody has shard 0.
        let peers = vec![peer(&model, 50).holding(1..shards); 2];
        let net = wanting(&model, true, peers, &wanted).finish();
        assert!(net.tally.rebuilt.contains(&wanted[0]), "{:?}", net.tally.rebuilt);
        // In layers a piece covers several stripes, and pieces of others several, too.
        let most = if model.layers.is_empty() { 10 + 2 } else { 3 * 14 + 2 };
        assert!(net.tally.arrived.len() <= most, "{:?}", net.tally.arrived.keys());
        assert!(wanted.iter().all(|piece| net.planner.is_good(*piece)));
    }
}

#[test]
fn a_copy_costs_only_itself() {
    let model = Model { codec: Codec::Replica, parity: 10, ..Model::layers(&[40, 40, 40, 40, 40]) };
    let shards = model.geometry().manifest().shard_count();
    let wanted: Vec<PieceId> = of(0, 4..5).collect();
    let net = wanting(&model, true, vec![peer(&model, 50).holding(1..shards)], &wanted).finish();
    assert!(net.tally.rebuilt.contains(&wanted[0]));
    assert!(net.tally.arrived.len() <= 2, "{:?}", net.tally.arrived.keys());
}

#[test]
fn what_cannot_be_rebuilt_fetches_nothing_in_vain_and_only_what_is_wanted_is_told() {
    let model = Model::columns(20);
    let (net, missing) = wanting(
        &model,
        true,
        vec![peer(&model, 50).holding(5..14)],
        &of(0, 0..1).chain(of(6, 0..1)).collect::<Vec<_>>(),
    )
    .stick();
    assert_eq!(missing, [0]);
    assert_eq!(net.tally.arrived.len(), 1);
}

#[test]
fn without_an_index_whole_shards_are_wanted() {
    let model = Model::columns(4);
    let net = wanting(&model, false, vec![peer(&model, 50); 2], &of(2, 1..2).collect::<Vec<_>>()).finish();
    let arrived: Vec<_> = net.tally.arrived.keys().copied().collect();
    assert_eq!(arrived, of(2, 0..4).collect::<Vec<_>>());
}

#[test]
fn what_an_earlier_run_left_counts_whether_it_is_wanted_or_not() {
    let model = Model::columns(8);
    let mut net = Net::new(&model, true, vec![peer(&model, 50)]);
    net.planner.want(of(0, 0..4));
    net.claim(of(0, 0..3).chain(of(5, 0..2)), |piece| piece.piece == 1);
    let net = net.finish();
    let arrived: Vec<_> = net.tally.arrived.keys().copied().collect();
    assert_eq!(arrived, of(0, 1..2).chain(of(0, 3..4)).collect::<Vec<_>>());
}

#[test]
fn a_wrong_index_makes_whole_shards_of_what_is_wanted() {
    let model = Model::columns(4);
    let mut net = wanting(&model, true, vec![peer(&model, 50); 3], &of(2, 1..2).collect::<Vec<_>>());
    net.wrong_index.insert(2);
    let net = net.finish();
    assert!(net.planner.is_good(PieceId { shard: 2, piece: 1 }));
    assert!(net.tally.arrived.keys().all(|piece| piece.shard == 2), "{:?}", net.tally.arrived.keys());
}
