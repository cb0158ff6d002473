//! What a manager shows has happened for good: a crash takes nothing back of it.

mod world;

use rusqlite::Connection;
use sealtasks::SectorNumber;
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{ALL, LIMIT, world};

#[tokio::test]
async fn nothing_is_shown_that_a_crash_would_take_back() {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    worker.script("AP", Behaviour::Hold);
    world.join(&worker).await;
    world.api.pledge_sector().await.expect("a pledge");
    let taken = worker.call_of("AP").await;
    world.sector(1, |sector| sector.tasks.iter().any(|row| row.state == "running")).await;

    // What is committed from here on waits until the state is let go.
    let holder = Connection::open(world.dir.path().join("repo/state.db")).expect("the state");
    holder.execute_batch("BEGIN IMMEDIATE").expect("held");
    let looked = async {
        let detail = world.api.sector_detail(SectorNumber::new(1).into()).await.expect("its status");
        assert!(
            detail.state == "AddPiece" || holder.is_autocommit(),
            "shown before it was kept: {detail:#?}"
        );
        detail.state
    };
    let let_go = async {
        // Whoever would answer without waiting has done so by then.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        holder.execute_batch("COMMIT").expect("let go");
    };
    let both = async { tokio::join!(worker.fail(&taken, 1), looked, let_go) };
    let ((), state, ()) = tokio::time::timeout(LIMIT, both).await.expect("all is answered");
    assert_eq!(state, "AddPieceFailed", "the task's end came first");
}

#[tokio::test]
async fn what_a_manager_was_killed_in_writing_is_gone_after_its_next_start() {
    let left = "repo/index.snapshot.6a3f8c1e-0000-4000-8000-000000000001.tmp";
    let half = |dir: &std::path::Path| std::fs::write(dir.join(left), "half").expect("written");
    let world = world().await.restart_with(half).await;
    assert!(!world.dir.path().join(left).exists());
}
