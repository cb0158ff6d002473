//! Tasks whose worker ends while it has them: each goes on as a new attempt, but not for ever.

mod world;

use std::sync::Arc;

use rpc::api::AttemptAccount;
use rpc::extension::SectorDetail;
use rpc::{ReturnMethod, Returned};
use sealtasks::{CallError, CallErrorCode, FailureClass, FileTypes, SectorNumber};
use world::fake_worker::{Behaviour, FakeWorker, Plan, Taken};
use world::{ALL, LIMIT, World, attempts, world};

/// The error code of a worker that was started again.
const RESTARTED: i64 = 101;

async fn joined(world: &World, sealyard: bool) -> Arc<FakeWorker> {
    let worker = FakeWorker::new(Plan { name: "A", seed: 1, tasks: ALL, stores: true, sealyard });
    world.join(&worker).await;
    worker
}

fn states(detail: &SectorDetail) -> Vec<String> {
    attempts(detail, "PC1").into_iter().map(|(state, _)| state).collect()
}

/// Its retry is due: an hour has passed.
fn make_due(db: &rusqlite::Connection) {
    let sql = "UPDATE sector SET record = json_set(record, '$.retry.when.not_before_ms', 0)
               WHERE json_extract(record, '$.retry.when.not_before_ms') > 0";
    assert_eq!(db.execute(sql, ()).expect("SQLite"), 1, "a retry is due some time");
}

#[tokio::test]
async fn a_task_that_ends_its_worker_every_time_is_parked_with_its_reason() {
    for sealyard in [true, false] {
        let mut world = world().await;
        let a = joined(&world, sealyard).await;
        for behaviour in [Behaviour::Fail(RESTARTED), Behaviour::Fail(RESTARTED), Behaviour::Hold] {
            a.script("PC1", behaviour);
        }
        world.api.pledge_sector().await.expect("a pledge");
        for _ in 0..2 {
            a.call_of("PC1").await;
        }
        let third = a.call_of("PC1").await;
        world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;
        // What was counted is not forgotten.
        world = world.restart().await;
        a.serve(world.api.clone()).await;
        a.declare(third.call.sector, FileTypes::UNSEALED).await;
        a.script("PC1", Behaviour::Fail(RESTARTED));
        if sealyard {
            world.join(&a).await;
        } else {
            // It is busy, so it is dialled.
            let dialled = async { while world.api.worker_stats().await.expect("stats").is_empty() {} };
            tokio::time::timeout(LIMIT, dialled).await.expect("dialled in time");
        }
        a.fail(&third, RESTARTED).await;
        let detail = world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
        assert_eq!(states(&detail), ["failed"; 4]);
        assert!(detail.last_error.contains("4 times in a row"), "{}", detail.last_error);

        // The next tries lose one attempt each.
        for tries in 1..=3 {
            world = world.restart_on(make_due).await;
            a.script("PC1", Behaviour::Fail(RESTARTED));
            world.join(&a).await;
            a.declare(third.call.sector, FileTypes::UNSEALED).await;
            let failed = |sector: &SectorDetail| {
                states(sector).len() == 4 + tries && sector.state == "SealPreCommit1Failed"
            };
            let detail = world.sector(1, failed).await;
            assert!(detail.last_error.contains("once more"), "{}", detail.last_error);
        }
        let why = world.api.why("1".parse().expect("a sector")).await.expect("an answer");
        let why = serde_json::to_string(&why).expect("JSON");
        assert!(why.contains("operator"), "{why}");
        world.api.retry_sector(SectorNumber::new(1).into()).await.expect("the operator has looked");
        let detail = world.sector(1, |sector| sector.state == "Proving").await;
        assert_eq!(states(&detail).last().map(String::as_str), Some("done"));
    }
}

/// What `sealyard worker stop --now` makes of a call.
async fn stopped(world: &World, taken: &Taken) {
    let method = ReturnMethod::of(&taken.work).expect("work that is called");
    let error = CallError { code: CallErrorCode::TempWorkerRestart, message: "restarted".to_owned() };
    let account = Some(AttemptAccount { class: Some(FailureClass::Aborted), ..AttemptAccount::default() });
    let returned = Returned { method, result: Err(error), attempt: taken.attempt, account };
    world.api.return_result(taken.call, returned).await.expect("acknowledged");
}

#[tokio::test]
async fn a_worker_that_somebody_stops_does_not_count() {
    let world = world().await;
    let a = joined(&world, true).await;
    for _ in 0..8 {
        a.script("PC1", Behaviour::Hold);
    }
    world.api.pledge_sector().await.expect("a pledge");
    for _ in 0..8 {
        stopped(&world, &a.call_of("PC1").await).await;
    }
    let detail = world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(states(&detail).len(), 9, "{:#?}", detail.tasks);
}
