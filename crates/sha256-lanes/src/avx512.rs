//! SHA-256 of sixteen lanes at once in the 32-bit elements of AVX-512 registers.
//!
//! Register *i* of the state holds word *i* of all lanes, so no round moves anything between lanes; only the message
//! is transposed, from a block a lane to a word a register. State and message words fill 24 of the 32 registers.
#![expect(unsafe_code, reason = "vector loads and stores through pointers, and sums in assembly")]

use core::arch::asm;
use core::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm_set_epi64x, _mm512_broadcast_i32x4, _mm512_loadu_si512,
    _mm512_ror_epi32, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_storeu_si512,
    _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

use crate::BLOCK_BYTES;
use crate::kernel::{ROUND_CONSTANTS, Run};

/// How many lanes there are.
pub(crate) const LANES: usize = 16;
/// How many blocks ahead each lane is asked for: sixteen streams are more than the processor follows by itself,
/// *measured* 20 % of the time when the bytes come from memory.
const AHEAD: usize = 4;

/// One word of each lane, as it is in memory.
type Words = [u32; LANES];

/// Whether this CPU has the instructions.
pub(crate) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
}

/// Compresses the next `count` blocks of each of one to sixteen lanes, which takes as long for one as for sixteen.
///
/// # Panics
/// When there are no or more lanes, when a lane has fewer blocks, or when the CPU does not have the instructions.
pub(crate) fn run(lanes: &mut [Run<'_>], count: usize) {
    assert!(is_available(), "this CPU does not have AVX-512");
    assert!((1..=LANES).contains(&lanes.len()), "{} lanes, expected 1 to {LANES}", lanes.len());
    let mut states = [[0; LANES]; 8];
    for (lane, run) in lanes.iter().enumerate() {
        for (words, word) in states.iter_mut().zip(&*run.state) {
            words[lane] = *word;
        }
    }
    // Lanes that nobody needs go through the first one's blocks.
    let blocks = core::array::from_fn(|lane| &lanes.get(lane).unwrap_or(&lanes[0]).blocks[..count]);
    // SAFETY: the CPU has the instructions that `compress` is compiled for.
    unsafe { compress(&mut states, blocks, count) }
    for (lane, run) in lanes.iter_mut().enumerate() {
        for (words, word) in states.iter().zip(&mut *run.state) {
            *word = words[lane];
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn compress(states: &mut [Words; 8], lanes: [&[[u8; BLOCK_BYTES]]; LANES], count: usize) {
    let mut state = states.each_ref().map(|words| load(words));
    let (first, others) = ROUND_CONSTANTS.split_at(4);
    for at in 0..count {
        let before = state;
        let mut words = load_block(&lanes, at);
        rounds::<false>(&mut state, &mut words, first);
        for constants in others.chunks_exact(4) {
            rounds::<true>(&mut state, &mut words, constants);
        }
        for (word, before) in state.iter_mut().zip(before) {
            *word = add(*word, before);
        }
    }
    for (words, value) in states.iter_mut().zip(state) {
        store(words, value);
    }
}

/// Sixteen rounds with these constants, four a group. `NEXT`: with the message words that follow those in `words`.
#[inline]
#[target_feature(enable = "avx512f")]
fn rounds<const NEXT: bool>(state: &mut [__m512i; 8], words: &mut [__m512i; 16], constants: &[[u32; 4]]) {
    round::<NEXT, 0>(state, words, constants);
    round::<NEXT, 1>(state, words, constants);
    round::<NEXT, 2>(state, words, constants);
    round::<NEXT, 3>(state, words, constants);
    round::<NEXT, 4>(state, words, constants);
    round::<NEXT, 5>(state, words, constants);
    round::<NEXT, 6>(state, words, constants);
    round::<NEXT, 7>(state, words, constants);
    round::<NEXT, 8>(state, words, constants);
    round::<NEXT, 9>(state, words, constants);
    round::<NEXT, 10>(state, words, constants);
    round::<NEXT, 11>(state, words, constants);
    round::<NEXT, 12>(state, words, constants);
    round::<NEXT, 13>(state, words, constants);
    round::<NEXT, 14>(state, words, constants);
    round::<NEXT, 15>(state, words, constants);
}

/// Round `T` of sixteen (FIPS 180-4, section 6.2.2).
///
/// The longest chain is from `e` to the next `e`: it is one rotation, one xor and one sum, and what else that sum has
/// is added before.
#[inline]
#[target_feature(enable = "avx512f")]
fn round<const NEXT: bool, const T: usize>(
    state: &mut [__m512i; 8],
    words: &mut [__m512i; 16],
    constants: &[[u32; 4]],
) {
    let [a, b, c, d, e, f, g, h] = *state;
    let choice = choose(e, f, g);
    let big_sigma_1 = xor(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
    if NEXT {
        words[T] = next_word(words, T);
    }
    let sum = add(h, add_constant(words[T], &constants[T / 4][T % 4]));
    let new_e = add(add(add(d, sum), choice), big_sigma_1);
    let t1 = add(add(sum, choice), big_sigma_1);
    let big_sigma_0 = xor(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
    let new_a = add(add(t1, majority(a, b, c)), big_sigma_0);
    *state = [new_a, a, b, c, new_e, e, f, g];
}

/// The message word that replaces `words[t]`, which is sixteen rounds old.
#[inline]
#[target_feature(enable = "avx512f")]
fn next_word(words: &[__m512i; 16], t: usize) -> __m512i {
    let [w0, w1, w9, w14] = [words[t], words[(t + 1) % 16], words[(t + 9) % 16], words[(t + 14) % 16]];
    let sigma_0 = xor(_mm512_ror_epi32::<7>(w1), _mm512_ror_epi32::<18>(w1), _mm512_srli_epi32::<3>(w1));
    let sigma_1 = xor(_mm512_ror_epi32::<17>(w14), _mm512_ror_epi32::<19>(w14), _mm512_srli_epi32::<10>(w14));
    add(add(add(w0, w9), sigma_0), sigma_1)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(x, y, z)
}

/// The bits of `y` where `x` has a one, else those of `z`.
#[inline]
#[target_feature(enable = "avx512f")]
fn choose(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(x, y, z)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(x: __m512i, y: __m512i, z: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xe8>(x, y, z)
}

/// The sum, in assembly because the compiler puts sums of intrinsics in an order of its own, which lengthens the
/// longest chain: *measured* 5.1 or even 3.5 instead of 5.7 GB/s.
#[inline]
#[target_feature(enable = "avx512f")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    let sum;
    // SAFETY: touches the three registers only.
    unsafe {
        asm!("vpaddd {}, {}, {}", lateout(zmm_reg) sum, in(zmm_reg) x, in(zmm_reg) y,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Adds one word to all elements.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_constant(x: __m512i, constant: &u32) -> __m512i {
    let sum;
    // SAFETY: reads the four bytes of `constant`, and touches the two registers only.
    unsafe {
        asm!("vpaddd {}, {}, dword ptr [{}]{{1to16}}", lateout(zmm_reg) sum, in(zmm_reg) x, in(reg) constant,
            options(pure, readonly, nostack, preserves_flags));
    }
    sum
}

/// The sixteen words of block `at` of each lane, which are big-endian: element *j* of register *i* is word *i* of lane
/// *j*.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load_block(lanes: &[&[[u8; BLOCK_BYTES]]; LANES], at: usize) -> [__m512i; 16] {
    for lane in lanes {
        let ahead = lane.as_ptr().wrapping_add(at + AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
    let swap_words = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203));
    // A loop, because `map` is a function without the instructions, into which a closure with them is not inlined.
    let mut rows = [swap_words; 16];
    for (row, blocks) in rows.iter_mut().zip(lanes) {
        *row = _mm512_shuffle_epi8(load(&blocks[at]), swap_words);
    }
    // Four by four words within the quarters of registers: quarter *k* of `quads[q][i]` is word 4k+i of lanes 4q to
    // 4q+3.
    let mut quads = [[swap_words; 4]; 4];
    for (quad, rows) in quads.iter_mut().zip(rows.as_chunks().0) {
        let [r0, r1, r2, r3] = *rows;
        let (low, high) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (low2, high2) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        *quad = [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ];
    }
    // Then four by four quarters.
    let mut words = rows;
    for i in 0..4 {
        let [q0, q1, q2, q3] = [quads[0][i], quads[1][i], quads[2][i], quads[3][i]];
        let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(q0, q1), _mm512_shuffle_i32x4::<0xdd>(q0, q1));
        let (even2, odd2) = (_mm512_shuffle_i32x4::<0x88>(q2, q3), _mm512_shuffle_i32x4::<0xdd>(q2, q3));
        words[i] = _mm512_shuffle_i32x4::<0x88>(even, even2);
        words[i + 4] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
        words[i + 8] = _mm512_shuffle_i32x4::<0xdd>(even, even2);
        words[i + 12] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
    }
    words
}

/// A type of 64 bytes, all of which any bit pattern may fill.
trait Bytes64 {}
impl Bytes64 for [u8; 64] {}
impl Bytes64 for Words {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T: Bytes64>(from: &T) -> __m512i {
    // SAFETY: `from` is 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(core::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut Words, value: __m512i) {
    // SAFETY: `to` is 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(core::ptr::from_mut(to).cast(), value) }
}
