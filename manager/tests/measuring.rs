//! What workers are measured at, on a running manager with fake workers.

mod world;

use manager::state::Throughput;
use rpc::api::PledgeOptions;
use sealtasks::TaskType;
use serde_json::json;
use world::fake_worker::{Behaviour, FETCHED, FakeWorker, Plan};
use world::world;

const FIRST: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1];
const SECOND: &[TaskType] =
    &[TaskType::PreCommit2, TaskType::Commit1, TaskType::Commit2, TaskType::Finalize, TaskType::Fetch];

#[tokio::test]
async fn work_and_fetches_are_measured_by_name_and_told_of_a_worker_s_next_life() {
    let world = world().await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: FIRST, stores: false, sealyard: true });
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: SECOND, stores: true, sealyard: true });
    world.join(&a).await;
    world.join(&b).await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    world.sector(1, |sector| sector.state == "Proving").await;

    let measures = world.handle.state().measures().await.expect("measures");
    let kinds = |name: &str| measures[name].durations.keys().map(|(task, _)| *task).collect::<Vec<_>>();
    assert_eq!(kinds("A"), FIRST);
    assert_eq!(kinds("B"), SECOND, "the move counts as a fetch, which is what it is scheduled as");
    // A fake worker says of all it does that it took a millisecond.
    assert!(measures["A"].durations.values().all(|duration| duration.mean_ms == 1));
    assert_eq!(measures["A"].throughput, Throughput::default());
    // What PreCommit2 and the move were made from.
    assert_eq!(measures["B"].throughput, Throughput { bytes: 2 * FETCHED, millis: 2 });

    let world = world.restart().await;
    world.join(&b).await;
    let overview = world.api.overview().await.expect("an overview");
    let [view] = overview.workers.as_slice() else { panic!("{:?}", overview.workers) };
    assert_eq!(view.fetches_bytes_per_second, FETCHED * 1000);
    let pc2 = view.durations.iter().find(|duration| duration.task == TaskType::PreCommit2).expect("PC2");
    assert_eq!((pc2.count, pc2.mean_ms, pc2.size.to_string().as_str()), (1, 1, "2KiB"));

    // What was measured before is what the scheduler expects now.
    a.script("PC1", Behaviour::Hold);
    world.join(&a).await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    let taken = std::iter::repeat_with(|| a.call_of("PC1"));
    for call in taken {
        if call.await.call.sector.number.get() == 2 {
            break;
        }
    }
    let told = world.api.why("2".parse().expect("a sector")).await.expect("an explanation");
    let takes = &told.task.expect("a task").scheduler["takes"];
    assert_eq!(*takes, json!({ "millis": 1, "source": "worker" }));
}

#[tokio::test]
async fn a_lotus_worker_is_measured_by_when_it_answered_and_returned() {
    let world = world().await;
    let all: &[TaskType] = &[TaskType::AddPiece, TaskType::PreCommit1, TaskType::PreCommit2];
    let lotus = FakeWorker::new(Plan { name: "L", seed: 3, tasks: all, stores: false, sealyard: false });
    world.join(&lotus).await;
    world.api.pledge(PledgeOptions::default()).await.expect("a sector");
    world.sector(1, |sector| sector.comm_r.is_some()).await;
    let measures = world.handle.state().measures().await.expect("measures");
    let counts: Vec<_> = measures["L"].durations.values().map(|duration| duration.count).collect();
    assert_eq!(counts, [1, 1, 1]);
    assert!(measures["L"].durations.values().all(|duration| duration.mean_ms >= 1));
    assert_eq!(measures["L"].throughput, Throughput::default(), "what it fetched it does not say");
}
