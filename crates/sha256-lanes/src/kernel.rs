//! Which instructions compress.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::avx512;
use crate::{BLOCK_BYTES, MAX_LANES, State};

/// What is left to do of one lane.
pub(crate) struct Run<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) blocks: &'a [[u8; BLOCK_BYTES]],
}

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Sixteen lanes in AVX-512 registers, when there are at least `from`; else as `Instructions`.
    #[cfg(target_arch = "x86_64")]
    Wide { from: usize },
    /// Lanes interleaved, by the SHA instructions of this architecture.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Instructions,
    /// One lane after the other, by the `sha2` crate.
    Portable,
}

impl Kernel {
    /// The fastest that this machine has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Kernel> = OnceLock::new();
        *BEST.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            if Self::instructions().is_some() && avx512::is_available() {
                return measured();
            }
            Self::instructions().unwrap_or(Self::Portable)
        })
    }

    /// The SHA instructions, if this machine has them.
    pub(crate) fn instructions() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return crate::x86::is_available().then_some(Self::Instructions);
        #[cfg(target_arch = "aarch64")]
        return crate::aarch64::is_available().then_some(Self::Instructions);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        None
    }

    /// Of how many of this many lanes, one at least, the next blocks should be compressed at once.
    pub(crate) fn lanes_of(self, lanes: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide { from } if lanes >= from => lanes.min(avx512::LANES),
            _ => lanes.min(MAX_LANES),
        }
    }

    /// Compresses the next `count` blocks of each of as many lanes as [`Self::lanes_of`] says; all have as many.
    pub(crate) fn run(self, lanes: &mut [Run<'_>], count: usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Wide { from } if lanes.len() >= from => avx512::run(lanes, count),
            #[cfg(target_arch = "x86_64")]
            Self::Wide { .. } | Self::Instructions => crate::x86::run(lanes, count),
            #[cfg(target_arch = "aarch64")]
            Self::Instructions => crate::aarch64::run(lanes, count),
            Self::Portable => {
                for lane in lanes {
                    sha2::block_api::compress256(lane.state, &lane.blocks[..count]);
                }
            }
        }
    }
}

/// Chooses between the SHA instructions and AVX-512. Either may win, by the widths and delays of units that a CPU does
/// not name, so both are tried.
#[cfg(target_arch = "x86_64")]
fn measured() -> Kernel {
    use std::time::{Duration, Instant};

    const BLOCKS: usize = 64;
    let blocks = [[0; BLOCK_BYTES]; BLOCKS];
    let time = |kernel: Kernel, lanes: usize| {
        let mut states = [crate::INITIAL; avx512::LANES];
        let mut runs: Vec<_> =
            states[..lanes].iter_mut().map(|state| Run { state, blocks: &blocks }).collect();
        let mut once = || {
            let started = Instant::now();
            kernel.run(&mut runs, BLOCKS);
            started.elapsed()
        };
        // The shortest, because everything else was disturbed.
        (0..5).map(|_| once()).min().unwrap_or(Duration::MAX)
    };
    let (four, sixteen) =
        (time(Kernel::Instructions, MAX_LANES), time(Kernel::Wide { from: 1 }, avx512::LANES));
    // One lane more than as many as are as fast one way as the other.
    let from = usize::try_from(sixteen.as_nanos() * MAX_LANES as u128 / four.as_nanos().max(1));
    match from.map(|lanes| lanes + 1) {
        Ok(from) if from <= avx512::LANES => Kernel::Wide { from: from.max(MAX_LANES + 1) },
        _ => Kernel::Instructions,
    }
}

/// The round constants, by groups of four rounds (FIPS 180-4, section 4.2.2).
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[rustfmt::skip]
pub(crate) const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
