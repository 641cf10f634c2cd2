//! The requests in flight, and their pieces.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use manifest::PieceId;

use super::bits::Bits;
use super::order::Order;
use super::{RequestId, SourceKey};

/// So many duplicate requests are free, and one more for each so many requests.
const FREE_HEDGES: u64 = 4;
const REQUESTS_PER_HEDGE: u64 = 32;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceKey,
    pub(super) shard: u32,
    pub(super) pieces: Range<u32>,
    pub(super) issued: Instant,
    /// Its source stalled: its pieces may be asked of others.
    pub(super) stalled: bool,
    /// It replaced a cancelled request to a slower source: not reassigned a second time.
    pub(super) moved: bool,
    /// Its source failed last time: it does not count as progress until bytes come.
    pub(super) retry: bool,
}

impl Request {
    /// Whether it is for a whole shard of several pieces.
    pub(super) fn is_stream(&self) -> bool {
        self.pieces.len() > 1
    }

    pub(super) fn piece_ids(&self) -> impl Iterator<Item = PieceId> + use<> {
        let shard = self.shard;
        self.pieces.clone().map(move |piece| PieceId { shard, piece })
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Requests {
    order: Arc<Order>,
    under_way: BTreeMap<RequestId, Request>,
    /// By piece, the requests for it that are not stalled.
    asked: HashMap<PieceId, Vec<RequestId>>,
    /// The positions of the pieces in `asked`.
    asked_positions: Bits,
    next: u64,
    /// How many duplicate requests were made.
    hedges: u64,
}

impl Requests {
    pub(super) fn new(order: Arc<Order>) -> Self {
        Self {
            asked_positions: Bits::new(order.len()),
            order,
            under_way: BTreeMap::new(),
            asked: HashMap::new(),
            next: 0,
            hedges: 0,
        }
    }

    /// The positions of the pieces in flight at sources that have not stalled.
    pub(super) fn asked_positions(&self) -> &Bits {
        &self.asked_positions
    }

    /// How many requests were made so far.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Adds a request for those of its pieces that are `wanted`.
    pub(super) fn add(&mut self, request: Request, wanted: impl Fn(PieceId) -> bool) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        for piece in request.piece_ids().filter(|piece| wanted(*piece)) {
            self.add_piece(id, piece);
        }
        self.under_way.insert(id, request);
        id
    }

    /// Removes a request; returns it and the pieces that have no other.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<(Request, Vec<PieceId>)> {
        let request = self.under_way.remove(&id)?;
        let unasked = request.piece_ids().filter(|piece| self.remove_piece(id, *piece)).collect();
        Some((request, unasked))
    }

    pub(super) fn pop_first(&mut self) -> Option<RequestId> {
        self.under_way.pop_first().map(|(id, _)| id)
    }

    /// Adds a piece to a request.
    pub(super) fn add_piece(&mut self, id: RequestId, piece: PieceId) {
        self.asked.entry(piece).or_default().push(id);
        if let Some(position) = self.order.position(piece) {
            self.asked_positions.insert(position);
        }
    }

    /// Removes a piece from a request. Returns whether that leaves the piece without one.
    pub(super) fn remove_piece(&mut self, id: RequestId, piece: PieceId) -> bool {
        let Some(ids) = self.asked.get_mut(&piece) else { return false };
        let before = ids.len();
        ids.retain(|other| *other != id);
        let (taken, left) = (ids.len() < before, ids.len());
        if left == 0 {
            self.asked.remove(&piece);
            if let Some(position) = self.order.position(piece) {
                self.asked_positions.remove(position);
            }
        }
        taken && left == 0
    }

    /// Counts a duplicate request.
    pub(super) fn add_hedge(&mut self) {
        self.hedges += 1;
    }

    /// Whether one more duplicate request may be made: they stay a small part of all.
    pub(super) fn may_hedge(&self) -> bool {
        self.hedges <= FREE_HEDGES + self.next / REQUESTS_PER_HEDGE
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        self.under_way.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.under_way.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.under_way.iter().map(|(id, request)| (*id, request))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The requests for a piece that are not stalled.
    pub(super) fn asked(&self, piece: PieceId) -> &[RequestId] {
        self.asked.get(&piece).map_or(&[], Vec::as_slice)
    }

    /// Whether a stalled request for a piece is left.
    pub(super) fn has_stalled(&self, piece: PieceId) -> bool {
        let is_for =
            |request: &Request| request.shard == piece.shard && request.pieces.contains(&piece.piece);
        self.under_way.values().any(|request| request.stalled && is_for(request))
    }

    /// The sources with requests for pieces of a shard that have not stalled.
    pub(super) fn sources_of(&self, shard: u32) -> impl Iterator<Item = SourceKey> {
        let requests = self.under_way.values();
        requests
            .filter(move |request| request.shard == shard && !request.stalled)
            .map(|request| request.source)
    }

    pub(super) fn ids_where(&self, which: impl Fn(&Request) -> bool) -> Vec<RequestId> {
        self.under_way.iter().filter(|(_, request)| which(request)).map(|(id, _)| *id).collect()
    }
}
