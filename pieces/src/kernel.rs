//! The inner loops that depend on the processor: hashing pairs of nodes, and fr32 padding. Which one runs is found out
//! once, when the first is needed.
//!
//! All unsafe code of this room is here and in the two child modules. Every kernel gives the same bytes; they differ in
//! speed only.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use sha2::compress256;

use crate::fr32::{PADDED_CHUNK, RAW_CHUNK};

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod sha_ni;

/// 32-bit words in a block of SHA-256.
#[cfg(target_arch = "x86_64")]
const BLOCK_WORDS: usize = 16;

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256's round constants (FIPS 180-4, 4.2.2).
#[rustfmt::skip]
const ROUNDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// The second block of every 64-byte message: the end mark, then the length of 512 bits.
const PADDING: [u8; 64] = {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[62] = 0x02;
    block
};

/// The sums of word and constant in each round over [`PADDING`], which is the same for every node.
const PADDING_ROUNDS: [u32; 64] = {
    let mut words = [0u32; 64];
    words[0] = 0x8000_0000;
    words[15] = 512;
    let mut at = 16;
    while at < 64 {
        let (old, recent) = (words[at - 15], words[at - 2]);
        let sigma0 = old.rotate_right(7) ^ old.rotate_right(18) ^ (old >> 3);
        let sigma1 = recent.rotate_right(17) ^ recent.rotate_right(19) ^ (recent >> 10);
        words[at] = words[at - 16].wrapping_add(sigma0).wrapping_add(words[at - 7]).wrapping_add(sigma1);
        at += 1;
    }
    let mut at = 0;
    while at < 64 {
        words[at] = words[at].wrapping_add(ROUNDS[at]);
        at += 1;
    }
    words
};

/// How nodes are hashed and data is padded, from the slowest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kernel {
    /// One node at a time, as the crate `sha2` does it on this processor.
    Portable = 1,
    /// Two nodes at a time with the SHA extensions.
    ShaExtensions = 2,
    /// Sixteen nodes at a time, and eight words of padding, in 512-bit registers.
    Avx512 = 3,
}

/// The kernel in use, 0 before the first use.
static IN_USE: AtomicU8 = AtomicU8::new(0);

impl Kernel {
    /// All there are, from the slowest on.
    pub const ALL: [Self; 3] = [Self::Portable, Self::ShaExtensions, Self::Avx512];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Portable => true,
            Self::ShaExtensions => {
                is_x86_feature_detected!("sha")
                    && is_x86_feature_detected!("ssse3")
                    && is_x86_feature_detected!("sse4.1")
            }
            Self::Avx512 => is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        return self == Self::Portable;
    }

    /// The one in use: the fastest that this processor can run, unless another was selected.
    pub fn in_use() -> Self {
        match IN_USE.load(Ordering::Relaxed) {
            1 => Self::Portable,
            2 => Self::ShaExtensions,
            3 => Self::Avx512,
            _ => {
                let best = Self::ALL.into_iter().rfind(|kernel| kernel.is_available());
                let best = best.unwrap_or(Self::Portable);
                IN_USE.store(best as u8, Ordering::Relaxed);
                best
            }
        }
    }

    /// Makes the whole process use this one from now on, for comparing them. One that this processor cannot run is
    /// refused with false, and nothing changes.
    pub fn select(self) -> bool {
        let available = self.is_available();
        if available {
            IN_USE.store(self as u8, Ordering::Relaxed);
        }
        available
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "sha2",
            Self::ShaExtensions => "SHA extensions, 2 lanes",
            Self::Avx512 => "AVX-512, 16 lanes",
        })
    }
}

/// Hashes each pair to the parent of the same place.
///
/// Panics if there are not as many of either.
pub(crate) fn hash_pairs<'a>(mut pairs: &'a [[u8; 64]], mut parents: &'a mut [[u8; 32]]) {
    assert_eq!(pairs.len(), parents.len(), "every pair has a parent");
    let kernel = Kernel::in_use();
    #[cfg(target_arch = "x86_64")]
    if kernel == Kernel::Avx512 {
        (pairs, parents) = hash_sixteens(pairs, parents);
    }
    #[cfg(target_arch = "x86_64")]
    if kernel >= Kernel::ShaExtensions && Kernel::ShaExtensions.is_available() {
        (pairs, parents) = hash_twos(pairs, parents);
    }
    for (pair, parent) in pairs.iter().zip(parents) {
        hash_one(pair, parent);
    }
}

/// Pads chunks as far as a kernel of the processor's does it; the chunks that are left.
pub(crate) fn pad<'a>(
    raw: &'a [[u8; RAW_CHUNK]],
    padded: &'a mut [[u8; PADDED_CHUNK]],
) -> (&'a [[u8; RAW_CHUNK]], &'a mut [[u8; PADDED_CHUNK]]) {
    #[cfg(target_arch = "x86_64")]
    if Kernel::in_use() == Kernel::Avx512 {
        #[expect(unsafe_code, reason = "the processor's features are known at run time only")]
        // SAFETY: this kernel is in use only where `is_available` found the features that the function needs.
        unsafe {
            avx512::pad(raw, padded);
        }
        return (&[], &mut []);
    }
    (raw, padded)
}

#[cfg(target_arch = "x86_64")]
type Level<'a> = (&'a [[u8; 64]], &'a mut [[u8; 32]]);

/// Hashes all whole groups of sixteen; the rest.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the processor's features are known at run time only")]
fn hash_sixteens<'a>(pairs: &'a [[u8; 64]], parents: &'a mut [[u8; 32]]) -> Level<'a> {
    let (groups, rest) = pairs.as_chunks::<{ avx512::LANES }>();
    let (parent_groups, parent_rest) = parents.as_chunks_mut::<{ avx512::LANES }>();
    for (pairs, parents) in groups.iter().zip(parent_groups) {
        // SAFETY: this kernel is in use only where `is_available` found the features that the function needs.
        unsafe { avx512::parents(pairs, parents) };
    }
    (rest, parent_rest)
}

/// Hashes all whole groups of two; the rest.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the processor's features are known at run time only")]
fn hash_twos<'a>(pairs: &'a [[u8; 64]], parents: &'a mut [[u8; 32]]) -> Level<'a> {
    let (groups, rest) = pairs.as_chunks::<{ sha_ni::LANES }>();
    let (parent_groups, parent_rest) = parents.as_chunks_mut::<{ sha_ni::LANES }>();
    for (pairs, parents) in groups.iter().zip(parent_groups) {
        // SAFETY: the caller found the features that the function needs.
        unsafe { sha_ni::parents(pairs, parents) };
    }
    (rest, parent_rest)
}

fn hash_one(pair: &[u8; 64], parent: &mut [u8; 32]) {
    let mut state = INITIAL;
    compress256(&mut state, std::slice::from_ref(pair.into()));
    compress256(&mut state, std::slice::from_ref((&PADDING).into()));
    for (to, word) in parent.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    parent[31] &= 0x3f;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fr32;
    use sha2::{Digest, Sha256};

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x5ea1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// One test, since the selection is the whole process's.
    #[test]
    fn every_kernel_gives_what_the_digest_interface_gives() {
        let best = Kernel::in_use();
        let bytes = noise(64 * 53);
        let pairs = bytes.as_chunks::<64>().0;
        let mut chunks = noise(127 * 9);
        chunks[..127].fill(0xff);
        let mut slowly = vec![0; 128 * 9];
        for bit in 0..chunks.len() * 8 {
            let to = bit / 254 * 256 + bit % 254;
            slowly[to / 8] |= (chunks[bit / 8] >> (bit % 8) & 1) << (to % 8);
        }
        let mut ran = 0;
        for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.select()) {
            for count in [1, 2, 3, 15, 16, 17, 31, 32, 53] {
                let mut parents = vec![[0xaa; 32]; count];
                hash_pairs(&pairs[..count], &mut parents);
                for (pair, parent) in pairs.iter().zip(&parents) {
                    let mut expected: [u8; 32] = Sha256::digest(pair).into();
                    expected[31] &= 0x3f;
                    assert_eq!(*parent, expected, "{kernel}, {count} pairs");
                }
            }
            let mut padded = vec![0xaa; 128 * 9];
            fr32::pad(&chunks, &mut padded).unwrap();
            assert_eq!(padded, slowly, "{kernel}");
            ran += 1;
        }
        assert!(best.select() && Kernel::in_use() == best);
        assert!(ran > 0 && Kernel::Portable.is_available());
    }
}
