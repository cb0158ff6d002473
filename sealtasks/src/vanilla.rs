//! Vanilla proofs of stored sectors: what window PoSt asks of the files, and what shows that they still can be proven.

use serde::{Deserialize, Serialize};

use crate::{SealedCid, SectorSize};

/// Bytes of a leaf of the replica's tree.
const LEAF: u64 = 32;
/// Leaves that one kept node of tree-r-last stands for: the leaves and the two rows above them, of arity 8, are not kept, and
/// a proof of any of them reads them all. Of 2 KiB sectors, with 64 leaves, only the root is kept.
const SEGMENT: u64 = 512;
/// Sectors with no more segments than this are challenged in each of them: those of 2 KiB and 8 MiB.
const SEGMENTS_MAX: u64 = 4096;

/// Challenges of a sector that has too many segments to be challenged in each: those of one sector in a window PoSt
/// (`WINDOW_POST_CHALLENGE_COUNT` of the proofs library).
pub const CHALLENGES: usize = 10;
/// Most challenges of one sector.
pub const CHALLENGES_MAX: usize = SEGMENTS_MAX as usize;

/// What is to be proven of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VanillaInput {
    /// CommR, with which the cache's `p_aux` must agree.
    pub sealed: SealedCid,
    /// Indices of leaves (nodes of 32 bytes) of the replica: 1 to [`CHALLENGES_MAX`] of them.
    pub challenges: Vec<u64>,
}

/// Leaves of a replica to be challenged: one in each segment of a small sector, else `count` anywhere, at least one. `random`
/// gives any number each time it is asked; who knows the next ones can keep just those leaves.
pub fn challenges(size: SectorSize, count: usize, mut random: impl FnMut() -> u64) -> Vec<u64> {
    let leaves = size.bytes() / LEAF;
    let segment = SEGMENT.min(leaves);
    let segments = leaves / segment;
    if segments <= SEGMENTS_MAX {
        return (0..segments).map(|number| number * segment + random() % segment).collect();
    }
    (0..count.clamp(1, CHALLENGES_MAX)).map(|_| random() % leaves).collect()
}

/// The sector size of a registered PoSt proof, by its number on chain: winning 0 to 4, window 5 to 9, window of version 1.1
/// 10 to 14, each from 2 KiB to 64 GiB. `None`: no such proof.
pub fn post_proof_size(number: i64) -> Option<SectorSize> {
    const SIZES: [SectorSize; 5] =
        [SectorSize::KiB2, SectorSize::MiB8, SectorSize::MiB512, SectorSize::GiB32, SectorSize::GiB64];
    usize::try_from(number).ok().filter(|number| *number < 15).map(|number| SIZES[number % 5])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sectors_are_challenged_everywhere_and_large_ones_here_and_there() {
        let mut last = 0_u64;
        let mut random = || {
            last = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            last >> 8
        };
        let all = challenges(SectorSize::KiB2, 1, &mut random);
        assert_eq!(all.iter().map(|leaf| leaf / 64).collect::<Vec<_>>(), [0]);
        let all = challenges(SectorSize::MiB8, 1, &mut random);
        assert_eq!(all.iter().map(|leaf| leaf / 512).collect::<Vec<_>>(), (0..512).collect::<Vec<_>>());
        for (count, expected) in [(0, 1), (10, 10), (1_000_000, 4096)] {
            let some = challenges(SectorSize::GiB64, count, &mut random);
            assert_eq!(some.len(), expected);
            assert!(some.iter().all(|leaf| *leaf < (64 << 30) / 32));
            assert!(count < 2 || some.windows(2).any(|two| two[0] != two[1]));
        }
    }

    #[test]
    fn post_proofs_have_sizes() {
        assert_eq!(post_proof_size(0), Some(SectorSize::KiB2));
        assert_eq!(post_proof_size(8), Some(SectorSize::GiB32));
        assert_eq!(post_proof_size(14), Some(SectorSize::GiB64));
        assert_eq!((post_proof_size(15), post_proof_size(-1)), (None, None));
    }
}
