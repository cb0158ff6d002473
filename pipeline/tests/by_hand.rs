//! What an operator does by hand (`update-state`), messages that are sent and lost, and records of earlier programs.

mod world;

use pipeline::*;
use sealtasks::*;
use world::{World, outputs};

fn force(world: &mut World, to: SectorState) -> Result<(), String> {
    let before = world.record.clone();
    let result = world.record.apply(SectorEvent::Force { to }).map_err(|refusal| refusal.to_string());
    if result.is_err() {
        assert_eq!(world.record, before, "a refused state changed the record");
    } else {
        let stored = serde_json::to_string(&world.record).unwrap();
        assert_eq!(serde_json::from_str::<SectorRecord>(&stored).unwrap(), world.record);
    }
    result
}

#[test]
fn a_sector_is_put_back_and_does_what_follows_again() {
    for (step, to, then) in [
        ("run PC2", SectorState::PreCommit1, "run PC1"),
        ("run PC2", SectorState::GetTicket, "ticket"),
        ("run C2", SectorState::PreCommit2, "run PC2"),
        ("run C2", SectorState::Committing, "run C1"),
        ("verify", SectorState::WaitSeed, "seed"),
        ("run PC1", SectorState::Packing, "run AP"),
        ("run PC1", SectorState::SealPreCommit1Failed, "rest: needs the operator"),
        ("commit", SectorState::CommitFailed, "rest: needs the operator"),
        ("seed", SectorState::PreCommitFailed, "rest: needs the operator"),
        ("run FIN", SectorState::SubmitCommit, "commit"),
        ("run MOVE", SectorState::FinalizeFailed, "rest: needs the operator"),
    ] {
        let mut world = World::at(step);
        if world.record.state() == to {
            force(&mut world, SectorState::ComputeProofFailed).unwrap();
        }
        force(&mut world, to).unwrap_or_else(|refusal| panic!("{step} to {to}: {refusal}"));
        world.expect(to, then);
        if to.is_failed() {
            world.apply(SectorEvent::RetryNow);
        }
        world.run_to("done");
    }
}

#[test]
fn what_is_not_made_or_must_not_be_lost_stands_in_the_way() {
    for (step, to, words) in [
        ("run PC1", SectorState::PreCommit2, "not made"),
        ("run PC1", SectorState::Proving, "not made"),
        ("run FIN", SectorState::Proving, "does not fit"),
        ("run MOVE", SectorState::PreCommit1, "cache is cleared"),
        ("done", SectorState::Committing, "cache is cleared"),
        ("run PC1", SectorState::PreCommit1, "already"),
        ("run PC2", SectorState::AddPiece, "not by hand"),
    ] {
        let refusal = force(&mut World::at(step), to).expect_err(step);
        assert!(refusal.contains(words), "{step} to {to}: {refusal}");
    }
    let mut world = World::at("pre-commit");
    world.apply(SectorEvent::MessageSent { message: "bafy1".to_owned() });
    world.apply(SectorEvent::Landed { epoch: ChainEpoch::new(9) });
    let refusal = force(&mut world, SectorState::GetTicket).expect_err("CommR is on chain");
    assert!(refusal.contains("CommR was put on chain"), "{refusal}");
}

#[test]
fn data_by_hand_is_written_anew() {
    let mut world = World::open();
    world.give(256, 1);
    world.apply(SectorEvent::StartPacking);
    world.run_to("run PC1");
    force(&mut world, SectorState::Packing).unwrap();
    world.expect(SectorState::WaitDeals, "proceed");
    world.run_to("done");
    assert!(world.record.data()[0].offset.is_some());
}

#[test]
fn a_message_is_waited_for_and_a_failed_one_waits_for_the_operator() {
    for (step, waits, failed, back) in [
        ("pre-commit", SectorState::PreCommitWait, SectorState::PreCommitFailed, SectorState::PreCommitting),
        ("commit", SectorState::CommitWait, SectorState::CommitFailed, SectorState::SubmitCommit),
    ] {
        let mut world = World::at(step);
        world.apply(SectorEvent::MessageSent { message: "bafy1".to_owned() });
        world.expect(waits, "await bafy1");
        // The node is away: the same message is waited for again.
        world.fail(FailureClass::Network);
        world.expect(failed, "retry");
        world.wait_and_retry();
        world.expect(waits, "await bafy1");
        // A receipt that says no.
        world.fail(FailureClass::Compute);
        world.expect(failed, "rest: needs the operator");
        world.refuse(SectorEvent::RetryDue { now_ms: u64::MAX });
        world.apply(SectorEvent::RetryNow);
        world.expect(back, step);
        world.run_to("done");
    }
}

/// As the first program that wrote records wrote them: without what it did not know, and with what there was nothing of.
fn first_form(record: &SectorRecord) -> serde_json::Value {
    let mut stored = serde_json::to_value(record).unwrap();
    let fields = stored.as_object_mut().unwrap();
    fields.remove("format").expect("it is written");
    for new in ["data", "packing"] {
        fields.remove(new);
    }
    for old in ["stop_after", "retry"] {
        fields.entry(old).or_insert(serde_json::Value::Null);
    }
    let progress = fields["progress"].as_object_mut().unwrap();
    for new in ["pre_commit", "commit"] {
        progress.remove(new);
    }
    for old in ["ticket", "pc1", "cids", "seed", "c1", "proof", "verified"] {
        progress.entry(old).or_insert(serde_json::Value::Null);
    }
    stored
}

#[test]
fn what_there_is_nothing_of_is_not_written_and_read_all_the_same() {
    let record = World::at("run AP").record;
    let stored = serde_json::to_value(&record).unwrap();
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&stored["progress"]), ["cache_cleared", "pieces"]);
    assert_eq!(names(&stored), ["failures", "format", "progress", "sector", "source", "state"]);
    let read: SectorRecord = serde_json::from_value(stored).unwrap();
    assert_eq!(read, record);
}

#[test]
fn records_of_the_first_form_are_read_and_go_on() {
    let steps = [
        "run AP", "ticket", "run PC1", "run PC2", "seed", "run C1", "run C2", "verify", "run FIN",
        "run MOVE", "done",
    ];
    for step in steps {
        let mut failed = World::at(step);
        let mut records = vec![failed.record.clone()];
        if step != "done" {
            failed.fail(FailureClass::Network);
            records.push(failed.record);
        }
        for record in records {
            let old = serde_json::from_value::<SectorRecord>(first_form(&record));
            let old = old.unwrap_or_else(|error| panic!("{step}, {}: {error}", record.state()));
            assert_eq!((old.state(), old.next()), (record.state(), record.next()), "{step}");
            let mut world = World { record: old, now_ms: u64::MAX / 2 };
            if world.record.state().is_failed() {
                world.apply(SectorEvent::RetryNow);
            }
            world.run_to("done");
        }
    }
}

#[test]
fn records_of_a_later_program_and_unknown_states_are_refused() {
    let mut stored = serde_json::to_value(World::at("run PC1").record).unwrap();
    stored["format"] = 4.into();
    let error = serde_json::from_value::<SectorRecord>(stored.clone()).unwrap_err().to_string();
    assert!(error.contains("form 4") && error.contains("the program that wrote it"), "{error}");
    stored["format"] = 2.into();
    stored["state"] = "UpdateReplica".into();
    assert!(serde_json::from_value::<SectorRecord>(stored.clone()).is_err());
    stored["state"] = "PreCommit1".into();
    assert!(serde_json::from_value::<SectorRecord>(stored.clone()).is_ok());
    stored["data"] = serde_json::to_value([outputs::data(256, 1)]).unwrap();
    assert!(serde_json::from_value::<SectorRecord>(stored).is_err(), "data that is written nowhere");
}
