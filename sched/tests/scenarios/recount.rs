//! What must be true of every snapshot, recounted from the list of bound tasks.

use std::collections::{BTreeMap, BTreeSet};

use sched::{CapUse, Sched, Snapshot, Stage, WorkerMode};
use sealtasks::TaskType::{self, AddPiece};

use crate::oracle::ROOM;
use crate::world::{key, rows};

/// Recounts what runs on each worker from the list of bound tasks.
pub fn check_charges(snapshot: &Snapshot, within: bool) {
    let rows = rows();
    for worker in &snapshot.workers {
        let running = snapshot
            .bound
            .iter()
            .filter(|bound| bound.worker == worker.worker && bound.stage == Stage::Running);
        let (mut min, mut max, mut cpu, mut gpus) = (0u128, 0u128, 0u128, vec![0u64; worker.gpu_used.len()]);
        let mut kinds = BTreeMap::<TaskType, u64>::new();
        for bound in running {
            bound.gpus.iter().for_each(|share| gpus[share.device] += share.thousandths);
            let seen = kinds.entry(bound.kind).or_default();
            *seen += 1;
            let Some(row) = rows.iter().find(|row| row.task == bound.kind).map(|row| row.resources) else {
                continue;
            };
            let base = if *seen == 1 { u128::from(row.base_min_memory) } else { 0 };
            min += u128::from(row.min_memory) + base;
            max += u128::from(row.max_memory) + base;
            cpu += row.threads(32, 1) as u128;
        }
        assert_eq!((worker.mem_used_min, worker.mem_used_max), (min, max), "{worker:?}");
        assert_eq!((&worker.cpu_use, &worker.gpu_used), (&cpu, &gpus), "{worker:?}");
        let counts: Vec<_> = worker.task_counts.iter().map(|(kind, count)| (kind.task, *count)).collect();
        assert_eq!(counts, kinds.clone().into_iter().collect::<Vec<_>>());
        if within && worker.worker != key(77) {
            assert!(gpus.iter().all(|used| *used <= 1000), "{worker:?}");
            assert!(cpu <= 32 || worker.worker.session == key(77).session, "{worker:?}");
            assert!(kinds.get(&AddPiece).is_none_or(|count| *count <= 3), "{worker:?}");
        }
    }
}

pub fn check_locks(snapshot: &Snapshot, within: bool) {
    for (at, one) in snapshot.bound.iter().enumerate().filter(|_| within) {
        for other in snapshot.bound[at + 1..].iter().filter(|other| other.sector.id == one.sector.id) {
            let clash = |a: &sched::BoundTask, b: &sched::BoundTask| {
                !a.locks_write.intersection(b.locks_write.union(b.locks_read)).is_empty()
            };
            assert!(!clash(one, other) && !clash(other, one), "{one:?} against {other:?}");
        }
    }
}

pub fn check_paths(snapshot: &Snapshot) {
    let mut promised = BTreeMap::new();
    for part in snapshot.bound.iter().flat_map(|bound| &bound.space) {
        *promised.entry(part.path.clone()).or_insert(0u128) += u128::from(part.bytes);
    }
    for path in &snapshot.paths {
        assert_eq!(path.promised, promised.get(&path.path).copied().unwrap_or(0));
        // Every report of these histories says that all the room is there, so promises never exceed a later report.
        assert!(path.promised <= u128::from(ROOM), "{path:?}");
    }
}

/// A machine holds what its workers hold, and no more than it has. Every worker's 32 threads and one GPU are the same.
pub fn check_machines(snapshot: &Snapshot, within: bool) {
    for machine in &snapshot.machines {
        let on_it =
            || snapshot.workers.iter().filter(|worker| worker.machine.as_ref() == Some(&machine.machine));
        let workers: Vec<_> = on_it().map(|worker| worker.worker).collect();
        assert_eq!(machine.workers, workers, "{machine:?}");
        assert_eq!(machine.mem_used_min, on_it().map(|worker| worker.mem_used_min).sum::<u128>());
        assert_eq!(machine.mem_used_max, on_it().map(|worker| worker.mem_used_max).sum::<u128>());
        assert_eq!(machine.cpu_use, on_it().map(|worker| worker.cpu_use).sum::<u128>());
        let gpu: u64 = on_it().flat_map(|worker| &worker.gpu_used).sum();
        assert_eq!(machine.gpu_used.iter().sum::<u64>(), gpu, "{machine:?}");
        if within && !workers.is_empty() {
            assert!(machine.cpu_use <= 32, "{machine:?}");
            assert!(gpu <= 1000, "one device, whoever uses it: {machine:?}");
        }
        let kept: Vec<_> = on_it().filter_map(|worker| worker.reserved_for).collect();
        assert!(kept.len() <= 1, "a machine is kept for one task: {kept:?}");
    }
}

/// No more start under a cap than it allows; what ran when it was lowered goes on. Returns what runs now.
pub fn check_caps(
    snapshot: &Snapshot,
    before: &BTreeMap<(String, String), u64>,
    within: bool,
) -> BTreeMap<(String, String), u64> {
    let named = |owner: String, caps: &[CapUse]| -> Vec<_> {
        caps.iter().map(|cap| ((owner.clone(), cap.name.clone()), cap.clone())).collect()
    };
    let own = snapshot.workers.iter().flat_map(|worker| named(worker.worker.to_string(), &worker.caps));
    let shared = snapshot.machines.iter().flat_map(|machine| named(machine.machine.clone(), &machine.caps));
    let mut now = BTreeMap::new();
    for (name, cap) in own.chain(shared) {
        // What ran when the cap came goes on too.
        let ran = before.get(&name).copied().unwrap_or(cap.running);
        assert!(!within || cap.running <= cap.most.max(ran), "{name:?}: {cap:?}, {ran} before");
        now.insert(name, cap.running);
    }
    now
}

/// Nothing is kept on a worker that may not be used, and every worker can say what is left on it.
pub fn check_modes(sched: &Sched, snapshot: &Snapshot) {
    for worker in &snapshot.workers {
        let is_usable =
            worker.enabled && !worker.suspect && !worker.lost && worker.mode != WorkerMode::Disabled;
        assert!(is_usable || worker.reserved_for.is_none(), "{worker:?}");
        let drain = sched.drain(worker.worker).expect("the worker is here");
        let on_it = snapshot.bound.iter().filter(|bound| bound.worker == worker.worker);
        let listed: BTreeSet<_> = drain.running.iter().chain(&drain.staged).copied().collect();
        assert_eq!(on_it.map(|bound| bound.attempt).collect::<BTreeSet<_>>(), listed);
        assert!(drain.only_here.len() <= drain.within_reach);
    }
}
