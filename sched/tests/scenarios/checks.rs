//! Lotus's resource check, condition by condition, for every row of its table: just enough of everything lets one task
//! in, a little less of one thing keeps it out and names that thing. The rows are written out here, as Lotus has them.
//!
//! Ours differs in two points. The base memory is in use as long as a task of the type runs, and is counted once; Lotus
//! adds it to each check and never to what is in use. And a fraction of a GPU is one of one device: where Lotus lets three
//! tasks of 0.6 share two devices' sum of 2.0, ours sees that two of them would need one device together.

use sched::{Obstacle, ResourceRow, Shortage, WorkerProfile};
use sealtasks::TaskType::{
    self, AddPiece, Commit1, Commit2, DataCid, Fetch, Finalize, FinalizeReplicaUpdate, FinalizeUnsealed,
    PreCommit1, PreCommit2, ProveReplicaUpdate1, ProveReplicaUpdate2, RegenSectorKey, ReplicaUpdate, Unseal,
    WindowPost, WinningPost,
};
use sealtasks::{RegisteredSealProof, ResourceTable, Resources, SectorSize, TaskId};

use crate::world::{World, request};

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;

/// Minimum, maximum and base memory, threads without and with a GPU (-1: nearly all), GPUs.
type Row = (u64, u64, u64, i64, i64, f64);

/// For 2 KiB, 8 MiB, 512 MiB, 32 GiB and 64 GiB.
type Rows = [Row; 5];

const SIZES: [SectorSize; 5] =
    [SectorSize::KiB2, SectorSize::MiB8, SectorSize::MiB512, SectorSize::GiB32, SectorSize::GiB64];

const fn small(gpu: f64) -> [Row; 2] {
    [(2 * K, 2 * K, 2 * K, 1, 0, gpu), (8 * M, 8 * M, 8 * M, 1, 0, gpu)]
}

const fn rows(small: [Row; 2], large: [Row; 3]) -> Rows {
    [small[0], small[1], large[0], large[1], large[2]]
}

const ADD_PIECE: Rows =
    rows(small(0.0), [(G, G, G, 1, 0, 0.0), (4 * G, 4 * G, G, 1, 0, 0.0), (8 * G, 8 * G, G, 1, 0, 0.0)]);
const PRE_COMMIT_1: Rows = rows(
    small(0.0),
    [(768 * M, G, M, 1, 0, 0.0), (56 * G, 64 * G, 10 * M, 1, 0, 0.0), (112 * G, 128 * G, 10 * M, 1, 0, 0.0)],
);
const PRE_COMMIT_2: Rows = rows(
    [(2 * K, 2 * K, 2 * K, -1, 0, 0.0), (8 * M, 8 * M, 8 * M, -1, 0, 0.0)],
    [(G, 3 * G / 2, G, -1, 0, 0.0), (15 * G, 15 * G, G, -1, 6, 1.0), (30 * G, 30 * G, G, -1, 6, 1.0)],
);
const COMMIT_1: Rows =
    rows([(2 * K, 2 * K, 2 * K, 0, 0, 0.0), (8 * M, 8 * M, 8 * M, 0, 0, 0.0)], [(G, G, G, 0, 0, 0.0); 3]);
const COMMIT_2: Rows = rows(
    small(1.0),
    [
        (G, 3 * G / 2, 10 * G, 1, 0, 1.0),
        (30 * G, 150 * G, 32 * G, -1, 6, 1.0),
        (60 * G, 190 * G, 64 * G, -1, 6, 1.0),
    ],
);
const FETCH: Rows = [(M, M, 0, 0, 0, 0.0); 5];
const REPLICA_UPDATE: Rows =
    rows(small(1.0), [(G, G, G, 1, 0, 1.0), (4 * G, 4 * G, G, 1, 6, 1.0), (8 * G, 8 * G, G, 1, 6, 1.0)]);
const WINDOW_POST: Rows = rows(
    small(1.0),
    [
        (G, 3 * G / 2, 10 * G, 1, 0, 1.0),
        (30 * G, 96 * G, 32 * G, -1, 6, 1.0),
        (60 * G, 120 * G, 64 * G, -1, 6, 1.0),
    ],
);
const WINNING_POST: Rows = rows(
    small(1.0),
    [(2 * K, 2 * K, 10 * G, 1, 0, 1.0), (G, G, 32 * G, -1, 6, 1.0), (G, G, 64 * G, -1, 6, 1.0)],
);
const DATA_CID: Rows = [(4 * G, 4 * G, G, 1, 0, 0.0); 5];
const NOTHING: Rows = [(0, 0, 0, 0, 0, 0.0); 5];

const TABLE: [(TaskType, Rows); 17] = [
    (AddPiece, ADD_PIECE),
    (PreCommit1, PRE_COMMIT_1),
    (Unseal, PRE_COMMIT_1),
    (PreCommit2, PRE_COMMIT_2),
    (Commit1, COMMIT_1),
    (ProveReplicaUpdate1, COMMIT_1),
    (Commit2, COMMIT_2),
    (ProveReplicaUpdate2, COMMIT_2),
    (Fetch, FETCH),
    (ReplicaUpdate, REPLICA_UPDATE),
    (RegenSectorKey, REPLICA_UPDATE),
    (WindowPost, WINDOW_POST),
    (WinningPost, WINNING_POST),
    (DataCid, DATA_CID),
    (Finalize, NOTHING),
    (FinalizeUnsealed, NOTHING),
    (FinalizeReplicaUpdate, NOTHING),
];

/// One row and the task that it is for.
#[derive(Clone, Copy, Debug)]
struct Case {
    task: TaskType,
    proof: RegisteredSealProof,
    row: Row,
}

fn cases() -> Vec<Case> {
    let of = |(task, rows): &(TaskType, Rows)| -> Vec<Case> {
        let sized = SIZES.iter().zip(rows);
        sized
            .map(|(size, row)| Case {
                task: *task,
                proof: RegisteredSealProof::for_new_sector(*size),
                row: *row,
            })
            .collect()
    };
    TABLE.iter().flat_map(of).collect()
}

impl Case {
    /// More than enough of everything.
    fn roomy(&self, gpus: usize) -> WorkerProfile {
        WorkerProfile {
            tasks: vec![self.task],
            mem_physical: 1 << 50,
            mem_swap: 1 << 50,
            cpus: 1000,
            gpus: (0..gpus).map(|number| number.to_string()).collect(),
            ..WorkerProfile::default()
        }
    }

    /// Submits so many; returns whether the last one runs, and what it is short of.
    fn last_of(&self, count: u64, worker: WorkerProfile) -> (bool, Vec<Shortage>) {
        let mut world = World::new();
        let key = world.worker(1, worker);
        let submit = |number| {
            let mut wanted = request(self.task, number);
            wanted.sector.proof = self.proof;
            world.submit(wanted)
        };
        let tasks: Vec<TaskId> = (1..=count).map(submit).collect();
        let last = tasks[tasks.len() - 1];
        let why = world.sched.why(last).expect("it is here");
        let here = why.workers.into_iter().filter(|worker| worker.worker == key);
        let obstacles = here.flat_map(|worker| worker.obstacles).map(|found| found.obstacle);
        let shortages = obstacles.filter_map(|obstacle| match obstacle {
            Obstacle::Short(shortage) => Some(shortage),
            _ => None,
        });
        (world.on(last).is_some(), shortages.collect())
    }

    fn runs(&self, count: u64, worker: WorkerProfile) {
        let (runs, shortages) = self.last_of(count, worker);
        assert!(runs, "{self:?}, number {count}: {shortages:?}");
    }

    fn is_short(&self, count: u64, worker: WorkerProfile, expected: &str) {
        let (runs, shortages) = self.last_of(count, worker);
        let named: Vec<_> = shortages.iter().map(Shortage::to_string).collect();
        assert!(!runs && shortages.len() == 1, "{self:?}, number {count}: {named:?}");
        assert!(named[0].contains(expected), "{self:?}: {named:?}");
    }

    /// Whether there are threads for two on a roomy worker: not where each takes nearly all.
    fn may_pair(&self, gpus: usize) -> bool {
        2 * self.threads(gpus > 0, 1000) <= 1000
    }

    fn threads(&self, with_gpu: bool, cpus: u64) -> u64 {
        let (.., threads, with, gpu) = self.row;
        match if with_gpu && gpu > 0.0 && with != 0 { with } else { threads } {
            -1 => cpus * 92 / 100,
            threads => threads as u64,
        }
    }
}

#[test]
fn the_rows_are_those_of_the_built_in_table() {
    let builtin = ResourceTable::builtin();
    for Case { task, proof, row } in cases() {
        let found = builtin.get(task, proof).unwrap_or_default();
        let (min_memory, max_memory, base_min_memory, max_parallelism, max_parallelism_gpu, gpu_utilization) =
            row;
        let expected = Resources {
            min_memory,
            max_memory,
            base_min_memory,
            max_parallelism,
            max_parallelism_gpu,
            gpu_utilization,
            max_concurrent: 0,
        };
        assert_eq!(found, expected, "{task} of {proof:?}");
    }
}

#[test]
fn ram() {
    for case in cases() {
        let (min, _, base, ..) = case.row;
        let with = |mem_physical| WorkerProfile { mem_physical, ..case.roomy(2) };
        // What the system uses may be swapped out.
        case.runs(1, WorkerProfile { mem_used: 1 << 40, ..with(min + base) });
        if min + base > 0 {
            case.is_short(1, with(min + base - 1), "of memory, ");
        }
        if min > 0 && case.may_pair(2) {
            // The base once.
            case.runs(2, with(2 * min + base));
            case.is_short(2, with(2 * min + base - 1), "of memory, ");
        }
    }
}

#[test]
fn ram_and_swap() {
    for case in cases() {
        let (min, max, base, ..) = case.row;
        let with = |tasks: u64, swap_used| WorkerProfile {
            mem_physical: tasks * min + base,
            mem_swap: tasks * (max - min),
            swap_used,
            ..case.roomy(2)
        };
        case.runs(1, with(1, 0));
        if max > 0 {
            // What the system uses counts here.
            case.is_short(1, with(1, 1), "of memory and swap, ");
        }
        if max > 0 && case.may_pair(2) {
            case.runs(2, with(2, 0));
        }
        if max > min {
            let less = WorkerProfile { mem_swap: max - min - 1, ..with(1, 0) };
            case.is_short(1, less, "of memory and swap, ");
        }
    }
}

#[test]
fn threads() {
    for case in cases() {
        for gpus in [0, 2] {
            let needs = case.threads(gpus > 0, 32);
            let with = |cpus| WorkerProfile { cpus, ..case.roomy(gpus) };
            case.runs(1, with(32));
            match needs {
                0 => case.runs(20, with(0)),
                // A share of what there is always fits once.
                29 => case.is_short(2, with(32), "needs 29 CPU threads, 3 free of 32"),
                _ => {
                    case.runs(2, with(2 * needs));
                    case.is_short(2, with(2 * needs - 1), "CPU thread");
                }
            }
        }
    }
}

#[test]
fn gpus() {
    for case in cases() {
        let (.., gpu) = case.row;
        case.runs(1, case.roomy(1));
        if gpu > 0.0 {
            case.runs(2, case.roomy(2));
            case.is_short(2, case.roomy(1), "needs 1 GPUs, 0 free of 1");
            case.is_short(3, case.roomy(2), "needs 1 GPUs, 0 free of 2");
        } else if case.may_pair(0) {
            case.runs(2, case.roomy(1));
        }
        // Without any the CPU does the work: the threads are what is checked.
        if case.may_pair(0) {
            case.runs(2, case.roomy(0));
        }
    }
}

#[test]
fn most_at_once_and_workers_that_ignore_the_rest() {
    for case in cases() {
        let (min_memory, max_memory, base_min_memory, max_parallelism, max_parallelism_gpu, gpu_utilization) =
            case.row;
        let resources = Resources {
            min_memory,
            max_memory,
            base_min_memory,
            max_parallelism,
            max_parallelism_gpu,
            gpu_utilization,
            max_concurrent: 2,
        };
        let rows = vec![ResourceRow { task: case.task, proof: case.proof, resources }];
        // On a machine that has nothing at all.
        let nothing =
            WorkerProfile { tasks: vec![case.task], ignore_resources: true, ..WorkerProfile::default() };
        case.runs(9, nothing.clone());
        let capped = WorkerProfile { resources: rows, ..nothing };
        case.runs(2, capped.clone());
        case.is_short(3, capped, "runs 2 of this type, at most 2 may");
    }
}

/// A fraction is one of one device.
#[test]
fn fractions_of_gpus_are_not_added_up_over_devices() {
    let case =
        Case { task: Unseal, proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2), row: NOTHING[0] };
    let with = |gpu_utilization, gpus| {
        let resources = Resources { gpu_utilization, ..Resources::default() };
        let rows = vec![ResourceRow { task: case.task, proof: case.proof, resources }];
        WorkerProfile { resources: rows, ..case.roomy(gpus) }
    };
    case.runs(2, with(0.6, 2));
    case.is_short(3, with(0.6, 2), "needs 0.600 GPUs, 0.800 free of 2");
    case.runs(4, with(0.5, 2));
    case.runs(2, with(1.5, 3));
    case.is_short(2, with(1.5, 2), "needs 1.500 GPUs, 0.500 free of 2");
}
