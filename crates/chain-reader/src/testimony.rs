//! Who said what: the words for logs, errors and `loader status`.

use crate::ballot::{Ballot, Head, Reply, Said, Vote, Winner};
use crate::config::{Address, BlockTag};
use crate::error::{ChainError, EndpointError, excerpt};

/// Why an endpoint gave no vote.
#[derive(Debug)]
pub(crate) enum NonVote {
    /// It failed.
    Endpoint(EndpointError),
    /// It has no block under the tag.
    NoBlock,
    /// It has no block at a height that it claims to have passed.
    Lacks { height: u64 },
    /// It answered with the block of another height.
    OtherHeight { asked: u64, answered: u64 },
    /// It has the block, but says nothing of the state there: it has pruned it, or another node answers.
    NoState { height: u64, source: EndpointError },
}

impl NonVote {
    /// Whether the same may be answered at another block.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Lacks { .. } | Self::NoState { .. })
    }

    fn text(&self, tag: BlockTag) -> String {
        match self {
            Self::Endpoint(error) => with_causes(error),
            Self::NoBlock => format!("has no {tag} block yet"),
            Self::Lacks { height } => format!("claims more, but has no block {height}"),
            Self::OtherHeight { asked, answered } => {
                format!("answered with block {answered} when asked for block {asked}")
            }
            Self::NoState { height, source } => {
                format!("no vote: it has block {height}, but not its state (pruned?): {source}")
            }
        }
    }
}

/// An error and what it came from, in a line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// How an endpoint's word relates to what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// It said the same.
    Agreed,
    /// It said something else.
    Disagreed,
    /// It said nothing to it, as it is behind.
    Behind,
    /// It did not answer as it should have.
    Failed,
}

/// What one endpoint said.
#[derive(Debug, Clone)]
pub(crate) struct Testimony {
    /// The height it reported.
    pub(crate) height: Option<u64>,
    pub(crate) stance: Stance,
    /// Without its name.
    pub(crate) text: String,
}

impl Ballot {
    /// What each endpoint said, in their order; compared with `winner`, or with each other when nobody has won.
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
            Reply::Pending { .. } => {
                let text = "has not answered in time".to_owned();
                return Testimony { height: None, stance: Stance::Failed, text };
            }
        };
        let (stance, text) = self.stance(endpoint, head, tag, winner, disagree);
        Testimony { height: Some(head.block.number()), stance, text }
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
            (Some(chain), _) => chain == head.chain,
            (None, Some(expected)) => expected == head.chain.chain_id,
            (None, None) => {
                self.heads.iter().all(|other| other.known().is_none_or(|other| other.chain == head.chain))
            }
        };
        if !is_here {
            let expected = chain.map(|chain| chain.chain_id).or(self.rules.chain_id);
            let mut text = format!("is on chain {}", head.chain.chain_id);
            text += &match expected {
                Some(expected) if expected != head.chain.chain_id => format!(", expected chain {expected}"),
                _ => format!(" with genesis block {}", head.chain.genesis),
            };
            return (Stance::Disagreed, text);
        }
        let height = winner.map(|winner| winner.vote.block.number());
        let vote = match height {
            Some(height) => self.votes.get(&height).and_then(|votes| votes[endpoint].as_ref()),
            None => self.votes.values().rev().find_map(|votes| votes[endpoint].as_ref()),
        };
        match vote {
            None => {
                let mut text = format!("reports {tag} block {number}");
                if let Some(floor) = self.floor().filter(|floor| *floor > number) {
                    text += &format!(", below block {floor} that was read before");
                }
                (Stance::Behind, text)
            }
            Some(Reply::Pending { .. }) => (Stance::Failed, "has not answered in time".to_owned()),
            Some(Reply::Failed(why)) => (Stance::Failed, why.text(tag)),
            Some(Reply::Known(vote)) => {
                let differs = winner.map_or(disagree, |winner| !winner.vote.agrees(vote));
                (if differs { Stance::Disagreed } else { Stance::Agreed }, vote.text())
            }
        }
    }

    /// Whether two endpoints say different things of the same height.
    fn contradict(&self) -> bool {
        self.votes.values().any(|votes| {
            let mut known = votes.iter().flatten().filter_map(|vote| match vote {
                Reply::Known(vote) => Some(vote),
                Reply::Pending { .. } | Reply::Failed(_) => None,
            });
            known.next().is_some_and(|first| known.any(|other| !first.agrees(other)))
        })
    }

    /// Whether a quorum may be there a moment later: some were about to change their block, or lack one.
    pub(crate) fn may_pass(&self) -> bool {
        let lacks = |reply: &Reply<Vote>| matches!(reply, Reply::Failed(why) if why.may_pass());
        self.contradict() || self.votes.values().flatten().flatten().any(lacks)
    }
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
        let blockless: Vec<_> =
            self.heads.iter().map(|head| matches!(head, Reply::Failed(NonVote::NoBlock))).collect();
        if wrong.iter().flatten().count() >= needed {
            let mut found = names.zip(wrong).filter_map(|(name, wrong)| Some((name, wrong?)));
            if let Some((endpoint, (expected, found))) = found.next() {
                return ChainError::WrongChain { endpoint, expected, found };
            }
        } else if blockless.iter().filter(|is_so| **is_so).count() >= needed {
            if let Some((endpoint, _)) = names.zip(blockless).find(|(_, is_so)| *is_so) {
                return ChainError::NoBlock { endpoint, tag };
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
            NonVote::Endpoint(error) | NonVote::NoState { source: error, .. } => Some(error),
            NonVote::NoBlock | NonVote::Lacks { .. } | NonVote::OtherHeight { .. } => None,
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
