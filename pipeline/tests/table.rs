//! The transition table is sound, and no event moves a sector in any way that is not in it.

mod world;

use std::collections::BTreeSet;

use pipeline::*;
use proptest::prelude::*;
use sealtasks::*;
use world::{World, outputs};

#[test]
fn the_table_gives_one_answer_and_reaches_every_state() {
    let rows: BTreeSet<_> = TRANSITIONS.iter().map(|(from, outcome, _)| (*from, *outcome)).collect();
    assert_eq!(rows.len(), TRANSITIONS.len(), "two rows answer the same question");
    let mut reached = BTreeSet::from([SectorState::Empty]);
    for _ in SectorState::ALL {
        let next: Vec<_> =
            TRANSITIONS.iter().filter(|row| reached.contains(&row.0)).map(|row| row.2).collect();
        reached.extend(next);
    }
    assert_eq!(reached.len(), SectorState::ALL.len());
    for outcome in Outcome::ALL {
        assert!(TRANSITIONS.iter().any(|row| row.1 == outcome), "{outcome:?} is never used");
    }
}

#[test]
fn every_working_state_can_fail_and_every_failed_one_can_be_left() {
    for state in SectorState::ALL {
        let rows = TRANSITIONS.iter().filter(|row| row.0 == *state);
        match state {
            SectorState::Proving => rows.for_each(|row| {
                assert!(matches!(row.1, Outcome::Rebuild | Outcome::RebuildData | Outcome::RebuildUnsealed))
            }),
            SectorState::Empty | SectorState::WaitDeals => {
                rows.for_each(|row| assert!(!row.2.is_failed(), "{row:?} fails where nothing is done"));
            }
            state if state.is_failed() => {
                assert!(rows.clone().count() > 0);
                rows.for_each(|row| assert!(!row.2.is_failed(), "{row:?} leaves a failure for a failure"));
            }
            state => assert!(state.after(Outcome::Failed).is_some_and(SectorState::is_failed), "{state}"),
        }
    }
}

#[test]
fn names_are_lotus_s_and_return() {
    for state in SectorState::ALL {
        assert_eq!(state.to_string().parse::<SectorState>(), Ok(*state));
        assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{state}\""));
    }
    for (text, state) in [
        ("SubmitPreCommitBatch", SectorState::PreCommitting),
        ("PreCommitBatchWait", SectorState::PreCommitWait),
        ("SubmitCommitAggregate", SectorState::SubmitCommit),
        ("CommitAggregateWait", SectorState::CommitWait),
    ] {
        assert_eq!(text.parse(), Ok(state), "as Lotus calls it today");
    }
    for text in ["", "proving", "PC1", "Undefined"] {
        assert!(text.parse::<SectorState>().is_err(), "{text:?} was taken for a state");
    }
}

/// One event of every kind, and what it means if it is taken.
fn every_event() -> Vec<(SectorEvent, &'static [Outcome])> {
    let done = |output| SectorEvent::TaskDone { output, now_ms: 0 };
    let piece = outputs::zero_piece();
    vec![
        (SectorEvent::Start, &[Outcome::Start]),
        (SectorEvent::AddData { data: outputs::data(256, 9) }, &[Outcome::AddPiece]),
        (SectorEvent::Rebuild { refill: Refill::Zeros }, &[Outcome::Rebuild]),
        (SectorEvent::Rebuild { refill: Refill::Unsealed }, &[Outcome::RebuildUnsealed]),
        (SectorEvent::StartPacking, &[Outcome::StartPacking, Outcome::AddPiece]),
        (SectorEvent::Proceed, &[Outcome::AddPiece, Outcome::StartPacking, Outcome::Packed, Outcome::Ticket]),
        (
            SectorEvent::MessageSent { message: "bafy2".to_owned() },
            &[Outcome::PreCommitSent, Outcome::CommitSent],
        ),
        (
            SectorEvent::Landed { epoch: ChainEpoch::new(7) },
            &[Outcome::PreCommitLanded, Outcome::CommitLanded],
        ),
        (
            done(TaskOutput::AddPiece(outputs::data(1024, 1).piece)),
            &[Outcome::PieceAdded, Outcome::PieceWritten, Outcome::Failed],
        ),
        (done(outputs::piece()), &[Outcome::Packed, Outcome::Failed]),
        (done(outputs::pc1()), &[Outcome::PreCommit1]),
        (done(outputs::pc2()), &[Outcome::PreCommit2]),
        (done(outputs::c1()), &[Outcome::Commit1]),
        (done(outputs::proof()), &[Outcome::Commit2]),
        (done(TaskOutput::Verify(true)), &[Outcome::Committed]),
        (done(TaskOutput::Verify(false)), &[Outcome::Failed]),
        (done(TaskOutput::Finalize), &[Outcome::CacheCleared]),
        (done(TaskOutput::Move), &[Outcome::Finalized]),
        (done(TaskOutput::DataCid(piece)), &[]),
        (done(TaskOutput::ReleaseUnsealed), &[]),
        (done(TaskOutput::Fetch), &[]),
        (done(TaskOutput::Unseal), &[]),
        (
            SectorEvent::Failed { class: FailureClass::Network, message: String::new(), now_ms: 0 },
            &[Outcome::Failed],
        ),
        (SectorEvent::TicketReady { ticket: Ticket([1; 32]), epoch: ChainEpoch::new(0) }, &[Outcome::Ticket]),
        (SectorEvent::SeedReady { seed: Seed([2; 32]), epoch: ChainEpoch::new(0) }, &[Outcome::SeedReady]),
        (SectorEvent::TicketExpired { head: ChainEpoch::new(i64::MAX), now_ms: 0 }, &[Outcome::OldTicket]),
        (SectorEvent::SeedChanged { now_ms: 0 }, &[Outcome::OldSeed]),
        (SectorEvent::RetryDue { now_ms: u64::MAX }, &Outcome::ALL),
        (SectorEvent::RetryNow, &Outcome::ALL),
        (SectorEvent::Release, &[]),
    ]
}

/// A record in every state, and in every step of the states that have several.
fn every_step() -> Vec<SectorRecord> {
    let steps = [
        "run AP",
        "ticket",
        "run PC1",
        "run PC2",
        "pre-commit",
        "seed",
        "run C1",
        "run C2",
        "verify",
        "commit",
        "run FIN",
        "run MOVE",
        "done",
    ];
    let mut records = Vec::new();
    for step in steps {
        records.push(World::at(step).record);
        if step != "done" {
            for class in [FailureClass::Network, FailureClass::BadData, FailureClass::Aborted] {
                let mut world = World::at(step);
                world.fail(class);
                records.push(world.record);
            }
        }
    }
    for (step, sent) in [("pre-commit", "PreCommitWait"), ("commit", "CommitWait")] {
        let mut world = World::at(step);
        world.apply(SectorEvent::MessageSent { message: "bafy1".to_owned() });
        assert_eq!(world.record.state().name(), sent);
        records.push(world.record.clone());
        for class in [FailureClass::Network, FailureClass::Compute] {
            let mut world = World { record: world.record.clone(), now_ms: world.now_ms };
            world.fail(class);
            records.push(world.record);
        }
    }
    records.extend(filling());
    records
}

/// A sector for data, before it is full.
fn filling() -> Vec<SectorRecord> {
    let mut world = World::open();
    let mut records = vec![world.record.clone()];
    world.give(1024, 1);
    records.push(world.record.clone());
    let mut failed = World { record: world.record.clone(), now_ms: world.now_ms };
    failed.fail(FailureClass::Network);
    records.push(failed.record.clone());
    failed.wait_and_retry();
    records.push(failed.record);
    world.run_to("rest: waits for more data, or for the word to start sealing");
    records.push(world.record);
    records
}

#[test]
fn every_event_in_every_step_is_a_row_of_the_table_or_an_error() {
    let mut seen = BTreeSet::new();
    for record in every_step() {
        seen.insert(record.state());
        for (event, outcomes) in every_event() {
            let mut moved = record.clone();
            let (from, name) = (record.state(), event.name());
            match moved.apply(event) {
                Ok(()) => assert!(
                    outcomes.iter().any(|outcome| from.after(*outcome) == Some(moved.state())),
                    "{name} moved {from} to {} beside the table",
                    moved.state()
                ),
                Err(error) => {
                    assert_eq!(moved, record, "{name} was refused by {from} but changed it");
                    assert!(error.to_string().contains(from.name()), "{error}");
                }
            }
        }
    }
    assert_eq!(seen.len(), SectorState::ALL.len(), "some state was not tried");
}

#[test]
fn what_is_taken_at_each_step_is_what_it_waits_for() {
    let alternatives = [
        vec!["data", "result of AP", "start of sealing"],
        vec!["data", "start of sealing"],
        vec!["data", "start", "start of sealing"],
        vec!["data", "next state", "start of sealing"],
        vec!["landing", "message"],
        vec!["changed seed", "landing", "message"],
    ];
    for record in every_step().into_iter().filter(|record| !record.state().is_failed()) {
        let mut taken: Vec<_> = every_event()
            .into_iter()
            .filter(|(event, outcomes)| {
                *outcomes != [Outcome::Failed] && record.clone().apply(event.clone()).is_ok()
            })
            .map(|(event, _)| event.name())
            .collect();
        taken.sort_unstable();
        taken.dedup();
        if taken.len() == 1 && (record.state() != SectorState::Proving || taken == ["rebuild"]) {
            continue;
        }
        assert!(alternatives.contains(&taken), "{} at {:?} takes {taken:?}", record.state(), record.next());
    }
}

#[test]
fn stored_records_whose_data_do_not_fit_are_refused() {
    let stored = serde_json::to_string(&World::at("run C2").record).unwrap();
    assert!(serde_json::from_str::<SectorRecord>(&stored).is_ok());
    for state in SectorState::ALL.iter().filter(|state| **state != SectorState::Committing) {
        let other = stored.replace("\"Committing\"", &format!("\"{state}\""));
        assert!(serde_json::from_str::<SectorRecord>(&other).is_err(), "{state} was taken with a C1 output");
    }
    let value: serde_json::Value = serde_json::from_str(&stored).unwrap();
    for field in ["ticket", "pc1", "cids", "seed"] {
        let mut broken = value.clone();
        broken["progress"][field] = serde_json::Value::Null;
        assert!(serde_json::from_value::<SectorRecord>(broken).is_err(), "taken without {field}");
    }
    for (field, wrong) in
        [("verified", "true"), ("verified", "false"), ("pieces", "[]"), ("cache_cleared", "true")]
    {
        let mut broken = value.clone();
        broken["progress"][field] = serde_json::from_str(wrong).unwrap();
        assert!(serde_json::from_value::<SectorRecord>(broken).is_err(), "taken with {field}={wrong}");
    }
    let mut unknown = value;
    unknown["more"] = 1.into();
    assert!(serde_json::from_value::<SectorRecord>(unknown).is_err());
}

fn any_output() -> impl Strategy<Value = TaskOutput> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        (0u32..3).prop_map(|shift| {
            let size = (1024u64 << shift).try_into().unwrap();
            TaskOutput::AddPiece(PieceInfo { size, ..outputs::zero_piece() })
        }),
        bytes.clone().prop_map(|bytes| TaskOutput::PreCommit1(Pc1Output(bytes))),
        any::<bool>().prop_map(|good| match good {
            true => outputs::pc2(),
            false => TaskOutput::PreCommit2 {
                unsealed: UnsealedCid::new(Commitment::new([6; 32])),
                sealed: SealedCid::new(Commitment::new([6; 32])),
            },
        }),
        bytes.prop_map(|bytes| TaskOutput::Commit1(C1Output(bytes))),
        (0usize..3, 0usize..2).prop_map(|(n, rest)| TaskOutput::Commit2(Proof(vec![0; n * 192 + rest]))),
        any::<bool>().prop_map(TaskOutput::Verify),
        Just(TaskOutput::Finalize),
        Just(TaskOutput::Move),
        Just(TaskOutput::Fetch),
        Just(TaskOutput::Unseal),
    ]
}

/// Times are anything; half of the events are what the sector waits for, or hardly a walk would get far.
#[derive(Clone, Debug)]
enum Told {
    Good,
    Event(SectorEvent),
}

fn any_told() -> impl Strategy<Value = Told> {
    let classes = [
        FailureClass::Environment,
        FailureClass::Network,
        FailureClass::Space,
        FailureClass::Compute,
        FailureClass::BadData,
        FailureClass::Aborted,
    ];
    let event = prop_oneof![
        Just(SectorEvent::Start),
        (any_output(), any::<u64>()).prop_map(|(output, now_ms)| SectorEvent::TaskDone { output, now_ms }),
        (0..classes.len(), any::<String>(), any::<u64>()).prop_map(move |(class, message, now_ms)| {
            SectorEvent::Failed { class: classes[class], message, now_ms }
        }),
        any::<[u8; 32]>()
            .prop_map(|b| SectorEvent::TicketReady { ticket: Ticket(b), epoch: ChainEpoch::new(-1) }),
        any::<[u8; 32]>().prop_map(|b| SectorEvent::SeedReady { seed: Seed(b), epoch: ChainEpoch::new(9) }),
        any::<i64>().prop_map(|head| SectorEvent::TicketExpired { head: ChainEpoch::new(head), now_ms: 0 }),
        any::<u64>().prop_map(|now_ms| SectorEvent::SeedChanged { now_ms }),
        any::<u64>().prop_map(|now_ms| SectorEvent::RetryDue { now_ms }),
        Just(SectorEvent::RetryNow),
        Just(SectorEvent::Release),
        Just(SectorEvent::StartPacking),
        Just(SectorEvent::Proceed),
        Just(SectorEvent::Rebuild { refill: Refill::Zeros }),
        Just(SectorEvent::Rebuild { refill: Refill::Unsealed }),
        (0u32..4, any::<u8>())
            .prop_map(|(shift, seed)| SectorEvent::AddData { data: outputs::data(128 << shift, seed) }),
        Just(SectorEvent::MessageSent { message: "bafy".to_owned() }),
        any::<i64>().prop_map(|epoch| SectorEvent::Landed { epoch: ChainEpoch::new(epoch) }),
    ];
    prop_oneof![Just(Told::Good), event.prop_map(Told::Event)]
}

fn good(record: &SectorRecord) -> SectorEvent {
    let done = |output| SectorEvent::TaskDone { output, now_ms: 0 };
    if let Step::Run(TaskInput::AddPiece(input)) = record.next() {
        let cid = record.data_to_write().map_or(outputs::zero_piece().cid, |data| data.piece.cid);
        return done(TaskOutput::AddPiece(PieceInfo { size: input.size.padded(), cid }));
    }
    if let Step::Rest { why: Rest::WaitsForData } = record.next() {
        return SectorEvent::StartPacking;
    }
    if let (Step::Run(TaskInput::PreCommit2(_)), Some(sealed)) = (record.next(), record.rebuilt_to()) {
        return done(TaskOutput::PreCommit2 { unsealed: outputs::zero_piece().cid, sealed });
    }
    let by_others = |event: &SectorEvent| {
        matches!(
            event,
            SectorEvent::MessageSent { .. } | SectorEvent::AddData { .. } | SectorEvent::Rebuild { .. }
        )
    };
    every_event()
        .into_iter()
        .filter(|(_, outcomes)| *outcomes != [Outcome::Failed])
        .map(|(event, _)| event)
        .filter(|event| !by_others(event))
        .find(|event| record.clone().apply(event.clone()).is_ok())
        .unwrap_or(done(TaskOutput::Fetch))
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_a_sector(data: bool, told in proptest::collection::vec(any_told(), 0..60)) {
        let mut record = if data { World::open().record } else { World::pledge(None).record };
        for told in told {
            let event = match told { Told::Good => good(&record), Told::Event(event) => event };
            let before = record.clone();
            match record.apply(event) {
                Ok(()) => prop_assert!(
                    TRANSITIONS.iter().any(|row| (row.0, row.2) == (before.state(), record.state())),
                    "{} to {}", before.state(), record.state()
                ),
                Err(_) => prop_assert_eq!(&record, &before),
            }
            record.next();
            let stored = serde_json::to_string(&record).unwrap();
            prop_assert_eq!(&serde_json::from_str::<SectorRecord>(&stored).unwrap(), &record);
            if record.state() == SectorState::Proving {
                prop_assert_eq!(record.progress().verified, Some(true));
            }
        }
    }

    #[test]
    fn a_sector_that_is_left_in_peace_ends_in_proving(data: bool, told in proptest::collection::vec(any_told(), 0..40)) {
        let mut record = if data { World::open().record } else { World::pledge(None).record };
        for told in told {
            let event = match told { Told::Good => good(&record), Told::Event(event) => event };
            let _refused = record.apply(event);
        }
        for _ in 0..120 {
            let event = if record.state().is_failed() { SectorEvent::RetryNow } else { good(&record) };
            let _done = record.apply(event);
        }
        prop_assert_eq!(record.next(), Step::Done);
    }
}
