//! The answer to PEERS: records of other holders of a manifest, not decoded here.

use super::{FramingError, take, v2};

/// The most records of one answer.
pub(crate) const MAX_RECORDS: usize = 32;
/// The longest record: an envelope of a peer with many interfaces has some 600 bytes.
pub(crate) const MAX_RECORD_BYTES: usize = 2048;
/// The longest body: status, then a length and the bytes of each record.
pub(crate) const MAX_BODY_BYTES: usize = 1 + MAX_RECORDS * (2 + MAX_RECORD_BYTES);

/// The frame of an answer with these records, its length included. Records over the limits are left out.
pub(crate) fn encode<R: AsRef<[u8]>>(records: &[R]) -> Vec<u8> {
    let mut body = vec![v2::STATUS_OK];
    let fitting =
        records.iter().map(AsRef::as_ref).filter(|record| (1..=MAX_RECORD_BYTES).contains(&record.len()));
    for record in fitting.take(MAX_RECORDS) {
        // It fits: `MAX_RECORD_BYTES` does.
        let length = u16::try_from(record.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(record);
    }
    v2::frame(&body)
}

/// The records of the answer whose body after the status is `rest`.
pub(crate) fn decode(mut rest: &[u8]) -> Result<Vec<&[u8]>, FramingError> {
    let mut records = Vec::new();
    while !rest.is_empty() {
        if records.len() == MAX_RECORDS {
            return Err(wrong("number of records", records.len() + 1, format!("at most {MAX_RECORDS}")));
        }
        let left = rest.len();
        let length = take(&mut rest).map(u16::from_be_bytes);
        let length = length.ok_or_else(|| wrong("rest", left, "a length of 2 bytes".to_owned()))?;
        let length = usize::from(length);
        if !(1..=MAX_RECORD_BYTES).contains(&length) {
            return Err(wrong("record length", length, format!("1 to {MAX_RECORD_BYTES}")));
        }
        let (record, after) = rest.split_at_checked(length).ok_or_else(|| {
            wrong("record length", length, format!("at most the {} bytes left", rest.len()))
        })?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn wrong(field: &'static str, found: usize, expected: String) -> FramingError {
    FramingError::Peers { field, found: found as u64, expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let record = proptest::collection::vec(any::<u8>(), 1..80);
        proptest::collection::vec(record, 0..=MAX_RECORDS)
    }

    proptest! {
        #[test]
        fn answers_round_trip(records in records()) {
            let frame = encode(&records);
            prop_assert!(frame.len() - 4 <= MAX_BODY_BYTES);
            prop_assert_eq!(decode(&frame[5..]).unwrap(), records);
        }

        #[test]
        fn a_cut_or_longer_answer_has_other_records_or_is_refused(records in records(), cut in 1usize..40) {
            let rest = encode(&records).split_off(5);
            if let Ok(fewer) = decode(&rest[..rest.len().saturating_sub(cut)]) {
                prop_assert!(records.is_empty() || fewer.len() < records.len());
            }
            let mut longer = rest;
            longer.push(0);
            prop_assert!(decode(&longer).is_err());
        }

        #[test]
        fn any_bytes_decode_to_themselves_or_are_refused(
            rest in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..120),
        ) {
            if let Ok(records) = decode(&rest) {
                prop_assert_eq!(&encode(&records)[5..], &rest[..]);
            }
        }
    }

    #[test]
    fn the_longest_answer_is_read_and_a_longer_one_refused() {
        let longest = vec![vec![7; MAX_RECORD_BYTES]; MAX_RECORDS];
        let frame = encode(&longest);
        assert_eq!(frame.len() - 4, MAX_BODY_BYTES);
        assert_eq!(decode(&frame[5..]).unwrap(), longest);

        let rest = [0, 1, 9].repeat(MAX_RECORDS + 1);
        assert!(matches!(decode(&rest), Err(FramingError::Peers { field: "number of records", .. })));
        for rest in [&[0, 0][..], &[8, 1], &[0, 2, 9]] {
            assert!(
                matches!(decode(rest), Err(FramingError::Peers { field: "record length", .. })),
                "{rest:?}"
            );
        }
        // What is too long is not sent either.
        assert_eq!(encode(&[vec![7; MAX_RECORD_BYTES + 1]]), encode::<Vec<u8>>(&[]));
    }
}
