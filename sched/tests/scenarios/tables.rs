//! Lotus's resource table on real machines: how many tasks of each kind run at once, by the numbers of its check.

use sched::WorkerProfile;
use sealtasks::TaskType::{
    self, AddPiece, Commit1, Commit2, DataCid, Fetch, Finalize, PreCommit1, PreCommit2, ProveReplicaUpdate1,
    ProveReplicaUpdate2, RegenSectorKey, ReplicaUpdate, Unseal,
};
use sealtasks::{RegisteredSealProof, SectorSize};

use crate::world::{World, decent, request};

/// More than any of the machines below takes of what is limited at all.
const MANY: u64 = 200;

fn at_once(profile: &WorkerProfile, task: TaskType, size: SectorSize) -> usize {
    let mut world = World::new();
    world.worker(1, WorkerProfile { tasks: vec![task], resources: vec![], ..profile.clone() });
    for number in 0..MANY {
        let mut request = request(task, number);
        request.sector.proof = RegisteredSealProof::for_new_sector(size);
        world.submit(request);
    }
    world.bound.len()
}

fn check(profile: &WorkerProfile, size: SectorSize, expected: &[(TaskType, usize)]) {
    for (task, count) in expected {
        assert_eq!(at_once(profile, *task, size), *count, "{task} of {size}");
    }
}

/// 128 GiB of RAM, 200 GiB of swap, 1 GiB of each in use, 32 threads, no GPU. A task that takes "all" threads takes 29.
#[test]
fn on_lotuss_decent_worker() {
    let worker = decent(&[]);
    let all = MANY as usize;
    check(
        &worker,
        SectorSize::GiB32,
        &[
            (AddPiece, 31),  // 1 + 31 * 4 GiB
            (PreCommit1, 2), // 2 * 56 GiB
            (Unseal, 2),     // as PreCommit1
            (PreCommit2, 1), // 29 threads
            (Commit1, 127),  // 1 + 127 GiB
            (Commit2, 1),    // 29 threads
            (ReplicaUpdate, 31),
            (RegenSectorKey, 31),
            (ProveReplicaUpdate1, 127),
            (ProveReplicaUpdate2, 1),
            (DataCid, 31),
            (Fetch, all),
            (Finalize, all), // no row: nothing needed
        ],
    );
    check(&worker, SectorSize::GiB64, &[(AddPiece, 15), (PreCommit1, 1), (PreCommit2, 1), (Commit2, 1)]);
    check(&worker, SectorSize::KiB2, &[(AddPiece, 32), (PreCommit1, 32), (PreCommit2, 1), (Commit2, 32)]);
}

/// With GPUs a proof takes six threads and one device.
#[test]
fn on_a_worker_with_two_gpus() {
    let worker = WorkerProfile {
        gpus: vec!["one".to_owned(), "two".to_owned()],
        mem_physical: 512 << 30,
        ..decent(&[])
    };
    check(&worker, SectorSize::GiB32, &[(PreCommit2, 2), (Commit2, 2), (PreCommit1, 9), (ReplicaUpdate, 2)]);
    // Swap counts for the peak only: 150 GiB each and 32 GiB shared.
    let without_swap = WorkerProfile { mem_swap: 0, swap_used: 0, mem_physical: 256 << 30, ..worker };
    check(&without_swap, SectorSize::GiB32, &[(Commit2, 1)]);
}
