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
    let source = RandomnessSource::Lotus;
    let record = SectorRecord::lost(pledged.record.sector(), source, ticket, sealed, Vec::new()).unwrap();
    World { record, ..pledged }
}

fn zeros() -> SectorEvent {
    SectorEvent::Rebuild { refill: Refill::Zeros }
}

/// A sector with two pieces of data that is proven and stored.
fn with_data() -> World {
    let mut world = World::open();
    world.give(256, 8);
    world.give(1024, 9);
    world.apply(SectorEvent::StartPacking);
    world.run_to("done");
    world
}

/// The same data once more, waiting under other names.
fn given(record: &SectorRecord) -> Vec<DataPiece> {
    let again = |(at, data): (usize, &DataPiece)| DataPiece {
        staged: uuid::Uuid::from_u64_pair(2, at as u64),
        offset: None,
        ..*data
    };
    record.data().iter().enumerate().map(again).collect()
}

fn give_up() -> SectorEvent {
    SectorEvent::Force { to: SectorState::Proving }
}

#[test]
fn a_proven_sector_is_sealed_again_and_keeps_all_that_was_made_of_it() {
    let mut world = World::at("done");
    let before = world.record.clone();
    world.apply(zeros());
    world.run_to("run PC1");
    let Step::Run(TaskInput::PreCommit1(input)) = world.record.next() else { panic!() };
    assert_eq!(input.ticket, Ticket([1; 32]), "the ticket of the first time");
    world.run_to("run PC2");
    world.done(outputs::pc2());
    world.expect(SectorState::FinalizeSector, "run FIN");
    world.run_to("done");
    assert_eq!(world.record, before, "as if nothing had happened");
    world.apply(zeros());
}

#[test]
fn another_replica_is_not_stored_and_waits_for_the_operator() {
    for mut world in [World::at("done"), lost(5)] {
        if world.record.state() == SectorState::Proving {
            world.apply(zeros());
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
    world.apply(zeros());
    world.run_to("done");
}

#[test]
fn what_is_not_proven_or_whose_data_is_missing_is_not_sealed_again() {
    World::at("run PC2").refuse(zeros());
    World::at("done").refuse(SectorEvent::Rebuild { refill: Refill::Unsealed });
    let mut world = with_data();
    world.refuse(zeros());
    let mut other = given(&world.record);
    other.swap(0, 1);
    world.refuse(SectorEvent::Rebuild { refill: Refill::Given(other) });
    let one = given(&world.record)[..1].to_vec();
    world.refuse(SectorEvent::Rebuild { refill: Refill::Given(one) });
}

#[test]
fn data_that_is_given_once_more_lies_where_it_lay() {
    let mut world = with_data();
    let before = world.record.clone();
    world.apply(SectorEvent::Rebuild { refill: Refill::Given(given(&before)) });
    world.expect(SectorState::AddPiece, "run AP");
    world.refuse(SectorEvent::AddData { data: outputs::data(128, 3) });
    world.run_to("run PC1");
    assert_eq!(world.record.progress().pieces, before.progress().pieces);
    // Bad data is written anew: it waits still.
    world.fail(FailureClass::BadData);
    world.apply(SectorEvent::RetryNow);
    world.run_to("done");
    assert_eq!(world.record.progress(), before.progress());
    let lay = |record: &SectorRecord| record.data().iter().map(|data| data.offset).collect::<Vec<_>>();
    assert_eq!(lay(&world.record), lay(&before));
}

#[test]
fn an_unsealed_file_that_is_left_is_sealed_and_never_written_anew() {
    let mut world = with_data();
    let before = world.record.clone();
    world.apply(SectorEvent::Rebuild { refill: Refill::Unsealed });
    world.expect(SectorState::GetTicket, "proceed");
    world.run_to("run PC1");
    world.fail(FailureClass::BadData);
    world.expect(SectorState::SealPreCommit1Failed, "rest: needs the operator");
    world.apply(SectorEvent::RetryNow);
    world.expect(SectorState::PreCommit1, "run PC1");
    world.run_to("done");
    assert_eq!((world.record.progress(), world.record.data()), (before.progress(), before.data()));
}

#[test]
fn a_sector_with_data_from_elsewhere_is_filled_first() {
    let World { record, now_ms } = lost(5);
    let ticket = SealTicket { value: Ticket([1; 32]), epoch: ChainEpoch::new(90) };
    let sealed = record.rebuilt_to().unwrap();
    let data = |padded| vec![outputs::data(padded, 3)];
    let (sector, source) = (record.sector(), RandomnessSource::Lotus);
    let record = SectorRecord::lost(sector, source, ticket, sealed, data(512)).unwrap();
    let mut world = World { record, now_ms };
    for step in ["run AP", "run PC1", "run PC2", "run FIN", "run MOVE", "done"] {
        world.run_to(step);
    }
    assert!(world.record.data()[0].offset.is_some());
    SectorRecord::lost(sector, source, ticket, sealed, data(4096)).expect_err("no room");
}

#[test]
fn giving_up_leaves_the_sector_as_it_was() {
    for from in ["run AP", "run PC1", "run PC2"] {
        for mut world in [World::at("done"), with_data()] {
            let before = world.record.clone();
            let refill = match before.has_data() {
                true => Refill::Given(given(&before)),
                false => Refill::Zeros,
            };
            world.apply(SectorEvent::Rebuild { refill });
            world.run_to(from);
            world.fail(FailureClass::Environment);
            world.refuse(SectorEvent::Force { to: SectorState::Packing });
            world.apply(give_up());
            world.expect(SectorState::Proving, "done");
            assert_eq!((world.record.progress(), world.record.rebuilt_to()), (before.progress(), None));
            let lay =
                |record: &SectorRecord| record.data().iter().map(|data| data.offset).collect::<Vec<_>>();
            assert_eq!(lay(&world.record), lay(&before));
        }
    }
}

/// What a rebuild has made that was given up is no replica, until it is proven or made anew; what lies elsewhere may be one.
#[test]
fn what_a_given_up_rebuild_has_made_is_doubtful_where_it_was_made_alone() {
    let mut world = World::at("done");
    let made = |name: &str| SectorEvent::Made { paths: vec![path(name)] };
    world.apply(zeros());
    world.run_to("run AP");
    world.apply(give_up());
    assert_eq!(world.record.doubtful(), [], "nothing was made");
    for name in ["p1", "p2", "p1"] {
        world.apply(zeros());
        world.run_to("run PC1");
        world.apply(made(name));
        world.apply(give_up());
    }
    assert_eq!(world.record.doubtful(), [path("p1"), path("p2")]);
    world.apply(SectorEvent::Trusted { paths: vec![path("p2"), path("p3")] });
    assert_eq!(world.record.doubtful(), [path("p1")]);
    world.expect(SectorState::Proving, "done");
    world.apply(zeros());
    world.run_to("done");
    assert_eq!(world.record.doubtful(), [], "it is made anew");
}

#[test]
fn what_was_never_stored_or_is_back_is_not_given_up() {
    let mut world = lost(5);
    world.refuse(give_up());
    world.run_to("run PC2");
    world.done(other_replica());
    world.refuse(give_up());
    world.apply(SectorEvent::RetryNow);
    world.run_to("run FIN");
    world.fail(FailureClass::Environment);
    world.refuse(give_up());
    world.apply(SectorEvent::RetryNow);
    world.run_to("done");
    // Stored once, it is given up like any other, and can begin again.
    let before = world.record.clone();
    for _ in 0..2 {
        world.apply(zeros());
        world.run_to("run PC2");
        world.apply(give_up());
        assert_eq!(world.record.progress(), before.progress());
        assert_eq!(world.record.rebuilt_to(), before.rebuilt_to());
    }
    world.apply(zeros());
    world.run_to("done");
}

fn path(name: &str) -> StorageId {
    name.parse().unwrap()
}

#[test]
fn where_a_rebuild_has_made_files_is_known_until_its_end() {
    let made = |name| SectorEvent::Made { paths: vec![path(name)] };
    World::at("run PC1").refuse(made("a"));
    for mut world in [World::at("done"), lost(5)] {
        if world.record.state() == SectorState::Proving {
            world.refuse(made("a"));
            world.apply(zeros());
        }
        world.run_to("run PC1");
        let before = (world.record.state(), world.record.next());
        for name in ["a", "b", "a"] {
            world.apply(made(name));
        }
        assert_eq!((world.record.state(), world.record.next()), before, "it goes on as it was");
        assert_eq!(world.record.made(), [path("a"), path("b")]);
        let too_many = (0..64).map(|at| path(&at.to_string())).collect();
        world.refuse(SectorEvent::Made { paths: too_many });
        world.run_to("run PC2");
        world.done(other_replica());
        world.apply(SectorEvent::RetryNow);
        assert_eq!(world.record.made().len(), 2, "they are made anew");
        world.run_to("done");
        assert_eq!(world.record.made(), []);
    }
}

#[test]
fn what_was_told_is_corrected_when_a_step_has_failed_and_nothing_is_stored() {
    let right = |seed: u8| SectorEvent::Correct {
        ticket: SealTicket { value: Ticket([seed; 32]), epoch: ChainEpoch::default() },
        sealed: SealedCid::new(Commitment::new([5; 32])),
        data: Vec::new(),
    };
    let mut world = lost(6);
    world.refuse(right(3));
    world.run_to("run PC2");
    world.refuse(right(3));
    world.apply(SectorEvent::Made { paths: vec![path("a")] });
    world.done(outputs::pc2());
    world.expect(SectorState::SealPreCommit2Failed, "rest: needs the operator");
    world.apply(right(3));
    assert_eq!((world.record.made(), world.record.failures().last()), (&[path("a")][..], None));
    world.run_to("run PC1");
    let Step::Run(TaskInput::PreCommit1(input)) = world.record.next() else { panic!() };
    assert_eq!(input.ticket, Ticket([3; 32]));
    world.run_to("done");
    // It is stored, and known here.
    world.apply(zeros());
    world.run_to("run PC2");
    world.done(other_replica());
    world.refuse(right(4));
}
