//! SHA-256 with the SHA2 instructions of AArch64. No check builds this today: it ran under qemu, with all tests.
//!
//! Each `sha256h` waits some cycles for the one before it in its chain; the instructions of other chains fill that
//! time. The 32 vector registers hold the states and message words of four chains.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use core::arch::aarch64::{
    uint32x4_t, vaddq_u32, vld1q_u8, vld1q_u32, vreinterpretq_u32_u8, vrev32q_u8, vsha256h2q_u32,
    vsha256hq_u32, vsha256su0q_u32, vsha256su1q_u32, vst1q_u32,
};
use std::arch::is_aarch64_feature_detected;

use crate::kernel::{ROUND_CONSTANTS, Run};
use crate::{BLOCK_BYTES, State};

/// Whether this CPU has the instructions.
pub(crate) fn is_available() -> bool {
    is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("sha2")
}

/// Compresses the next `count` blocks of each of one to four lanes.
///
/// # Panics
/// When there are no or more lanes, when a lane has fewer blocks, or when the CPU does not have the instructions.
pub(crate) fn run(lanes: &mut [Run<'_>], count: usize) {
    assert!(is_available(), "this CPU does not have the SHA2 instructions");
    // SAFETY: the CPU has the instructions that `compress` is compiled for.
    unsafe {
        match lanes {
            [a] => compress([a], count),
            [a, b] => compress([a, b], count),
            [a, b, c] => compress([a, b, c], count),
            [a, b, c, d] => compress([a, b, c, d], count),
            _ => panic!("{} lanes, expected 1 to 4", lanes.len()),
        }
    }
}

#[target_feature(enable = "neon,sha2")]
fn compress<const N: usize>(lanes: [&mut Run<'_>; N], count: usize) {
    let mut states: [[uint32x4_t; 2]; N] = core::array::from_fn(|lane| load_state(lanes[lane].state));
    for at in 0..count {
        let before = states;
        let mut words: [[uint32x4_t; 4]; N] =
            core::array::from_fn(|lane| load_block(&lanes[lane].blocks[at]));
        four_rounds::<N, 0>(&mut states, &mut words);
        four_rounds::<N, 1>(&mut states, &mut words);
        four_rounds::<N, 2>(&mut states, &mut words);
        four_rounds::<N, 3>(&mut states, &mut words);
        four_rounds::<N, 4>(&mut states, &mut words);
        four_rounds::<N, 5>(&mut states, &mut words);
        four_rounds::<N, 6>(&mut states, &mut words);
        four_rounds::<N, 7>(&mut states, &mut words);
        four_rounds::<N, 8>(&mut states, &mut words);
        four_rounds::<N, 9>(&mut states, &mut words);
        four_rounds::<N, 10>(&mut states, &mut words);
        four_rounds::<N, 11>(&mut states, &mut words);
        four_rounds::<N, 12>(&mut states, &mut words);
        four_rounds::<N, 13>(&mut states, &mut words);
        four_rounds::<N, 14>(&mut states, &mut words);
        four_rounds::<N, 15>(&mut states, &mut words);
        for lane in 0..N {
            states[lane] = core::array::from_fn(|half| vaddq_u32(states[lane][half], before[lane][half]));
        }
    }
    for (lane, state) in lanes.into_iter().zip(states) {
        store_state(lane.state, state);
    }
}

/// Rounds `4 * G..4 * G + 4` of each lane.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn four_rounds<const N: usize, const G: usize>(
    states: &mut [[uint32x4_t; 2]; N],
    words: &mut [[uint32x4_t; 4]; N],
) {
    for lane in 0..N {
        if G >= 4 {
            words[lane][G % 4] = next_words(&words[lane], G % 4);
        }
        let [abcd, efgh] = states[lane];
        let sum = vaddq_u32(words[lane][G % 4], load(&ROUND_CONSTANTS[G]));
        states[lane] = [vsha256hq_u32(abcd, efgh, sum), vsha256h2q_u32(efgh, abcd, sum)];
    }
}

/// The four message words that replace `words[oldest]`, the oldest of the last sixteen.
#[inline]
#[target_feature(enable = "neon,sha2")]
fn next_words(words: &[uint32x4_t; 4], oldest: usize) -> uint32x4_t {
    let [w0, w1, w2, w3] = core::array::from_fn(|i| words[(oldest + i) % 4]);
    vsha256su1q_u32(vsha256su0q_u32(w0, w1), w2, w3)
}

/// The sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "neon")]
fn load_block(block: &[u8; BLOCK_BYTES]) -> [uint32x4_t; 4] {
    let (words, _) = block.as_chunks::<16>();
    core::array::from_fn(|i| {
        // SAFETY: `words[i]` is 16 readable bytes; the load needs no alignment.
        let bytes = unsafe { vld1q_u8(words[i].as_ptr()) };
        vreinterpretq_u32_u8(vrev32q_u8(bytes))
    })
}

#[inline]
#[target_feature(enable = "neon")]
fn load_state(state: &State) -> [uint32x4_t; 2] {
    let (halves, _) = state.as_chunks::<4>();
    [load(&halves[0]), load(&halves[1])]
}

#[inline]
#[target_feature(enable = "neon")]
fn store_state(state: &mut State, values: [uint32x4_t; 2]) {
    let (halves, _) = state.as_chunks_mut::<4>();
    for (half, value) in halves.iter_mut().zip(values) {
        // SAFETY: `half` is four writable words.
        unsafe { vst1q_u32(half.as_mut_ptr(), value) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(from: &[u32; 4]) -> uint32x4_t {
    // SAFETY: `from` is four readable words.
    unsafe { vld1q_u32(from.as_ptr()) }
}
