//! The planner: which piece to request from which source, and when to rebuild from parity instead.
//!
//! It does no I/O, reads no clock and draws no random number that it was not given: events and the time go in, actions
//! come out, so that a simulation runs in virtual time and a failure replays. The `loader` drives it with real sources.
//!
//! Every piece is in exactly one `pieces::PieceState`. A piece is requested from one source at a time, and from a second
//! one when the first is late; a source that stalls loses all requests but its oldest, which stays as a probe.

mod bits;
mod events;
mod holdings;
mod late;
mod order;
mod parity;
mod piece_picker;
mod pieces;
mod rarity;
mod rate;
mod rebuild;
mod requests;
mod roster;
mod source;
mod source_limit;
mod supply;
#[cfg(test)]
mod tests;
mod trial;
mod trials;
mod types;
mod wanted;
mod whole_shards;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifest::{Geometry, PieceId};

use bits::Bits;
use pieces::Pieces;
pub use pieces::ShardState;
use rarity::Rarity;
use requests::Requests;
use roster::Roster;
use source::Source;
pub use source::SourceState;
pub use source_limit::SourceLimit;
pub use supply::Supply;
pub use types::{Checked, Failure, PlanAction, PlanConfig, PlanEvent, RequestId, SourceKey, Why};

/// Late pieces are not looked for more often than this.
const MIN_HEDGE_INTERVAL: Duration = Duration::from_millis(20);

/// See the crate's documentation.
#[derive(Debug)]
pub struct Planner {
    config: PlanConfig,
    pieces: Pieces,
    sources: Roster,
    requests: Requests,
    rarity: Rarity,
    /// Scratch space for the pieces that are open.
    open: Bits,
    /// Pieces that are wanted soon, by their positions.
    soon: Option<Bits>,
    /// The source that is offered work first: round robin.
    next_source: u32,
    actions: VecDeque<PlanAction>,
    connecting: bool,
    started: Instant,
    /// By shard; valid while `holders_are_counted`.
    holders: Vec<Holders>,
    holders_are_counted: bool,
    /// Something other than requests and arrivals has changed: every source is looked at again.
    changed: bool,
    /// When late pieces are looked for again.
    next_hedge: Instant,
}

/// The sources that hold a shard.
#[derive(Debug, Clone, Copy, Default)]
struct Holders {
    /// How many are connected.
    count: u32,
    /// Whether one may be asked for some of it now, and is not late.
    some_now: bool,
    /// Whether one may be asked for any of it now, and is not late.
    all_now: bool,
    /// Whether one that serves ranges may be asked for any of it, late or not.
    ranges_now: bool,
}

impl Planner {
    /// A planner for the model of `geometry`. Without `indexed`, shards are checked as a whole.
    pub fn new(geometry: Geometry, indexed: bool, config: PlanConfig, now: Instant) -> Self {
        let holders = vec![Holders::default(); geometry.manifest().shards().len()];
        let sources = Roster::new(config.clone(), geometry.manifest());
        let pieces = Pieces::new(geometry, indexed, config.seed);
        let order = Arc::clone(&pieces.order);
        Self {
            sources,
            config,
            pieces,
            rarity: Rarity::new(order.len()),
            open: Bits::new(order.len()),
            soon: None,
            requests: Requests::new(order),
            next_source: 0,
            actions: VecDeque::new(),
            connecting: false,
            started: now,
            holders,
            holders_are_counted: false,
            changed: true,
            next_hedge: now,
        }
    }

    /// The geometry it plans for.
    pub fn geometry(&self) -> &Geometry {
        &self.pieces.geometry
    }

    /// Takes pieces that an earlier run recorded as verified: they are not requested, and count once
    /// [`PlanEvent::Rechecked`] confirms them. Only before the first event.
    pub fn claim(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        for piece in pieces {
            self.pieces.claim(piece);
        }
    }

    /// Takes pieces that are verified already. Only before the first event.
    pub fn resume(&mut self, pieces: impl IntoIterator<Item = PieceId>) {
        for piece in pieces {
            self.pieces.set_good(piece);
        }
    }

    /// Whether pieces of this shard are checked one by one.
    pub fn is_indexed(&self, shard: u32) -> bool {
        self.pieces.is_indexed(shard)
    }

    /// Whether all weights that are wanted are there and verified.
    pub fn is_done(&self) -> bool {
        self.pieces.is_done()
    }

    /// Whether no progress is expected without a new source, or time.
    ///
    /// Requests to stalled sources, and retries at sources that failed last time, do not count until bytes come.
    /// Meaningful after [`Planner::poll_action`] returned `None`.
    pub fn is_stuck(&self) -> bool {
        !self.is_done()
            && self.requests.iter().all(|(_, request)| request.stalled || request.retry)
            && self.pieces.is_quiet()
    }

    /// State of each shard that the weights still need, for a report.
    pub fn missing_shards(&self) -> Vec<ShardState> {
        self.pieces.missing_shards()
    }

    /// Whether a shard is on trial: fetched from one source alone, and only checked as a whole.
    pub fn is_on_trial(&self, shard: u32) -> bool {
        self.pieces.trials.is_on(shard)
    }

    /// Whether a piece is written and right.
    pub fn is_good(&self, piece: PieceId) -> bool {
        self.pieces.is_good(piece)
    }

    /// Whether a piece was stored unchecked for a trial that has ended: reported as [`Checked::Stored`], it counts as
    /// missing.
    pub fn is_left_of_trial(&self, piece: PieceId, source: Option<SourceKey>) -> bool {
        self.pieces.is_left_of_trial(piece, source)
    }

    /// The source of a request in flight.
    pub fn source_of(&self, request: RequestId) -> Option<SourceKey> {
        self.requests.get(request).map(|request| request.source)
    }

    /// What the planner thinks of a source.
    pub fn source_state(&self, source: SourceKey) -> Option<SourceState> {
        self.sources.get(source).map(Source::state)
    }

    /// The next thing to do, if any; asked again until `None`.
    pub fn poll_action(&mut self, now: Instant) -> Option<PlanAction> {
        self.find_stalls(now);
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.is_done() {
            return self.requests.pop_first().map(|request| PlanAction::Cancel { request });
        }
        self.refresh();
        // A trial that has ended cancels its requests before others are asked.
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let full = self.pieces.whole.next_full().map(|shard| PlanAction::CheckShard { shard });
        let next = full.or_else(|| self.next_spent()).or_else(|| self.next_rebuild());
        let next = next.or_else(|| self.next_request(now));
        if next.is_none() && (self.want_columns_of_lost(now) || self.try_the_last_resort(now)) {
            self.refresh();
            return self.actions.pop_front().or_else(|| self.next_request(now));
        }
        next
    }

    /// When to poll again though nothing happened: a stall, a pause or a wait may end then.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let grace = self.waits_for_sources(now).then(|| self.grace_end());
        // Pieces become late without an event.
        let hedge = (!self.requests.is_empty()).then(|| self.next_hedge.max(now + MIN_HEDGE_INTERVAL));
        self.sources.check_at().into_iter().chain(grace).chain(hedge).min()
    }

    fn grace_end(&self) -> Instant {
        self.started + self.config.grace
    }

    /// Whether sources that are being dialed may hold what now seems lost.
    fn waits_for_sources(&self, now: Instant) -> bool {
        self.connecting && now < self.grace_end()
    }

    /// Drops what was cached about which source may be asked for what.
    fn refresh(&mut self) {
        if !self.changed {
            return;
        }
        self.restart_abandoned_shards();
        self.end_trial_without_source();
        self.changed = false;
        self.holders_are_counted = false;
        self.sources.mark_all_ready();
    }

    /// Brings `holders` up to date.
    fn count_holders(&mut self) {
        if std::mem::replace(&mut self.holders_are_counted, true) {
            return;
        }
        for (shard, holders) in (0..).zip(&mut self.holders) {
            *holders = Holders::default();
            for (_, source) in self.sources.iter().filter(|(_, source)| source.is_holder(shard)) {
                let now = source.is_live_holder(shard);
                let has_all = source.holdings.has_all(shard);
                holders.count += 1;
                holders.some_now |= now;
                holders.all_now |= now && has_all;
                holders.ranges_now |= source.may_hold(shard) && has_all && source.ranges;
            }
        }
    }

    /// Restarts shards that were to come from one source alone, which cannot go on.
    fn restart_abandoned_shards(&mut self) {
        if !self.pieces.whole.is_one_source_per_shard() {
            return;
        }
        let is_over = |(shard, owner): &(u32, SourceKey)| {
            let owner = self.sources.get(*owner);
            self.pieces.absent(*shard) > 0
                && owner.is_none_or(|owner| owner.is_stalled() || !owner.is_holder(*shard))
        };
        let over: Vec<(u32, SourceKey)> = self.pieces.whole.owned().filter(is_over).collect();
        for (shard, _) in over {
            self.empty_shard(shard);
        }
    }
}
