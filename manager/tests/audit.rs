//! The audit: a sector with more than the one thing that carries it on, or none, is an alert until that is over. It is made by
//! editing the database of a stopped manager: what lacks its task there is given one at the start, and what does not fit is refused.

mod world;

use rpc::api::PledgeOptions;
use rpc::extension::AlertView;
use rusqlite::Connection;
use world::{World, world};

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
