//! What must hold after every step.

use manifest::{Cell, PieceId};

use super::super::pieces::PieceState;
use super::super::source::Source;
use super::super::{Planner, SourceKey, Why};
use super::{Asked, Net, PIECE};

/// The planner's tallies agree with each other.
pub(super) fn audit(planner: &Planner) {
    let pieces = &planner.pieces;
    let geometry = planner.geometry();
    let manifest = geometry.manifest();
    let (mut checking, mut claimed) = (0, 0);
    for shard in 0..manifest.shards().len() as u32 {
        let mut absent = 0;
        for piece in 0..manifest.piece_count(shard) {
            let id = PieceId { shard, piece };
            let state = pieces.state(id);
            absent +=
                u32::from(matches!(state, PieceState::Missing | PieceState::Checking | PieceState::Claimed));
            checking += usize::from(state == PieceState::Checking);
            claimed += usize::from(state == PieceState::Claimed);
            let asked = planner.requests.asked(id);
            let Some(position) = pieces.order.position(id) else { continue };
            let is_missing = state == PieceState::Missing && pieces.is_wanted(id);
            assert_eq!(pieces.missing_positions().contains(position), is_missing);
            assert_eq!(planner.requests.asked_positions().contains(position), !asked.is_empty());
            let says = |source: &Source| source.holdings.positions().is_some() && source.holds(id);
            let holders = planner.sources.iter().filter(|(_, source)| says(source)).count();
            assert_eq!(usize::from(planner.rarity.holders(position)), holders, "{id:?}");
            let is_open = is_missing && asked.is_empty() && !planner.changed;
            // Who owes something is looked at when that comes.
            let budget = planner.sources.budget(0);
            for (key, source) in planner.sources.iter().filter(|(key, _)| !planner.sources.is_ready(*key)) {
                let is_forgotten = is_open
                    && source.may_hold(shard)
                    && planner.may_join(key, shard)
                    && source.holds(id)
                    && source.owed_bytes() == 0
                    && planner.sources.has_capacity(key, budget);
                assert!(!is_forgotten, "{key:?} could be asked for {id:?}");
            }
        }
        assert_eq!(absent, pieces.absent(shard));
    }
    assert!(pieces.arrived_count() <= checking);
    assert_eq!(checking + claimed == 0 && pieces.whole.is_quiet(), pieces.is_quiet());
    for stripe in 0..geometry.stripe_count() {
        let is_known = |cell: &Cell| match cell {
            Cell::Padding => true,
            Cell::Piece { piece, .. } => pieces.is_good(*piece),
        };
        assert_eq!(geometry.cells(stripe).filter(is_known).count() as u32, pieces.known_cells(stripe));
    }
    let missing: u32 = pieces.missing_shards().iter().map(|shard| shard.missing_pieces).sum();
    assert_eq!(missing == 0, planner.is_done());
    for (id, request) in planner.requests.iter() {
        for piece in request.piece_ids() {
            let is_on = planner.requests.asked(piece).contains(&id);
            assert!(!is_on || !request.stalled, "a stalled request keeps others from {piece:?}");
            assert!(request.is_stream() || request.stalled || is_on, "a request for nothing");
        }
    }
}

/// Nothing is asked for without a reason: no source twice for a piece at once, no more than two sources that have not
/// stalled, and more than one only if somebody is late or has stalled.
pub(super) fn request(net: &Net, asked: &Asked, why: Why) {
    let state = net.planner.source_state(SourceKey(asked.source as u32)).unwrap();
    assert!(state.up && !state.banned && !state.stalled);
    let manifest = net.geometry.manifest();
    let count = manifest.piece_count(asked.shard);
    let is_whole = asked.pieces == (0..count);
    assert!(is_whole || net.peers[asked.source].ranges && asked.pieces.len() == 1);
    assert_eq!(net.geometry.canonical(asked.shard), asked.shard);
    for piece in asked.pieces.clone() {
        let id = PieceId { shard: asked.shard, piece };
        let others = net.asked.values().filter(|o| o.shard == asked.shard && o.pieces.contains(&piece));
        let others: Vec<usize> = others.map(|other| other.source).collect();
        assert!(!others.contains(&asked.source), "{id:?} is asked of {} twice", asked.source);
        let is_stalled =
            |source: &usize| net.planner.source_state(SourceKey(*source as u32)).is_some_and(|s| s.stalled);
        let live = others.iter().filter(|source| !is_stalled(source)).count();
        assert!(net.planner.requests.asked(id).len() <= 2, "{id:?} is asked of three");
        if asked.pieces.len() > 1 {
            continue;
        }
        assert!(net.planner.pieces.is_missing(id), "{id:?} is not missing");
        let stalled = others.len() - live;
        // A whole shard that is being sent may bring a piece besides that was not missing when it was asked for.
        let is_whole = |source: &usize| !net.peers[*source].ranges;
        if others.iter().any(is_whole) {
            continue;
        }
        match why {
            Why::Missing => assert_eq!((live, stalled), (0, 0), "{id:?}"),
            Why::Moved => assert_eq!(live, 0, "{id:?}"),
            // A whole shard that stalled may have brought the piece before the shard turned out to be wrong.
            Why::Stalled => {
                let has_whole = net.asked.values().any(|other| !net.peers[other.source].ranges);
                assert!(live == 0 && (stalled > 0 || has_whole), "{id:?}");
            }
            Why::Late | Why::EndGame => assert_eq!(live, 1, "{id:?}"),
            Why::Parity => assert_eq!(live, 0, "{id:?}"),
            Why::SecondOpinion => {
                let is_disputed = net.tally.lied.contains(&id) || net.wrong_index.contains(&id.shard);
                assert!(live == 0 && is_disputed, "{id:?}");
            }
        }
    }
}

/// No more pieces have come a second time than there were reasons for: each such request brings one more piece at most,
/// and so does each wrong one. Of sources that serve ranges only; a whole shard may bring what others are asked for.
pub(super) fn duplicates(net: &Net) {
    if net.peers.iter().any(|peer| !peer.ranges) || !net.wrong_index.is_empty() {
        return;
    }
    let reasons = [Why::Late, Why::EndGame, Why::Stalled, Why::SecondOpinion];
    let asked: usize = reasons.iter().map(|why| net.tally.asked.get(why).copied().unwrap_or(0)).sum();
    let twice: u32 = net.tally.arrived.values().map(|count| count - 1).sum();
    // What has rotted is fetched again.
    let reasons = asked + net.tally.wrong as usize + net.tally.rechecked.len();
    // A shard that is checked as a whole is fetched again when it is wrong.
    assert!(
        net.tally.checked_shards > 0 || twice as usize <= reasons,
        "{twice} pieces came twice, for {reasons} reasons"
    );
}

/// What is asked for and what is being checked fits into the memory.
pub(super) fn memory(net: &Net) {
    let mut held = net.planner.pieces.arrived_count() as u64 * PIECE;
    for asked in net.asked.values() {
        let pieces = asked.pieces.clone().map(|piece| PieceId { shard: asked.shard, piece });
        let bytes: u64 = pieces.map(|piece| net.geometry.piece_bytes(piece)).sum();
        held += if net.peers[asked.source].ranges { bytes } else { bytes.min(4 * PIECE) };
    }
    assert!(held <= net.limit_bytes, "{held} bytes in flight");
}

/// Parity is dropped when all data of its stripes is there.
pub(super) fn drop_parity(net: &Net, piece: PieceId) {
    let manifest = net.geometry.manifest();
    assert!(piece.shard >= manifest.data_shard_count());
    assert!(net.planner.pieces.is_missing(piece));
    for (stripe, _) in net.geometry.stripes_of(piece) {
        for cell in net.geometry.cells(stripe).take(manifest.data() as usize) {
            assert!(!matches!(cell, Cell::Piece { piece, .. } if !net.planner.is_good(piece)));
        }
    }
}

/// A piece that is rebuilt is missing, and enough is there to rebuild it from.
pub(super) fn rebuild(net: &Net, piece: PieceId) {
    assert_eq!(net.planner.pieces.state(piece), PieceState::Checking);
    let manifest = net.geometry.manifest();
    if manifest.codec() == manifest::Codec::Rs {
        for (stripe, _) in net.geometry.stripes_of(piece) {
            assert!(net.planner.pieces.known_cells(stripe) >= manifest.data());
        }
    }
}
