//! The audit: a sector with more than the one thing that carries it on, or none, is an alert until that is over. It is made by
//! editing the database of a stopped manager: what lacks its task there is given one at the start, and what does not fit is refused.

mod world;

use std::sync::Arc;

use rpc::api::PledgeOptions;
use rpc::extension::AlertView;
use rpc::operator::AbortOutcome;
use rusqlite::Connection;
use sealtasks::{FileTypes, FsStat, HealthReport, SectorId, TaskType};
use world::canned::Behaviour;
use world::fake_worker::{FakeWorker, Plan, Taken};
use world::{ALL, World, world, world_with};

const SECTOR: SectorId = SectorId::new(1000, 1);

async fn alerts(world: &World, holds: impl Fn(&[AlertView], u64) -> bool) -> Vec<AlertView> {
    let wait = async {
        loop {
            let found = world.api.overview().await.expect("an overview");
            if holds(&found.alerts, found.audits) {
                return found.alerts;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(world::LIMIT, wait).await.expect("the audit finds it")
}

async fn pledged() -> World {
    let world = world().await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    // Nobody is there to write its data.
    world.sector(1, |sector| sector.tasks.iter().any(|task| task.task.short() == "AP")).await;
    world
}

#[tokio::test]
async fn two_live_tasks_of_one_sector_are_an_alert_until_one_is_gone() {
    let double = |db: &Connection| {
        let all = "SELECT group_concat(name) FROM pragma_table_info('task') WHERE name <> 'id'";
        let rest: String = db.query_row(all, [], |row| row.get(0)).expect("columns");
        let doubled = format!("INSERT INTO task (id, {rest}) SELECT id + 100, {rest} FROM task");
        assert_eq!(db.execute(&doubled, []).expect("edited"), 1);
    };
    let world = pledged().await.restart_on(double).await;
    let found = alerts(&world, |alerts, _| !alerts.is_empty()).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].system.as_str(), found[0].subject.as_str()), ("sectors", "1"));
    assert!(found[0].text.ends_with("is live, but Packing does not wait for it"), "{found:?}");
    let single = |db: &Connection| {
        assert_eq!(db.execute("DELETE FROM task WHERE id > 100", []).expect("edited"), 1);
    };
    let world = world.restart_on(single).await;
    let rested = world.sector(1, |sector| sector.tasks.len() == 1).await;
    assert_eq!(alerts(&world, |_, audits| audits > 0).await, [], "{rested:?}");
}

/// A worker that does everything, and a sector of its whose Commit2 is not done yet.
async fn committing() -> (World, Arc<FakeWorker>, Taken) {
    let world = world().await;
    let worker = FakeWorker::new(Plan { name: "W", seed: 3, tasks: ALL, stores: true, sealyard: true });
    world.join(&worker).await;
    worker.script("C2", Behaviour::Hold);
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    let call = worker.call_of("C2").await;
    (world, worker, call)
}

/// The alert of the sector that waits for its cache, which says where it is looked for.
async fn waits_for_cache(world: &World, place: &str) {
    let found = alerts(world, |alerts, _| !alerts.is_empty()).await;
    assert_eq!((found.len(), found[0].subject.as_str()), (1, "1"), "{found:?}");
    assert!(found[0].text.starts_with("FinalizeSector waits for the cache file: "), "{found:?}");
    assert!(found[0].text.contains(place), "{place}: {found:?}");
}

#[tokio::test]
async fn a_sector_that_waits_long_for_a_file_of_a_path_that_is_away_is_an_alert_until_it_is_back() {
    let (world, worker, call) = committing().await;
    let files = world.api.storage_find(SECTOR, FileTypes::CACHE, None).await.expect("asked");
    let world = world.restart().await;
    // It returns its result before this manager has heard of its paths.
    *worker.manager.lock().expect("no panic elsewhere") = Some(world.api.clone());
    worker.finish(&call).await;
    waits_for_cache(&world, &format!("it lay in path {}, which is not back", files[0].id)).await;
    world.join(&worker).await;
    worker.declare(SECTOR, FileTypes::SEALED | FileTypes::CACHE).await;
    world.sector(1, |sector| sector.state == "Proving").await;
    assert_eq!(alerts(&world, |alerts, _| alerts.is_empty()).await, []);
}

/// Waits until the alert says this, and gives the time since which it stands.
async fn stands_since(world: &World, place: &str) -> u64 {
    let says = |alerts: &[AlertView]| alerts.first().is_some_and(|alert| alert.text.contains(place));
    alerts(world, |alerts, _| says(alerts)).await[0].since_ms
}

#[tokio::test]
async fn a_file_that_is_in_no_path_that_is_known_is_an_alert_too() {
    let (world, worker, call) = committing().await;
    for holder in world.api.storage_find(SECTOR, FileTypes::CACHE, None).await.expect("asked") {
        world.api.storage_drop(holder.id, SECTOR, FileTypes::CACHE).await.expect("dropped");
    }
    worker.finish(&call).await;
    waits_for_cache(&world, "every path that is known is here, and none has it").await;
    // It is the same alert whatever becomes of other paths meanwhile.
    let since_ms = stands_since(&world, "every path that is known is here").await;
    let stat = FsStat { capacity: 1 << 40, available: 1 << 39, fs_available: 1 << 39, ..FsStat::default() };
    for (error, place) in [
        (Some("it hangs".to_owned()), "not here, or not healthy, are "),
        (None, "every path that is known is here"),
    ] {
        let report = HealthReport { stat, error };
        world.api.storage_report_health(worker.sealing.clone(), report).await.expect("reported");
        assert_eq!(stands_since(&world, place).await, since_ms, "{place}");
    }
    let world = world.restart().await;
    waits_for_cache(&world, "no path that is here has it; not here, or not healthy, are ").await;
}

/// How long silence is borne here.
const SOON: &str = "[Scheduler]\nForgetLostAfter = \"300ms\"\n";
const FIRST_HALF: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];

/// A worker A that holds PreCommit1 of sector 1.
async fn labelling(config: &str, sealyard: bool) -> (World, Arc<FakeWorker>, Taken) {
    let world = world_with(config).await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: FIRST_HALF, stores: false, sealyard });
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    let taken = a.call_of("PC1").await;
    world.sector(1, |sector| sector.tasks.iter().any(|task| task.state == "running")).await;
    (world, a, taken)
}

/// The alert of sector 1.
async fn alert(world: &World) -> String {
    let found = alerts(world, |alerts, _| !alerts.is_empty()).await;
    assert_eq!(
        (found.len(), found[0].system.as_str(), found[0].subject.as_str()),
        (1, "sectors", "1"),
        "{found:?}"
    );
    found[0].text.clone()
}

/// It cannot be forgotten, for it may come back and return what it has; so somebody has to look.
#[tokio::test]
async fn a_lotus_worker_that_is_lost_for_long_is_an_alert_of_its_sector_until_it_answers() {
    let (world, a, taken) = labelling(SOON, false).await;
    assert_eq!(alerts(&world, |_, audits| audits > 0).await, []);
    a.set_silent(true);
    let (text, attempt) = (alert(&world).await, world.sector(1, |_| true).await.tasks[1].attempt);
    assert!(
        text.contains("is on Lotus worker A, which has neither answered nor registered for 0 s"),
        "{text}"
    );
    assert!(text.contains(&format!("`sealyard sealing abort {attempt}`")), "{text}");
    a.set_silent(false);
    assert_eq!(alerts(&world, |alerts, _| alerts.is_empty()).await, []);
    a.finish(&taken).await;
    world.sector(1, |sector| sector.state == "PreCommit2").await;
}

/// One that a restarted manager cannot dial is the same; and what an operator gave up there holds the sector's next attempt up.
#[tokio::test]
async fn what_is_left_with_a_lotus_worker_that_does_not_come_back_is_an_alert_until_an_operator_ends_it() {
    let (world, a, _taken) = labelling(SOON, false).await;
    let attempt = world.sector(1, |_| true).await.tasks[1].attempt;
    a.set_silent(true);
    let world = world.restart().await;
    assert!(alert(&world).await.contains("is on Lotus worker A"));
    let subject = || attempt.to_string().parse().expect("an attempt");
    let outcome = world.operator.abort(subject(), "root@here".to_owned()).await.expect("given up").outcome;
    assert_eq!(outcome, AbortOutcome::Detached);
    world.sector(1, |sector| sector.state == "SealPreCommit1Failed").await;
    // A sector that waits for its operator is held up by nothing.
    assert_eq!(alerts(&world, |alerts, _| alerts.is_empty()).await, []);
    world.api.retry_sector(SECTOR.number.into()).await.expect("tried again");
    let text = alert(&world).await;
    assert!(
        text.contains(&format!(
            "waits for the end of attempt {attempt}, which was given up, on Lotus worker A"
        )),
        "{text}"
    );
    let outcome = world.operator.abort(subject(), "root@here".to_owned()).await.expect("ended").outcome;
    assert_eq!(outcome, AbortOutcome::Fenced);
    assert_eq!(alerts(&world, |alerts, _| alerts.is_empty()).await, []);
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: FIRST_HALF, stores: false, sealyard: true });
    world.join(&b).await;
    b.declare(SECTOR, FileTypes::UNSEALED).await;
    world.sector(1, |sector| sector.state == "PreCommit2").await;
}
