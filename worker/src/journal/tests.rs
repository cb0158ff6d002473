use sealtasks::{CallErrorCode, FinalizeInput, RegisteredSealProof, SectorId, SectorSize, TaskId};

use super::*;

const SECTOR: SectorRef =
    SectorRef { id: SectorId::new(1000, 7), proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2) };
const ATTEMPT: AttemptId = AttemptId { task: TaskId::new(3), attempt: 1 };
const INPUT: TaskInput = TaskInput::Finalize(FinalizeInput {});

fn failed() -> Ended {
    let error = CallError { code: CallErrorCode::Unknown, message: "no".into() };
    Ended {
        result: Err(error),
        account: AttemptAccount {
            started_ms: 1,
            ended_ms: 2,
            bytes_fetched: 3,
            peak_bytes: 4,
            cpu_ms: 5,
            class: None,
        },
    }
}

fn accept(journal: &Journal, attempt: Option<AttemptId>, input: &TaskInput) -> Acceptance {
    journal.accept(Uuid::new_v4(), SECTOR, attempt, ReturnMethod::FinalizeSector, input).unwrap()
}

#[test]
fn the_same_attempt_is_the_same_call_also_after_its_acknowledgement_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let Acceptance::New(call) = accept(&journal, Some(ATTEMPT), &INPUT) else { panic!("not new") };
    assert_eq!(accept(&journal, Some(ATTEMPT), &INPUT), Acceptance::Known(call));
    journal.ended(call.id, &failed()).unwrap();
    journal.acknowledged(call.id).unwrap();
    drop(journal);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(accept(&journal, Some(ATTEMPT), &INPUT), Acceptance::Known(call));
    let next = AttemptId { attempt: 2, ..ATTEMPT };
    assert!(matches!(accept(&journal, Some(next), &INPUT), Acceptance::New(_)));
}

#[test]
fn another_manager_s_attempt_of_the_same_number_is_another_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    journal.serves("a token").unwrap();
    let Acceptance::New(done) = accept(&journal, Some(ATTEMPT), &INPUT) else { panic!("not new") };
    journal.ended(done.id, &failed()).unwrap();
    journal.acknowledged(done.id).unwrap();
    let next = AttemptId { attempt: 2, ..ATTEMPT };
    let Acceptance::New(waiting) = accept(&journal, Some(next), &INPUT) else { panic!("not new") };
    journal.ended(waiting.id, &failed()).unwrap();
    drop(journal);

    let journal = Journal::open(&path).unwrap();
    journal.serves("a token").unwrap();
    assert_eq!(accept(&journal, Some(ATTEMPT), &INPUT), Acceptance::Known(done), "the same manager");
    journal.serves("another manager's token").unwrap();
    assert!(matches!(accept(&journal, Some(ATTEMPT), &INPUT), Acceptance::New(_)));
    let unreturned = journal.unreturned().unwrap();
    let offered: Vec<_> = unreturned.iter().map(|(call, _)| (call.call, call.attempt)).collect();
    assert_eq!(offered, [(waiting, None)], "the result is still offered, but as nobody's attempt");
}

#[test]
fn calls_without_an_attempt_are_all_different_and_forgotten_when_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    let Acceptance::New(first) = accept(&journal, None, &INPUT) else { panic!("not new") };
    let Acceptance::New(second) = accept(&journal, None, &INPUT) else { panic!("not new") };
    assert_ne!(first, second);
    journal.acknowledged(first.id).unwrap();
    let left: Vec<CallId> = journal.unfinished().unwrap().into_iter().map(|u| u.accepted.call).collect();
    assert_eq!(left, [second]);
}

#[test]
fn what_a_crash_left_is_found_with_its_process_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let Acceptance::New(call) = accept(&journal, Some(ATTEMPT), &INPUT) else { panic!("not new") };
    let mark = ProcessMark { pid: 7, starttime: "boot:1".into() };
    let running = Running { started_ms: 5, ..Running::default() };
    journal.running(call.id, &["/x/sealed".into()], &running, Some(&mark)).unwrap();
    let Acceptance::New(done) = accept(&journal, None, &INPUT) else { panic!("not new") };
    journal.ended(done.id, &failed()).unwrap();
    journal.refused(done.id).unwrap();
    drop(journal);

    let journal = Journal::open(&path).unwrap();
    let unfinished = journal.unfinished().unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].accepted.call, call);
    assert_eq!(unfinished[0].accepted.attempt, Some(ATTEMPT));
    assert_eq!(unfinished[0].process, Some(mark));
    assert_eq!(unfinished[0].created, [PathBuf::from("/x/sealed")]);
    let unreturned = journal.unreturned().unwrap();
    assert_eq!(unreturned.len(), 1);
    assert_eq!((unreturned[0].0.call, &unreturned[0].1), (done, &failed()));
}

#[test]
fn refused_results_are_bounded_and_none_is_forgotten_before_this_life_has_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let bound = usize::try_from(REFUSED_MAX).unwrap();
    let made: Vec<Uuid> = (0..bound + 3)
        .map(|_| {
            let Acceptance::New(call) = accept(&journal, None, &INPUT) else { panic!("not new") };
            journal.ended(call.id, &failed()).unwrap();
            call.id
        })
        .collect();
    // The first has not been asked about yet.
    let forgotten: Vec<Uuid> = made[1..].iter().flat_map(|call| journal.refused(*call).unwrap()).collect();
    assert_eq!(forgotten, made[1..3], "the oldest");
    drop(journal);

    let journal = Journal::open(&path).unwrap();
    let offered = |journal: &Journal| -> Vec<Uuid> {
        journal.unreturned().unwrap().iter().map(|(accepted, _)| accepted.call.id).collect()
    };
    let left: Vec<Uuid> = made[..1].iter().chain(&made[3..]).copied().collect();
    assert_eq!(offered(&journal), left, "each is offered in the next life");
    assert!(journal.refused(left[bound]).unwrap().is_empty(), "of the others nobody has asked in this life");
    assert_eq!(offered(&journal), left);
}

#[test]
fn another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let error = Journal::open(&path).err().unwrap();
    assert!(error.to_string().ends_with("has version 9; this program reads versions up to 2"), "{error}");
}

#[test]
fn the_last_life_is_remembered_with_the_manager_that_it_joined() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
    assert_eq!(journal.last_life().unwrap(), None);
    let life = Life { session: WorkerId(Uuid::new_v4()), url: "http://a/remote".into(), joined: None };
    journal.begin_life(&life).unwrap();
    assert_eq!(journal.last_life().unwrap(), Some(life.clone()));
    let manager = Uuid::new_v4();
    journal.joined(manager).unwrap();
    assert_eq!(journal.last_life().unwrap(), Some(Life { joined: Some(manager), ..life }));
}

/// The tables as the first version made them, with a call in them.
const VERSION_1: &str = "
CREATE TABLE call (
    id TEXT PRIMARY KEY, sector TEXT NOT NULL, attempt TEXT, method TEXT NOT NULL, digest BLOB UNIQUE, input TEXT,
    phase TEXT NOT NULL CHECK (phase IN ('accepted', 'running', 'returning', 'refused', 'acknowledged')),
    created TEXT NOT NULL DEFAULT '[]', pid INTEGER, starttime TEXT, result TEXT, account TEXT
) STRICT;
CREATE INDEX call_phase ON call (phase);
CREATE TABLE life (session TEXT NOT NULL) STRICT;
INSERT INTO life (session) VALUES ('53c1dd9a-0d36-4b8e-9f1c-000000000001');
PRAGMA user_version = 1;";

#[test]
fn a_journal_of_the_version_before_is_read_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    Connection::open(&path).unwrap().execute_batch(VERSION_1).unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.last_life().unwrap().unwrap().url, "");
    let Acceptance::New(call) = accept(&journal, Some(ATTEMPT), &INPUT) else { panic!("not new") };
    let running = Running { started_ms: 5, ..Running::default() };
    journal.running(call.id, &[], &running, None).unwrap();
    drop(journal);
    let unfinished = Journal::open(&path).unwrap().unfinished().unwrap();
    assert_eq!((unfinished[0].running.clone(), unfinished[0].input.clone()), (Some(running), INPUT));
}
