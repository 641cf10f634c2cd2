//! Which block and which answer the endpoints agree on: a value without I/O or clock.
//!
//! Replies go in, and [`Ballot::next`] returns what to do: requests to make, to wait, or the decision.
//!
//! An endpoint's *statement* is the block that it has under the tag, its head, and what the contract answers there. The
//! heights of heads are tried in descending order, not below the floor; the first height wins at which a quorum has the
//! same block and the same answer. **A vote below an endpoint's own head counts only if it is also what that endpoint
//! states**: what was true in an old block may be outdated. So the winner is the statement of some honest endpoint,
//! whichever endpoints stall, and no dissenting vote decides anything: stalled endpoints need only a short wait.

use std::collections::BTreeMap;

use alloy::primitives::{B256, Bytes, U256};

use crate::block::Block;
use crate::non_vote::NonVote;

/// A chain: its id, and its first block where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainKey {
    pub(crate) chain_id: u64,
    /// `None` where endpoints do not have that block any more.
    pub(crate) genesis: Option<B256>,
}

impl ChainKey {
    /// The same, with the first block of the other where this one's is not known.
    pub(crate) fn with_genesis_of(self, other: Self) -> Self {
        Self { genesis: self.genesis.or(other.genesis), ..self }
    }

    /// Whether both may be the same chain.
    pub(crate) fn is_compatible(&self, other: &Self) -> bool {
        let differs = self.genesis.zip(other.genesis).is_some_and(|(a, b)| a != b);
        self.chain_id == other.chain_id && !differs
    }
}

/// What an endpoint has under the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) chain: ChainKey,
    pub(crate) block: Block,
}

/// An endpoint's vote: the contract's answer in a block.
#[derive(Debug, Clone)]
pub(crate) struct Vote {
    pub(crate) block: Block,
    pub(crate) said: Said,
}

/// An answer of the contract.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A string, as bytes, and a price.
    Returned { text: Bytes, price: U256 },
    /// Something else.
    Undecodable(Bytes),
    /// There is no code at the address.
    NoCode,
    /// It refuses.
    Reverted { reason: String },
}

impl Said {
    /// Whether both are the same answer. Nodes word the reason of a revert differently, so it is not compared.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Returned { text, price }, Self::Returned { text: other_text, price: other_price }) => {
                text == other_text && price == other_price
            }
            (Self::Undecodable(data), Self::Undecodable(other)) => data == other,
            (Self::NoCode, Self::NoCode) | (Self::Reverted { .. }, Self::Reverted { .. }) => true,
            _ => false,
        }
    }
}

impl Vote {
    /// Whether both name the same block, its time included, and the same answer in it.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.block == other.block && self.said.agrees(&other.said)
    }
}

/// The quorum rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How many endpoints must agree.
    pub(crate) quorum: usize,
    /// The endpoint that must be among them.
    pub(crate) trusted: Option<usize>,
    /// The chain they must be on.
    pub(crate) chain_id: Option<u64>,
}

impl Rules {
    pub(crate) fn is_quorum(&self, who: &[usize]) -> bool {
        who.len() >= self.quorum && self.trusted.is_none_or(|trusted| who.contains(&trusted))
    }
}

/// The state of one request to one endpoint.
#[derive(Debug)]
pub(crate) enum Reply<T> {
    /// Not answered yet.
    Pending,
    Known(T),
    Failed(NonVote),
}

impl<T> Reply<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Pending | Self::Failed(_) => None,
        }
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }

    pub(crate) fn into_failure(self) -> Option<NonVote> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Pending | Self::Known(_) => None,
        }
    }

    fn of(result: Result<T, NonVote>) -> Self {
        result.map_or_else(Self::Failed, Self::Known)
    }
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Supply the stored state of this chain, and the floor, with [`Ballot::set_floor`].
    Floor(ChainKey),
    /// Ask these endpoints for the contract's answer in their block of this height, and report it with [`Ballot::on_vote`].
    Ask { height: u64, endpoints: Vec<usize> },
    /// Wait for a reply, or for the timeout.
    Wait,
    /// This many agree: at least a quorum.
    Won(Winner),
    /// A quorum is impossible, whatever the pending replies.
    Lost,
}

/// What a quorum agrees on.
#[derive(Debug, Clone)]
pub(crate) struct Winner {
    pub(crate) chain: ChainKey,
    pub(crate) vote: Vote,
    /// The endpoints that voted for it, by index.
    pub(crate) voters: Vec<usize>,
}

/// The stored state of a chain.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// As the endpoints name it.
    asked: ChainKey,
    /// As it is stored.
    chain: ChainKey,
    /// No lower height is considered.
    floor: u64,
}

/// One reading of the contract through all endpoints.
#[derive(Debug)]
pub(crate) struct Ballot {
    pub(crate) rules: Rules,
    pub(crate) heads: Vec<Reply<Head>>,
    /// By height, then by endpoint; `None` was not asked.
    pub(crate) votes: BTreeMap<u64, Vec<Option<Reply<Vote>>>>,
    known: Option<Known>,
    /// Whether all endpoints are waited for, though fewer may decide.
    is_patient: bool,
}

impl Ballot {
    /// All of `endpoints` have been asked for their heads.
    pub(crate) fn new(rules: Rules, endpoints: usize) -> Self {
        let heads = (0..endpoints).map(|_| Reply::Pending).collect();
        Self { rules, heads, votes: BTreeMap::new(), known: None, is_patient: true }
    }

    pub(crate) fn on_head(&mut self, endpoint: usize, head: Result<Head, NonVote>) {
        self.heads[endpoint] = Reply::of(head);
    }

    pub(crate) fn on_vote(&mut self, endpoint: usize, height: u64, vote: Result<Vote, NonVote>) {
        self.votes_at(height)[endpoint] = Some(Reply::of(vote));
    }

    /// The chain that was `asked` about is stored as `chain`, read up to height `floor`.
    pub(crate) fn set_floor(&mut self, asked: ChainKey, chain: ChainKey, floor: u64) {
        self.known = Some(Known { asked, chain, floor });
    }

    pub(crate) fn floor(&self) -> Option<u64> {
        self.known.map(|known| known.floor)
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.is_patient
    }

    /// The timeout has passed: from now on the endpoints that have answered may decide without the others.
    pub(crate) fn hurry(&mut self) {
        self.is_patient = false;
    }

    pub(crate) fn next(&mut self) -> Next {
        if let Some((endpoint, height)) = self.unstated() {
            self.votes_at(height)[endpoint] = Some(Reply::Pending);
            return Next::Ask { height, endpoints: vec![endpoint] };
        }
        if self.is_patient && self.is_waiting() {
            return Next::Wait;
        }
        let Some(asked) = self.named_chain() else { return self.wait_or_lose() };
        let Some(Known { chain, floor, .. }) = self.known.filter(|known| known.asked == asked) else {
            return Next::Floor(asked);
        };
        for height in self.heights(chain, floor) {
            let voters = self.at_or_above(chain, height);
            if !self.may_agree(&voters) {
                continue;
            }
            let votes = self.votes_at(height);
            let endpoints: Vec<_> = voters.iter().copied().filter(|voter| votes[*voter].is_none()).collect();
            if !endpoints.is_empty() {
                endpoints.iter().for_each(|voter| votes[*voter] = Some(Reply::Pending));
                return Next::Ask { height, endpoints };
            }
            if self.is_patient && self.is_waiting() {
                return Next::Wait;
            }
            if let Some((vote, voters)) = self.agreed(&voters, height) {
                return Next::Won(Winner { chain, vote, voters });
            }
        }
        self.wait_or_lose()
    }

    /// An endpoint whose head is known, and that was not asked yet for the contract's answer there.
    fn unstated(&self) -> Option<(usize, u64)> {
        self.heads.iter().enumerate().find_map(|(endpoint, head)| {
            let head = head.known().filter(|head| self.is_allowed(head.chain.chain_id))?;
            let height = head.block.number();
            let asked = self.votes.get(&height).and_then(|votes| votes[endpoint].as_ref());
            asked.is_none().then_some((endpoint, height))
        })
    }

    /// The endpoint's vote at its own head.
    pub(crate) fn statement(&self, endpoint: usize) -> Option<&Vote> {
        let height = self.heads[endpoint].known()?.block.number();
        self.votes.get(&height)?[endpoint].as_ref()?.known()
    }

    /// The one chain that a quorum is on, including the trusted endpoint; with its first block where a quorum agrees on it.
    pub(crate) fn named_chain(&self) -> Option<ChainKey> {
        let heads = || self.heads.iter().enumerate().filter_map(|(i, head)| Some((i, head.known()?.chain)));
        let ids = distinct(heads().map(|(_, chain)| chain.chain_id).filter(|id| self.is_allowed(*id)));
        let on = |is_it: &dyn Fn(ChainKey) -> bool| {
            let who: Vec<_> = heads().filter(|(_, chain)| is_it(*chain)).map(|(i, _)| i).collect();
            self.rules.is_quorum(&who)
        };
        let chain_id = only(ids.into_iter().filter(|id| on(&|chain| chain.chain_id == *id)))?;
        let geneses = distinct(heads().filter_map(|(_, chain)| chain.genesis));
        let named = geneses.into_iter().map(|genesis| ChainKey { chain_id, genesis: Some(genesis) });
        // One endpoint alone must not choose under which chain the floor is looked up.
        Some(
            only(named.filter(|named| on(&|chain| chain == *named)))
                .unwrap_or(ChainKey { chain_id, genesis: None }),
        )
    }

    /// The chain that is read, as far as that is settled.
    pub(crate) fn chain(&self) -> Option<ChainKey> {
        let asked = self.named_chain()?;
        Some(self.known.filter(|known| known.asked == asked).map_or(asked, |known| known.chain))
    }

    /// The heights worth trying, highest first.
    pub(crate) fn heights(&self, chain: ChainKey, floor: u64) -> Vec<u64> {
        let on = self.heads.iter().filter_map(Reply::known).filter(|head| chain.is_compatible(&head.chain));
        let mut heights: Vec<_> = on.map(|head| head.block.number()).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        // The k-th highest is reported or exceeded by k endpoints, and so is every lower one.
        let mut heights: Vec<_> = heights.into_iter().skip(self.rules.quorum - 1).collect();
        heights.dedup();
        heights.retain(|height| *height >= floor);
        heights
    }

    fn at_or_above(&self, chain: ChainKey, height: u64) -> Vec<usize> {
        let reaches = |head: &Head| chain.is_compatible(&head.chain) && head.block.number() >= height;
        let reaching = |(i, head): (usize, &Reply<Head>)| head.known().is_some_and(reaches).then_some(i);
        self.heads.iter().enumerate().filter_map(reaching).collect()
    }

    /// Whether a quorum of these states the same of the contract, each at its own head.
    fn may_agree(&self, voters: &[usize]) -> bool {
        let stated = voters.iter().filter_map(|voter| Some((*voter, &self.statement(*voter)?.said)));
        groups(stated, |a, b| a.agrees(b)).iter().any(|(_, who)| self.rules.is_quorum(who))
    }

    /// The one vote that a quorum of these gives at this height and stands by at its own head.
    fn agreed(&self, voters: &[usize], height: u64) -> Option<(Vote, Vec<usize>)> {
        let votes = self.votes.get(&height)?;
        let counting = voters.iter().filter_map(|voter| {
            let vote = votes[*voter].as_ref()?.known()?;
            self.statement(*voter)?.said.agrees(&vote.said).then_some((*voter, vote))
        });
        let groups = groups(counting, |a, b| a.agrees(b));
        let (vote, voters) = only(groups.into_iter().filter(|(_, voters)| self.rules.is_quorum(voters)))?;
        Some((vote.clone(), voters))
    }

    fn is_allowed(&self, chain_id: u64) -> bool {
        self.rules.chain_id.is_none_or(|only| only == chain_id)
    }

    fn is_waiting(&self) -> bool {
        self.heads.iter().any(Reply::is_pending)
            || self.votes.values().flatten().flatten().any(Reply::is_pending)
    }

    fn wait_or_lose(&self) -> Next {
        if self.is_waiting() { Next::Wait } else { Next::Lost }
    }

    fn votes_at(&mut self, height: u64) -> &mut Vec<Option<Reply<Vote>>> {
        let endpoints = self.heads.len();
        self.votes.entry(height).or_insert_with(|| (0..endpoints).map(|_| None).collect())
    }
}

/// Groups equal answers: each with the endpoints that gave it, in their order.
fn groups<'a, T>(
    said: impl Iterator<Item = (usize, &'a T)>,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<(&'a T, Vec<usize>)> {
    let mut groups: Vec<(&T, Vec<usize>)> = Vec::new();
    for (who, what) in said {
        match groups.iter_mut().find(|(first, _)| is_same(first, what)) {
            Some((_, members)) => members.push(who),
            None => groups.push((what, vec![who])),
        }
    }
    groups
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// The only element. Two groups that are both a quorum contradict each other, and neither is one.
fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
