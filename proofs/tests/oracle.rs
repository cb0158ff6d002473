//! Executors against bare calls of filecoin-proofs-api: the same data gives the same commitments, byte for byte.

use filecoin_proofs_api::seal as library;
use proofs::{execute, to_library};
use sealtasks::{
    Commitment, DataCidInput, FileType, PieceSource, SectorSize, TaskInput, TaskOutput, UnpaddedPieceSize,
};

mod world;

use world::{Content, TICKET, World, bare, bare_pieces, noise, sector, unpadded};

/// One random and two zero pieces that fill a 2 KiB sector; then one random piece.
fn fillings() -> [Vec<Content>; 3] {
    let whole = UnpaddedPieceSize::whole_sector(SectorSize::KiB2).get();
    [
        vec![Content::Zeros(whole)],
        vec![Content::Bytes(noise(whole, 1))],
        vec![
            Content::Bytes(noise(508, 2)),
            Content::Zeros(254),
            Content::Bytes(noise(254, 3)),
            Content::Bytes(noise(1016, 4)),
        ],
    ]
}

/// A miner of the example, and one whose id takes four bytes of LEB128.
const MINERS: [u64; 2] = [1000, 2_100_000];

#[test]
fn add_piece_writes_what_the_library_writes() {
    for contents in fillings() {
        let world = World::new(sector(1000, 1));
        let pieces = world.add_pieces(&contents);
        let (expected, data) = bare_pieces(&world.root().join("bare"), world.sector, &contents);
        for (ours, theirs) in pieces.iter().zip(&expected) {
            assert_eq!(ours.cid.commitment(), Commitment::new(theirs.commitment));
            assert_eq!(ours.size.unpadded().get(), theirs.size.0);
        }
        let ours = std::fs::read(world.path(FileType::Unsealed)).expect("the unsealed file");
        assert_eq!(ours[..2048], data[..2048]);
        assert!(ours.len() > 2048, "behind the data stands the trailer");
    }
}

#[test]
fn data_cid_is_the_librarys_piece_commitment() {
    let world = World::new(sector(1000, 1));
    let data = noise(1016, 5);
    let dc = |source, stream| {
        let request = world.request(TaskInput::DataCid(DataCidInput { size: unpadded(1016), source }));
        match execute(request, stream).expect("DataCid") {
            TaskOutput::DataCid(piece) => piece.cid.commitment(),
            other => panic!("DataCid gave {other:?}"),
        }
    };
    let expected = |bytes: &[u8]| {
        let size = filecoin_proofs_api::UnpaddedBytesAmount(1016);
        let piece =
            library::generate_piece_commitment(to_library(world.sector.proof), bytes, size).expect("bare");
        Commitment::new(piece.commitment)
    };
    assert_eq!(dc(PieceSource::Stream, Some(world.stream(&data))), expected(&data));
    assert_eq!(dc(PieceSource::Zeros, None), expected(&[0; 1016]));
    // A shorter stream is extended with zeros.
    let mut short = data[..300].to_vec();
    let ours = dc(PieceSource::Stream, Some(world.stream(&short)));
    short.resize(1016, 0);
    assert_eq!(ours, expected(&short));
}

#[test]
fn sealing_gives_what_bare_calls_give() {
    for miner in MINERS {
        for (number, contents) in fillings().into_iter().enumerate() {
            let sector = sector(miner, number as u64 + 1);
            let world = World::new(sector);
            let sealed = world.seal(&contents);
            let elsewhere = tempfile::tempdir().expect("a temporary directory");
            let expected = bare(elsewhere.path(), sector, &contents);
            assert_eq!(sealed.unsealed.commitment(), Commitment::new(expected.pc2.comm_d));
            assert_eq!(sealed.sealed.commitment(), Commitment::new(expected.pc2.comm_r));
            let replica = |path: &std::path::Path| std::fs::read(path).expect("the replica");
            assert_eq!(replica(&world.path(FileType::Sealed)), replica(&elsewhere.path().join("sealed")));

            let c1 = world.run(TaskInput::Commit1(world.commit1_input(&sealed))).expect("C1");
            let TaskOutput::Commit1(c1) = c1 else { panic!("C1 gave {c1:?}") };
            // filecoin-ffi hands Lotus exactly this.
            assert_eq!(c1.0, serde_json::to_vec(&expected.c1).expect("JSON"));
        }
    }
}

#[test]
fn the_miner_is_part_of_the_replica() {
    let contents = &fillings()[0];
    let commitments = MINERS.map(|miner| World::new(sector(miner, 1)).seal(contents).sealed);
    assert_ne!(commitments[0], commitments[1]);
}

#[test]
fn pc1_output_is_the_librarys_json_with_the_ticket_as_go_writes_bytes() {
    let contents = &fillings()[1];
    let world = World::new(sector(1000, 7));
    let sealed = world.seal(contents);
    let mut ours: serde_json::Value = serde_json::from_slice(&sealed.pc1.0).expect("JSON");
    let ticket =
        ours.as_object_mut().expect("an object").remove("_lotus_SealRandomness").expect("the ticket");
    assert_eq!(ticket, "ERERERERERERERERERERERERERERERERERERERERERE=");
    assert_eq!(TICKET.0, [0x11; 32]);
    // The paths inside are the only difference to a bare run elsewhere.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let expected = serde_json::to_string(&bare(elsewhere.path(), world.sector, contents).pc1).expect("JSON");
    let moved = expected.replace(
        elsewhere.path().join("cache").to_str().expect("UTF-8"),
        world.path(FileType::Cache).to_str().expect("UTF-8"),
    );
    assert_eq!(ours, serde_json::from_str::<serde_json::Value>(&moved).expect("JSON"));
    // Fields stand in the library's order, ours last.
    let text = String::from_utf8(sealed.pc1.0).expect("UTF-8");
    let bare_part = moved.strip_suffix('}').expect("an object");
    assert_eq!(text, format!("{bare_part},\"_lotus_SealRandomness\":{ticket}}}"));
}
