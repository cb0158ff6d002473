//! A rehearsal's sector: marked from its pledge to its end, proven to nobody, and never mixed with real results.

mod world;

use pipeline::*;
use sealtasks::*;
use world::{World, outputs};

fn id() -> SectorId {
    SectorId::new(1000, 1)
}

fn pledged(size: SectorSize) -> World {
    let sector = SectorRef { id: id(), proof: RegisteredSealProof::for_new_sector(size) };
    World {
        record: SectorRecord::pledge(sector, None, RandomnessSource::Rehearsal),
        now_ms: 1_700_000_000_000,
    }
}

fn piece(size: SectorSize) -> PieceInfo {
    PieceInfo { size: size.bytes().try_into().expect("a size"), cid: rehearsal::unsealed(id()) }
}

/// Plays everything up to Commit2.
fn at_commit2(size: SectorSize) -> World {
    let mut world = pledged(size);
    world.done(TaskOutput::AddPiece(piece(size)));
    world.ticket();
    world.done(TaskOutput::PreCommit1(rehearsal::pc1(&[piece(size)])));
    world.done(TaskOutput::PreCommit2 { unsealed: piece(size).cid, sealed: rehearsal::sealed(id()) });
    world.landed();
    world.seed();
    world.done(TaskOutput::Commit1(rehearsal::c1()));
    assert_eq!(world.step(), "run C2");
    world
}

#[test]
fn it_goes_to_its_end_without_a_verifier_and_is_marked_all_the_way() {
    let mut world = at_commit2(SectorSize::GiB32);
    assert_eq!(world.record.deadline(), None, "no chain waits for it");
    world.done(TaskOutput::Commit2(rehearsal::proof(10)));
    assert_eq!(world.step(), "commit", "there is no chain to be told");
    world.landed();
    assert_eq!(world.step(), "run FIN", "nobody is asked whether a played proof is valid");
    assert_eq!(world.record.progress().verified, None, "and nobody says so");
    world.done(TaskOutput::Finalize);
    world.done(TaskOutput::Move);
    assert_eq!(world.record.shown_state(), "Proving (REHEARSAL)");
    assert!(world.record.is_rehearsal());
}

#[test]
fn a_real_result_is_not_taken_for_a_played_one_nor_a_played_one_for_a_real_one() {
    let mut world = at_commit2(SectorSize::KiB2);
    world.done(outputs::proof());
    assert_eq!(world.record.state(), SectorState::ComputeProofFailed);
    let told = &world.record.failures().last().expect("it failed").message;
    assert!(told.contains("is a REHEARSAL"), "{told}");

    for (step, output) in [
        ("run PC1", TaskOutput::PreCommit1(rehearsal::pc1(&[outputs::zero_piece()]))),
        (
            "run PC2",
            TaskOutput::PreCommit2 { unsealed: outputs::zero_piece().cid, sealed: rehearsal::sealed(id()) },
        ),
        ("run C1", TaskOutput::Commit1(rehearsal::c1())),
        ("run C2", TaskOutput::Commit2(rehearsal::proof(1))),
        ("run AP", TaskOutput::AddPiece(piece(SectorSize::KiB2))),
    ] {
        let mut real = World::pledge(None);
        real.run_to(step);
        real.done(output);
        assert!(real.record.state().is_failed(), "{step}");
        let told = &real.record.failures().last().expect("it failed").message;
        assert!(told.contains("a rehearsal's, and this sector is none"), "{told}");
    }
}

#[test]
fn the_mark_cannot_be_taken_off_or_put_on_in_the_durable_record() {
    let mut world = at_commit2(SectorSize::KiB2);
    world.done(TaskOutput::Commit2(rehearsal::proof(1)));
    let stored = serde_json::to_string(&world.record).expect("JSON");
    let read = |text: &str| serde_json::from_str::<SectorRecord>(text).map_err(|error| error.to_string());
    assert_eq!(read(&stored).as_ref(), Ok(&world.record));
    let real = stored.replace("\"source\":\"rehearsal\"", "\"source\":\"offline\"");
    assert!(real != stored && read(&real).is_err(), "played results in a real sector's record");
    let believed = stored.replace("\"proof\":", "\"verified\":true,\"proof\":");
    assert!(believed != stored && read(&believed).is_err(), "a played proof that was verified");

    let mut real = World::at("run FIN");
    let stored = serde_json::to_string(&real.record).expect("JSON");
    let played = stored.replace("\"source\":\"offline\"", "\"source\":\"rehearsal\"");
    assert!(played != stored && read(&played).is_err(), "real results in a rehearsal's record");
    real.done(TaskOutput::Finalize);
}
