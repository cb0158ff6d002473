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

#[test]
fn what_no_chain_knows_never_expires() {
    for step in ["run PC1", "run PC2", "run C1", "run C2"] {
        assert_eq!(deadline(&World::at(step)), None, "{step}");
    }
}
