//! Whole ballots in which some endpoints are honest and the others do as they like.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const CHAIN: ChainKey = ChainKey { chain_id: 1, genesis: Some(B256::ZERO) };
/// From this height on the contract of the honest chain names another model.
const NEWS: u64 = 100;

/// How an endpoint behaves.
#[derive(Debug, Clone)]
enum Kind {
    /// On the honest chain, at this height.
    Honest(u64),
    /// The same, without the chain's first block.
    Pruned(u64),
    /// Says of each block what suits it: `salt` tells liars apart, or lets them lie together.
    Liar {
        height: u64,
        salt: u8,
    },
    /// Claims that this is its height, and tells nothing but the truth about every block, at that height too if there is
    /// such a block.
    Backdated(u64),
    /// The same, but says of its own head what suits it.
    TwoFaced {
        height: u64,
        salt: u8,
    },
    /// On another chain.
    Elsewhere(u64),
    /// Fails when asked for its block, or for the contract.
    FailsHead,
    FailsVote(u64),
    /// Never answers at all, or not about the contract, or only about the contract at its own head.
    SilentHead,
    SilentVote(u64),
    SilentBelow(u64),
}

/// What is true of the block at this height; a liar's block and text for other salts than 0.
fn vote(height: u64, salt: u8) -> Vote {
    let block = Block::new(height, B256::with_last_byte(salt));
    let text = vec![salt; if height < NEWS { 3 } else { 4 }];
    Vote { block, said: Said::Returned { text: text.into(), price: U256::ZERO } }
}

fn failed() -> NonVote {
    NonVote::Lacks { height: 0 }
}

impl Kind {
    fn height(&self) -> Option<u64> {
        match self {
            Self::Honest(height)
            | Self::Pruned(height)
            | Self::Liar { height, .. }
            | Self::Backdated(height)
            | Self::TwoFaced { height, .. }
            | Self::Elsewhere(height)
            | Self::FailsVote(height)
            | Self::SilentVote(height)
            | Self::SilentBelow(height) => Some(*height),
            Self::FailsHead | Self::SilentHead => None,
        }
    }

    fn head(&self) -> Option<Result<Head, NonVote>> {
        let chain = match self {
            Self::Elsewhere(_) => ChainKey { chain_id: 2, ..CHAIN },
            Self::Pruned(_) => ChainKey { genesis: None, ..CHAIN },
            Self::FailsHead => return Some(Err(failed())),
            _ => CHAIN,
        };
        self.height().map(|height| Ok(Head { chain, block: vote(height, 0).block }))
    }

    fn vote(&self, height: u64) -> Option<Result<Vote, NonVote>> {
        match self {
            Self::Honest(_) | Self::Pruned(_) | Self::Backdated(_) | Self::Elsewhere(_) => {
                Some(Ok(vote(height, 0)))
            }
            Self::TwoFaced { height: own, .. } if height != *own => Some(Ok(vote(height, 0))),
            Self::Liar { salt, .. } | Self::TwoFaced { salt, .. } => Some(Ok(vote(height, *salt))),
            Self::FailsHead | Self::FailsVote(_) => Some(Err(failed())),
            Self::SilentBelow(own) if height == *own => Some(Ok(vote(height, 0))),
            Self::SilentHead | Self::SilentVote(_) | Self::SilentBelow(_) => None,
        }
    }

    fn is_honest(&self) -> bool {
        matches!(self, Self::Honest(_) | Self::Pruned(_))
    }
}

/// Holds a ballot. `order` picks which reply comes next, so that some are fast and some slow, and when patience ends.
/// Returns the winner, and how many votes were asked for; `None` when somebody is waited for who never answers.
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
            Next::Floor(chain) => ballot.set_floor(chain, chain, floor),
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
                    if ballot.is_patient() {
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
    let height = || prop_oneof![90_u64..110, Just(1_000_000_000), Just(0)];
    prop_oneof![
        (height(), 1_u8..4).prop_map(|(height, salt)| Kind::Liar { height, salt }),
        height().prop_map(Kind::Backdated),
        (height(), 0_u8..4).prop_map(|(height, salt)| Kind::TwoFaced { height, salt }),
        height().prop_map(Kind::Elsewhere),
        Just(Kind::FailsHead),
        height().prop_map(Kind::FailsVote),
        Just(Kind::SilentHead),
        height().prop_map(Kind::SilentVote),
        height().prop_map(Kind::SilentBelow),
    ]
}

fn honest() -> impl Strategy<Value = Kind> {
    let height = || 95_u64..106;
    prop_oneof![4 => height().prop_map(Kind::Honest), 1 => height().prop_map(Kind::Pruned)]
}

/// Two to seven endpoints of which a majority is honest, at whatever heights, in any order.
fn mostly_honest() -> impl Strategy<Value = Vec<Kind>> {
    (0_usize..4).prop_flat_map(|faults| {
        let honest = prop::collection::vec(honest(), (faults + 1).max(2)..=faults + 3);
        let faulty = prop::collection::vec(faulty(), faults);
        (honest, faulty).prop_map(|(honest, faulty)| [honest, faulty].concat()).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whoever stalls, whoever is fast, and whatever old truths are told.
    #[test]
    fn what_wins_is_true_and_is_what_an_honest_endpoint_says_of_its_own_head(
        kinds in mostly_honest(),
        order in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let rules = majority(kinds.len());
        let (winner, asked) = hold(rules, 0, &kinds, &order);
        prop_assert!(asked <= kinds.len() * kinds.len());
        let heads: Vec<_> = kinds.iter().filter(|kind| kind.is_honest()).filter_map(Kind::height).collect();
        let says = |height: &u64| vote(*height, 0).said;
        if let Some(Ok(winner)) = &winner {
            prop_assert!(winner.vote.agrees(&vote(winner.vote.block.number(), 0)), "{winner:?}");
            prop_assert!(heads.iter().any(|head| says(head).agrees(&winner.vote.said)), "{winner:?}");
        }
        // Where all the honest agree on what is current they win, at a height that one of them has, whoever stalls.
        if heads.iter().all(|head| says(head).agrees(&says(&heads[0]))) {
            let winner = winner.unwrap().unwrap();
            prop_assert!(winner.vote.said.agrees(&says(&heads[0])), "{winner:?}");
            let mut highest = heads;
            highest.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert!(winner.vote.block.number() <= highest[0]);
        }
    }

    #[test]
    fn nothing_is_asked_or_won_below_the_floor_and_every_ballot_ends(
        kinds in prop::collection::vec(prop_oneof![faulty(), honest()], 1..8),
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
            prop_assert_eq!(winner.chain.chain_id, 1);
        }
    }
}

/// In which order the heads arrive, slowest last, when patience ends after the first `fast` replies.
fn with_slow(kinds: &[Kind], fast: usize) -> (Option<Result<Winner, ()>>, usize) {
    // Picking the first reply each time takes them in their order; the heads come first.
    let order: Vec<u8> = (0..200).map(|turn| if turn == fast { 255 } else { 0 }).collect();
    hold(majority(kinds.len()), 0, kinds, &order)
}

#[test]
fn an_old_truth_does_not_win_over_news_however_slow_the_others_are() {
    let backdated = || Kind::Backdated(NEWS - 5);
    let (new, slow) = (|| Kind::Honest(NEWS + 5), || Kind::Honest(NEWS + 5));
    for kinds in [
        vec![backdated(), new()],
        vec![backdated(), new(), slow()],
        vec![backdated(), new(), new(), slow()],
        vec![backdated(), backdated(), new(), new(), slow()],
    ] {
        let liars = kinds.iter().filter(|kind| !kind.is_honest()).count();
        for fast in 0..30 {
            let (winner, _) = with_slow(&kinds, fast);
            if kinds.len() == 2 {
                assert!(winner.unwrap().is_err(), "one of two is no majority");
                continue;
            }
            let vote = winner.unwrap().unwrap().vote;
            assert!(vote.agrees(&super::tests::vote(NEWS + 5, 0)), "{liars} of {kinds:?}, {fast}: {vote:?}");
        }
    }
    // The other honest one fails or is silent: then there is no quorum, and not the old model.
    for other in [Kind::FailsHead, Kind::FailsVote(NEWS + 5), Kind::Elsewhere(NEWS)] {
        assert!(with_slow(&[backdated(), new(), other], 3).0.unwrap().is_err());
    }
    for other in [Kind::SilentHead, Kind::SilentVote(NEWS + 5)] {
        assert!(with_slow(&[backdated(), new(), other], 3).0.is_none(), "it is waited for");
    }
    // One that lags says the old truth in earnest; one that lags behind the news and names it is no hindrance.
    let lagging = with_slow(&[backdated(), new(), Kind::Honest(NEWS - 1)], 3).0.unwrap().unwrap();
    assert!(lagging.vote.block.number() < NEWS);
    let lagging = with_slow(&[backdated(), new(), Kind::Honest(NEWS + 1)], 3).0.unwrap().unwrap();
    assert_eq!(lagging.vote.block.number(), NEWS + 1);
}

#[test]
fn a_first_block_is_known_only_when_a_quorum_names_it() {
    let chain = |kinds: &[Kind]| hold(majority(kinds.len()), 0, kinds, &[0]).0.unwrap().unwrap().chain;
    let (full, pruned) = (Kind::Honest(100), Kind::Pruned(100));
    assert_eq!(chain(&[full.clone(), full.clone(), pruned.clone()]).genesis, CHAIN.genesis);
    let unknown = chain(&[full, pruned.clone(), pruned]);
    assert_eq!((unknown.chain_id, unknown.genesis), (1, None));
}

#[test]
fn whoever_names_another_first_block_than_is_remembered_does_not_count() {
    let (rules, remembered) = (majority(3), ChainKey { genesis: Some(B256::repeat_byte(9)), ..CHAIN });
    let mut ballot = Ballot::new(rules, 3);
    let unknown = ChainKey { genesis: None, ..CHAIN };
    for (i, chain) in [unknown, unknown, CHAIN].into_iter().enumerate() {
        ballot.on_head(i, Ok(Head { chain, block: vote(100, 0).block }));
        ballot.on_vote(i, 100, Ok(vote(100, 0)));
    }
    let Next::Floor(asked) = ballot.next() else { panic!() };
    assert_eq!(asked, unknown);
    ballot.set_floor(asked, remembered, 0);
    let Next::Won(winner) = ballot.next() else { panic!() };
    assert_eq!((winner.chain, winner.voters), (remembered, vec![0, 1]));
}

#[test]
fn blocks_of_different_times_are_different_blocks() {
    let (mut ballot, later) = (
        Ballot::new(majority(2), 2),
        r#"{"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","number":"0x64","timestamp":"0x65"}"#,
    );
    let blocks = [vote(100, 0).block, serde_json::from_str(later).unwrap()];
    for (i, block) in blocks.into_iter().enumerate() {
        ballot.on_head(i, Ok(Head { chain: CHAIN, block }));
        ballot.on_vote(i, 100, Ok(Vote { block, ..vote(100, 0) }));
    }
    let Next::Floor(asked) = ballot.next() else { panic!() };
    ballot.set_floor(asked, asked, 0);
    assert!(matches!(ballot.next(), Next::Lost));
}

#[test]
fn a_claimed_height_of_a_billion_and_a_lag_of_32_stop_nobody() {
    let far = Kind::Liar { height: 1_000_000_000, salt: 0 };
    for (kinds, expected) in [
        (vec![far.clone(), Kind::Honest(200), Kind::Honest(200)], 200),
        (vec![Kind::Honest(168), Kind::Honest(200), Kind::Honest(201)], 200),
        // It claims the height and then has no answer there: the two others meet at the lower of theirs.
        (vec![Kind::FailsVote(1_000_000_000), Kind::Honest(200), Kind::Honest(199)], 199),
        (vec![Kind::SilentVote(1_000_000_000), Kind::Honest(200), Kind::Honest(199)], 199),
        (vec![Kind::SilentHead, Kind::Honest(200), Kind::Honest(168)], 168),
    ] {
        let (winner, _) = hold(majority(3), 0, &kinds, &[0]);
        assert_eq!(winner.unwrap().unwrap().vote.block.number(), expected, "{kinds:?}");
    }
    let lagging = [Kind::SilentHead, Kind::Honest(200), Kind::Honest(168)];
    assert!(hold(majority(3), 169, &lagging, &[0]).0.is_none(), "the silent one is waited for");
}

#[test]
fn two_quorums_that_contradict_each_other_are_none() {
    let kinds = [
        Kind::Honest(200),
        Kind::Honest(200),
        Kind::Liar { height: 200, salt: 1 },
        Kind::Liar { height: 200, salt: 1 },
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
        Kind::Liar { height: 200, salt: 1 },
        Kind::Liar { height: 190, salt: 1 },
        Kind::FailsHead,
        Kind::FailsVote(200),
        Kind::Elsewhere(200),
    ] {
        let kinds = [Kind::Honest(200), Kind::Honest(200), vetoer];
        assert!(hold(trusted, 195, &kinds, &[0]).0.unwrap().is_err(), "{kinds:?}");
        assert!(hold(majority(3), 195, &kinds, &[0]).0.unwrap().is_ok(), "{kinds:?}");
    }
    // One that is behind draws the others to its height.
    let kinds = [Kind::Honest(200), Kind::Honest(201), Kind::Honest(197)];
    assert_eq!(hold(trusted, 195, &kinds, &[0]).0.unwrap().unwrap().vote.block.number(), 197);
}
