//! How soon a manager is itself again after kill -9.
//!
//! A repo is made with a million sectors that each have one queued task (half wait for AddPiece, half for PreCommit1) and an
//! index of ten million files. A manager on it, a process of its own, is killed once it has placed tasks; the next one is
//! timed from its start until it calls its worker for the first time, and until it knows everything that it knew.
//!
//! `--repo DIR`: the repo is made there if nothing is there, and stays.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manager::state::{State, StateEvent};
use manager::{ChainChoice, InitOptions, Repo, Timing};
use pieces::commitment::zero_commitment;
use pipeline::{RandomnessSource, SectorEvent, SectorRecord, Step};
use rpc::WorkerApi;
use sealtasks::{
    ActorId, ChainEpoch, FileTypes, FsStat, PieceInfo, RegisteredSealProof, SectorDecl, SectorId, SectorRef,
    SectorSize, StorageId, StorageInfo, StorageStanza, TaskId, TaskInput, TaskOutput, Ticket,
    UnpaddedPieceSize,
};
use stores::{Index as _, MemIndex, write_snapshot};
use uuid::Uuid;

use crate::world::fake_worker::{Behaviour, FakeWorker, Plan};
use crate::world::{ALL, start_timed};
use crate::{Size, verdict};

const PLACED_MOST: Duration = Duration::from_secs(2);
const WHOLE_MOST: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// What a child process is asked for by.
pub(crate) const CHILD: &str = "restart-child";
const SEED: u64 = 1;
/// Sectors in one commit while the repo is made.
const PER_COMMIT: u64 = 2_000;
/// Paths that the index's files lie in.
const PATHS: u64 = 100;

/// How much there is.
struct Amount {
    tasks: u64,
    files: u64,
}

pub(crate) fn table(size: Size, repo: Option<PathBuf>) {
    let amount = match size {
        Size::Quick => Amount { tasks: 200, files: 2_000 },
        Size::Whole => Amount { tasks: 1_000_000, files: 10_000_000 },
    };
    let made =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let repo = repo.unwrap_or_else(|| made.path().join("repo"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if !repo.exists() {
        let begun = Instant::now();
        runtime.block_on(make(&repo, &amount));
        println!("made in {:.1} s", begun.elapsed().as_secs_f64());
    }
    drop(runtime);
    println!("{} queued tasks, {} indexed files; after kill -9", amount.tasks, amount.files);
    let mut first = run(&repo);
    first.until_whole();
    let (mut placed, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // SIGKILL; the lock on the repo goes with the process.
        first.0.kill().expect("killed");
        first.0.wait().expect("gone");
        let begun = Instant::now();
        first = run(&repo);
        let (at_placed, at_whole) = first.until_whole();
        placed.push(at_placed.duration_since(begun));
        whole.push(at_whole.duration_since(begun));
    }
    first.0.kill().expect("killed");
    first.0.wait().expect("gone");
    row("until a worker is called", &mut placed, PLACED_MOST);
    row("until all is known", &mut whole, WHOLE_MOST);
}

fn row(name: &str, times: &mut [Duration], most: Duration) {
    times.sort();
    let middle = times[times.len() / 2];
    let all: Vec<_> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    println!(
        "    {name:<28} {:.2} s (of {})   <= {} s   {}",
        middle.as_secs_f64(),
        all.join(", "),
        most.as_secs(),
        verdict(middle <= most)
    );
}

/// A manager in a process of its own.
struct Manager(Child);

fn run(repo: &Path) -> Manager {
    let own = std::env::current_exe().expect("this program");
    let child = Command::new(own).arg(CHILD).arg(repo).stdout(Stdio::piped()).spawn().expect("a child");
    Manager(child)
}

impl Manager {
    /// When it first called a worker, and when it knew everything.
    fn until_whole(&mut self) -> (Instant, Instant) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().expect("piped")).lines();
        let (mut placed, mut whole) = (None, None);
        while placed.is_none() || whole.is_none() {
            let line = lines.next().expect("it says more").expect("text");
            match line.as_str() {
                "placed" => placed = Some(Instant::now()),
                "whole" => whole = Some(Instant::now()),
                _ => println!("    {line}"),
            }
        }
        (placed.expect("just seen"), whole.expect("just seen"))
    }
}

/// The child's life; it ends by being killed.
pub(crate) fn child(repo: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let handle = start_timed(repo, &Arc::default(), ChainChoice::Offline, Timing::default()).await;
        let handle = handle.expect("the manager starts");
        let worker =
            FakeWorker::new(Plan { name: "own", seed: SEED, tasks: ALL, stores: true, sealyard: true });
        (0..1000)
            .for_each(|_| ["AP", "PC1", "GET"].iter().for_each(|code| worker.script(code, Behaviour::Hold)));
        worker.serve(handle.api()).await;
        let own: Arc<dyn WorkerApi> = worker.clone();
        handle.add_local_worker(own).await.expect("registered");
        worker.next_call().await;
        println!("placed");
        handle.recovered().await;
        println!("whole");
        std::future::pending::<()>().await;
    });
}

async fn make(repo: &Path, amount: &Amount) {
    Repo::init(repo, InitOptions::new(ActorId::new(1000), SectorSize::GiB32)).expect("a new repo");
    let state = State::open(&repo.join("state.db")).expect("the state");
    for first in (1..=amount.tasks).step_by(PER_COMMIT as usize) {
        let last = (first + PER_COMMIT - 1).min(amount.tasks);
        state.commit((first..=last).flat_map(queued).collect()).await.expect("committed");
    }
    drop(state);
    let index = MemIndex::new(Arc::new(|| 0));
    // Each sector has three files in one path; the first ones are also the queued ones.
    let sectors = amount.files / 3;
    for path in 0..PATHS {
        let id = StorageId::from(Uuid::from_u64_pair(1 << 32, path));
        let stanza = StorageStanza { weight: 10, can_store: true, ..StorageStanza::default() };
        let info = StorageInfo { id: id.clone(), urls: vec!["http://127.0.0.1:9/remote".to_owned()], stanza };
        index.attach(info, FsStat::default()).await.expect("attached");
        let types = FileTypes::UNSEALED | FileTypes::SEALED | FileTypes::CACHE;
        // Beyond the queued sectors, which have none but what they wait for.
        let files: Vec<_> = (path..sectors)
            .step_by(PATHS as usize)
            .map(|at| (SectorDecl { sector: SectorId::new(1000, amount.tasks + 1 + at), types }, true))
            .collect();
        index.declare_batch(&id, &files).await.expect("declared");
    }
    write_snapshot(&index, &repo.join("index.snapshot")).expect("written");
}

/// A sector and its task.
fn queued(number: u64) -> [StateEvent; 2] {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
    let sector = SectorRef { id: SectorId::new(1000, number), proof };
    let mut record = SectorRecord::pledge(sector, None, RandomnessSource::Offline);
    if number.is_multiple_of(2) {
        let size = UnpaddedPieceSize::whole_sector(SectorSize::GiB32).padded();
        let piece = PieceInfo::new(size, zero_commitment(size));
        record
            .apply(SectorEvent::TaskDone { output: TaskOutput::AddPiece(piece), now_ms: 1 })
            .expect("it takes a piece");
        while matches!(record.next(), Step::Proceed) {
            record.apply(SectorEvent::Proceed).expect("it goes on");
        }
        let (ticket, epoch) = (Ticket([7; 32]), ChainEpoch::new(1));
        record.apply(SectorEvent::TicketReady { ticket, epoch }).expect("it takes a ticket");
    }
    let Step::Run(work) = record.next() else { panic!("{:?} is no task", record.next()) };
    let step = if matches!(work, TaskInput::AddPiece(_)) { "AP" } else { "PC1" };
    let json = serde_json::to_value(&record).expect("JSON");
    let task_type = work.task_type().expect("a scheduled task");
    let state = record.state().name().to_owned();
    [
        StateEvent::SectorPledged { sector, state, record: json },
        StateEvent::TaskSubmitted { task: TaskId::new(number), sector, task_type, step: step.to_owned() },
    ]
}
