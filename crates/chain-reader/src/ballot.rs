//! Which block and which answer the endpoints agree on: a value without I/O or clock.
//!
//! Replies go in, and [`Ballot::next`] says what to do: whom to ask what, to wait, or what was decided. The heights that
//! endpoints report are tried in descending order, not below the floor, where a quorum reports that height or more; the
//! first height wins at which a quorum has the same block and the same answer.

use std::collections::BTreeMap;

use alloy::primitives::{B256, Bytes, U256};

use crate::endpoint::Block;
use crate::status::liars_tolerated;
use crate::testimony::NonVote;

/// Which chain an endpoint is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChainKey {
    pub(crate) chain_id: u64,
    pub(crate) genesis: B256,
}

/// What an endpoint has under the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) chain: ChainKey,
    pub(crate) block: Block,
}

/// What an endpoint says that the contract answers in a block.
#[derive(Debug, Clone)]
pub(crate) struct Vote {
    pub(crate) block: Block,
    pub(crate) said: Said,
}

/// An answer of the contract. Nodes word the reason of a revert differently, so it is not compared.
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

impl Vote {
    /// Whether both name the same block and the same answer in it.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.block == other.block
            && match (&self.said, &other.said) {
                (Said::Returned { text, price }, Said::Returned { text: other_text, price: other_price }) => {
                    text == other_text && price == other_price
                }
                (Said::Undecodable(data), Said::Undecodable(other)) => data == other,
                (Said::NoCode, Said::NoCode) | (Said::Reverted { .. }, Said::Reverted { .. }) => true,
                _ => false,
            }
    }
}

/// What it takes to win.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How many endpoints must agree.
    pub(crate) quorum: usize,
    /// The endpoint that must be among them.
    pub(crate) trusted: Option<usize>,
    /// The chain they must be on.
    pub(crate) chain_id: Option<u64>,
}

/// What became of one question to one endpoint.
#[derive(Debug)]
pub(crate) enum Reply<T> {
    /// Not answered yet; when `late`, it is no longer waited for while the others may decide.
    Pending {
        late: bool,
    },
    Known(T),
    Failed(NonVote),
}

impl<T> Reply<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Pending { .. } | Self::Failed(_) => None,
        }
    }

    fn is_waited_for(&self) -> bool {
        matches!(self, Self::Pending { late: false })
    }

    fn hurry(&mut self) {
        if let Self::Pending { late } = self {
            *late = true;
        }
    }

    pub(crate) fn into_failure(self) -> Option<NonVote> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Pending { .. } | Self::Known(_) => None,
        }
    }

    fn of(result: Result<T, NonVote>) -> Self {
        result.map_or_else(Self::Failed, Self::Known)
    }
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Tell the floor of this chain with [`Ballot::set_floor`].
    Floor(ChainKey),
    /// Ask these endpoints what the contract says in their block of this height, and say so with [`Ballot::on_vote`].
    Ask { height: u64, endpoints: Vec<usize> },
    /// Wait for a reply.
    Wait,
    /// This many agree: at least a quorum.
    Won(Winner),
    /// There is no quorum, whoever still answers.
    Lost,
}

/// What a quorum agrees on.
#[derive(Debug, Clone)]
pub(crate) struct Winner {
    pub(crate) chain: ChainKey,
    pub(crate) vote: Vote,
    /// Who said so, by index.
    pub(crate) voters: Vec<usize>,
}

/// One reading of the contract through all endpoints.
#[derive(Debug)]
pub(crate) struct Ballot {
    pub(crate) rules: Rules,
    pub(crate) heads: Vec<Reply<Head>>,
    /// By height, then by endpoint; `None` was not asked.
    pub(crate) votes: BTreeMap<u64, Vec<Option<Reply<Vote>>>>,
    floor: Option<(ChainKey, u64)>,
}

impl Ballot {
    /// All of `endpoints` have been asked for their heads.
    pub(crate) fn new(rules: Rules, endpoints: usize) -> Self {
        let heads = (0..endpoints).map(|_| Reply::Pending { late: false }).collect();
        Self { rules, heads, votes: BTreeMap::new(), floor: None }
    }

    pub(crate) fn on_head(&mut self, endpoint: usize, head: Result<Head, NonVote>) {
        self.heads[endpoint] = Reply::of(head);
    }

    pub(crate) fn on_vote(&mut self, endpoint: usize, height: u64, vote: Result<Vote, NonVote>) {
        self.votes_at(height)[endpoint] = Some(Reply::of(vote));
    }

    /// Nothing below this height is looked at.
    pub(crate) fn set_floor(&mut self, chain: ChainKey, height: u64) {
        self.floor = Some((chain, height));
    }

    pub(crate) fn floor(&self) -> Option<u64> {
        self.floor.map(|(_, height)| height)
    }

    /// Whether somebody's reply is waited for although others might decide without.
    pub(crate) fn waits(&self) -> bool {
        self.heads.iter().any(Reply::is_waited_for)
            || self.votes.values().flatten().flatten().any(Reply::is_waited_for)
    }

    /// Patience is over: those that have not answered yet no longer hold up the others.
    pub(crate) fn hurry(&mut self) {
        self.heads.iter_mut().for_each(Reply::hurry);
        self.votes.values_mut().flatten().flatten().for_each(Reply::hurry);
    }

    pub(crate) fn next(&mut self) -> Next {
        if self.heads.iter().any(Reply::is_waited_for) {
            return Next::Wait;
        }
        let Some(chain) = self.chain() else { return self.wait_or_lose() };
        let Some(floor) = self.floor.filter(|(of, _)| *of == chain).map(|(_, floor)| floor) else {
            return Next::Floor(chain);
        };
        let enough = self.rules.quorum - liars_tolerated(self.rules.quorum, self.heads.len());
        for height in self.heights(chain, floor) {
            let voters = self.at_or_above(chain, height);
            let votes = self.votes_at(height);
            let endpoints: Vec<_> = voters.into_iter().filter(|voter| votes[*voter].is_none()).collect();
            if !endpoints.is_empty() {
                endpoints.iter().for_each(|voter| votes[*voter] = Some(Reply::Pending { late: false }));
                return Next::Ask { height, endpoints };
            }
            if votes.iter().flatten().any(Reply::is_waited_for) {
                return Next::Wait;
            }
            // Endpoints that are merely slow are not passed over for a lower height: those that stall on purpose are too
            // few to keep this many from answering.
            let (late, answered): (Vec<_>, Vec<_>) =
                votes.iter().flatten().partition(|vote| matches!(vote, Reply::Pending { .. }));
            let is_passed = late.is_empty() || answered.len() >= enough;
            if let Some((vote, voters)) = self.agreed(height) {
                return Next::Won(Winner { chain, vote, voters });
            }
            if !is_passed {
                return Next::Wait;
            }
        }
        self.wait_or_lose()
    }

    /// The one chain that a quorum is on, the trusted endpoint among it.
    pub(crate) fn chain(&self) -> Option<ChainKey> {
        let heads = || self.heads.iter().enumerate().filter_map(|(i, head)| Some((i, head.known()?)));
        let is_allowed = |chain: &ChainKey| self.rules.chain_id.is_none_or(|id| id == chain.chain_id);
        let mut chains: Vec<ChainKey> = Vec::new();
        for (_, head) in heads() {
            if is_allowed(&head.chain) && !chains.contains(&head.chain) {
                chains.push(head.chain);
            }
        }
        only(chains.into_iter().filter(|chain| {
            let on: Vec<_> = heads().filter(|(_, head)| head.chain == *chain).map(|(i, _)| i).collect();
            self.is_quorum(&on)
        }))
    }

    /// The heights worth trying, highest first.
    pub(crate) fn heights(&self, chain: ChainKey, floor: u64) -> Vec<u64> {
        let on = self.heads.iter().filter_map(Reply::known).filter(|head| head.chain == chain);
        let mut heights: Vec<_> = on.map(|head| head.block.number()).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        // The k-th highest is reported or exceeded by k endpoints, and so is every lower one.
        let mut heights: Vec<_> = heights.into_iter().skip(self.rules.quorum - 1).collect();
        heights.dedup();
        heights.retain(|height| *height >= floor);
        heights
    }

    fn at_or_above(&self, chain: ChainKey, height: u64) -> Vec<usize> {
        let reaches = |head: &Head| head.chain == chain && head.block.number() >= height;
        let reaching = |(i, head): (usize, &Reply<Head>)| head.known().is_some_and(reaches).then_some(i);
        self.heads.iter().enumerate().filter_map(reaching).collect()
    }

    /// The one vote that a quorum gives at this height, the trusted endpoint among it.
    fn agreed(&self, height: u64) -> Option<(Vote, Vec<usize>)> {
        let votes: Vec<_> = self.votes.get(&height)?.iter().map(|vote| vote.as_ref()?.known()).collect();
        let mut groups: Vec<(&Vote, Vec<usize>)> = Vec::new();
        for (voter, vote) in votes.iter().enumerate().filter_map(|(i, vote)| Some((i, (*vote)?))) {
            match groups.iter_mut().find(|(first, _)| first.agrees(vote)) {
                Some((_, voters)) => voters.push(voter),
                None => groups.push((vote, vec![voter])),
            }
        }
        let (vote, voters) = only(groups.into_iter().filter(|(_, voters)| self.is_quorum(voters)))?;
        Some((vote.clone(), voters))
    }

    fn is_quorum(&self, who: &[usize]) -> bool {
        who.len() >= self.rules.quorum && self.rules.trusted.is_none_or(|trusted| who.contains(&trusted))
    }

    fn wait_or_lose(&self) -> Next {
        let pending = |reply: &Option<Reply<Vote>>| matches!(reply, Some(Reply::Pending { .. }));
        let heads = self.heads.iter().any(|head| matches!(head, Reply::Pending { .. }));
        if heads || self.votes.values().flatten().any(pending) { Next::Wait } else { Next::Lost }
    }

    fn votes_at(&mut self, height: u64) -> &mut Vec<Option<Reply<Vote>>> {
        let endpoints = self.heads.len();
        self.votes.entry(height).or_insert_with(|| (0..endpoints).map(|_| None).collect())
    }
}

/// The only element. Two groups that are both a quorum contradict each other, and neither is one.
fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
