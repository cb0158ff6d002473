//! How many state changes of tasks a second become durable when 256 submitters wait for each of theirs.
//!
//! Every submitter takes one sector after another through its tasks, as the driver does: a task is submitted, bound with its
//! promised room, accepted by its worker, and returned, whereupon the sector steps and its next task is submitted. Each
//! change waits for its commit. The disk's own fsync is timed right before and after.
//!
//! Submitters who wait for their change before they ask for the next one wait as long, on average, as their number divided by the
//! rate: 256 at 100 k/s wait 2.6 ms, however fast the disk is. A p99 of three quick fsyncs (0.2 ms each) needs 400 k/s.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use manager::state::{
    AttemptOutcome, CallStage, MinerIdentity, ReservedSpace, State, StateEvent, TaskOutcome,
};
use sealtasks::{
    ActorId, AttemptId, CallId, FileTypes, RegisteredSealProof, SectorId, SectorRef, SectorSize, StorageId,
    TaskId, TaskType, WorkerId,
};
use uuid::Uuid;

use crate::{Size, quantile, verdict};

const LEAST: f64 = 100_000.0;
/// Of a change's wait to the disk's slowest fsyncs.
const P99_MOST: f64 = 3.0;
const SUBMITTERS: u64 = 256;
const TASKS: [(TaskType, &str); 4] = [
    (TaskType::AddPiece, "AP"),
    (TaskType::PreCommit1, "PC1"),
    (TaskType::PreCommit2, "PC2"),
    (TaskType::Commit1, "C1"),
];
/// Queued, dispatching, running, done.
const CHANGES: u64 = 4;
const SYNCS: usize = 300;

pub(crate) fn table(size: Size) {
    let (sectors, alone) = if size == Size::Quick { (512, 2) } else { (64_000, 100) };
    let dir =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let before = syncs(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (rate, waits, batches) = runtime.block_on(run(&dir.path().join("many"), SUBMITTERS, sectors));
    let (one, _, _) = runtime.block_on(run(&dir.path().join("one"), 1, alone));
    let after = syncs(dir.path());
    let mut syncs = [before, after].concat();
    syncs.sort_by(f64::total_cmp);
    let (p50, p99) = (quantile(&syncs, 0.5), quantile(&syncs, 0.99));
    println!("the disk's fdatasync of 4 KiB          p50 {p50:.3} ms   p99 {p99:.3} ms");
    let fine = verdict(rate >= LEAST);
    println!("{SUBMITTERS} submitters                  {:.1} k changes/s   >= 100 k/s   {fine}", rate / 1e3);
    println!("    {batches:.0} changes a transaction on average");
    let (wait50, wait99) = (quantile(&waits, 0.5), quantile(&waits, 0.99));
    println!("    a change waits                  p50 {wait50:.3} ms   p99 {wait99:.3} ms");
    let fine = verdict(wait99 <= P99_MOST * p99);
    println!("    its p99 to that of an fdatasync {:.2} times   <= {P99_MOST} times   {fine}", wait99 / p99);
    println!(
        "one submitter, a sync for each        {:.1} k changes/s ({:.1} times fewer)",
        one / 1e3,
        rate / one
    );
}

/// Milliseconds of each fdatasync after 4 KiB were appended.
fn syncs(dir: &Path) -> Vec<f64> {
    let mut file = std::fs::File::create(dir.join("syncs")).expect("a file");
    let page = [7_u8; 4096];
    let mut once = || {
        file.write_all(&page).expect("room");
        let begun = Instant::now();
        file.sync_data().expect("synced");
        millis(begun.elapsed())
    };
    (0..SYNCS).map(|_| once()).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Changes a second, how long each waited in milliseconds, sorted, and how many went into one transaction.
async fn run(dir: &Path, submitters: u64, sectors: u64) -> (f64, Vec<f64>, f64) {
    std::fs::create_dir(dir).expect("a new directory");
    let file = dir.join("state.db");
    let (actor, sector_size) = (ActorId::new(1000), SectorSize::GiB32);
    let miner = MinerIdentity { actor, sector_size, beacon: [7; 32], chain: None };
    State::create(&file, &miner).expect("a new database");
    let state = State::open(&file).expect("it opens");
    let (next_sector, next_task) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(1)));
    let begun = Instant::now();
    let lives: Vec<_> = (0..submitters)
        .map(|_| {
            let mut life = Life { state: state.clone(), next_task: next_task.clone(), waits: Vec::new() };
            let next_sector = next_sector.clone();
            tokio::spawn(async move {
                loop {
                    let number = next_sector.fetch_add(1, Ordering::Relaxed);
                    if number > sectors {
                        return life.waits;
                    }
                    life.seal(SectorId::new(1000, number)).await;
                }
            })
        })
        .collect();
    let mut waits = Vec::new();
    for life in lives {
        waits.extend(life.await.expect("a submitter that ends well"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let changes = sectors * TASKS.len() as u64 * CHANGES;
    waits.sort_by(f64::total_cmp);
    (changes as f64 / seconds, waits, changes as f64 / state.batches() as f64)
}

/// One submitter.
struct Life {
    state: State,
    next_task: Arc<AtomicU64>,
    waits: Vec<f64>,
}

impl Life {
    async fn commit(&mut self, events: Vec<StateEvent>) {
        let begun = Instant::now();
        self.state.commit(events).await.expect("committed");
        self.waits.push(millis(begun.elapsed()));
    }

    async fn seal(&mut self, id: SectorId) {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
        let sector = SectorRef { id, proof };
        let record = serde_json::json!({ "sector": sector, "state": "AddPiece" });
        let pledged =
            StateEvent::SectorPledged { sector, state: "AddPiece".to_owned(), record: record.clone() };
        let mut before = vec![pledged];
        for (task_type, step) in TASKS {
            let task = TaskId::new(self.next_task.fetch_add(1, Ordering::Relaxed));
            before.push(StateEvent::TaskSubmitted { task, sector, task_type, step: step.to_owned() });
            self.commit(std::mem::take(&mut before)).await;
            let attempt = AttemptId { task, attempt: 1 };
            self.commit(vec![bound(attempt)]).await;
            let call = CallId { sector: id, id: Uuid::from_u64_pair(id.number.get(), task.get()) };
            self.commit(vec![StateEvent::CallAccepted { attempt, call, stage: CallStage::Work }]).await;
            self.commit(done(attempt, call)).await;
            before.push(StateEvent::SectorStepped {
                sector: id,
                state: step.to_owned(),
                text: format!("{step} done, now {step}"),
                event: serde_json::json!({ "event": "task_done" }),
                record: record.clone(),
            });
        }
    }
}

fn bound(attempt: AttemptId) -> StateEvent {
    let worker = attempt.task.get() % 16;
    let path = StorageId::from(Uuid::from_u64_pair(worker, 2));
    StateEvent::AttemptBound {
        attempt,
        worker: WorkerId(Uuid::from_u64_pair(worker, 1)),
        name: format!("worker-{worker}"),
        url: format!("http://10.0.0.{worker}:3456/rpc/v0"),
        peer: "sealyard".to_owned(),
        reservations: vec![ReservedSpace { path, types: FileTypes::UNSEALED, bytes: 32 << 30 }],
    }
}

fn done(attempt: AttemptId, call: CallId) -> Vec<StateEvent> {
    let stage = CallStage::Work;
    let returned =
        StateEvent::CallReturned { attempt, call, stage, error: None, work_ms: 10, bytes_fetched: 0 };
    let reason = String::new();
    vec![
        returned,
        StateEvent::AttemptEnded { attempt, outcome: AttemptOutcome::Done, reason: reason.clone() },
        StateEvent::TaskEnded { task: attempt.task, outcome: TaskOutcome::Done, reason },
    ]
}
