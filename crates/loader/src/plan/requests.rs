//! The requests under way, and which pieces they are to bring.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

use manifest::PieceId;

use super::{RequestId, SourceKey};

#[derive(Debug)]
pub(super) struct Request {
    pub(super) source: SourceKey,
    pub(super) shard: u32,
    pub(super) pieces: Range<u32>,
    pub(super) issued: Instant,
    /// Its source stalled: it no longer keeps others from being asked for its pieces.
    pub(super) stalled: bool,
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
#[derive(Debug, Default)]
pub(super) struct Requests {
    under_way: BTreeMap<RequestId, Request>,
    /// By piece, the requests for it that are not stalled.
    asked: HashMap<PieceId, Vec<RequestId>>,
    next: u64,
}

impl Requests {
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
    }

    /// A request is no longer to bring a piece. Returns whether that leaves nobody who is.
    pub(super) fn take_off(&mut self, id: RequestId, piece: PieceId) -> bool {
        let Some(ids) = self.asked.get_mut(&piece) else { return false };
        let before = ids.len();
        ids.retain(|other| *other != id);
        let (taken, left) = (ids.len() < before, ids.len());
        if left == 0 {
            self.asked.remove(&piece);
        }
        taken && left == 0
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
