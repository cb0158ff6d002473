//! Sixteen nodes side by side, one in each 32-bit lane of the 512-bit registers; and fr32 padding, eight words at once.
//!
//! Everything here needs AVX-512 F and BW, which whoever calls it must have found on the processor. Unsafe are only the
//! loads and stores, which are given as many bytes as they touch by the types of the references.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use super::{BLOCK_WORDS, INITIAL, PADDING_ROUNDS, ROUNDS};
use crate::fr32::{PADDED_CHUNK, RAW_CHUNK};

/// Nodes hashed at once.
pub(super) const LANES: usize = 16;

/// The eight words of SHA-256's state, each for all lanes.
type State = [__m512i; 8];

/// Hashes sixteen pairs of nodes to sixteen parents.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn parents(pairs: &[[u8; 64]; LANES], parents: &mut [[u8; 32]; LANES]) {
    let initial = INITIAL.map(|word| splat(word));
    let middle = add_state(&data_block(&initial, load(pairs)), &initial);
    let hashed = add_state(&padding_block(&middle), &middle);
    store(hashed, parents);
}

#[target_feature(enable = "avx512f")]
#[inline]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word.cast_signed())
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add_state(a: &State, b: &State) -> State {
    std::array::from_fn(|word| _mm512_add_epi32(a[word], b[word]))
}

/// One round of SHA-256 (FIPS 180-4, 6.2.2), without moving the words: the caller names them in their new order.
macro_rules! round {
    ($a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr, $g:expr, $h:expr, $input:expr) => {{
        let (a, b, c, e, f, g) = ($a, $b, $c, $e, $f, $g);
        let sum1 = xor3!(_mm512_ror_epi32::<6>(e), _mm512_ror_epi32::<11>(e), _mm512_ror_epi32::<25>(e));
        let choose = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
        let mixed = _mm512_add_epi32(_mm512_add_epi32($h, $input), _mm512_add_epi32(sum1, choose));
        let sum0 = xor3!(_mm512_ror_epi32::<2>(a), _mm512_ror_epi32::<13>(a), _mm512_ror_epi32::<22>(a));
        let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
        $d = _mm512_add_epi32($d, mixed);
        $h = _mm512_add_epi32(mixed, _mm512_add_epi32(sum0, majority));
    }};
}

macro_rules! xor3 {
    ($a:expr, $b:expr, $c:expr) => {
        _mm512_ternarylogic_epi32::<0x96>($a, $b, $c)
    };
}

/// Eight rounds, after which every word has its place again.
macro_rules! eight_rounds {
    ($s:ident, $input:expr) => {{
        round!($s[0], $s[1], $s[2], $s[3], $s[4], $s[5], $s[6], $s[7], $input(0));
        round!($s[7], $s[0], $s[1], $s[2], $s[3], $s[4], $s[5], $s[6], $input(1));
        round!($s[6], $s[7], $s[0], $s[1], $s[2], $s[3], $s[4], $s[5], $input(2));
        round!($s[5], $s[6], $s[7], $s[0], $s[1], $s[2], $s[3], $s[4], $input(3));
        round!($s[4], $s[5], $s[6], $s[7], $s[0], $s[1], $s[2], $s[3], $input(4));
        round!($s[3], $s[4], $s[5], $s[6], $s[7], $s[0], $s[1], $s[2], $input(5));
        round!($s[2], $s[3], $s[4], $s[5], $s[6], $s[7], $s[0], $s[1], $input(6));
        round!($s[1], $s[2], $s[3], $s[4], $s[5], $s[6], $s[7], $s[0], $input(7));
    }};
}

/// The rounds over the block that holds the two children.
#[target_feature(enable = "avx512f")]
#[inline]
fn data_block(initial: &State, mut words: [__m512i; BLOCK_WORDS]) -> State {
    let mut s = *initial;
    for sixteen in ROUNDS.as_chunks::<BLOCK_WORDS>().0 {
        eight_rounds!(s, |at: usize| _mm512_add_epi32(words[at], splat(sixteen[at])));
        eight_rounds!(s, |at: usize| _mm512_add_epi32(words[8 + at], splat(sixteen[8 + at])));
        if sixteen[15] != ROUNDS[63] {
            words = next_words(words);
        }
    }
    s
}

/// The message schedule's next sixteen words.
#[target_feature(enable = "avx512f")]
#[inline]
fn next_words(mut words: [__m512i; BLOCK_WORDS]) -> [__m512i; BLOCK_WORDS] {
    for at in 0..BLOCK_WORDS {
        let (old, recent) = (words[(at + 1) % BLOCK_WORDS], words[(at + 14) % BLOCK_WORDS]);
        let sigma0 =
            xor3!(_mm512_ror_epi32::<7>(old), _mm512_ror_epi32::<18>(old), _mm512_srli_epi32::<3>(old));
        let sigma1 = xor3!(
            _mm512_ror_epi32::<17>(recent),
            _mm512_ror_epi32::<19>(recent),
            _mm512_srli_epi32::<10>(recent)
        );
        let sum = _mm512_add_epi32(words[at], words[(at + 9) % BLOCK_WORDS]);
        words[at] = _mm512_add_epi32(sum, _mm512_add_epi32(sigma0, sigma1));
    }
    words
}

/// The rounds over the block that only holds the message's length: its schedule is known.
#[target_feature(enable = "avx512f")]
#[inline]
fn padding_block(initial: &State) -> State {
    let mut s = *initial;
    for eight in PADDING_ROUNDS.as_chunks::<8>().0 {
        eight_rounds!(s, |at: usize| splat(eight[at]));
    }
    s
}

/// Word i of every message in register i, in the processor's byte order.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(pairs: &[[u8; 64]; LANES]) -> [__m512i; BLOCK_WORDS] {
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let rows: [__m512i; LANES] = std::array::from_fn(|lane| {
        // SAFETY: the reference is to the 64 bytes that are read; the load has no alignment.
        let row = unsafe { _mm512_loadu_si512(pairs[lane].as_ptr().cast()) };
        _mm512_shuffle_epi8(row, swap)
    });
    // Register 4q + w: words 4l + w of rows 4q to 4q + 3, for each 128-bit lane l.
    let mut quads = rows;
    for (from, to) in rows.as_chunks::<4>().0.iter().zip(quads.as_chunks_mut::<4>().0) {
        *to = transpose_within(*from);
    }
    let mut words = quads;
    for word in 0..4 {
        let [a, b, c, d] = [quads[word], quads[4 + word], quads[8 + word], quads[12 + word]];
        let (low_ab, high_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (low_cd, high_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        words[word] = _mm512_shuffle_i32x4::<0x88>(low_ab, low_cd);
        words[8 + word] = _mm512_shuffle_i32x4::<0xdd>(low_ab, low_cd);
        words[4 + word] = _mm512_shuffle_i32x4::<0x88>(high_ab, high_cd);
        words[12 + word] = _mm512_shuffle_i32x4::<0xdd>(high_ab, high_cd);
    }
    words
}

/// Transposes four by four words in each 128-bit lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_within([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The reverse of [`load`] for the eight words of a hash, cut to 254 bits.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn store(mut state: State, parents: &mut [[u8; 32]; LANES]) {
    // The last byte of a node is the lowest of its last word.
    state[7] = _mm512_and_si512(state[7], splat(0xffff_ff3f));
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    let state = state.map(|words| _mm512_shuffle_epi8(words, swap));
    // Register n: the first, or second, four words of nodes n, 4 + n, 8 + n and 12 + n.
    let first = transpose_within([state[0], state[1], state[2], state[3]]);
    let second = transpose_within([state[4], state[5], state[6], state[7]]);
    let low = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
    let high = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
    for node in 0..4 {
        let halves = [(0, low), (8, high)];
        for (at, index) in halves {
            let two = _mm512_permutex2var_epi64(first[node], index, second[node]);
            let (here, further) = (_mm512_castsi512_si256(two), _mm512_extracti64x4_epi64::<1>(two));
            // SAFETY: each reference is to the 32 bytes that are written; the stores have no alignment.
            unsafe {
                _mm256_storeu_si256(parents[at + node].as_mut_ptr().cast(), here);
                _mm256_storeu_si256(parents[at + 4 + node].as_mut_ptr().cast(), further);
            }
        }
    }
}

/// Pads chunks as [`crate::fr32::pad`] does. Chunks without a counterpart are left alone.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn pad(raw: &[[u8; RAW_CHUNK]], padded: &mut [[u8; PADDED_CHUNK]]) {
    let left = [_mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0), _mm512_set_epi64(6, 6, 6, 6, 4, 4, 4, 4)];
    let right =
        [_mm512_set_epi64(62, 62, 62, 62, 64, 64, 64, 64), _mm512_set_epi64(58, 58, 58, 58, 60, 60, 60, 60)];
    // Every fourth word ends an element: its two highest bits are zero.
    let keep = _mm512_set_epi64(i64::MAX >> 1, -1, -1, -1, i64::MAX >> 1, -1, -1, -1);
    for (from, to) in raw.iter().zip(padded) {
        let at = from.as_ptr();
        // SAFETY: the masks leave bytes 0 to 55 of the first load, which begins 8 bytes early, and bytes 0 to 62 of the
        // last one to be read, so no load touches a byte outside the 127 of `from`; wrapping_sub only forms the address.
        let (words, before) = unsafe {
            (
                [_mm512_loadu_si512(at.cast()), _mm512_maskz_loadu_epi8(u64::MAX >> 1, at.add(64).cast())],
                [
                    _mm512_maskz_loadu_epi8(u64::MAX << 8, at.wrapping_sub(8).cast()),
                    _mm512_loadu_si512(at.add(56).cast()),
                ],
            )
        };
        for (half, to) in to.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            // A shift by 64 gives zero: the first element's words take nothing from the word before.
            let shifted = _mm512_sllv_epi64(words[half], left[half]);
            let carried = _mm512_srlv_epi64(before[half], right[half]);
            let element = _mm512_and_si512(_mm512_or_si512(shifted, carried), keep);
            // SAFETY: the reference is to the 64 bytes that are written; the store has no alignment.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), element) };
        }
    }
}
