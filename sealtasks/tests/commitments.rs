//! CIDs of commitments against values computed apart from this code, and the prover id.

use sealtasks::*;

/// CommD of all-zero data: SHA-256 with the two top bits cleared, level by level from 32-byte zero leaves.
const ZERO_DATA: [(u64, &str, &str); 6] = [
    (
        128,
        "3731bb99ac689f66eef5973e4a94da188f4ddcae580724fc6f3fd60dfd488333",
        "baga6ea4seaqdomn3tgwgrh3g532zopskstnbrd2n3sxfqbze7rxt7vqn7veigmy",
    ),
    (
        2 << 10,
        "fc7e928296e516faade986b28f92d44a4f24b935485223376a799027bc18f833",
        "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy",
    ),
    (
        8 << 20,
        "65f29e5d98d246c38b388cfc06db1f6b021303c5a289000bdce832a9c3ec421c",
        "baga6ea4seaqgl4u6lwmnerwdrm4iz7ag3mpwwaqtapc2fciabpooqmvjypweeha",
    ),
    (
        512 << 20,
        "39560e7b13a93b07a243fd2720ffa7cb3e1d2e505ab3629e79f46313512cda06",
        "baga6ea4seaqdsvqopmj2soyhujb72jza76t4wpq5fzifvm3ctz47iyytkewnubq",
    ),
    (
        32 << 30,
        "077e5fde35c50a9303a55009e3498a4ebedff39c42b710b730d8ec7ac7afa63e",
        "baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq",
    ),
    (
        64 << 30,
        "e64005a6bfe3777953b8ad6ef93f0fca1049b2041654f2a411f7702799cece02",
        "baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq",
    ),
];

fn commitment(hex: &str) -> Commitment {
    Commitment::try_from(hex.to_owned()).unwrap()
}

#[test]
fn zero_data_has_the_known_cids() {
    for (size, hex, cid) in ZERO_DATA {
        let piece = PieceInfo::new(size.try_into().unwrap(), commitment(hex));
        assert_eq!(piece.cid.to_string(), cid, "{size} bytes");
        assert_eq!(cid.parse::<UnsealedCid>().unwrap().commitment(), commitment(hex));
    }
}

#[test]
fn a_replica_has_its_own_kind_of_cid() {
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let cid = "bagboea4b5abcaaabaibqibiga4eascqlbqgq4dyqcejbgfavcylrqgi2dmob2hq7";
    assert_eq!(SealedCid::new(commitment(hex)).to_string(), cid);
    assert_eq!(cid.parse::<SealedCid>().unwrap().commitment(), commitment(hex));
    assert!(cid.parse::<UnsealedCid>().is_err());
    assert!(ZERO_DATA[1].2.parse::<SealedCid>().is_err());
}

#[test]
fn other_spellings_and_kinds_of_cid_are_refused() {
    let good = ZERO_DATA[1].2;
    for text in [
        String::new(),
        format!("/ipfs/{good}"),
        format!("{good} "),
        format!("{good}aa"),
        good[..good.len() - 1].to_owned(),
        good.to_uppercase(),
        "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n".to_owned(),
        "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi".to_owned(),
    ] {
        assert!(text.parse::<UnsealedCid>().is_err(), "{text:?} was taken for CommD");
    }
}

#[test]
fn bad_commitments_are_refused_without_echoing_them_whole() {
    for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64)] {
        assert!(Commitment::try_from(text.to_owned()).is_err(), "{text:?} was taken for a commitment");
    }
    let error = Commitment::try_from("0".repeat(1 << 20)).unwrap_err().to_string();
    assert!(error.len() < 300, "{} bytes of error", error.len());
}

#[test]
fn prover_ids_are_leb128_padded_with_zeros() {
    let cases: [(u64, &[u8]); 6] = [
        (0, &[0]),
        (127, &[0x7f]),
        (1000, &[0xe8, 0x07]),
        ((1 << 21) - 1, &[0xff, 0xff, 0x7f]),
        ((1 << 21) + 5, &[0x85, 0x80, 0x80, 0x01]),
        (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
    ];
    for (actor, start) in cases {
        let mut expected = [0; 32];
        expected[..start.len()].copy_from_slice(start);
        assert_eq!(ProverId::from(ActorId::new(actor)).bytes(), &expected, "f0{actor}");
    }
}
