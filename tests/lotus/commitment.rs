//! CommP from first principles: fr32 padding bit by bit, a binary tree of SHA-256 with two bits cut off, a CID by hand.

use sha2::{Digest as _, Sha256};

/// The piece CID of `data`, whose length is 127 times a power of two.
pub fn piece_cid(data: &[u8]) -> String {
    let padded = fr32(data);
    let mut nodes: Vec<[u8; 32]> =
        padded.chunks(32).map(|chunk| chunk.try_into().expect("whole nodes of 32 bytes")).collect();
    assert!(nodes.len().is_power_of_two(), "{} bytes make no tree", data.len());
    while nodes.len() > 1 {
        nodes = nodes.chunks(2).map(|pair| parent(&pair[0], &pair[1])).collect();
    }
    // Version 1, fil-commitment-unsealed (0xf101), sha2-256-trunc254-padded (0x1012), 32 bytes.
    let mut cid = vec![1, 0x81, 0xe2, 0x03, 0x92, 0x20, 0x20];
    cid.extend(nodes[0]);
    base32(&cid)
}

fn parent(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut node: [u8; 32] = Sha256::new().chain_update(left).chain_update(right).finalize().into();
    node[31] &= 0x3f;
    node
}

/// 254 bits of data, two bits of zero, and so on; least significant bit first.
fn fr32(data: &[u8]) -> Vec<u8> {
    let mut padded = vec![0_u8; data.len() / 127 * 128];
    for bit in 0..data.len() * 8 {
        let to = bit / 254 * 256 + bit % 254;
        padded[to / 8] |= (data[bit / 8] >> (bit % 8) & 1) << (to % 8);
    }
    padded
}

/// Multibase `b`: base32 of RFC 4648 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let mut text = String::from("b");
    for group in bytes.chunks(5) {
        let mut word = [0_u8; 8];
        word[3..3 + group.len()].copy_from_slice(group);
        let word = u64::from_be_bytes(word);
        for digit in 0..(group.len() * 8).div_ceil(5) {
            let index = usize::try_from(word >> (35 - 5 * digit) & 31).expect("five bits");
            text.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[index]));
        }
    }
    text
}

#[test]
fn a_commitment_that_is_known() {
    let zeros = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy";
    assert_eq!(piece_cid(&[0; 2032]), zeros);
    let smaller = "baga6ea4seaqb66wjlfkrbye6uqoemcyxmqylwmrm235uclwfpsyx3ge2imidoly";
    assert_eq!(piece_cid(&[0; 1016]), smaller);
}
