//! SHA-256 over one to sixteen independent chains at once, from and to chaining values.
//!
//! One SHA-256 is a chain of 64-byte compressions in which each waits for the one before it, so the SHA instructions
//! of a CPU stand idle most of the time. Interleaving the compressions of independent chains fills that time. With more
//! chains, the plain arithmetic of AVX-512 on sixteen of them is faster still on some CPUs.
#![deny(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod x86;

use kernel::{Kernel, Run};

/// The eight words *a* to *h* of a SHA-256 chaining value.
pub type State = [u32; 8];

/// The SHA-256 initial value (FIPS 180-4, section 5.3.3).
pub const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// How many chains keep the SHA instructions of any CPU busy.
pub const MAX_LANES: usize = 4;

/// How many chains are ever hashed at once: more lanes are accepted and take turns. Where [`MAX_LANES`] are as fast,
/// no more are taken at a time.
pub const WIDE_LANES: usize = 16;

/// Bytes in a block.
const BLOCK_BYTES: usize = 64;

/// One chain and the bytes to compress into it.
#[derive(Debug)]
pub struct Lane<'a> {
    /// The chaining value, replaced by the one after `blocks`.
    pub state: &'a mut State,
    /// Whole blocks: a multiple of 64 bytes, also none.
    pub blocks: &'a [u8],
}

/// Compresses every lane's blocks into its state, up to [`WIDE_LANES`] lanes at once.
///
/// Any number of lanes, of any lengths: a lane that ends makes room for the next. Fastest when as many as possible
/// run at once, so lanes of about equal length.
///
/// The first call takes up to 0.1 ms more: it finds out which instructions are fastest here.
///
/// # Panics
/// When the length of some `blocks` is not a multiple of 64.
pub fn compress(lanes: &mut [Lane<'_>]) {
    compress_with(Kernel::best(), lanes);
}

/// How many chains [`compress`] takes at a time on this machine when there are enough: more are no faster.
pub fn lanes_at_once() -> usize {
    Kernel::best().lanes_of(WIDE_LANES)
}

fn compress_with(kernel: Kernel, lanes: &mut [Lane<'_>]) {
    let mut waiting = lanes.iter_mut().filter_map(|lane| {
        let (blocks, rest) = lane.blocks.as_chunks();
        assert!(rest.is_empty(), "a lane of {} bytes is not whole blocks of 64", lane.blocks.len());
        (!blocks.is_empty()).then_some(Run { state: &mut *lane.state, blocks })
    });
    let mut running: Vec<Run<'_>> = waiting.by_ref().take(WIDE_LANES).collect();
    while !running.is_empty() {
        let at_once = kernel.lanes_of(running.len());
        let now = &mut running[..at_once];
        let count = now.iter().map(|run| run.blocks.len()).min().unwrap_or_default();
        kernel.run(now, count);
        for run in now {
            run.blocks = &run.blocks[count..];
        }
        running.retain(|run| !run.blocks.is_empty());
        running.extend(waiting.by_ref().take(WIDE_LANES - running.len()));
    }
}

/// The SHA-256 of a message of `total_bytes` bytes, of which `tail` are the last and the ones before it, a multiple
/// of 64, are compressed into `state`. `tail` may have any length.
pub fn finish(mut state: State, tail: &[u8], total_bytes: u64) -> [u8; 32] {
    let (blocks, rest) = tail.as_chunks::<BLOCK_BYTES>();
    sha2::block_api::compress256(&mut state, blocks);
    let mut padding = [[0; BLOCK_BYTES]; 2];
    // The 0x80 and the 8 bytes of length need a second block when they do not fit behind the rest.
    let used = if rest.len() + 9 <= BLOCK_BYTES { 1 } else { 2 };
    padding[0][..rest.len()].copy_from_slice(rest);
    padding[0][rest.len()] = 0x80;
    padding[used - 1][BLOCK_BYTES - 8..].copy_from_slice(&total_bytes.wrapping_mul(8).to_be_bytes());
    sha2::block_api::compress256(&mut state, &padding[..used]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Every way to compress that this machine has.
    fn kernels() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::Portable];
        kernels.extend(Kernel::instructions());
        #[cfg(target_arch = "x86_64")]
        if avx512::is_available() && crate::x86::is_available() {
            kernels.extend([Kernel::Wide { from: 1 }, Kernel::Wide { from: 6 }]);
        }
        kernels
    }

    /// Compresses whole blocks of all messages, then finishes each.
    fn digests(kernel: Kernel, messages: &[Vec<u8>]) -> Vec<[u8; 32]> {
        let mut states = vec![INITIAL; messages.len()];
        let whole = |message: &Vec<u8>| message.len() - message.len() % 64;
        let mut lanes: Vec<Lane<'_>> = states
            .iter_mut()
            .zip(messages)
            .map(|(state, message)| Lane { state, blocks: &message[..whole(message)] })
            .collect();
        compress_with(kernel, &mut lanes);
        states
            .into_iter()
            .zip(messages)
            .map(|(state, message)| finish(state, &message[whole(message)..], message.len() as u64))
            .collect()
    }

    fn expected(messages: &[Vec<u8>]) -> Vec<[u8; 32]> {
        messages.iter().map(|message| Sha256::digest(message).into()).collect()
    }

    fn message(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i + seed) * (i + 7 * seed + 1) % 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn known_answers() {
        let hex = |digest: [u8; 32]| digest.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(finish(INITIAL, b"", 0)),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex(finish(INITIAL, b"abc", 3)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn every_tail_length_is_padded_right() {
        for len in 0..=200 {
            let message = message(3, len);
            let digest: [u8; 32] = Sha256::digest(&message).into();
            assert_eq!(finish(INITIAL, &message, len as u64), digest, "{len}");
        }
    }

    #[test]
    fn every_number_of_lanes_of_equal_length() {
        for kernel in kernels() {
            for count in 0..=2 * WIDE_LANES + 1 {
                let messages: Vec<_> = (0..count).map(|lane| message(lane, 64 * 5 + lane)).collect();
                assert_eq!(digests(kernel, &messages), expected(&messages), "{kernel:?}, {count} lanes");
            }
        }
    }

    #[test]
    fn as_many_lanes_at_once_as_some_kernel_takes() {
        assert!([MAX_LANES, WIDE_LANES].contains(&lanes_at_once()));
    }

    #[test]
    fn no_lanes_and_empty_lanes_change_nothing() {
        compress(&mut []);
        let mut state = INITIAL;
        compress(&mut [Lane { state: &mut state, blocks: &[] }]);
        assert_eq!(state, INITIAL);
    }

    #[test]
    #[should_panic(expected = "a lane of 65 bytes is not whole blocks of 64")]
    fn part_of_a_block_is_refused() {
        compress(&mut [Lane { state: &mut INITIAL.clone(), blocks: &[0; 65] }]);
    }

    proptest! {
        #[test]
        fn lanes_of_uneven_lengths_give_what_sha2_gives(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..35),
        ) {
            for kernel in kernels() {
                prop_assert_eq!(digests(kernel, &messages), expected(&messages));
            }
        }

        #[test]
        fn compressing_goes_on_from_any_state(
            state in any::<State>(),
            first in 0_usize..5,
            second in 0_usize..5,
            offset in 0_usize..16,
        ) {
            // At an offset: lanes need no alignment.
            let bytes = &message(1, 64 * 10 + 16)[offset..];
            let blocks = &bytes[..64 * (first + second)];
            let mut expected = state;
            sha2::block_api::compress256(&mut expected, blocks.as_chunks().0);
            for kernel in kernels() {
                let mut found = state;
                let (first, second) = blocks.split_at(64 * first);
                compress_with(kernel, &mut [Lane { state: &mut found, blocks: first }]);
                compress_with(kernel, &mut [Lane { state: &mut found, blocks: second }]);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
