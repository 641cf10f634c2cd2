//! SHA-256 with the SHA extensions of x86-64.
//!
//! Each `sha256rnds2` waits some cycles for the one before it in its chain; the instructions of other chains fill
//! that time. The state words are kept in the order these instructions want: *abef* and *cdgh*.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use crate::kernel::{ROUND_CONSTANTS, Run};
use crate::{BLOCK_BYTES, State};

/// Whether this CPU has the instructions. AVX, which a few with the SHA extensions lack, saves copies of registers.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("avx")
}

/// Compresses the next `count` blocks of each of one to four lanes.
///
/// # Panics
/// When there are no or more lanes, when a lane has fewer blocks, or when the CPU does not have the instructions.
pub(crate) fn run(lanes: &mut [Run<'_>], count: usize) {
    assert!(is_available(), "this CPU does not have the SHA extensions");
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

/// Compresses the next `count` blocks of each lane.
#[target_feature(enable = "sha,avx")]
fn compress<const N: usize>(lanes: [&mut Run<'_>; N], count: usize) {
    let mut states: [[__m128i; 2]; N] = core::array::from_fn(|lane| load_state(lanes[lane].state));
    for at in 0..count {
        let before = states;
        let mut words: [[__m128i; 4]; N] = core::array::from_fn(|lane| load_block(&lanes[lane].blocks[at]));
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
            states[lane] = core::array::from_fn(|half| _mm_add_epi32(states[lane][half], before[lane][half]));
        }
    }
    for (lane, state) in lanes.into_iter().zip(states) {
        store_state(lane.state, state);
    }
}

/// Four rounds of each lane, with the message words that `words[..][G % 4]` holds, or will hold after the first sixteen.
#[inline]
#[target_feature(enable = "sha,avx")]
fn four_rounds<const N: usize, const G: usize>(
    states: &mut [[__m128i; 2]; N],
    words: &mut [[__m128i; 4]; N],
) {
    for lane in 0..N {
        if G >= 4 {
            words[lane][G % 4] = next_words(&words[lane], G % 4);
        }
        let [abef, cdgh] = states[lane];
        let sum = _mm_add_epi32(words[lane][G % 4], load(&ROUND_CONSTANTS[G]));
        let cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        let abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
        states[lane] = [abef, cdgh];
    }
}

/// The four message words that replace `words[oldest]`, the oldest of the last sixteen.
#[inline]
#[target_feature(enable = "sha,avx")]
fn next_words(words: &[__m128i; 4], oldest: usize) -> __m128i {
    let [w0, w1, w2, w3] = core::array::from_fn(|i| words[(oldest + i) % 4]);
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
    _mm_sha256msg2_epu32(sum, w3)
}

/// The sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "avx")]
fn load_block(block: &[u8; BLOCK_BYTES]) -> [__m128i; 4] {
    let swap_words = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (words, _) = block.as_chunks::<16>();
    core::array::from_fn(|i| _mm_shuffle_epi8(load(&words[i]), swap_words))
}

#[inline]
#[target_feature(enable = "avx")]
fn load_state(state: &State) -> [__m128i; 2] {
    let (halves, _) = state.as_chunks::<4>();
    let cdab = _mm_shuffle_epi32(load(&halves[0]), 0xb1);
    let efgh = _mm_shuffle_epi32(load(&halves[1]), 0x1b);
    [_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0)]
}

#[inline]
#[target_feature(enable = "avx")]
fn store_state(state: &mut State, [abef, cdgh]: [__m128i; 2]) {
    let feba = _mm_shuffle_epi32(abef, 0x1b);
    let dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    let (halves, _) = state.as_chunks_mut::<4>();
    store(&mut halves[0], _mm_blend_epi16(feba, dchg, 0xf0));
    store(&mut halves[1], _mm_alignr_epi8(dchg, feba, 8));
}

/// A type of 16 bytes, all of which any bit pattern may fill.
trait Lanes16 {}
impl Lanes16 for [u8; 16] {}
impl Lanes16 for [u32; 4] {}

#[inline]
#[target_feature(enable = "avx")]
fn load<T: Lanes16>(from: &T) -> __m128i {
    // SAFETY: `from` is 16 readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(core::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
fn store(to: &mut [u32; 4], value: __m128i) {
    // SAFETY: `to` is 16 writable bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(core::ptr::from_mut(to).cast(), value) }
}
