//! A sector whose files are lost is sealed again to the same replica, or is not believed.

mod world;

use pipeline::*;
use sealtasks::*;
use world::{World, outputs};

fn other_replica() -> TaskOutput {
    let sealed = SealedCid::new(Commitment::new([6; 32]));
    TaskOutput::PreCommit2 { unsealed: outputs::zero_piece().cid, sealed }
}

fn lost(sealed: u8) -> World {
    let pledged = World::pledge(None);
    let ticket = SealTicket { value: Ticket([1; 32]), epoch: ChainEpoch::new(90) };
    let sealed = SealedCid::new(Commitment::new([sealed; 32]));
    let record = SectorRecord::lost(pledged.record.sector(), RandomnessSource::Lotus, ticket, sealed);
    World { record, ..pledged }
}

#[test]
fn a_proven_sector_is_sealed_again_and_keeps_all_that_was_made_of_it() {
    let mut world = World::at("done");
    let before = world.record.clone();
    world.apply(SectorEvent::Rebuild);
    world.run_to("run PC1");
    let Step::Run(TaskInput::PreCommit1(input)) = world.record.next() else { panic!() };
    assert_eq!(input.ticket, Ticket([1; 32]), "the ticket of the first time");
    world.run_to("run PC2");
    world.done(outputs::pc2());
    world.expect(SectorState::FinalizeSector, "run FIN");
    world.run_to("done");
    assert_eq!(world.record, before, "as if nothing had happened");
    world.apply(SectorEvent::Rebuild);
}

#[test]
fn another_replica_is_not_stored_and_waits_for_the_operator() {
    for mut world in [World::at("done"), lost(5)] {
        if world.record.state() == SectorState::Proving {
            world.apply(SectorEvent::Rebuild);
        }
        world.run_to("run PC2");
        world.done(other_replica());
        world.expect(SectorState::SealPreCommit2Failed, "rest: needs the operator");
        let told = world.record.failures().last().unwrap();
        assert!(told.message.contains("was proven") && told.class == FailureClass::BadData, "{told:?}");
        world.refuse(SectorEvent::Force { to: SectorState::FinalizeSector });
        world.apply(SectorEvent::RetryNow);
        world.expect(SectorState::PreCommit1, "run PC1");
    }
}

#[test]
fn a_sector_that_was_proven_elsewhere_is_sealed_without_a_word_to_the_chain() {
    let mut world = lost(5);
    for step in ["run AP", "run PC1", "run PC2", "run FIN", "run MOVE", "done"] {
        world.run_to(step);
        assert_eq!(world.record.deadline(), None, "{step}");
    }
    assert_eq!(world.record.rebuilt_to(), Some(SealedCid::new(Commitment::new([5; 32]))));
    world.apply(SectorEvent::Rebuild);
    world.run_to("done");
}

#[test]
fn what_is_not_proven_or_holds_data_is_not_sealed_again() {
    World::at("run PC2").refuse(SectorEvent::Rebuild);
    let mut world = World::open();
    world.give(256, 9);
    world.run_to("rest: waits for more data, or for the word to start sealing");
    world.apply(SectorEvent::StartPacking);
    world.run_to("done");
    world.refuse(SectorEvent::Rebuild);
}
