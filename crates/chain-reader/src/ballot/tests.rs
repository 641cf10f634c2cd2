//! Whole ballots in which some endpoints are honest and the others do as they like.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CHAIN: ChainKey = ChainKey { chain_id: 1, genesis: B256::ZERO };

/// How an endpoint behaves.
#[derive(Debug, Clone)]
enum Kind {
    /// On the honest chain, at this height.
    Honest(u64),
    /// Says of each block what suits it: `salt` tells liars apart, or lets them lie together.
    Liar {
        height: u64,
        salt: u8,
    },
    /// On another chain.
    Elsewhere(u64),
    /// Fails when asked for its block, or for the contract.
    FailsHead,
    FailsVote(u64),
    /// Never answers at all, or not about the contract.
    SilentHead,
    SilentVote(u64),
}

fn vote(height: u64, salt: u8) -> Vote {
    let block = Block::new(height, B256::with_last_byte(salt));
    Vote { block, said: Said::Returned { text: vec![salt; 3].into(), price: U256::from(height) } }
}

fn failed() -> NonVote {
    NonVote::Lacks { height: 0 }
}

impl Kind {
    fn head(&self) -> Option<Result<Head, NonVote>> {
        let at = |chain, height| Some(Ok(Head { chain, block: vote(height, 0).block }));
        match self {
            Self::Honest(height) | Self::FailsVote(height) | Self::SilentVote(height) => at(CHAIN, *height),
            Self::Liar { height, .. } => at(CHAIN, *height),
            Self::Elsewhere(height) => at(ChainKey { chain_id: 2, ..CHAIN }, *height),
            Self::FailsHead => Some(Err(failed())),
            Self::SilentHead => None,
        }
    }

    fn vote(&self, height: u64) -> Option<Result<Vote, NonVote>> {
        match self {
            Self::Honest(_) | Self::Elsewhere(_) => Some(Ok(vote(height, 0))),
            Self::Liar { salt, .. } => Some(Ok(vote(height, *salt))),
            Self::FailsHead | Self::FailsVote(_) => Some(Err(failed())),
            Self::SilentHead | Self::SilentVote(_) => None,
        }
    }
}

/// Holds a ballot. `order` picks which reply comes next, and when patience ends. Returns the winner, and how many votes
/// were asked for; `None` when somebody is waited for who never answers.
fn hold(rules: Rules, floor: u64, kinds: &[Kind], order: &[u8]) -> (Option<Result<Winner, ()>>, usize) {
    let mut ballot = Ballot::new(rules, kinds.len());
    let mut replies: Vec<(usize, Option<u64>)> = (0..kinds.len()).map(|i| (i, None)).collect();
    replies.retain(|(i, _)| kinds[*i].head().is_some());
    let mut order = order.iter().cycle();
    let mut asked = BTreeSet::new();
    loop {
        match ballot.next() {
            Next::Won(winner) => return (Some(Ok(winner)), asked.len()),
            Next::Lost => return (Some(Err(())), asked.len()),
            Next::Floor(chain) => ballot.set_floor(chain, floor),
            Next::Ask { height, endpoints } => {
                for i in endpoints {
                    assert!(asked.insert((i, height)), "asked twice");
                    if kinds[i].vote(height).is_some() {
                        replies.push((i, Some(height)));
                    }
                }
            }
            Next::Wait => {
                let pick = usize::from(*order.next().unwrap());
                // Patience ends, or nobody answers any more.
                if replies.is_empty() || pick > 200 {
                    if ballot.waits() {
                        ballot.hurry();
                        continue;
                    } else if replies.is_empty() {
                        return (None, asked.len());
                    }
                }
                let (i, height) = replies.swap_remove(pick % replies.len());
                match height {
                    None => ballot.on_head(i, kinds[i].head().unwrap()),
                    Some(height) => ballot.on_vote(i, height, kinds[i].vote(height).unwrap()),
                }
            }
        }
    }
}

fn majority(endpoints: usize) -> Rules {
    Rules { quorum: endpoints / 2 + 1, trusted: None, chain_id: None }
}

fn faulty() -> impl Strategy<Value = Kind> {
    let height = prop_oneof![90_u64..130, Just(1_000_000_000), Just(0)];
    prop_oneof![
        (height.clone(), 1_u8..4).prop_map(|(height, salt)| Kind::Liar { height, salt }),
        height.clone().prop_map(Kind::Elsewhere),
        Just(Kind::FailsHead),
        height.clone().prop_map(Kind::FailsVote),
        Just(Kind::SilentHead),
        height.prop_map(Kind::SilentVote),
    ]
}

/// A majority that is honest, at whatever heights, and a minority that is not, in any order.
fn mostly_honest() -> impl Strategy<Value = Vec<Kind>> {
    (0_usize..4).prop_flat_map(|faults| {
        let honest = prop::collection::vec((95_u64..105).prop_map(Kind::Honest), faults + 1..=faults + 3);
        let faulty = prop::collection::vec(faulty(), faults);
        (honest, faulty).prop_map(|(honest, faulty)| [honest, faulty].concat()).prop_shuffle()
    })
}

proptest! {
    #[test]
    fn an_honest_majority_wins_at_its_own_height(
        kinds in mostly_honest(),
        order in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let rules = majority(kinds.len());
        let (winner, asked) = hold(rules, 0, &kinds, &order);
        let winner = winner.unwrap().unwrap();
        prop_assert!(winner.vote.agrees(&vote(winner.vote.block.number(), 0)), "{winner:?}");
        prop_assert!(winner.voters.iter().all(|i| matches!(kinds[*i], Kind::Honest(_))));
        // Enough honest endpoints have reached it, and it is no lower than what all the honest have.
        let mut honest: Vec<_> = kinds.iter().filter_map(|kind| match kind {
            Kind::Honest(height) => Some(*height),
            _ => None,
        }).collect();
        honest.sort_unstable_by(|a, b| b.cmp(a));
        prop_assert!(winner.vote.block.number() <= honest[rules.quorum - 1]);
        let is_patient = order.iter().all(|pick| *pick <= 200);
        prop_assert!(!is_patient || winner.vote.block.number() >= *honest.last().unwrap());
        prop_assert!(asked <= kinds.len() * kinds.len());
    }

    #[test]
    fn nothing_is_asked_or_won_below_the_floor_and_every_ballot_ends(
        kinds in prop::collection::vec(prop_oneof![faulty(), (95_u64..105).prop_map(Kind::Honest)], 1..8),
        order in prop::collection::vec(any::<u8>(), 1..40),
        floor in 90_u64..110,
        quorum in 1_usize..8,
        trusted in prop::option::of(0_usize..8),
    ) {
        let rules = Rules {
            quorum: quorum.min(kinds.len()),
            trusted: trusted.filter(|trusted| *trusted < kinds.len()),
            chain_id: Some(1),
        };
        if let (Some(Ok(winner)), _) = hold(rules, floor, &kinds, &order) {
            prop_assert!(winner.vote.block.number() >= floor);
            prop_assert!(winner.voters.len() >= rules.quorum);
            prop_assert!(rules.trusted.is_none_or(|trusted| winner.voters.contains(&trusted)));
            prop_assert_eq!(winner.chain, CHAIN);
        }
    }
}

#[test]
fn a_claimed_height_of_a_billion_and_a_lag_of_32_stop_nobody() {
    let far = Kind::Liar { height: 1_000_000_000, salt: 0 };
    for (kinds, expected) in [
        (vec![far.clone(), Kind::Honest(100), Kind::Honest(100)], 100),
        (vec![Kind::Honest(68), Kind::Honest(100), Kind::Honest(101)], 100),
        // It claims the height and then has no answer there: the two others meet at the lower of theirs.
        (vec![Kind::FailsVote(1_000_000_000), Kind::Honest(100), Kind::Honest(99)], 99),
        (vec![Kind::SilentVote(1_000_000_000), Kind::Honest(100), Kind::Honest(99)], 99),
        (vec![Kind::SilentHead, Kind::Honest(100), Kind::Honest(68)], 68),
    ] {
        let (winner, _) = hold(majority(3), 0, &kinds, &[0]);
        assert_eq!(winner.unwrap().unwrap().vote.block.number(), expected, "{kinds:?}");
    }
    let lagging = [Kind::SilentHead, Kind::Honest(100), Kind::Honest(68)];
    assert!(hold(majority(3), 69, &lagging, &[0]).0.is_none(), "the silent one is waited for");
}

#[test]
fn two_quorums_that_contradict_each_other_are_none() {
    let kinds = [
        Kind::Honest(100),
        Kind::Honest(100),
        Kind::Liar { height: 100, salt: 1 },
        Kind::Liar { height: 100, salt: 1 },
    ];
    let rules = Rules { quorum: 2, ..majority(4) };
    assert!(hold(rules, 0, &kinds, &[0]).0.unwrap().is_err());
    let trusted = Rules { trusted: Some(0), ..rules };
    assert!(hold(trusted, 0, &kinds, &[0]).0.unwrap().unwrap().voters == [0, 1]);
}

#[test]
fn the_trusted_endpoint_has_a_veto() {
    let trusted = Rules { trusted: Some(2), ..majority(3) };
    for vetoer in [
        Kind::Liar { height: 100, salt: 1 },
        Kind::Liar { height: 90, salt: 1 },
        Kind::FailsHead,
        Kind::FailsVote(100),
        Kind::Elsewhere(100),
    ] {
        let kinds = [Kind::Honest(100), Kind::Honest(100), vetoer];
        assert!(hold(trusted, 95, &kinds, &[0]).0.unwrap().is_err(), "{kinds:?}");
        assert!(hold(majority(3), 95, &kinds, &[0]).0.unwrap().is_ok(), "{kinds:?}");
    }
    // One that is behind draws the others to its height.
    let kinds = [Kind::Honest(100), Kind::Honest(101), Kind::Honest(97)];
    assert_eq!(hold(trusted, 95, &kinds, &[0]).0.unwrap().unwrap().vote.block.number(), 97);
}
