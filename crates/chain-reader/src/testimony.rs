//! Endpoints' votes in words, for logs, errors and `loader status`.

use crate::address::Address;
use crate::ballot::{Ballot, Head, Reply, Said, Vote, Winner};
use crate::block::BlockTag;
use crate::error::{ChainError, EndpointError, excerpt};
use crate::non_vote::NonVote;

/// The text for endpoints that were not waited for.
const LATE: &str = "has not answered in time";

/// How an endpoint's vote relates to the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// It agreed.
    Agreed,
    /// It dissented.
    Disagreed,
    /// It agreed, and has another answer at a higher block, which has not reached the others.
    Ahead,
    /// It did not vote, as it is behind.
    Behind,
    /// It did not answer as it should have.
    Failed,
}

/// One endpoint's vote.
#[derive(Debug, Clone)]
pub(crate) struct Testimony {
    /// The height it reported.
    pub(crate) height: Option<u64>,
    pub(crate) stance: Stance,
    /// Without its name.
    pub(crate) text: String,
}

impl Ballot {
    /// The endpoints' votes, in their order; compared with `winner`, or with each other without one.
    pub(crate) fn testimonies(&self, tag: BlockTag, winner: Option<&Winner>) -> Vec<Testimony> {
        let disagree = winner.is_none() && self.contradict();
        (0..self.heads.len()).map(|endpoint| self.testimony(endpoint, tag, winner, disagree)).collect()
    }

    fn testimony(
        &self,
        endpoint: usize,
        tag: BlockTag,
        winner: Option<&Winner>,
        disagree: bool,
    ) -> Testimony {
        let head = match &self.heads[endpoint] {
            Reply::Known(head) => head,
            Reply::Failed(why) => {
                return Testimony { height: None, stance: Stance::Failed, text: why.text(tag) };
            }
            Reply::Pending => {
                return Testimony { height: None, stance: Stance::Failed, text: LATE.to_owned() };
            }
        };
        let (stance, mut text) = self.stance(endpoint, head, tag, winner, disagree);
        let height = head.block.number();
        if let Some(floor) = self.floor().filter(|floor| *floor > height) {
            text += &format!("; that is below block {floor}, which was read before");
        }
        Testimony { height: Some(height), stance, text }
    }

    fn stance(
        &self,
        endpoint: usize,
        head: &Head,
        tag: BlockTag,
        winner: Option<&Winner>,
        disagree: bool,
    ) -> (Stance, String) {
        let number = head.block.number();
        let chain = winner.map(|winner| winner.chain).or_else(|| self.chain());
        // Without a quorum on one chain it is enough that nobody names another.
        let is_here = match (chain, self.rules.chain_id) {
            (Some(chain), _) => chain.is_compatible(&head.chain),
            (None, Some(expected)) => expected == head.chain.chain_id,
            (None, None) => {
                let is_same = |other: &Head| other.chain.is_compatible(&head.chain);
                self.heads.iter().all(|other| other.known().is_none_or(is_same))
            }
        };
        if !is_here {
            let expected = chain.map(|chain| chain.chain_id).or(self.rules.chain_id);
            let mut text = format!("is on chain {}", head.chain.chain_id);
            text += &match expected {
                Some(expected) if expected != head.chain.chain_id => format!(", expected chain {expected}"),
                _ => format!(" with genesis block {}", head.chain.genesis.unwrap_or_default()),
            };
            return (Stance::Disagreed, text);
        }
        let asked = |height: u64| self.votes.get(&height).and_then(|votes| votes[endpoint].as_ref());
        let own = asked(number);
        let decisive = winner.map_or(own, |winner| asked(winner.vote.block.number()));
        match (decisive, own) {
            (Some(Reply::Pending), _) | (None, Some(Reply::Pending)) => (Stance::Failed, LATE.to_owned()),
            (Some(Reply::Failed(why)), _) | (None, Some(Reply::Failed(why))) => {
                (Stance::Failed, why.text(tag))
            }
            (Some(Reply::Known(vote)), _) => match (winner, own.and_then(Reply::known)) {
                (None, _) => (if disagree { Stance::Disagreed } else { Stance::Agreed }, vote.text()),
                (Some(winner), _) if !winner.vote.agrees(vote) => (Stance::Disagreed, vote.text()),
                (Some(winner), _) if winner.voters.contains(&endpoint) => (Stance::Agreed, vote.text()),
                (Some(_), Some(own)) => {
                    (Stance::Ahead, format!("{}, newer than what others have", own.text()))
                }
                (Some(_), None) => {
                    (Stance::Failed, format!("{}, but nothing of its newest block", vote.text()))
                }
            },
            (None, own) => {
                let said = own.and_then(Reply::known).map(|own| format!(", and {}", own.text()));
                (Stance::Behind, format!("reports {tag} block {number}{}", said.unwrap_or_default()))
            }
        }
    }

    /// Whether two endpoints say different things of the same height.
    fn contradict(&self) -> bool {
        self.votes.values().any(|votes| {
            let mut known = votes.iter().flatten().filter_map(|vote| match vote {
                Reply::Known(vote) => Some(vote),
                Reply::Pending | Reply::Failed(_) => None,
            });
            known.next().is_some_and(|first| known.any(|other| !first.agrees(other)))
        })
    }

    /// Whether a quorum may be there a moment later.
    pub(crate) fn prospect(&self) -> Prospect {
        let lacks = |reply: &Reply<Vote>| matches!(reply, Reply::Failed(why) if why.may_pass());
        let is_behind = |head: &Head| self.floor().is_some_and(|floor| head.block.number() < floor);
        let states: Vec<_> = (0..self.heads.len()).filter_map(|endpoint| self.statement(endpoint)).collect();
        let is_split = states.windows(2).any(|pair| !pair[0].said.agrees(&pair[1].said));
        if self.heads.iter().filter_map(Reply::known).any(is_behind)
            || self.votes.values().flatten().flatten().any(lacks)
        {
            Prospect::Lag
        } else if is_split || self.contradict() {
            Prospect::Split
        } else {
            Prospect::None
        }
    }
}

/// Whether a retry may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// No endpoint would change its vote.
    None,
    /// Some were about to change their block, and some were not.
    Split,
    /// A node lacks a block that another one behind the same URL may have, or that it will have in a moment.
    Lag,
}

impl Ballot {
    /// Why there is no quorum. What enough endpoints say for themselves stays as precise as they say it.
    pub(crate) fn into_error(
        self,
        names: impl Iterator<Item = String>,
        contract: Address,
        tag: BlockTag,
        said: Vec<String>,
    ) -> ChainError {
        let needed = self.rules.quorum;
        let elsewhere = |head: &Reply<Head>| match (head, self.rules.chain_id) {
            (Reply::Known(head), Some(expected)) if head.chain.chain_id != expected => {
                Some((expected, head.chain.chain_id))
            }
            _ => None,
        };
        let wrong: Vec<_> = self.heads.iter().map(elsewhere).collect();
        let fails = |is_so: fn(&NonVote) -> bool| -> Vec<bool> {
            self.heads.iter().map(|head| matches!(head, Reply::Failed(why) if is_so(why))).collect()
        };
        let blockless = fails(|why| matches!(why, NonVote::NoBlock(_)));
        let tagless = fails(|why| matches!(why, NonVote::UnknownTag(_)));
        let is_enough = |which: &[bool]| which.iter().filter(|is_so| **is_so).count() >= needed;
        if wrong.iter().flatten().count() >= needed {
            let mut found = names.zip(wrong).filter_map(|(name, wrong)| Some((name, wrong?)));
            if let Some((endpoint, (expected, found))) = found.next() {
                return ChainError::WrongChain { endpoint, expected, found };
            }
        } else if is_enough(&blockless) {
            if let Some((endpoint, _)) = names.zip(blockless).find(|(_, is_so)| *is_so) {
                return ChainError::NoBlock { endpoint, tag };
            }
        } else if is_enough(&tagless) {
            if let Some((endpoint, _)) = names.zip(tagless).find(|(_, is_so)| *is_so) {
                return ChainError::UnknownTag { endpoint, tag };
            }
        } else if self.heads.len() == 1
            && let Some(error) = self.into_errors().next()
        {
            return ChainError::Endpoint(error);
        }
        ChainError::NoQuorum { contract, needed, said }
    }

    /// What the endpoints failed with.
    fn into_errors(self) -> impl Iterator<Item = EndpointError> {
        let of_heads = self.heads.into_iter().filter_map(Reply::into_failure);
        let votes = self.votes.into_values().rev().flatten().flatten();
        of_heads.chain(votes.filter_map(Reply::into_failure)).filter_map(|why| match why {
            NonVote::Endpoint(error)
            | NonVote::NoState { source: error, .. }
            | NonVote::UnknownTag(error) => Some(error),
            NonVote::NoBlock(_) | NonVote::Lacks { .. } | NonVote::OtherHeight { .. } => None,
        })
    }
}

impl Vote {
    fn text(&self) -> String {
        let what = match &self.said {
            Said::Returned { text, .. } if text.is_empty() => "no model".to_owned(),
            Said::Returned { text, price } => {
                format!("\"{}\" at price {price}", excerpt(&String::from_utf8_lossy(text), 80))
            }
            Said::Undecodable(data) => format!("{} bytes that are no string and price", data.len()),
            Said::NoCode => "no contract".to_owned(),
            Said::Reverted { reason } => format!("a revert: \"{reason}\""),
        };
        format!("says {what} in block {} ({})", self.block.number(), self.block.hash)
    }
}
