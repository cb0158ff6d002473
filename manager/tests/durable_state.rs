//! The durable state alone: epochs, group commit, refusal of what does not apply, and time that never goes back.

use std::collections::BTreeMap;

use manager::state::{
    AttemptOutcome, CallStage, Measured, Measures, MinerIdentity, ReservedSpace, State, StateError,
    StateEvent, TaskOutcome,
};
use manager::{InitOptions, Repo, add_miner};
use rpc::Miners;
use rusqlite::Connection;
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, RegisteredSealProof, SectorId, SectorRef, SectorSize, StorageId,
    TaskId, TaskType, WorkerId,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

fn new_database() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().expect("a temporary directory");
    let path = dir.path().join("state.db");
    let miner = MinerIdentity {
        actor: ActorId::new(1000),
        sector_size: SectorSize::KiB2,
        beacon: [7; 32],
        chain: None,
    };
    State::create(&path, &miner).expect("a new database");
    (dir, path)
}

fn sector(number: u64) -> SectorRef {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    SectorRef { id: SectorId::new(1000, number), proof }
}

fn pledged(number: u64) -> StateEvent {
    StateEvent::SectorPledged {
        sector: sector(number),
        state: "Packing".to_owned(),
        record: serde_json::json!({}),
    }
}

fn submitted(task: u64, number: u64) -> StateEvent {
    let (task, step) = (TaskId::new(task), "PC1".to_owned());
    StateEvent::TaskSubmitted { task, sector: sector(number), task_type: TaskType::PreCommit1, step }
}

fn bound(attempt: AttemptId) -> StateEvent {
    let path = StorageId::from(Uuid::from_u128(9));
    StateEvent::AttemptBound {
        attempt,
        worker: WorkerId(Uuid::from_u128(5)),
        name: "A".to_owned(),
        url: "http://10.0.0.7:3456/rpc/v0".to_owned(),
        peer: "sealyard".to_owned(),
        reservations: vec![ReservedSpace { path, types: FileTypes::SEALED, bytes: 2048 }],
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let (_dir, path) = new_database();
    let attempt = AttemptId { task: TaskId::new(1), attempt: 1 };
    let call = CallId { sector: SectorId::new(1000, 4), id: Uuid::from_u128(77) };
    let state = State::open(&path).expect("the first manager");
    assert_eq!(state.miner().await.expect("the miner").beacon, [7; 32]);
    state.commit(vec![pledged(4), submitted(1, 4)]).await.expect("a pledge");
    state.commit(vec![bound(attempt)]).await.expect("a binding");
    state
        .commit(vec![StateEvent::CallAccepted { attempt, call, stage: CallStage::Prepare }])
        .await
        .expect("a call");
    drop(state);

    let state = State::open(&path).expect("the second manager");
    assert_eq!(state.epoch().get(), 2);
    assert_eq!(state.next_task().await.expect("the next task"), 2);
    let next = state.next_sectors().await.expect("the next numbers");
    assert_eq!(next, BTreeMap::from([(ActorId::new(1000), 5)]));
    let open = state.open_tasks().await.expect("open tasks");
    let [task] = open.as_slice() else { panic!("{open:?}") };
    let found = task.open.as_ref().expect("an open attempt");
    assert_eq!(
        (task.sector, task.attempts, found.attempt, found.name.as_str()),
        (sector(4), 1, attempt, "A")
    );
    assert_eq!(
        (found.calls[0].call, found.calls[0].stage, found.calls[0].state.as_str()),
        (call, CallStage::Prepare, "held")
    );
    assert_eq!(found.reservations[0].bytes, 2048);
    let rows = state.tasks_of(sector(4).id).await.expect("rows");
    assert_eq!(
        (rows[0].state.as_str(), rows[0].call.as_deref()),
        ("acquiring", Some(call.to_string().as_str()))
    );

    let ended =
        StateEvent::AttemptEnded { attempt, outcome: AttemptOutcome::Requeued, reason: "lost".to_owned() };
    state.commit(vec![ended]).await.expect("an end");
    let open = state.open_tasks().await.expect("open tasks");
    assert_eq!((open[0].attempts, open[0].open.is_none()), (1, true));
    let reserved: i64 = Connection::open(&path)
        .and_then(|db| db.query_row("SELECT count(*) FROM reservation", [], |row| row.get(0)))
        .expect("a count");
    assert_eq!(reserved, 0);
    let log = state.log_of(sector(4).id).await.expect("a log");
    assert_eq!((log[0].kind.as_str(), log[0].text.as_str()), ("sector_pledged", "entered in Packing"));
    assert_eq!(log.last().expect("events").text, "attempt 1.1 requeued: lost");
}

#[tokio::test]
async fn a_manager_that_was_overtaken_can_commit_nothing() {
    let (_dir, path) = new_database();
    let old = State::open(&path).expect("the first manager");
    let new = State::open(&path).expect("the second manager");
    let error = old.commit(vec![pledged(1)]).await.expect_err("an older epoch");
    assert!(
        matches!(error, StateError::StaleEpoch { ours, newest } if ours == old.epoch() && newest == new.epoch())
    );
    assert_eq!(error.code(), "MGR003");
    assert!(new.sectors().await.expect("sectors").is_empty());
    new.commit(vec![pledged(1)]).await.expect("the newest epoch commits");
}

#[tokio::test]
async fn commits_that_wait_together_are_one_transaction() {
    const COMMITS: u64 = 50;
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("a manager");
    // While another connection holds the write lock, the writer waits in its first transaction.
    let other = Connection::open(&path).expect("a second connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let mut commits = JoinSet::new();
    for number in 1..=COMMITS {
        let state = state.clone();
        commits.spawn(async move { state.commit(vec![pledged(number)]).await });
    }
    // The test's runtime has one thread: after a turn of all tasks every submission is in the channel.
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").expect("the lock is free");
    while let Some(done) = commits.join_next().await {
        done.expect("no panic").expect("a commit");
    }
    assert_eq!(state.sectors().await.expect("sectors").len() as u64, COMMITS);
    assert!(state.batches() <= 2, "{} transactions for {COMMITS} commits", state.batches());
}

#[tokio::test]
async fn a_submission_that_does_not_apply_leaves_nothing_and_spoils_no_other() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("a manager");
    let stray = bound(AttemptId { task: TaskId::new(99), attempt: 1 });
    let (good, bad) = tokio::join!(state.commit(vec![pledged(1)]), state.commit(vec![pledged(2), stray]));
    good.expect("the good one stands");
    bad.expect_err("no such task");
    let kept: Vec<_> = state.sectors().await.expect("sectors").into_iter().map(|row| row.sector).collect();
    assert_eq!(kept, [sector(1)]);
    let ended = StateEvent::AttemptEnded {
        attempt: AttemptId { task: TaskId::new(1), attempt: 1 },
        outcome: AttemptOutcome::Done,
        reason: String::new(),
    };
    let error = state.commit(vec![ended]).await.expect_err("no such attempt");
    assert!(matches!(error, StateError::Inapplicable { kind: "attempt_ended", .. }), "{error}");
}

#[tokio::test]
async fn of_those_in_one_transaction_only_the_bad_one_is_refused() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("a manager");
    let other = Connection::open(&path).expect("a second connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let stray = bound(AttemptId { task: TaskId::new(99), attempt: 1 });
    let commits =
        [vec![pledged(1)], vec![pledged(2), submitted(1, 2)], vec![pledged(3), stray], vec![pledged(4)]];
    let mut results = Vec::new();
    for events in commits {
        let state = state.clone();
        results.push(tokio::spawn(async move { state.commit(events).await }));
    }
    tokio::task::yield_now().await;
    other.execute_batch("COMMIT").expect("the lock is free");
    let mut went = Vec::new();
    for result in results {
        went.push(result.await.expect("no panic").is_ok());
    }
    assert_eq!(went, [true, true, false, true]);
    assert!(state.batches() <= 2, "{} transactions", state.batches());
    let kept: Vec<_> = state.sectors().await.expect("sectors").into_iter().map(|row| row.sector).collect();
    assert_eq!(kept, [sector(1), sector(2), sector(4)]);
    // Each stands in the table of events once, though the transaction was begun twice.
    let count = "SELECT count(*) FROM event WHERE kind IN ('sector_pledged', 'task_submitted')";
    let events: i64 = other.query_row(count, [], |row| row.get(0)).expect("a count");
    assert_eq!(events, 4);
    assert_eq!(state.open_tasks().await.expect("open tasks").len(), 1);
}

#[tokio::test]
async fn a_database_of_another_version_is_left_alone() {
    let (dir, path) = new_database();
    Connection::open(&path)
        .and_then(|db| db.pragma_update(None, "user_version", 99))
        .expect("another version");
    let before = std::fs::read(&path).expect("its bytes");
    let error = State::open(&path).map(|_| ()).expect_err("unknown").to_string();
    assert!(error.contains("schema version 99") && error.contains("reads "), "{error}");
    assert_eq!(std::fs::read(&path).expect("its bytes"), before);
    let missing = State::open(&dir.path().join("nothing.db")).map(|_| ()).expect_err("none").to_string();
    assert!(missing.contains("sealyard init"), "{missing}");
    assert!(!dir.path().join("nothing.db").exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_says_what_to_do_and_is_left_alone() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let path = dir.path().join("state.db");
    for bytes in [Vec::new(), vec![0x5a; 50_000]] {
        std::fs::write(&path, &bytes).expect("a file");
        let error = State::open(&path).map(|_| ()).expect_err("no database");
        assert_eq!(error.code(), "MGR008", "{error}");
        let text = error.to_string();
        assert!(text.contains("state.db") && text.contains("put a copy of it back"), "{text}");
        assert_eq!(std::fs::read(&path).expect("its bytes"), bytes);
    }
}

#[tokio::test]
async fn time_never_goes_back_behind_what_is_stored() {
    let (_dir, path) = new_database();
    let future = 4_000_000_000_000_i64;
    Connection::open(&path)
        .and_then(|db| db.execute("UPDATE counter SET value = ?1 WHERE name = 'last_ms'", [future]))
        .expect("a stored time");
    let state = State::open(&path).expect("a manager");
    assert_eq!(state.now_ms(), 4_000_000_000_000);
}

/// The schema as version 1 had it.
fn of_version_1(path: &std::path::Path) {
    let db = Connection::open(path).expect("the database");
    db.execute_batch(
        "DROP TABLE duration; DROP TABLE throughput; DROP TABLE control; DROP TABLE hold; DROP TABLE scrub; DROP TABLE superseded; DROP TABLE chain; DROP TABLE added_miner; DROP INDEX attempt_detached;
         DROP TABLE takeover; DROP TABLE overtaken;
         DROP INDEX call_orphan;
         ALTER TABLE sector DROP COLUMN priority; ALTER TABLE task DROP COLUMN priority;
         ALTER TABLE attempt DROP COLUMN abort_ms; DELETE FROM counter WHERE name = 'pledging_paused';
         PRAGMA user_version = 1;",
    )
    .expect("version 1");
}

#[tokio::test]
async fn a_database_of_an_earlier_version_is_upgraded() {
    let (_dir, path) = new_database();
    of_version_1(&path);
    let state = State::open(&path).expect("it is upgraded");
    state.commit(vec![pledged(4)]).await.expect("a pledge");
    assert_eq!(state.measures().await.expect("no measures"), Measures::new());
    let only = Miners { first: ActorId::new(1000), others: Vec::new() };
    assert_eq!(state.miners().await.expect("its miner"), only, "a repo of one miner stays one");
    let next = state.next_sectors().await.expect("the next number");
    assert_eq!(next, BTreeMap::from([(only.first, 5)]));
    drop(state);
    State::open(&path).expect("it is upgraded once");
}

#[tokio::test]
async fn what_was_measured_is_there_after_a_restart_as_it_was_in_memory() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("the first manager");
    let (worker, proof) = ("A".to_owned(), sector(1).proof);
    let took = |millis| StateEvent::DurationMeasured {
        worker: worker.clone(),
        task_type: TaskType::PreCommit1,
        proof,
        millis,
        peak_bytes: 5_000_000 - millis,
        cpu_ms: millis / 2,
    };
    let fetched = StateEvent::ThroughputMeasured { worker: worker.clone(), bytes: 1 << 30, millis: 2_000 };
    let events = vec![took(1_000), fetched, took(4_000)];
    let mut expected = Measured::default();
    events.iter().for_each(|event| expected.take(event));
    state.commit(events).await.expect("measurements");
    drop(state);
    let state = State::open(&path).expect("the second manager");
    let measures = state.measures().await.expect("measures");
    assert_eq!(measures, Measures::from([(worker, expected.clone())]));
    assert_eq!(expected.durations[&(TaskType::PreCommit1, proof)].mean_ms, 2_500);
    let pc1 = expected.durations[&(TaskType::PreCommit1, proof)];
    assert_eq!((pc1.peak_bytes, pc1.cpu_ms), (4_999_000, 2_000), "the largest, and the latest");
    assert_eq!(expected.throughput.bytes_per_second(), 1 << 29);
}

#[tokio::test]
async fn each_miner_counts_its_own_sectors() {
    let (_dir, path) = new_database();
    let other = ActorId::new(2000);
    let state = State::open(&path).expect("the first manager");
    let added = StateEvent::MinerAdded { miner: other, by: "a test".to_owned() };
    state.commit(vec![added.clone(), pledged(4)]).await.expect("a miner and a pledge");
    let mut its = pledged(9);
    if let StateEvent::SectorPledged { sector, .. } = &mut its {
        sector.id.miner = other;
    }
    state.commit(vec![its]).await.expect("its pledge");
    state.commit(vec![added]).await.expect_err("it is there already");
    drop(state);
    let state = State::open(&path).expect("the second manager");
    let miners = state.miners().await.expect("both");
    assert_eq!(miners, Miners { first: ActorId::new(1000), others: vec![other] });
    let next = state.next_sectors().await.expect("the next numbers");
    assert_eq!(next, BTreeMap::from([(ActorId::new(1000), 5), (other, 10)]));
}

/// A lost manager may have served the miner already, after the copy was made that this one goes on from.
#[tokio::test]
async fn a_miner_that_is_added_after_a_take_over_begins_ahead() {
    let (_dir, path) = new_database();
    let other = ActorId::new(2000);
    let id = Uuid::from_u128(5).to_string();
    let taken =
        Connection::open(&path).and_then(|db| db.execute("INSERT INTO takeover (id) VALUES (?1)", [id]));
    taken.expect("a take-over");
    let state = State::open(&path).expect("the manager that has taken over");
    let added = StateEvent::MinerAdded { miner: other, by: "a test".to_owned() };
    state.commit(vec![added]).await.expect("a miner");
    let next = state.next_sectors().await.expect("the next numbers");
    assert_eq!(next[&other], 1001, "as the first one begins 1,000 ahead");
}

/// The program that wrote it can still be used.
#[tokio::test]
async fn a_miner_that_is_refused_leaves_a_database_of_an_earlier_version_as_it_was() {
    let dir = TempDir::new().expect("a temporary directory");
    let repo = dir.path().join("repo");
    Repo::init(&repo, InitOptions::new(ActorId::new(1000), SectorSize::KiB2)).expect("a new repo");
    let path = repo.join("state.db");
    of_version_1(&path);
    let version = || -> i64 {
        let db = Connection::open(&path).expect("the database");
        db.pragma_query_value(None, "user_version", |row| row.get(0)).expect("its version")
    };
    let repo = Repo::open(&repo).expect("the repo is free");
    let refused = add_miner(&repo, ActorId::new(1000), None, "a test".to_owned()).await;
    let refused = refused.expect_err("it is served already").to_string();
    assert!(refused.contains("f01000"), "{refused}");
    assert_eq!(version(), 1);
    let miners = add_miner(&repo, ActorId::new(2000), None, "a test".to_owned()).await.expect("added");
    assert_eq!(miners.others, [ActorId::new(2000)]);
    assert!(version() > 1);
    let state = State::open(&path).expect("a manager");
    assert_eq!(state.miners().await.expect("both"), miners);
}

/// What ends in one commit is written once, and stands in the rows as if each event had been committed alone.
#[tokio::test]
async fn what_ends_in_one_commit_looks_as_if_it_had_ended_step_by_step() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("a manager");
    let whole = |task: u64, outcome, stage| {
        let attempt = AttemptId { task: TaskId::new(task), attempt: 1 };
        let call = CallId { sector: SectorId::new(1000, task), id: Uuid::from_u128(task.into()) };
        let (work_ms, reason) = (1 << 50, "as it is".to_owned());
        let begin =
            vec![submitted(task, task), bound(attempt), StateEvent::CallAccepted { attempt, call, stage }];
        let returned =
            StateEvent::CallReturned { attempt, call, stage, error: None, work_ms, bytes_fetched: 77 };
        let ended = StateEvent::AttemptEnded { attempt, outcome, reason: reason.clone() };
        let over = StateEvent::TaskEnded { task: attempt.task, outcome: TaskOutcome::Failed, reason };
        (begin, vec![returned, ended, over])
    };
    let mut task = 0;
    for (outcome, stage) in
        [(AttemptOutcome::Done, CallStage::Work), (AttemptOutcome::Failed, CallStage::Prepare)]
    {
        // As far as the task's end, and as far as the attempt's: then it waits again.
        for events in [3, 2] {
            let mut rows = Vec::new();
            for alone in [true, false] {
                task += 1;
                let (begin, mut end) = whole(task, outcome, stage);
                end.truncate(events);
                state.commit(begin).await.expect("it begins");
                match alone {
                    true => {
                        for event in end {
                            state.commit(vec![event]).await.expect("a step");
                        }
                    }
                    false => state.commit(end).await.expect("all steps"),
                }
                rows.push(rows_of(&path, i64::try_from(task).expect("small")));
            }
            assert_eq!(rows[0], rows[1], "{outcome:?} {stage:?} {events}");
            assert!(rows[0].iter().any(|row| row.contains("as it is")), "{rows:?}");
        }
    }
}

/// The rows of one task as text, without what differs from any other's: numbers, ids and the time of day. Work that is said
/// to have taken for ever began when it was bound.
fn rows_of(path: &std::path::Path, task: i64) -> Vec<String> {
    let db = Connection::open(path).expect("a second connection");
    let all = |sql: &str| -> Vec<String> {
        let mut statement = db.prepare(sql).expect("a query");
        let rows = statement.query_map([task], |row| row.get(0)).expect("rows");
        rows.collect::<Result<_, _>>().expect("text")
    };
    let mut rows = all("SELECT state || ' ' || reason || ' ' || (ended_ms > 0) FROM task WHERE id = ?1");
    rows.extend(all(
        "SELECT state || ' ' || reason || ' ' || (ended_ms > 0) || ' ' || (started_ms = bound_ms) || ' ' || bytes_fetched
         FROM attempt WHERE task = ?1",
    ));
    rows.extend(all("SELECT stage || ' ' || state || ' ' || (returned_ms > 0) FROM call WHERE task = ?1"));
    rows.extend(all("SELECT path FROM reservation WHERE task = ?1"));
    rows
}

/// Events are added many at a time: each is there once, in order, about the sector that its task is for.
#[tokio::test]
async fn many_events_of_one_commit_stand_in_their_order_each_about_its_sector() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("the first manager");
    let tasks = 1..=57_u64;
    state.commit(tasks.clone().map(|task| submitted(task, 100 + task)).collect()).await.expect("tasks");
    drop(state);
    // This one has seen none of them submitted.
    let state = State::open(&path).expect("the second manager");
    let first = |task| AttemptId { task: TaskId::new(task), attempt: 1 };
    state.commit(tasks.clone().map(|task| bound(first(task))).collect()).await.expect("bindings");
    // A task that was never entered has no sector, though a commit that failed spoke of one.
    let gone = TaskId::new(58);
    let nobody =
        StateEvent::TaskEnded { task: TaskId::new(99), outcome: TaskOutcome::Done, reason: String::new() };
    state.commit(vec![submitted(58, 158), nobody]).await.expect_err("there is no task 99");
    state
        .commit(vec![StateEvent::ReleaseAsked { task: gone, keep: Vec::new() }])
        .await
        .expect("no row of its own");
    let db = Connection::open(&path).expect("a second connection");
    let sql = "SELECT kind, task, coalesce(number, 0) FROM event ORDER BY seq";
    let mut statement = db.prepare(sql).expect("a query");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("rows");
    let found: Vec<(String, i64, i64)> = rows.collect::<Result<_, _>>().expect("events");
    let of = |kind: &str| (1..=57).map(|task| (kind.to_owned(), task, 100 + task)).collect::<Vec<_>>();
    let last = vec![("release_asked".to_owned(), 58, 0)];
    assert_eq!(found, [of("task_submitted"), of("attempt_bound"), last].concat());
}

/// A starting manager reads spans of numbers by several threads: no sector is left out or told twice, however far apart they
/// lie.
#[tokio::test]
async fn all_sectors_are_read_in_their_order_whatever_their_numbers() {
    let (_dir, path) = new_database();
    let state = State::open(&path).expect("a manager");
    let read = || state.sectors_as(|row| Ok((row.sector, row.state.to_owned(), row.record.to_owned())));
    assert_eq!(read().await.expect("none"), []);
    let other = ActorId::new(2000);
    let added = StateEvent::MinerAdded { miner: other, by: "a test".to_owned() };
    let its = |number| {
        let mut its = sector(number);
        its.id.miner = other;
        its
    };
    let far = [0, 1, 1_024, 1_025, 5_000, 70_000, 1 << 40, 1 << 62];
    let mut sectors: Vec<_> = (0..3_000).map(|number| sector(100 + number)).collect();
    sectors.extend(far.map(its));
    let pledges = sectors.iter().map(|sector| StateEvent::SectorPledged {
        sector: *sector,
        state: format!("state of {}", sector.id),
        record: serde_json::json!({ "of": sector.id }),
    });
    state.commit(std::iter::once(added).chain(pledges).collect()).await.expect("pledges");
    let expected: Vec<_> = sectors
        .iter()
        .map(|of| (*of, format!("state of {}", of.id), serde_json::json!({ "of": of.id }).to_string()))
        .collect();
    assert_eq!(read().await.expect("all of them"), expected);
    let refused = state.sectors_as(|row| match row.sector.id.number.get() {
        5_000 => Err(StateError::Closed),
        _ => Ok(()),
    });
    refused.await.expect_err("one is not understood");
}
