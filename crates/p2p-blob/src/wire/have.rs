//! The answer to HAVE: a peer's piece sets of a manifest's shards.

use manifest::{Have, HaveChange, PieceSet};

use super::{FramingError, take, v2};

/// The piece count that stands for "all of them".
const ALL: u32 = u32::MAX;
const FULL: u8 = 0;
const CHANGES: u8 = 1;
/// Status, version, full or changes.
const HEAD_BYTES: u64 = 1 + 8 + 1;

/// The frame of an answer, its length included.
pub(crate) fn encode(have: &Have) -> Vec<u8> {
    let mut body = vec![v2::STATUS_OK];
    body.extend_from_slice(&have.version.to_be_bytes());
    body.push(match have.change {
        HaveChange::Holds(_) => FULL,
        HaveChange::Gained(_) => CHANGES,
    });
    for pieces in have.change.shards() {
        if pieces.is_empty() {
            body.extend_from_slice(&0_u32.to_be_bytes());
        } else if pieces.is_all() {
            body.extend_from_slice(&ALL.to_be_bytes());
        } else {
            body.extend_from_slice(&pieces.count().to_be_bytes());
            body.extend(pieces.bytes());
        }
    }
    v2::frame(&body)
}

/// The longest body of an answer about shards with these piece counts.
pub(crate) fn max_body_bytes(piece_counts: &[u32]) -> u64 {
    HEAD_BYTES + piece_counts.iter().map(|count| 4 + u64::from(count.div_ceil(8))).sum::<u64>()
}

/// The answer whose body after the status is `rest`, about shards with these piece counts.
pub(crate) fn decode(mut rest: &[u8], piece_counts: &[u32]) -> Result<Have, FramingError> {
    let found_bytes = 1 + rest.len() as u64;
    let too_short = || FramingError::AnswerLength {
        status: v2::STATUS_OK,
        found_bytes,
        expected_bytes: max_body_bytes(piece_counts),
    };
    let version = take(&mut rest).map(u64::from_be_bytes).ok_or_else(too_short)?;
    let is_full = match take(&mut rest).ok_or_else(too_short)? {
        [FULL] => true,
        [CHANGES] => false,
        [kind] => return Err(wrong("kind", kind.into(), format!("{FULL} or {CHANGES}"))),
    };
    let mut shards = Vec::with_capacity(piece_counts.len());
    for &expected in piece_counts {
        let count = take(&mut rest).map(u32::from_be_bytes).ok_or_else(too_short)?;
        if count == ALL {
            shards.push(PieceSet::all(expected));
            continue;
        }
        if count != 0 && count != expected {
            return Err(wrong("piece count", count.into(), format!("0, {expected} or {ALL}")));
        }
        let (bits, after) = rest.split_at_checked(count.div_ceil(8) as usize).ok_or_else(too_short)?;
        rest = after;
        let spare = (8 - count % 8) % 8;
        let last = bits.last().copied().unwrap_or(0);
        if spare > 0 && last.leading_zeros() < spare {
            return Err(wrong("last bitmap byte", last.into(), format!("{spare} leading zero bits")));
        }
        shards.push(PieceSet::from_bits(expected, bits.to_vec()));
    }
    if !rest.is_empty() {
        return Err(wrong("length", found_bytes, format!("{}", found_bytes - rest.len() as u64)));
    }
    let change = if is_full { HaveChange::Holds(shards) } else { HaveChange::Gained(shards) };
    Ok(Have { version, change })
}

fn wrong(field: &'static str, found: u64, expected: String) -> FramingError {
    FramingError::Have { field, found, expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(count: u32) -> impl Strategy<Value = PieceSet> {
        prop_oneof![
            Just(PieceSet::all(count)),
            Just(PieceSet::none(count)),
            proptest::collection::vec(0..count, 0..20).prop_map(move |pieces| {
                let mut set = PieceSet::none(count);
                for piece in pieces {
                    set.insert(piece);
                }
                set
            }),
        ]
    }

    fn have() -> impl Strategy<Value = (Vec<u32>, Have)> {
        proptest::collection::vec(1u32..40, 0..12).prop_flat_map(|counts| {
            let shards = counts.iter().map(|count| pieces(*count)).collect::<Vec<_>>();
            let change =
                prop_oneof![Just(HaveChange::Holds as fn(_) -> _), Just(HaveChange::Gained as fn(_) -> _)];
            (Just(counts), any::<u64>(), change, shards).prop_map(|(counts, version, change, shards)| {
                (counts, Have { version, change: change(shards) })
            })
        })
    }

    proptest! {
        #[test]
        fn answers_round_trip((counts, have) in have()) {
            let frame = encode(&have);
            prop_assert!(frame.len() as u64 - 4 <= max_body_bytes(&counts));
            prop_assert_eq!(decode(&frame[5..], &counts), Ok(have));
        }

        #[test]
        fn a_cut_or_longer_answer_is_refused((counts, have) in have(), cut in 1usize..20) {
            let body = encode(&have).split_off(5);
            prop_assert!(decode(&body[..body.len().saturating_sub(cut)], &counts).is_err());
            let mut longer = body;
            longer.push(0);
            prop_assert!(decode(&longer, &counts).is_err());
        }

        /// None and all may also be sent as bits.
        #[test]
        fn any_bytes_decode_to_what_is_sent_shorter_or_are_refused(
            rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 0..60),
            counts in proptest::collection::vec(1u32..20, 0..4),
        ) {
            if let Ok(have) = decode(&rest, &counts) {
                let frame = encode(&have);
                prop_assert!(frame.len() <= 5 + rest.len());
                prop_assert_eq!(decode(&frame[5..], &counts), Ok(have));
            }
        }
    }

    #[test]
    fn what_does_not_fit_the_manifest_is_refused() {
        let mut set = PieceSet::none(9);
        set.insert(8);
        let have = Have { version: 1, change: HaveChange::Holds(vec![set]) };
        let body = encode(&have).split_off(5);
        assert!(decode(&body, &[9]).is_ok());
        let field = |counts: &[u32], at: usize, value: u8| {
            let mut body = body.clone();
            body[at] = value;
            match decode(&body, counts) {
                Err(FramingError::Have { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(&[10], 0, 0), "piece count");
        assert_eq!(field(&[], 0, 0), "length");
        assert_eq!(field(&[9], 8, 7), "kind");
        assert_eq!(field(&[9], 14, 0b11), "last bitmap byte");
    }
}
