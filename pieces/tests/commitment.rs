//! Commitments against a slow, independent reference, and against the published ones of empty sectors.

use pieces::commitment::{PieceHasher, TreeError, combine, zero_commitment};
use pieces::{PieceData, data_cid};
use proptest::prelude::*;
use sealtasks::{Commitment, PaddedPieceSize, PieceInfo, SectorSize, UnpaddedPieceSize, UnsealedCid};
use sha2::{Digest, Sha256};

/// Pads bit by bit, then hashes every node, level by level; nothing is known beforehand.
fn commit_slowly(raw: &[u8], size: u64) -> Commitment {
    let mut leaves = vec![[0u8; 32]; (size / 127 * 4) as usize];
    for bit in 0..raw.len() * 8 {
        leaves[bit / 254][bit % 254 / 8] |= (raw[bit / 8] >> (bit % 8) & 1) << (bit % 254 % 8);
    }
    root_slowly(leaves)
}

fn root_slowly(mut nodes: Vec<[u8; 32]>) -> Commitment {
    while nodes.len() > 1 {
        nodes = nodes
            .chunks(2)
            .map(|pair| {
                let mut node: [u8; 32] = Sha256::digest(pair.concat()).into();
                node[31] &= 0x3f;
                node
            })
            .collect();
    }
    Commitment::new(nodes[0])
}

fn unpadded(bytes: u64) -> UnpaddedPieceSize {
    UnpaddedPieceSize::try_from(bytes).unwrap()
}

fn padded(bytes: u64) -> PaddedPieceSize {
    PaddedPieceSize::try_from(bytes).unwrap()
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

proptest! {
    #[test]
    fn a_piece_in_parts_commits_as_the_reference(height in 0u32..6, fill: prop::sample::Index, step in 1usize..400) {
        let size = 127u64 << height;
        let raw = bytes(fill.index(size as usize + 1));
        let mut hasher = PieceHasher::new();
        raw.chunks(step).for_each(|part| hasher.update(part));
        let expected = commit_slowly(&raw, size);
        prop_assert_eq!(hasher.finish(unpadded(size)).unwrap(), expected);
        prop_assert_eq!(data_cid(unpadded(size), PieceData::Stream(&mut &raw[..])).unwrap(), PieceInfo::new(padded(size / 127 * 128), expected));
    }

    #[test]
    fn a_sector_commits_as_its_leaves_do(heights in prop::collection::vec(0u32..4, 0..9)) {
        let mut leaves = Vec::new();
        let mut pieces = Vec::new();
        for (index, height) in heights.into_iter().enumerate() {
            let raw = vec![index as u8 + 1; 127 << height];
            while leaves.len() % (4 << height) != 0 {
                leaves.push([0; 32]);
            }
            if leaves.len() + (4 << height) > 64 {
                break;
            }
            let info = data_cid(unpadded(127 << height), PieceData::Stream(&mut &raw[..])).unwrap();
            let mut out = vec![0; 128 << height];
            pieces::fr32::pad(&raw, &mut out).unwrap();
            leaves.extend_from_slice(out.as_chunks::<32>().0);
            pieces.push(info);
        }
        leaves.resize(64, [0; 32]);
        prop_assert_eq!(combine(&pieces, SectorSize::KiB2).unwrap(), root_slowly(leaves));
    }
}

/// Longer than any buffer on the way, whole and ending inside a chunk, in one part and in many.
#[test]
fn long_pieces_commit_as_the_reference() {
    let size = 127u64 << 16;
    for len in [size as usize, size as usize - 1, (127 << 15) + 4000] {
        let raw = bytes(len);
        let expected = commit_slowly(&raw, size);
        let mut whole = PieceHasher::new();
        whole.update(&raw);
        assert_eq!(whole.finish(unpadded(size)).unwrap(), expected, "{len} bytes at once");
        let mut parts = PieceHasher::new();
        raw.chunks(700_001).for_each(|part| parts.update(part));
        assert_eq!(parts.finish(unpadded(size)).unwrap(), expected, "{len} bytes in parts");
        let info = data_cid(unpadded(size), PieceData::Stream(&mut &raw[..])).unwrap();
        assert_eq!(info.cid.commitment(), expected, "{len} bytes from a stream");
    }
}

#[test]
fn zeros_are_known() {
    for height in 0..12 {
        let size = 127 << height;
        assert_eq!(zero_commitment(padded(128 << height)), commit_slowly(&[], size));
        assert_eq!(PieceHasher::new().finish(unpadded(size)).unwrap(), commit_slowly(&[], size));
    }
    // CommD of committed-capacity sectors, as they stand on chain by the million.
    let published = [
        (SectorSize::KiB2, "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy"),
        (SectorSize::GiB32, "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq"),
        (SectorSize::GiB64, "baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq"),
    ];
    for (sector, cid) in published {
        assert_eq!(UnsealedCid::new(combine(&[], sector).unwrap()).to_string(), cid, "{sector}");
        assert_eq!(zero_commitment(padded(sector.bytes())), combine(&[], sector).unwrap());
    }
    // The largest piece size there is; the table must reach it.
    assert_ne!(zero_commitment(padded(1 << 63)), zero_commitment(padded(1 << 62)));
}

#[test]
fn more_data_than_the_piece_holds_is_refused() {
    let mut hasher = PieceHasher::new();
    hasher.update(&[0; 128]);
    assert_eq!(hasher.finish(unpadded(127)), Err(TreeError::DataExceedsPiece { given: 128, size: 127 }));
}

#[test]
fn pieces_that_do_not_fit_the_sector_are_refused() {
    let piece = |size| PieceInfo::new(padded(size), zero_commitment(padded(size)));
    assert!(combine(&[piece(1024), piece(1024)], SectorSize::KiB2).is_ok());
    // The gap before the third piece counts: it can only lie at 2048.
    let error = combine(&[piece(1024), piece(128), piece(1024)], SectorSize::KiB2).unwrap_err();
    let expected =
        TreeError::PieceExceedsSector { index: 2, size: 1024, used: 1152, sector: SectorSize::KiB2 };
    assert_eq!(error, expected);
    assert!(combine(&[piece(4096)], SectorSize::KiB2).is_err());
    assert!(combine(&[piece(128), piece(1 << 63)], SectorSize::KiB2).is_err());
}
