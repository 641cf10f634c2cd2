//! The requests under way, and which pieces they are to bring.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use manifest::PieceId;

use super::bits::Bits;
use super::order::Order;
use super::{RequestId, SourceKey};

/// Pieces may be asked of a second source so often, and once more for so many requests.
const FREE_HEDGES: u64 = 4;
const REQUESTS_PER_HEDGE: u64 = 32;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceKey,
    pub(super) shard: u32,
    pub(super) pieces: Range<u32>,
    pub(super) issued: Instant,
    /// Its source stalled: it no longer keeps others from being asked for its pieces.
    pub(super) stalled: bool,
    /// It took the place of one that was given up since another source would be sooner: not done a second time.
    pub(super) moved: bool,
    /// Its source failed when it was last asked for such a thing: no reason to hope until something comes.
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
    /// The places of the pieces in `asked`.
    asked_places: Bits,
    next: u64,
    /// How many were made for pieces that somebody else was asked for.
    hedges: u64,
}

impl Requests {
    pub(super) fn new(order: Arc<Order>) -> Self {
        Self {
            asked_places: Bits::new(order.len()),
            order,
            under_way: BTreeMap::new(),
            asked: HashMap::new(),
            next: 0,
            hedges: 0,
        }
    }

    /// Where in the order the pieces are that somebody is asked for who has not stalled.
    pub(super) fn asked_places(&self) -> &Bits {
        &self.asked_places
    }

    /// Adds a request that is to bring those of its pieces that are `wanted`.
    pub(super) fn add(&mut self, request: Request, wanted: impl Fn(PieceId) -> bool) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        for piece in request.piece_ids().filter(|piece| wanted(*piece)) {
            self.put_on(id, piece);
        }
        self.under_way.insert(id, request);
        id
    }

    /// Forgets a request; returns it and the pieces that nobody else is asked for.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<(Request, Vec<PieceId>)> {
        let request = self.under_way.remove(&id)?;
        let unasked = request.piece_ids().filter(|piece| self.take_off(id, *piece)).collect();
        Some((request, unasked))
    }

    pub(super) fn pop_first(&mut self) -> Option<RequestId> {
        self.under_way.pop_first().map(|(id, _)| id)
    }

    /// A request is to bring a piece.
    pub(super) fn put_on(&mut self, id: RequestId, piece: PieceId) {
        self.asked.entry(piece).or_default().push(id);
        if let Some(place) = self.order.place(piece) {
            self.asked_places.insert(place);
        }
    }

    /// A request is no longer to bring a piece. Returns whether that leaves nobody who is.
    pub(super) fn take_off(&mut self, id: RequestId, piece: PieceId) -> bool {
        let Some(ids) = self.asked.get_mut(&piece) else { return false };
        let before = ids.len();
        ids.retain(|other| *other != id);
        let (taken, left) = (ids.len() < before, ids.len());
        if left == 0 {
            self.asked.remove(&piece);
            if let Some(place) = self.order.place(piece) {
                self.asked_places.remove(place);
            }
        }
        taken && left == 0
    }

    /// Counts a request for a piece that somebody else is asked for.
    pub(super) fn add_hedge(&mut self) {
        self.hedges += 1;
    }

    /// Whether one more piece may be asked of a second source: all that come of it twice are a small part of all.
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

    /// The requests that are to bring a piece and not stalled.
    pub(super) fn asked(&self, piece: PieceId) -> &[RequestId] {
        self.asked.get(&piece).map_or(&[], Vec::as_slice)
    }

    /// Whether a source that stalled is still to bring a piece.
    pub(super) fn has_stalled(&self, piece: PieceId) -> bool {
        let is_for =
            |request: &Request| request.shard == piece.shard && request.pieces.contains(&piece.piece);
        self.under_way.values().any(|request| request.stalled && is_for(request))
    }

    /// The sources that are being asked for a shard, or for parts of it, and have not stalled.
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
