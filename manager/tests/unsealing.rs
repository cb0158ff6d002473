//! The piece provider's tasks: one shared job for each sector, refusals at once where it can never be, what a failure and
//! a restart leave. The fake worker makes no files, so nothing is ever unsealed here.

mod world;

use std::sync::Arc;

use futures_util::StreamExt as _;
use rpc::UnsealApi;
use rpc::unsealing::{PieceWish, UnsealState, UnsealView, UnsealWish};
use sealtasks::{
    Commitment, FileTypes, FsStat, HealthReport, RegisteredSealProof, ReleaseUnsealedInput, SectorId,
    SectorNumber, SectorRef, SectorSize, TaskInput, TaskType, Ticket, UnsealedCid, UnsealedRange,
};
use world::fake_worker::{Behaviour, FakeWorker, Plan};
use world::{LIMIT, World, world};

const SEALING: &[TaskType] = &[
    TaskType::AddPiece,
    TaskType::PreCommit1,
    TaskType::PreCommit2,
    TaskType::Commit1,
    TaskType::Commit2,
    TaskType::Finalize,
    TaskType::Fetch,
];
const UNSEALING: &[TaskType] = &[TaskType::Unseal, TaskType::FinalizeUnsealed, TaskType::Fetch];
const ONE: SectorNumber = SectorNumber::new(1);

/// A finished sector without unsealed data, and nobody who unseals.
async fn sealed() -> World {
    let world = world().await;
    let a = FakeWorker::new(Plan { name: "A", seed: 1, tasks: SEALING, stores: true, sealyard: true });
    world.join(&a).await;
    world.api.pledge_sector().await.expect("a pledge");
    world.sector(1, |sector| sector.state == "Proving").await;
    // The fake worker obeys a deletion, and does not tell the index.
    let unsealed = sealtasks::FileTypes::UNSEALED;
    for path in world.api.storage_find(sector_id(), unsealed, None).await.expect("found") {
        world.api.storage_drop(path.id, sector_id(), unsealed).await.expect("dropped");
    }
    world
}

async fn with_unsealer(behaviour: Behaviour) -> (World, Arc<FakeWorker>) {
    let world = sealed().await;
    let b = FakeWorker::new(Plan { name: "B", seed: 2, tasks: UNSEALING, stores: false, sealyard: true });
    b.script("UNS", behaviour);
    world.join(&b).await;
    (world, b)
}

/// The state once nothing is under way.
async fn ended(api: &Arc<dyn UnsealApi>) -> UnsealView {
    let wait = async {
        loop {
            let view = api.unseal_state(ONE.into()).await.expect("a known sector");
            if view.state != UnsealState::UnderWay {
                return view;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it ends")
}

fn wish(unseal: bool) -> PieceWish {
    PieceWish { sector: ONE.into(), offset: 0, size: Some(127), unseal }
}

#[tokio::test]
async fn what_can_never_be_is_refused_at_once() {
    let world = sealed().await;
    let api = world.handle.unseal_api();
    let error = api.unseal_sector(ONE.into()).await.unwrap_err().to_string();
    assert!(error.contains("MGR085"), "nobody unseals: {error}");
    let error = api.read_piece(wish(true)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR085"), "nor for a reader: {error}");
    let error = api.read_piece(wish(false)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR088"), "a reader who does not wait: {error}");
    let error = api.unseal_sector(SectorNumber::new(9).into()).await.unwrap_err().to_string();
    assert!(error.contains("MGR053"), "no such sector: {error}");
    let error = api.release_unsealed(ONE.into(), vec![]).await.unwrap_err().to_string();
    assert!(error.contains("MGR084"), "nothing to release: {error}");
    assert!(!api.is_unsealed(ONE.into(), 0..127).await.expect("an answer"));
    assert!(api.is_unsealed(ONE.into(), 0..4096).await.is_err(), "not within the sector");
    // Its replica is where nobody can read it.
    for path in world.api.storage_find(sector_id(), replica(), None).await.expect("found") {
        let report = HealthReport { stat: FsStat::default(), error: Some("the mount hangs".to_owned()) };
        world.api.storage_report_health(path.id, report).await.expect("reported");
    }
    let error = api.unseal_sector(ONE.into()).await.unwrap_err().to_string();
    assert!(error.contains("MGR148"), "{error}");
    // Its replica is gone.
    for path in world.api.storage_find(sector_id(), replica(), None).await.expect("found") {
        world.api.storage_drop(path.id, sector_id(), replica()).await.expect("dropped");
    }
    let error = api.unseal_sector(ONE.into()).await.unwrap_err().to_string();
    assert!(error.contains("MGR081"), "{error}");
    assert_eq!(ended(&api).await.state, UnsealState::NotUnsealed);
}

fn sector_id() -> sealtasks::SectorId {
    sealtasks::SectorId::new(1000, 1)
}

fn replica() -> sealtasks::FileTypes {
    sealtasks::FileTypes::SEALED | sealtasks::FileTypes::CACHE
}

#[tokio::test]
async fn all_who_want_a_sector_share_one_task() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    let first = api.unseal_sector(ONE.into()).await.expect("a task");
    let second = api.unseal_sector(ONE.into()).await.expect("the same task");
    assert_eq!((first.state, first.task), (UnsealState::UnderWay, second.task));
    let mut reader = Box::pin(api.read_piece(wish(true)));
    tokio::select! {
        biased;
        result = &mut reader => panic!("{:?}", result.map(drop)),
        view = joined(&api) => assert_eq!(view.task, first.task),
    }
    let taken = b.call_of("UNS").await;
    let TaskInput::Unseal(input) = &taken.work else { panic!("{taken:?}") };
    assert_eq!((input.range.offset.get(), input.range.size), (0, 2032), "the whole sector");
    b.finish(&taken).await;
    let done = UnsealView { sector: ONE.into(), done: first.task, ..UnsealView::default() };
    assert_eq!(ended(&api).await, done);
    // The fake worker made no file, and whoever waited to read is told so rather than left waiting.
    let error = tokio::time::timeout(LIMIT, reader).await.expect("told").map(drop).unwrap_err();
    assert!(error.to_string().contains("MGR089"), "{error}");
    let again = api.unseal_sector(ONE.into()).await.expect("another task");
    assert_ne!(again.task, first.task);
    // The sector itself has gone nowhere.
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_failure_is_told_to_all_and_the_sector_stays_as_it_is() {
    let (world, _b) = with_unsealer(Behaviour::Fail(0)).await;
    let api = world.handle.unseal_api();
    let error = api.read_piece(wish(true)).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("MGR089") && error.contains("it failed"), "{error}");
    let view = ended(&api).await;
    assert_eq!(view.state, UnsealState::Failed);
    assert!(view.error.is_some_and(|error| error.contains("it failed")));
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn readers_who_have_gone_keep_nobody_out() {
    let (world, _b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    let begun = api.unseal_sector(ONE.into()).await.expect("a task");
    for _ in 0..1030 {
        // Joins, since the driver answers whoever came before it first, and goes.
        let mut reader = Box::pin(api.read_piece(wish(true)));
        tokio::select! {
            biased;
            result = &mut reader => panic!("{:?}", result.map(drop)),
            view = async { tokio::task::yield_now().await; joined(&api).await } => assert_eq!(view.task, begun.task),
        }
    }
    let mut reader = Box::pin(api.read_piece(wish(true)));
    tokio::select! {
        biased;
        result = &mut reader => panic!("{:?}", result.map(drop)),
        _ = joined(&api) => {}
    }
}

/// A state that was asked for once all that were asked before it were answered.
async fn joined(api: &Arc<dyn UnsealApi>) -> UnsealView {
    let mut view = api.unseal_state(ONE.into()).await.expect("known");
    for _ in 0..8 {
        view = api.unseal_state(ONE.into()).await.expect("known");
    }
    view
}

#[tokio::test]
async fn data_of_a_sector_that_is_still_being_sealed_is_kept() {
    let world = world().await;
    world.api.pledge_sector().await.expect("a pledge");
    let api = world.handle.unseal_api();
    let error = api.release_unsealed(ONE.into(), vec![]).await.unwrap_err().to_string();
    assert!(error.contains("MGR110") && error.contains("still being sealed"), "{error}");
}

/// A path of the manager's own with a full unsealed file of the sector.
async fn with_unsealed_file(world: &World) {
    let path = world.dir.path().join("own");
    std::fs::create_dir_all(path.join("unsealed")).expect("a directory");
    std::fs::write(path.join("unsealed/s-t01000-1"), vec![5; 2048]).expect("written");
    let meta = r#"{"ID":"5eb3ba11-8f1a-4c1c-9a2f-0d5b7f1a2c3d","Weight":10,"CanSeal":true,"CanStore":true}"#;
    std::fs::write(path.join("sectorstore.json"), meta).expect("written");
    world.api.storage_add_local(path).await.expect("opened");
}

#[tokio::test]
async fn a_reader_that_reads_no_more_does_not_keep_the_sector_locked() {
    let world = sealed().await;
    with_unsealed_file(&world).await;
    let api = world.handle.unseal_api();
    let wish = PieceWish { sector: ONE.into(), offset: 100, size: Some(1000), unseal: false };
    let whole: Vec<_> = api.read_piece(wish).await.expect("unsealed").parts.collect().await;
    let bytes: usize = whole.iter().map(|part| part.as_ref().expect("a part").len()).sum();
    assert_eq!(bytes, 1000);

    let piece = api.read_piece(wish).await.expect("unsealed");
    let wait = async {
        while !world.api.storage_get_locks().await.expect("locks").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the lock is given back");
    let parts: Vec<_> = piece.parts.collect().await;
    assert!(parts.last().expect("parts").is_err(), "it did not see the end");
}

#[tokio::test]
async fn lotus_callers_must_know_the_sector() {
    let world = sealed().await;
    with_unsealed_file(&world).await;
    let api = world.handle.unseal_api();
    let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
    let wish = UnsealWish {
        sector: SectorRef { id: sector_id(), proof },
        span: 0..2032,
        ticket: None,
        unsealed: None,
    };
    api.unseal_piece(wish.clone()).await.expect("unsealed already");
    let zeros = UnsealedCid::new(Commitment::new([0; 32]));
    let other = RegisteredSealProof::for_new_sector(SectorSize::MiB8);
    let wrong = [
        UnsealWish { sector: SectorRef { proof: other, ..wish.sector }, ..wish.clone() },
        UnsealWish { ticket: Some(Ticket([0xee; 32])), ..wish.clone() },
        UnsealWish { unsealed: Some(zeros), ..wish.clone() },
    ];
    for wish in wrong {
        let error = api.unseal_piece(wish.clone()).await.unwrap_err().to_string();
        assert!(error.contains("MGR112"), "{wish:?}: {error}");
    }
    let foreign = SectorRef { id: SectorId::new(1001, 1), proof };
    let error = api.unseal_piece(UnsealWish { sector: foreign, ..wish }).await.unwrap_err().to_string();
    assert!(error.contains("MGR111"), "{error}");
}

#[tokio::test]
async fn an_operator_ends_it() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    api.unseal_sector(ONE.into()).await.expect("a task");
    let taken = b.call_of("UNS").await;
    world.api.abort_attempt(taken.attempt.expect("a Sealyard worker is told")).await.expect("aborted");
    assert_eq!(ended(&api).await.state, UnsealState::Failed);
    world.sector(1, |sector| sector.state == "Proving").await;
}

#[tokio::test]
async fn a_restarted_manager_goes_on_with_it() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let begun = world.handle.unseal_api().unseal_sector(ONE.into()).await.expect("a task");
    let taken = b.call_of("UNS").await;
    let world = world.restart().await;
    let api = world.handle.unseal_api();
    let view = api.unseal_state(ONE.into()).await.expect("known");
    assert_eq!((view.state, view.task), (UnsealState::UnderWay, begun.task));
    world.join(&b).await;
    b.finish(&taken).await;
    assert_eq!(ended(&api).await.state, UnsealState::NotUnsealed);
    world.sector(1, |sector| sector.state == "Proving").await;
}

/// What is to be kept stands nowhere but in the order.
#[tokio::test]
async fn a_restarted_manager_still_knows_which_data_is_to_be_kept() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    b.script("FUS", Behaviour::Hold);
    b.declare(sector_id(), FileTypes::UNSEALED).await;
    let keep = vec![UnsealedRange { offset: 0.try_into().expect("a multiple of 127"), size: 1016 }];
    let begun = world.handle.unseal_api().release_unsealed(ONE.into(), keep.clone()).await.expect("a task");
    let taken = b.call_of("FUS").await;
    let work = TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep });
    assert_eq!(taken.work, work);
    let world = world.restart().await;
    let api = world.handle.unseal_api();
    let view = api.unseal_state(ONE.into()).await.expect("known");
    assert_eq!((view.state, view.task), (UnsealState::UnderWay, begun.task));
    // Its worker is another one now and starts it anew: with the same ranges.
    let plan = Plan { name: "B", seed: 3, tasks: UNSEALING, stores: false, sealyard: true };
    let next = b.successor(plan);
    next.script("FUS", Behaviour::Hold);
    world.know(&next).await;
    next.declare(sector_id(), FileTypes::UNSEALED).await;
    world.join(&next).await;
    let again = next.call_of("FUS").await;
    assert_eq!((&again.work, again.attempt.map(|attempt| attempt.attempt)), (&work, Some(2)));
    next.finish(&again).await;
    let view = ended(&api).await;
    assert_eq!((view.done, view.error), (begun.task, None));
}

/// As Lotus does: what was unsealed where sectors are sealed is fetched into storage and moved there.
#[tokio::test]
async fn unsealed_data_goes_into_storage_and_nobody_waits_for_that() {
    let (world, b) = with_unsealer(Behaviour::Hold).await;
    let api = world.handle.unseal_api();
    let begun = api.unseal_sector(ONE.into()).await.expect("a task");
    let taken = b.call_of("UNS").await;
    b.declare(sector_id(), FileTypes::UNSEALED).await;
    b.finish(&taken).await;
    let stored = async {
        loop {
            let held = world.api.storage_find(sector_id(), FileTypes::UNSEALED, None).await.expect("found");
            if held.iter().any(|path| path.can_store) {
                return held.len();
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, stored).await.expect("it is moved"), 1, "and lies there alone");
    let view = ended(&api).await;
    assert_eq!((view.done, view.error), (begun.task, None), "the task that unsealed it is what is told");
    world.sector(1, |sector| sector.state == "Proving").await;
}
