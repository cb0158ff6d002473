//! Until when a sector's work is of use to a chain.

mod world;

use pipeline::*;
use sealtasks::*;
use world::World;

fn of_a_chain(size: RegisteredSealProof) -> World {
    let sector = SectorRef { id: SectorId::new(1000, 1), proof: size };
    World { record: SectorRecord::pledge(sector, None, RandomnessSource::Lotus), now_ms: 1_700_000_000_000 }
}

fn deadline(world: &World) -> Option<i64> {
    world.record.deadline().map(ChainEpoch::get)
}

#[test]
fn a_ticket_binds_until_the_pre_commitment_and_a_seed_until_the_proof() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    assert_eq!(deadline(&world), None, "zeros never expire");
    world.run_to("ticket");
    world.apply(SectorEvent::TicketReady { ticket: Ticket([1; 32]), epoch: ChainEpoch::new(5_000_000) });
    for step in ["run PC1", "run PC2", "pre-commit"] {
        world.run_to(step);
        assert_eq!(deadline(&world), Some(5_000_000 + 2880 + 900), "{step}");
    }
    world.run_to("seed");
    assert_eq!(deadline(&world), None, "the pre-commitment has landed");
    world.apply(SectorEvent::SeedReady { seed: Seed([2; 32]), epoch: ChainEpoch::new(5_001_150) });
    for step in ["run C1", "run C2", "verify", "commit"] {
        world.run_to(step);
        assert_eq!(deadline(&world), Some(5_001_150 + 30 * 2880), "{step}");
    }
    world.run_to("run FIN");
    assert_eq!(deadline(&world), None, "the proof has landed");
}

fn expire(head: i64) -> SectorEvent {
    SectorEvent::TicketExpired { head: ChainEpoch::new(head), now_ms: 7 }
}

fn ticket_of(height: i64) -> SectorEvent {
    SectorEvent::TicketReady { ticket: Ticket([1; 32]), epoch: ChainEpoch::new(height) }
}

#[test]
fn before_pc1_a_ticket_with_less_than_half_a_day_left_is_replaced() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    world.run_to("ticket");
    world.apply(ticket_of(10_000));
    world.refuse(expire(10_000 + 3780 - 1440));
    world.apply(expire(10_000 + 3780 - 1440 + 1));
    world.expect(SectorState::GetTicket, "ticket");
    assert_eq!(world.record.progress().ticket, None);
    assert_eq!(world.record.progress().pieces.len(), 1, "its pieces stay");
    assert!(world.record.failures().is_empty(), "nothing was lost");
    world.apply(ticket_of(12_000));
    world.run_to("run PC2");
    world.refuse(expire(i64::MAX));
}

#[test]
fn a_replica_that_can_no_longer_be_pre_committed_is_made_anew_and_the_record_says_why() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    world.run_to("ticket");
    world.apply(ticket_of(10_000));
    world.run_to("pre-commit");
    world.refuse(expire(10_000 + 3780));
    world.apply(expire(10_000 + 3780 + 1));
    world.expect(SectorState::GetTicket, "ticket");
    assert_eq!((&world.record.progress().pc1, world.record.progress().cids), (&None, None));
    let failure = world.record.failures().last().expect("work was lost");
    assert_eq!((failure.state, failure.at_ms), (SectorState::PreCommitting, 7));
    assert!(failure.message.contains("ticket of height 10000 was good"), "{}", failure.message);

    // On its way: whether it lands is not decided here.
    world.apply(ticket_of(20_000));
    world.run_to("pre-commit");
    world.apply(SectorEvent::MessageSent { message: "bafy".to_owned() });
    world.refuse(expire(i64::MAX));
    world.apply(SectorEvent::Landed { epoch: ChainEpoch::new(20_100) });
    world.refuse(expire(i64::MAX));
}

#[test]
fn a_pre_commitment_that_is_gone_from_the_chain_is_put_there_again() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    world.run_to("seed");
    let replica = world.record.progress().cids;
    world.fail(FailureClass::Network);
    world.wait_and_retry();
    world.expect(SectorState::WaitSeed, "seed");
    world.fail(FailureClass::Compute);
    world.expect(SectorState::PreCommitFailed, "retry");
    world.wait_and_retry();
    world.expect(SectorState::PreCommitting, "pre-commit");
    assert_eq!((world.record.progress().cids, &world.record.progress().pre_commit), (replica, &None));
    world.run_to("done");
}

/// Another ticket would make another replica.
#[test]
fn a_sector_that_is_sealed_again_keeps_its_ticket() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    world.run_to("ticket");
    world.apply(ticket_of(10_000));
    world.run_to("done");
    world.apply(SectorEvent::Rebuild { refill: Refill::Zeros });
    world.run_to("run PC1");
    assert!(!world.record.needs_new_ticket(ChainEpoch::new(i64::MAX)));
    world.refuse(expire(i64::MAX));
}

#[test]
fn what_no_chain_knows_never_expires() {
    for step in ["run PC1", "run PC2", "run C1", "run C2"] {
        assert_eq!(deadline(&World::at(step)), None, "{step}");
    }
}

#[test]
fn a_proof_whose_seed_has_changed_is_made_anew_and_its_replica_stays() {
    let mut world = of_a_chain(RegisteredSealProof::for_new_sector(SectorSize::KiB2));
    for step in ["seed", "run C1", "run C2", "verify"] {
        world.run_to(step);
        world.refuse(SectorEvent::SeedChanged { now_ms: 7 });
    }
    world.run_to("commit");
    let before = world.record.progress().clone();
    world.apply(SectorEvent::SeedChanged { now_ms: 7 });
    world.expect(SectorState::WaitSeed, "seed");
    let Progress { seed, c1, proof, verified, cids, pre_commit, .. } = world.record.progress();
    assert_eq!((seed, c1, proof, verified), (&None, &None, &None, &None));
    assert_eq!((cids, pre_commit), (&before.cids, &before.pre_commit));
    let told = world.record.failures().last().expect("it is told").message.clone();
    assert!(told.contains("does not count any more"), "{told}");
    world.run_to("commit");
    world.apply(SectorEvent::MessageSent { message: "bafy".to_owned() });
    world.refuse(SectorEvent::SeedChanged { now_ms: 7 });
    world.run_to("done");
}
