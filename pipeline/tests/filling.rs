//! Data in a sector: where each piece and each filler goes, and what failures leave of it.

mod world;

use pipeline::*;
use sealtasks::*;
use world::{World, outputs};

fn sizes(pieces: Vec<PaddedPieceSize>) -> Vec<u64> {
    pieces.into_iter().map(PaddedPieceSize::get).collect()
}

fn padding(offset: u64, piece: u64) -> Vec<u64> {
    sizes(required_padding(offset, piece.try_into().unwrap()))
}

/// Which pieces lie in the sector, data by its seed and zeros by 0.
fn layout(world: &World) -> Vec<(u64, u8)> {
    let cid = outputs::zero_piece().cid;
    let pieces = world.record.progress().pieces.iter();
    let named = |piece: &PieceInfo| world.record.data().iter().find(|data| data.piece == *piece);
    pieces
        .map(|piece| match named(piece) {
            Some(data) => (piece.size.get(), u8::try_from(data.staged.as_u64_pair().1).unwrap()),
            None => {
                assert_eq!(piece.cid, cid);
                (piece.size.get(), 0)
            }
        })
        .collect()
}

#[test]
fn zeros_come_in_lotus_s_order_smallest_first() {
    assert_eq!(padding(0, 1024), Vec::<u64>::new());
    assert_eq!(padding(1024, 1024), Vec::<u64>::new());
    assert_eq!(padding(128, 1024), [128, 256, 512]);
    assert_eq!(padding(768, 512), [256]);
    assert_eq!(padding(640, 1024), [128, 256]);
    let rest = |offset| sizes(fillers(offset, SectorSize::KiB2));
    assert_eq!(rest(0), [2048]);
    assert_eq!(rest(128), [128, 256, 512, 1024]);
    assert_eq!(rest(1280), [256, 512]);
    assert_eq!(rest(2048), Vec::<u64>::new());
}

/// The layout of the test below, as other software may tell it, and some where zeros are data: those hold a place.
#[test]
fn fillers_that_are_told_are_no_data_unless_they_hold_a_place() {
    let data = |pieces: &[(u64, u8)]| -> Vec<(u64, u8)> {
        let piece = |(size, byte): &(u64, u8)| {
            PieceInfo::new(PaddedPieceSize::try_from(*size).unwrap(), Commitment::new([*byte; 32]))
        };
        let pieces: Vec<_> = pieces.iter().map(piece).collect();
        let left = without_fillers(&pieces, |piece| piece.cid.commitment().bytes()[0] == 0);
        left.iter().map(|piece| (piece.size.get(), piece.cid.commitment().bytes()[0])).collect()
    };
    let told = [(256, 1), (256, 0), (512, 2), (128, 3), (128, 0), (256, 0), (512, 0)];
    assert_eq!(data(&told), [(256, 1), (512, 2), (128, 3)]);
    assert_eq!(data(&[(256, 1), (512, 2), (128, 3)]), [(256, 1), (512, 2), (128, 3)]);
    assert_eq!(data(&[(2048, 0)]), []);
    assert_eq!(data(&[(256, 0), (256, 1)]), [(256, 0), (256, 1)], "it begins at 256");
    assert_eq!(data(&[(256, 1), (256, 0), (256, 0), (256, 2)]), [(256, 1), (256, 0), (256, 0), (256, 2)]);
    assert_eq!(data(&[]), []);
}

#[test]
fn three_pieces_with_their_fillers_fill_a_sector_and_each_knows_its_place() {
    let mut world = World::open();
    world.give(256, 1);
    world.expect(SectorState::AddPiece, "run AP");
    world.run_to("rest: waits for more data, or for the word to start sealing");
    world.expect(SectorState::WaitDeals, "rest: waits for more data, or for the word to start sealing");
    world.give(512, 2);
    // Given while the other is written.
    world.give(128, 3);
    world.run_to("rest: waits for more data, or for the word to start sealing");
    assert_eq!(layout(&world), [(256, 1), (256, 0), (512, 2), (128, 3)]);
    world.apply(SectorEvent::StartPacking);
    world.expect(SectorState::Packing, "run AP");
    world.run_to("ticket");
    assert_eq!(layout(&world), [(256, 1), (256, 0), (512, 2), (128, 3), (128, 0), (256, 0), (512, 0)]);
    let offsets: Vec<_> = world.record.data().iter().map(|data| data.offset.unwrap().padded()).collect();
    assert_eq!(offsets, [0, 512, 1024]);
    world.refuse(SectorEvent::AddData { data: outputs::data(128, 4) });
    world.run_to("run MOVE");
    let Step::Run(TaskInput::Move(input)) = world.record.next() else { panic!() };
    assert!(input.types.contains(FileType::Unsealed), "what has data keeps it");
    world.run_to("done");
}

#[test]
fn a_full_sector_starts_by_itself() {
    let mut world = World::open();
    world.give(1024, 1);
    world.give(1024, 2);
    world.run_to("proceed");
    world.expect(SectorState::WaitDeals, "proceed");
    world.run_to("done");
    assert_eq!(layout(&world), [(1024, 1), (1024, 2)]);
}

#[test]
fn the_word_to_start_counts_while_data_is_written() {
    let mut world = World::open();
    world.give(256, 1);
    world.apply(SectorEvent::StartPacking);
    world.expect(SectorState::AddPiece, "run AP");
    world.refuse(SectorEvent::AddData { data: outputs::data(128, 2) });
    world.refuse(SectorEvent::StartPacking);
    world.run_to("ticket");
    assert_eq!(layout(&world)[0], (256, 1));
}

#[test]
fn data_that_does_not_fit_is_refused_with_what_does() {
    let mut world = World::open();
    world.give(128, 1);
    world.give(1024, 2);
    // 128 + 896 zeros + 1024: full, though nothing is written yet.
    let refusal = world.record.apply(SectorEvent::AddData { data: outputs::data(128, 3) }).unwrap_err();
    assert!(
        refusal.to_string().contains("128 padded bytes") && refusal.to_string().contains("2048"),
        "{refusal}"
    );
    let mut world = World::open();
    world.refuse(SectorEvent::AddData { data: outputs::data(4096, 1) });
}

#[test]
fn a_piece_that_is_not_what_was_given_is_not_believed() {
    let mut world = World::open();
    world.give(1024, 1);
    world.done(TaskOutput::AddPiece(outputs::data(1024, 2).piece));
    world.expect(SectorState::AddPieceFailed, "retry");
    let failure = world.record.failures().last().unwrap();
    assert!(failure.message.contains("CommP"), "{failure:?}");
    world.wait_and_retry();
    world.run_to("rest: waits for more data, or for the word to start sealing");
    assert_eq!(layout(&world), [(1024, 1)]);
}

#[test]
fn a_failure_goes_on_behind_what_is_written() {
    let mut world = World::open();
    world.give(256, 1);
    world.run_to("rest: waits for more data, or for the word to start sealing");
    world.give(1024, 2);
    world.run_to("run AP");
    world.done(TaskOutput::AddPiece(PieceInfo { size: 256.try_into().unwrap(), ..outputs::zero_piece() }));
    world.fail(FailureClass::Network);
    world.expect(SectorState::AddPieceFailed, "retry");
    world.wait_and_retry();
    world.expect(SectorState::WaitDeals, "proceed");
    world.run_to("run AP");
    let Step::Run(TaskInput::AddPiece(input)) = world.record.next() else { panic!() };
    assert_eq!((input.existing.len(), input.source), (2, PieceSource::Zeros), "512 zeros are missing yet");
    world.run_to("ticket");
    assert_eq!(layout(&world), [(256, 1), (256, 0), (512, 0), (1024, 2)]);
}

#[test]
fn bad_unsealed_data_is_written_anew_from_the_first_piece() {
    let mut world = World::open();
    world.give(256, 1);
    world.apply(SectorEvent::StartPacking);
    world.run_to("run PC1");
    let filled = layout(&world);
    world.fail(FailureClass::BadData);
    world.wait_and_retry();
    world.expect(SectorState::WaitDeals, "proceed");
    assert_eq!(layout(&world), []);
    world.run_to("run PC1");
    assert_eq!(layout(&world), filled);
    world.run_to("done");
}

#[test]
fn so_many_pieces_and_no_more() {
    let sector = SectorRef {
        id: SectorId::new(1000, 1),
        proof: RegisteredSealProof::for_new_sector(SectorSize::MiB8),
    };
    let record = SectorRecord::open(sector, None, RandomnessSource::Offline);
    let mut world = World { record, now_ms: 0 };
    for _ in 0..DATA_PIECES_MAX.0 {
        world.record.apply(SectorEvent::AddData { data: outputs::data(128, 1) }).unwrap();
    }
    world.refuse(SectorEvent::AddData { data: outputs::data(128, 1) });
}
