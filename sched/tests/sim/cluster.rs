//! Small clusters whose every figure can be worked out by hand.

use sched::sim::{
    Cluster, Engine, Job, JobStage, Report, SealStage, Settings, SimPath, SimWorker, SpanPhase, Speed,
    SplitMix, Trouble, Workload,
};
use sched::{Millis, Options, PathFacts, Sched, WorkerProfile};
use sealtasks::{FileTypes, RegisteredSealProof, SectorId, SectorRef, SectorSize, StorageId, TaskType};

const GIB: u64 = 1 << 30;
const MINUTE: u64 = 60 * 1000;

fn storage(name: &str) -> StorageId {
    name.parse().expect("a good id")
}

fn path(name: &str, tib: u64, can_seal: bool) -> SimPath {
    let facts = PathFacts {
        id: storage(name),
        available: 0,
        covers: Vec::new(),
        healthy: true,
        can_seal,
        can_store: !can_seal,
        weight: 10,
        accepts: FileTypes::ALL,
        allow_miners: Vec::new(),
        deny_miners: Vec::new(),
        groups: Vec::new(),
        allow_to: Vec::new(),
    };
    SimPath { facts, capacity: tib << 40 }
}

fn worker(host: &str, tasks: &[TaskType], paths: &[&str]) -> SimWorker {
    let profile = WorkerProfile {
        host: host.to_owned(),
        tasks: tasks.to_vec(),
        mem_physical: 256 * GIB,
        mem_swap: 64 * GIB,
        cpus: 32,
        gpus: vec!["gpu".to_owned()],
        paths: paths.iter().map(|name| storage(name)).collect(),
        bandwidth: GIB,
        ..WorkerProfile::default()
    };
    SimWorker { profile, bandwidth: GIB, speed: Speed::default() }
}

fn job(number: u64, release: u64, work: &[(SealStage, u64)]) -> Job {
    let proof = RegisteredSealProof::for_new_sector(SectorSize::GiB32);
    let stage = |(stage, minutes): &(SealStage, u64)| JobStage {
        shape: stage.shape(),
        work: Millis::new(minutes * MINUTE),
        gap: Millis::ZERO,
    };
    Job {
        sector: SectorRef { id: SectorId::new(1000, number), proof },
        release: Millis::new(release),
        purpose: None,
        priority: 0,
        wait_limit: None,
        deadline: None,
        files: Vec::new(),
        stages: work.iter().map(stage).collect(),
    }
}

const WHOLE: [(SealStage, u64); 7] = [
    (SealStage::AddPiece, 2),
    (SealStage::PreCommit1, 180),
    (SealStage::PreCommit2, 24),
    (SealStage::Commit1, 1),
    (SealStage::Commit2, 16),
    (SealStage::Finalize, 1),
    (SealStage::Move, 1),
];

fn two_machines() -> Cluster {
    use TaskType::{AddPiece, Commit1, Commit2, Fetch, Finalize, PreCommit1, PreCommit2};
    Cluster {
        workers: vec![
            worker("pc1", &[AddPiece, PreCommit1, Finalize, Fetch], &["fast"]),
            worker("gpu", &[PreCommit2, Commit1, Commit2, Finalize, Fetch], &["scratch", "long"]),
        ],
        paths: vec![path("fast", 20, true), path("scratch", 20, true), path("long", 100, false)],
        ..Cluster::default()
    }
}

fn engine(jobs: Vec<Job>, open_max: Option<usize>) -> Engine<Sched> {
    let settings = Settings { timeline: true, ..Settings::default() };
    let workload = Workload { jobs, open_max };
    Engine::new(Sched::new(Options::default()), &two_machines(), workload, settings, ())
}

fn run(engine: Engine<Sched>) -> Report {
    engine.run().expect("nobody watches")
}

/// AP and PC1 on one machine; then 32 GiB of replica and 451.2 GiB of cache go to the other at 1 GiB/s.
#[test]
fn one_sector_takes_the_sum_of_its_stages_and_transfers() {
    let report = run(engine(vec![job(1, 0, &WHOLE)], None));
    let moved = (32 * GIB + 141 * 32 * GIB / 10) + (32 * GIB + 32 * GIB / 10);
    assert_eq!(report.bytes_moved, moved);
    let fetches: u64 =
        [moved - (32 * GIB + 32 * GIB / 10), 32 * GIB + 32 * GIB / 10].map(|b| b * 1000 / GIB).iter().sum();
    let work: u64 = WHOLE.iter().map(|(_, minutes)| minutes * MINUTE).sum();
    assert_eq!(report.makespan, Millis::new(work + fetches));
    assert_eq!((report.sectors.len(), report.unfinished, report.failed, report.refused), (1, 0, 0, 0));
    assert_eq!(report.attempts, 7);
    let long = report.paths.iter().find(|path| path.path == storage("long")).expect("a known path");
    assert_eq!(long.peak, 32 * GIB + 32 * GIB / 10);
    let pc1 = report.timeline.iter().find(|span| span.task == TaskType::PreCommit1).expect("it ran");
    assert_eq!((pc1.worker, pc1.phase, pc1.from), (0, SpanPhase::Run, Millis::new(2 * MINUTE)));
    let share = 180.0 * MINUTE as f64 / report.makespan.get() as f64;
    let ap = 2.0 * MINUTE as f64 / report.makespan.get() as f64;
    assert!((report.workers[0].cpu - (share + ap) / 32.0).abs() < 1e-9, "{:?}", report.workers[0]);
}

/// With one sector at a time the second begins when the first is done.
#[test]
fn a_limit_on_open_sectors_holds_the_others_back() {
    let one = run(engine(vec![job(1, 0, &WHOLE)], None)).makespan.get();
    let report = run(engine(vec![job(1, 0, &WHOLE), job(2, 0, &WHOLE)], Some(1)));
    assert_eq!(report.makespan.get(), 2 * one);
    assert_eq!(report.sectors[1].from, report.sectors[0].to);
    assert!(report.sectors_per_day(Millis::ZERO, report.makespan) > 0.0);
}

/// A horizon cuts the run; what is left is counted.
#[test]
fn a_horizon_cuts_the_run() {
    let mut settings = Settings { timeline: false, ..Settings::default() };
    settings.until = Some(Millis::new(100 * MINUTE));
    let workload = Workload { jobs: vec![job(1, 0, &WHOLE)], open_max: None };
    let engine = Engine::new(Sched::new(Options::default()), &two_machines(), workload, settings, ());
    let report = run(engine);
    assert_eq!((report.makespan, report.unfinished), (Millis::new(100 * MINUTE), 1));
    assert!(report.timeline.is_empty());
}

/// A lost machine's work is done again when it is back; one that was only cut off has gone on.
#[test]
fn what_a_lost_worker_did_is_done_again_and_what_a_cut_off_one_did_is_not() {
    let base = run(engine(vec![job(1, 0, &WHOLE)], None)).makespan.get();
    let mut lost = engine(vec![job(1, 0, &WHOLE)], None);
    lost.trouble(Millis::new(62 * MINUTE), Trouble::Lose { worker: 0, grace: Millis::new(MINUTE) });
    lost.trouble(Millis::new(72 * MINUTE), Trouble::Back { worker: 0 });
    let lost = run(lost);
    assert_eq!((lost.makespan.get(), lost.attempts), (base + 70 * MINUTE, 8));
    let mut cut = engine(vec![job(1, 0, &WHOLE)], None);
    cut.trouble(Millis::new(62 * MINUTE), Trouble::CutOff { worker: 0 });
    cut.trouble(Millis::new(72 * MINUTE), Trouble::Back { worker: 0 });
    let cut = run(cut);
    assert_eq!((cut.makespan.get(), cut.attempts, cut.sectors.len()), (base, 7, 1));
}

/// A worker at half its speed takes twice as long for what it begins from then on.
#[test]
fn a_slow_worker_takes_longer() {
    let base = run(engine(vec![job(1, 0, &WHOLE)], None)).makespan.get();
    let mut slow = engine(vec![job(1, 0, &WHOLE)], None);
    slow.trouble(Millis::ZERO, Trouble::Pace { worker: 0, thousandths: 500 });
    assert_eq!(run(slow).makespan.get(), base + 180 * MINUTE);
}

#[test]
fn the_same_jobs_give_the_same_report() {
    let jobs = || {
        let mut random = SplitMix::new(7);
        (1..40).map(|number| job(number, random.below(600 * MINUTE), &WHOLE)).collect()
    };
    let (one, other) = (run(engine(jobs(), None)), run(engine(jobs(), None)));
    assert_eq!(one.sectors.len(), 39);
    assert_eq!(one, other);
}
