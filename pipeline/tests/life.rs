//! A sector's life as a story: the way of a good one, and what each failure does to it.

mod world;

use pipeline::*;
use sealtasks::*;
use world::{World, outputs};

#[test]
fn a_pledged_sector_goes_from_a_zero_piece_to_proving() {
    let mut world = World::pledge(None);
    world.expect(SectorState::Packing, "run AP");
    world.done(outputs::piece());
    world.expect(SectorState::GetTicket, "ticket");
    world.ticket();
    world.expect(SectorState::PreCommit1, "run PC1");
    world.done(outputs::pc1());
    world.expect(SectorState::PreCommit2, "run PC2");
    world.done(outputs::pc2());
    world.expect(SectorState::PreCommitting, "pre-commit");
    world.landed();
    world.expect(SectorState::WaitSeed, "seed");
    world.seed();
    world.expect(SectorState::Committing, "run C1");
    world.done(outputs::c1());
    world.expect(SectorState::Committing, "run C2");
    world.done(outputs::proof());
    world.expect(SectorState::Committing, "verify");
    world.done(TaskOutput::Verify(true));
    world.expect(SectorState::SubmitCommit, "commit");
    world.landed();
    world.expect(SectorState::FinalizeSector, "run FIN");
    world.done(TaskOutput::Finalize);
    world.expect(SectorState::FinalizeSector, "run MOVE");
    world.done(TaskOutput::Move);
    world.expect(SectorState::Proving, "done");
    assert_eq!(world.record.shown_state(), "Proving (offline)");
    assert!(world.record.failures().is_empty());
}

#[test]
fn each_task_is_given_what_the_ones_before_made() {
    let mut world = World::at("run C1");
    let progress = world.record.progress().clone();
    let (ticket, seed) = (Ticket([1; 32]), Seed([2; 32]));
    let SectorCids { unsealed, sealed } = progress.cids.unwrap();
    let expected = Commit1Input { ticket, seed, pieces: progress.pieces.clone(), sealed, unsealed };
    assert_eq!(world.record.next(), Step::Run(TaskInput::Commit1(expected)));
    world.done(outputs::c1());
    assert_eq!(
        world.record.next(),
        Step::Run(TaskInput::Commit2(Commit2Input { c1: C1Output(b"c1".to_vec()) }))
    );
    world.done(outputs::proof());
    let proof = Proof(vec![7; 192]);
    assert_eq!(
        world.record.next(),
        Step::NeedVerification(VerifyInput { ticket, seed, sealed, unsealed, proof })
    );

    let whole =
        AddPieceInput { existing: vec![], size: 2032.try_into().unwrap(), source: PieceSource::Zeros };
    assert_eq!(World::at("run AP").record.next(), Step::Run(TaskInput::AddPiece(whole)));
    let pieces = progress.pieces;
    assert_eq!(
        World::at("run PC1").record.next(),
        Step::Run(TaskInput::PreCommit1(PreCommit1Input { ticket, pieces }))
    );
    let types = FileTypes::SEALED | FileTypes::CACHE;
    assert_eq!(World::at("run MOVE").record.next(), Step::Run(TaskInput::Move(MoveInput { types })));
}

#[test]
fn a_sector_that_is_to_stop_after_c1_rests_there() {
    let mut world = World::pledge(Some(StopAfter::C1));
    world.run_to("rest: stopped after C1, as asked for");
    assert_eq!(world.record.state(), SectorState::Committing);
    assert!(world.record.progress().c1.is_some());
    assert_eq!(world.record.progress().verified, None);
    world.refuse(SectorEvent::TaskDone { output: outputs::proof(), now_ms: 0 });
    world.refuse(SectorEvent::RetryNow);
    world.apply(SectorEvent::Release);
    assert_eq!((world.step(), world.record.stop_after()), ("run C2".to_owned(), None));
    world.refuse(SectorEvent::Release);
    world.run_to("done");
}

#[test]
fn a_sector_that_is_to_stop_after_pc2_tells_no_chain() {
    let mut world = World::pledge(Some(StopAfter::Pc2));
    world.run_to("rest: stopped after PC2, as asked for");
    assert_eq!(world.record.state(), SectorState::PreCommitting);
    world.refuse(SectorEvent::Landed { epoch: ChainEpoch::default() });
    world.apply(SectorEvent::Release);
    world.run_to("run C1");
    world.run_to("done");
}

#[test]
fn a_sector_that_is_under_way_to_where_it_is_to_stop_is_not_released() {
    for stop_after in [None, Some(StopAfter::Pc2), Some(StopAfter::C1)] {
        let mut world = World::pledge(stop_after);
        for step in ["run AP", "ticket", "run PC1", "run PC2"] {
            world.run_to(step);
            world.refuse(SectorEvent::Release);
        }
    }
}

#[test]
fn a_failure_that_proves_nothing_bad_repeats_the_same_step() {
    let cases = [
        ("run AP", SectorState::AddPieceFailed),
        ("ticket", SectorState::CommitFailed),
        ("run PC1", SectorState::SealPreCommit1Failed),
        ("run PC2", SectorState::SealPreCommit2Failed),
        ("seed", SectorState::PreCommitFailed),
        ("run C1", SectorState::ComputeProofFailed),
        ("run C2", SectorState::ComputeProofFailed),
        ("verify", SectorState::ComputeProofFailed),
        ("run FIN", SectorState::FinalizeFailed),
        ("run MOVE", SectorState::FinalizeFailed),
    ];
    let passing =
        [FailureClass::Environment, FailureClass::Network, FailureClass::Space, FailureClass::Compute];
    for (step, failed) in cases {
        for class in passing {
            // The pre-commitment's disappearance; see `expiry`.
            if (step, class) == ("seed", FailureClass::Compute) {
                continue;
            }
            let mut world = World::at(step);
            let (before, running) = (world.record.progress().clone(), world.record.state());
            world.fail(class);
            world.expect(failed, "retry");
            let last = world.record.failures().last().unwrap();
            assert_eq!((last.state, last.class, last.message.as_str()), (running, class, "it broke"));
            world.wait_and_retry();
            world.expect(running, step);
            assert_eq!(*world.record.progress(), before, "{class:?} at {step} lost something");
        }
    }
}

#[test]
fn proven_bad_data_sends_the_sector_back_a_step() {
    for (step, failed, back) in [
        ("run PC1", SectorState::SealPreCommit1Failed, "run AP"),
        ("run PC2", SectorState::SealPreCommit2Failed, "run PC1"),
        ("run C2", SectorState::ComputeProofFailed, "run C1"),
        ("run AP", SectorState::AddPieceFailed, "run AP"),
    ] {
        let mut world = World::at(step);
        world.fail(FailureClass::BadData);
        world.expect(failed, "retry");
        world.wait_and_retry();
        assert_eq!(world.step(), back, "after bad data at {step}");
        world.run_to("done");
    }
}

#[test]
fn a_sector_sent_back_keeps_its_ticket_and_draws_a_new_seed() {
    let mut world = World::at("run C1");
    condemn(&mut world);
    let Progress { pieces, ticket, pc1, cids, seed, .. } = world.record.progress();
    assert!(!pieces.is_empty() && ticket.is_some());
    assert!(pc1.is_none() && cids.is_none() && seed.is_none());
}

#[test]
fn invalid_proofs_are_made_again_from_commit1_on_and_never_condemn_the_replica() {
    let mut world = World::at("verify");
    for _ in 0..2 {
        world.done(TaskOutput::Verify(false));
        world.expect(SectorState::ComputeProofFailed, "retry");
        assert_eq!(world.record.progress().verified, Some(false));
        world.wait_and_retry();
        world.expect(SectorState::Committing, "run C1");
        assert_eq!(world.record.progress().verified, None);
        world.run_to("verify");
    }
    world.done(TaskOutput::Verify(false));
    world.expect(SectorState::ComputeProofFailed, "rest: needs the operator");
    world.refuse(SectorEvent::RetryDue { now_ms: u64::MAX });
    world.apply(SectorEvent::RetryNow);
    world.expect(SectorState::Committing, "run C1");
    // Commit1 looks at the replica itself: its word is proof.
    condemn(&mut world);
    world.expect(SectorState::PreCommit1, "run PC1");
    world.run_to("done");
}

/// Commit1 finds the replica bad, twice.
fn condemn(world: &mut World) {
    for _ in 0..2 {
        world.expect(SectorState::Committing, "run C1");
        world.fail(FailureClass::BadData);
        world.wait_and_retry();
    }
}

#[test]
fn one_word_of_commit1_gives_no_replica_up() {
    let mut world = World::at("run C1");
    for _ in 0..2 {
        // Each time it succeeds in between, which takes the first word back.
        let before = world.record.progress().clone();
        world.fail(FailureClass::BadData);
        let last = world.record.failures().last().unwrap();
        assert_eq!(last.class, FailureClass::Compute, "{last:?}");
        assert!(last.message.starts_with("it broke; Commit1 is asked once more"), "{last:?}");
        world.wait_and_retry();
        world.expect(SectorState::Committing, "run C1");
        assert_eq!(*world.record.progress(), before);
        world.run_to("verify");
        world.done(TaskOutput::Verify(false));
        world.wait_and_retry();
    }
    condemn(&mut world);
    world.expect(SectorState::PreCommit1, "run PC1");
    // The replica that is made then is another one.
    world.run_to("run C1");
    world.fail(FailureClass::BadData);
    world.wait_and_retry();
    world.expect(SectorState::Committing, "run C1");
    world.run_to("done");
}

#[test]
fn a_finished_replica_is_never_made_again() {
    for step in ["run FIN", "run MOVE"] {
        let mut world = World::at(step);
        world.fail(FailureClass::BadData);
        world.expect(SectorState::FinalizeFailed, "rest: needs the operator");
        world.refuse(SectorEvent::RetryDue { now_ms: u64::MAX });
        world.apply(SectorEvent::RetryNow);
        world.expect(SectorState::FinalizeSector, step);
    }
}

#[test]
fn results_that_cannot_be_one_count_as_failures() {
    let small = PieceInfo { size: 1024.try_into().unwrap(), ..outputs::zero_piece() };
    let other = UnsealedCid::new(Commitment::new([9; 32]));
    let sealed = SealedCid::new(Commitment::new([3; 32]));
    for (step, output, class) in [
        ("run AP", TaskOutput::AddPiece(small), FailureClass::Compute),
        ("run PC1", TaskOutput::PreCommit1(Pc1Output(vec![])), FailureClass::Compute),
        ("run PC2", TaskOutput::PreCommit2 { unsealed: other, sealed }, FailureClass::BadData),
        ("run C1", TaskOutput::Commit1(C1Output(vec![])), FailureClass::Compute),
        ("run C2", TaskOutput::Commit2(Proof(vec![])), FailureClass::Compute),
        ("run C2", TaskOutput::Commit2(Proof(vec![0; 191])), FailureClass::Compute),
    ] {
        let mut world = World::at(step);
        world.done(output);
        assert!(world.record.state().is_failed(), "{step}");
        assert_eq!(world.record.failures()[0].class, class, "{step}");
        world.wait_and_retry();
        world.run_to("done");
    }
}

#[test]
fn waits_double_up_to_a_bound_and_then_the_operator_is_asked() {
    let mut world = World::at("run C2");
    for wait_s in [60, 120, 240] {
        world.fail(FailureClass::Compute);
        let Step::Retry { not_before_ms } = world.record.next() else { panic!("{:?}", world.record.next()) };
        assert_eq!(not_before_ms, world.now_ms + wait_s * 1000);
        world.refuse(SectorEvent::RetryDue { now_ms: not_before_ms - 1 });
        world.wait_and_retry();
    }
    world.fail(FailureClass::Compute);
    world.expect(SectorState::ComputeProofFailed, "rest: needs the operator");
    world.apply(SectorEvent::RetryNow);
    world.fail(FailureClass::Compute);
    world.expect(SectorState::ComputeProofFailed, "retry");
}

#[test]
fn every_class_has_a_budget_and_a_bound() {
    for (class, tries) in [
        (FailureClass::Environment, 5),
        (FailureClass::Network, 100),
        (FailureClass::Space, 200),
        (FailureClass::Compute, 3),
        (FailureClass::BadData, 3),
        (FailureClass::Aborted, 0),
    ] {
        let mut world = World::at("run AP");
        for _ in 0..tries {
            world.fail(class);
            let Step::Retry { not_before_ms } = world.record.next() else {
                panic!("{class:?} gave up early")
            };
            assert!(not_before_ms - world.now_ms <= back_off(class).most_s * 1000);
            world.wait_and_retry();
        }
        world.fail(class);
        world.expect(SectorState::AddPieceFailed, "rest: needs the operator");
        assert!(world.record.failures().len() <= Failure::KEPT_MAX);
    }
}

#[test]
fn progress_renews_the_budgets_but_bad_data_is_remembered() {
    let mut world = World::at("run PC1");
    for _ in 0..3 {
        world.fail(FailureClass::Compute);
        world.wait_and_retry();
    }
    world.done(outputs::pc1());
    world.fail(FailureClass::Compute);
    world.expect(SectorState::SealPreCommit2Failed, "retry");

    let mut world = World::at("run PC2");
    for _ in 0..3 {
        world.fail(FailureClass::BadData);
        world.wait_and_retry();
        world.run_to("run PC2");
    }
    world.fail(FailureClass::BadData);
    world.expect(SectorState::SealPreCommit2Failed, "rest: needs the operator");
}

#[test]
fn of_long_messages_the_beginning_and_the_last_words_are_kept() {
    for middle in ["ü".repeat(5000), format!("a{}", "ü".repeat(5000)), "漢".repeat(2000)] {
        let mut world = World::at("run PC1");
        let message = format!("the executor ended; its last words:\n{middle}\npanicked: out of memory");
        world.apply(SectorEvent::Failed { class: FailureClass::Compute, message, now_ms: 0 });
        let kept = &world.record.failures()[0].message;
        assert!(
            kept.starts_with("the executor ended") && kept.ends_with("panicked: out of memory"),
            "{kept}"
        );
        assert!(kept.contains("the middle is left out"), "{kept}");
        assert!((Failure::MESSAGE_MAX - 6..=Failure::MESSAGE_MAX).contains(&kept.len()), "{}", kept.len());
    }
    let mut world = World::at("run PC1");
    let message = "x".repeat(Failure::MESSAGE_MAX);
    world.apply(SectorEvent::Failed { class: FailureClass::Compute, message: message.clone(), now_ms: 0 });
    assert_eq!(world.record.failures()[0].message, message, "it has room");
}
