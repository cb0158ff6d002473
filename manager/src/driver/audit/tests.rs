//! Each way in which nothing may carry a sector on, held against a real driver. A database cannot be edited into most of
//! them, for a start mends it.

use std::sync::Arc;

use async_trait::async_trait;
use rpc::Trust;
use rpc::api::PledgeOptions;
use sealtasks::{ActorId, FileType, SectorRef, SectorSize, TaskId, VerifyInput};

use super::super::Driver;
use super::super::input::{Busy, Sector};
use super::Task;
use crate::{
    ChainChoice, InitOptions, Manager, ManagerHandle, ManagerOptions, Repo, RpcDialer, Timing, Verifier,
};

/// Nothing is proven here.
struct Unasked;

#[async_trait]
impl Verifier for Unasked {
    async fn verify(&self, _sector: SectorRef, _input: VerifyInput) -> Result<bool, String> {
        Err("nothing is verified here".to_owned())
    }
}

/// A manager with one sector, whose first task waits for a worker.
async fn waiting(repo: &std::path::Path) -> ManagerHandle {
    Repo::init(repo, InitOptions::new(ActorId::new(1000), SectorSize::KiB2)).expect("a new repo");
    let options = ManagerOptions {
        repo: Repo::open(repo).expect("the repo is free"),
        chain: ChainChoice::Offline,
        remote_urls: Vec::new(),
        advertised: None,
        software: "sealyard test".to_owned(),
        verifier: Arc::new(Unasked),
        dialer: Arc::new(RpcDialer { trust: Trust::system() }),
        trust: Trust::system(),
        timing: Timing::default(),
        begun: Vec::new(),
    };
    let handle = Manager::start(options).await.expect("the manager starts");
    handle.api().pledge(PledgeOptions::default()).await.expect("a pledge");
    handle
}

/// What the audit says of the sector if it waited for this.
fn said(driver: &Driver, busy: Busy, own: &[TaskId]) -> Option<String> {
    let (id, known) = driver.sectors.first_key_value().expect("a sector");
    let sector = Sector {
        record: known.record.clone(),
        wanted: None,
        busy,
        priority: 0,
        steps: 0,
        released: false,
        not_proven: false,
        leave_ms: 0,
        emptied: false,
    };
    driver.carried(*id, &sector, own, &driver.places_taken()).err()
}

/// A task that the scheduler was never given.
fn unknown(driver: &Driver, held_back: bool) -> Task {
    let known = driver.tasks.values().next().expect("a task");
    Task {
        id: TaskId::new(999),
        sector: known.sector,
        work: known.work.clone(),
        queued_ms: 0,
        attempts: 0,
        refusals: 0,
        disowned: 0,
        priority: None,
        held_back,
        in_line: None,
        turn: None,
        open: None,
    }
}

#[tokio::test]
async fn whatever_should_carry_a_sector_on_and_does_not_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let handle = waiting(&dir.path().join("repo")).await;
    let look = |driver: &Driver| {
        let task = *driver.tasks.keys().next().expect("a task");
        assert_eq!(said(driver, Busy::Task(task), &[task]), None, "as it is, all is well");
        assert_eq!(said(driver, Busy::File(FileType::Cache), &[]), None, "the index tells");
        let nobody = unknown(driver, true);
        let never_given = unknown(driver, false);
        let refused = |refusals| Task { id: task, refusals, ..unknown(driver, false) };
        assert_eq!(driver.is_live(&refused(9)), Ok(()), "somebody may take it yet");
        [
            (said(driver, Busy::Task(TaskId::new(999)), &[]), "waits for task 999, which is not there"),
            (said(driver, Busy::Task(TaskId::new(999)), &[task]), "is live, but"),
            (said(driver, Busy::Free, &[task]), "is live, but"),
            (said(driver, Busy::Free, &[]), "is to go on, and nothing is under way"),
            (said(driver, Busy::Until(5), &[]), "waits for a timer at 5 ms, which is not set"),
            (said(driver, Busy::Asking, &[]), "waits for an answer that nobody is going to give"),
            (said(driver, Busy::Stage, &[]), "waits for a place, and there is one"),
            (driver.is_live(&nobody).err(), "is held back, and nobody holds it"),
            (driver.is_live(&refused(10)).err(), "could not be started 10 times in a row"),
            (driver.is_live(&never_given).err(), "waits, and the scheduler does not know it"),
        ]
    };
    for (found, expected) in handle.service.view(look).await.expect("a look") {
        assert!(found.as_deref().is_some_and(|text| text.contains(expected)), "{expected}: {found:?}");
    }
    handle.stop().await;
}
