//! Two nodes side by side with the SHA extensions: their rounds wait for each other's results, so one node alone leaves
//! the unit idle half of the time.
//!
//! Everything here needs the SHA extensions, SSSE3 and SSE4.1, which whoever calls it must have found on the processor.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

use std::arch::x86_64::*;

use super::{INITIAL, PADDING_ROUNDS, ROUNDS};

/// Nodes hashed at once.
pub(super) const LANES: usize = 2;

/// A state as the instructions want it: words f, e, b, a and words h, g, d, c, the first lowest.
type State = [__m128i; 2];

/// Hashes two pairs of nodes to two parents.
#[target_feature(enable = "sha,ssse3,sse4.1")]
pub(super) fn parents(pairs: &[[u8; 64]; LANES], parents: &mut [[u8; 32]; LANES]) {
    let initial =
        [four([5, 4, 1, 0].map(|word| INITIAL[word])), four([7, 6, 3, 2].map(|word| INITIAL[word]))];
    let mut states = [initial; LANES];
    data_block(&mut states, pairs);
    let middle: [State; LANES] = std::array::from_fn(|lane| sum(states[lane], initial));
    states = middle;
    for four_rounds in PADDING_ROUNDS.as_chunks::<4>().0 {
        let input = four(*four_rounds);
        for state in &mut states {
            rounds(state, input);
        }
    }
    for (lane, parent) in parents.iter_mut().enumerate() {
        store(sum(states[lane], middle[lane]), parent);
    }
}

#[target_feature(enable = "sse2")]
#[inline]
fn four([a, b, c, d]: [u32; 4]) -> __m128i {
    _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
}

#[target_feature(enable = "sse2")]
#[inline]
fn sum(a: State, b: State) -> State {
    [_mm_add_epi32(a[0], b[0]), _mm_add_epi32(a[1], b[1])]
}

/// Four rounds, given the sums of their words and constants.
#[target_feature(enable = "sha,sse2")]
#[inline]
fn rounds(state: &mut State, input: __m128i) {
    let [low, high] = *state;
    let new = _mm_sha256rnds2_epu32(high, low, input);
    // The instruction takes the words two at a time, from the low half.
    state[0] = _mm_sha256rnds2_epu32(low, new, _mm_shuffle_epi32::<0x0e>(input));
    state[1] = new;
}

/// The rounds over the block that holds the two children.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline]
fn data_block(states: &mut [State; LANES], pairs: &[[u8; 64]; LANES]) {
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let mut words: [[__m128i; 4]; LANES] = std::array::from_fn(|lane| {
        let quarters = pairs[lane].as_chunks::<16>().0;
        // SAFETY: each reference is to the 16 bytes that are read; the load has no alignment.
        std::array::from_fn(|at| unsafe { _mm_loadu_si128(quarters[at].as_ptr().cast()) })
            .map(|quarter| _mm_shuffle_epi8(quarter, swap))
    });
    for (group, sixteen) in ROUNDS.as_chunks::<16>().0.iter().enumerate() {
        for (at, constants) in sixteen.as_chunks::<4>().0.iter().enumerate() {
            for (state, words) in states.iter_mut().zip(&mut words) {
                rounds(state, _mm_add_epi32(words[at], four(*constants)));
                if group < 3 {
                    words[at] = next_words(words, at);
                }
            }
        }
    }
}

/// The four words of the message schedule that follow sixteen, of which those at `at` are the oldest.
#[target_feature(enable = "sha,ssse3,sse2")]
#[inline]
fn next_words(words: &[__m128i; 4], at: usize) -> __m128i {
    let [a, b, c, d] = [words[at], words[(at + 1) % 4], words[(at + 2) % 4], words[(at + 3) % 4]];
    let partial = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8::<4>(d, c));
    _mm_sha256msg2_epu32(partial, d)
}

/// Writes a hash out, cut to 254 bits.
#[target_feature(enable = "ssse3,sse4.1")]
#[inline]
fn store([feba, hgdc]: State, parent: &mut [u8; 32]) {
    let swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    let abef = _mm_shuffle_epi32::<0x1b>(feba);
    let cdgh = _mm_shuffle_epi32::<0x1b>(hgdc);
    let abcd = _mm_unpacklo_epi64(abef, cdgh);
    let efgh = _mm_unpackhi_epi64(abef, cdgh);
    let (low, high) = parent.split_at_mut(16);
    // SAFETY: each half is the 16 bytes that are written; the stores have no alignment.
    unsafe {
        _mm_storeu_si128(low.as_mut_ptr().cast(), _mm_shuffle_epi8(abcd, swap));
        _mm_storeu_si128(high.as_mut_ptr().cast(), _mm_shuffle_epi8(efgh, swap));
    }
    parent[31] &= 0x3f;
}
