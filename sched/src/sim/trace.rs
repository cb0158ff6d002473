//! Traces for comparing schedulers: a cluster and some days of work on it, drawn from stated distributions.
//!
//! Everything is for 32 GiB sectors and Lotus's resource table. The task times are published ones (see [`TIMES`]); what
//! is drawn is stated at the constants below. The load is one that an operator would plan: the stage that limits the
//! cluster is busy most of the time, the others have room to spare.

use std::collections::BTreeMap;

use sealtasks::TaskType::{AddPiece, Commit1, Commit2, Fetch, Finalize, PreCommit1, PreCommit2};
use sealtasks::{
    FileTypes, RegisteredSealProof, ResourceTable, SectorId, SectorRef, SectorSize, StorageId, StorageStanza,
    TaskType,
};

use super::bound::rate;
use super::{Cluster, Job, JobStage, SealStage, SimPath, SimWorker, Speed, SplitMix, Workload};
use crate::{Millis, PathFacts, WorkerProfile};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Milliseconds of work per stage of a 32 GiB sector. AP, PC1, PC2, C1 and C2 as published for an EPYC 7662 with an
/// RTX 3090 and multicore SDR (jackoelv/bellperson issue 22: 100.6 s, 3h03m17s, 23m44s, 0.33 s, 16m06s); FIN as
/// supra_seal's README has it (45 minutes for 128 sectors); moving is transfer alone.
pub const TIMES: [(SealStage, Millis); 7] = [
    (SealStage::AddPiece, Millis::new(100_600)),
    (SealStage::PreCommit1, Millis::new(10_997_000)),
    (SealStage::PreCommit2, Millis::new(1_424_000)),
    (SealStage::Commit1, Millis::new(330)),
    (SealStage::Commit2, Millis::new(966_000)),
    (SealStage::Finalize, Millis::new(21_000)),
    (SealStage::Move, Millis::new(1)),
];
/// 150 epochs of 30 s between PreCommit on chain and Commit1.
pub const WAIT_SEED: Millis = Millis::new(150 * 30 * SECOND);
/// Each task takes its stage's time times a factor from this range, in thousandths; the mean of two even draws.
pub const TASK_SPREAD: (u64, u64) = (950, 1050);
/// Each worker has for each task type a speed from this range, in thousandths, even.
pub const WORKER_SPREAD: (u64, u64) = (900, 1100);
/// Slots for PreCommit1 in the whole cluster, even.
pub const PC1_SLOTS: (u64, u64) = (12, 40);
/// GPU work that the cluster can do beside its PreCommit1 work, in thousandths of what that needs, even: below 1000 the
/// GPUs are what limits it.
pub const HEADROOM: (u64, u64) = (850, 1500);
/// Sectors arrive at this many thousandths of the rate that the cluster can take, even.
pub const LOAD: (u64, u64) = (950, 1250);
/// So many thousandths of the sectors that fill the cluster (its rate times the time that a lone sector takes) may be under
/// way at once, even: an operator's limit, `MaxSealingSectors` in Lotus. The others wait outside.
pub const UNDER_WAY: (u64, u64) = (1200, 1600);
/// How long sectors arrive, in hours, even.
pub const HOURS: (u64, u64) = (96, 168);
/// In this share of clusters, per cent, some machines do everything.
pub const WITH_ALL_ROUNDERS: u64 = 50;
/// Per cent of sectors that hold deals, and so go first.
pub const WITH_DEALS: u64 = 30;
/// Bytes per second at which a worker fetches: 10 or 25 Gb/s, of which four fifths are had.
pub const BANDWIDTHS: [u64; 2] = [1_000_000_000, 2_500_000_000];

/// The seeds of the traces that ship with this program.
pub const SHIPPED: [u64; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

/// A cluster and its work.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What it was drawn from.
    pub seed: u64,
    /// The machines.
    pub cluster: Cluster,
    /// The sectors.
    pub workload: Workload,
}

/// What a machine is bought for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Labels layers: memory and fast disks, no GPU.
    PreCommit1,
    /// Builds trees, collects proofs, finalises.
    PreCommit2,
    /// Computes SNARKs.
    Commit2,
    /// Everything but storing.
    All,
    /// Keeps finished sectors.
    Store,
}

impl Trace {
    /// The trace that belongs to this seed.
    pub fn drawn(seed: u64) -> Self {
        Self::drawn_over(seed, HOURS)
    }

    /// The same, but sectors arrive for so many hours, drawn from this range.
    pub fn drawn_over(seed: u64, hours: (u64, u64)) -> Self {
        let mut random = SplitMix::new(seed);
        let mut draw = Draw { random: random.split(), cluster: Cluster::default() };
        let hours = random.within(hours.0, hours.1);
        draw.machines();
        let cluster = draw.cluster;
        // Sectors per millisecond that the cluster can take.
        let sectors = rate(&cluster, &nominal(), proof(), &ResourceTable::builtin());
        let load = random.within(LOAD.0, LOAD.1) as f64 / 1000.0;
        let gap = 1.0 / (sectors * load);
        let alone: u64 = nominal().values().map(|work| work.get()).sum::<u64>() + WAIT_SEED.get();
        let filled = sectors * alone as f64 * random.within(UNDER_WAY.0, UNDER_WAY.1) as f64 / 1000.0;
        let mut jobs = Vec::new();
        let mut at = 0.0;
        loop {
            // Independent arrivals: exponential gaps.
            at += -gap * (1.0 - random.unit()).ln();
            if at >= (hours * HOUR) as f64 {
                break;
            }
            jobs.push(job(jobs.len() as u64 + 1, Millis::new(at as u64), &mut random));
        }
        Self { seed, cluster, workload: Workload { jobs, open_max: Some((filled as usize).max(1)) } }
    }
}

/// A sector's work at nominal speed.
fn nominal() -> BTreeMap<TaskType, Millis> {
    TIMES.iter().map(|(stage, work)| (stage.task(), *work)).collect()
}

fn proof() -> RegisteredSealProof {
    RegisteredSealProof::for_new_sector(SectorSize::GiB32)
}

fn job(number: u64, release: Millis, random: &mut SplitMix) -> Job {
    let stages = TIMES.map(|(stage, work)| {
        let factor =
            (random.within(TASK_SPREAD.0, TASK_SPREAD.1) + random.within(TASK_SPREAD.0, TASK_SPREAD.1)) / 2;
        let work = if stage == SealStage::Move { work } else { Millis::new(work.get() * factor / 1000) };
        let gap = if stage == SealStage::Commit1 { WAIT_SEED } else { Millis::ZERO };
        let shape = match stage {
            // No deals or not, the unsealed file is not kept: it would not change who waits for whom.
            SealStage::Finalize => stage.shape().dropping(FileTypes::UNSEALED),
            _ => stage.shape(),
        };
        JobStage { shape, work, gap }
    });
    Job {
        sector: SectorRef { id: SectorId::new(1000, number), proof: proof() },
        release,
        purpose: None,
        priority: if random.chance(WITH_DEALS, 100) { 1024 } else { 0 },
        wait_limit: None,
        deadline: None,
        files: Vec::new(),
        stages: stages.to_vec(),
    }
}

/// The machines, one after the other.
struct Draw {
    random: SplitMix,
    cluster: Cluster,
}

impl Draw {
    fn machines(&mut self) {
        let slots = self.random.within(PC1_SLOTS.0, PC1_SLOTS.1);
        let headroom = self.random.within(HEADROOM.0, HEADROOM.1);
        let time = nominal();
        // GPUs that PC2 and C2 need beside so many PC1 slots.
        let gpus = |task: TaskType| {
            let need = slots * time[&task].get() * headroom;
            need.div_ceil(time[&PreCommit1].get() * 1000).max(1)
        };
        let (mut pc1_slots, mut pc2_gpus, mut c2_gpus) = (slots, gpus(PreCommit2), gpus(Commit2));
        if self.random.chance(WITH_ALL_ROUNDERS, 100) {
            for _ in 0..self.random.within(1, 1 + slots / 20) {
                // Two GPUs, one for each kind of GPU work, and room for 16 PC1 beside them.
                self.add(Role::All, 1024 * GIB, 2);
                pc1_slots = pc1_slots.saturating_sub(16);
                (pc2_gpus, c2_gpus) = (pc2_gpus.saturating_sub(1), c2_gpus.saturating_sub(1));
            }
        }
        while pc1_slots > 0 {
            let memory = *self.random.one_of(&[256 * GIB, 512 * GIB]);
            self.add(Role::PreCommit1, memory, 0);
            pc1_slots = pc1_slots.saturating_sub((memory - GIB) / (56 * GIB));
        }
        for (role, left) in [(Role::PreCommit2, &mut pc2_gpus), (Role::Commit2, &mut c2_gpus)] {
            while *left > 0 {
                let gpus = self.random.within(1, 2).min(*left);
                // A Commit2 may take 150 GiB, and all of them share 32 GiB.
                let memory = if role == Role::Commit2 { (gpus * 160 + 64) * GIB } else { 256 * GIB };
                self.add(role, memory, gpus as usize);
                *left -= gpus;
            }
        }
        self.add(Role::Store, 64 * GIB, 0);
    }

    fn add(&mut self, role: Role, memory: u64, gpus: usize) {
        let number = self.cluster.workers.len();
        let tasks = match role {
            Role::PreCommit1 => vec![AddPiece, PreCommit1],
            Role::PreCommit2 => vec![PreCommit2, Commit1, Finalize],
            Role::Commit2 => vec![Commit2],
            Role::All => vec![AddPiece, PreCommit1, PreCommit2, Commit1, Commit2, Finalize],
            Role::Store => vec![Fetch],
        };
        let mut paths = Vec::new();
        if role != Role::Commit2 {
            let path = path(&format!("path-{number}"), role, gpus as u64);
            paths.push(path.facts.id.clone());
            self.cluster.paths.push(path);
        }
        let by_task =
            tasks.iter().map(|task| (*task, self.random.within(WORKER_SPREAD.0, WORKER_SPREAD.1) as u32));
        let by_task = by_task.collect();
        let bandwidth = *self.random.one_of(&BANDWIDTHS);
        let profile = WorkerProfile {
            host: format!("{role:?}-{number}").to_lowercase(),
            tasks,
            mem_physical: memory,
            // Swap as large as a Commit2's peak needs beyond its RAM.
            mem_swap: if gpus > 0 { 256 * GIB } else { 128 * GIB },
            mem_used: GIB,
            cpus: if role == Role::PreCommit2 { 32 } else { 64 },
            gpus: (0..gpus).map(|gpu| format!("gpu-{gpu}")).collect(),
            bandwidth,
            paths,
            ..WorkerProfile::default()
        };
        let speed = Speed { usual: Speed::NOMINAL, by_task };
        self.cluster.workers.push(SimWorker { profile, bandwidth, speed });
    }
}

/// Disks large enough that they are not what limits the cluster, as an operator buys them.
fn path(name: &str, role: Role, gpus: u64) -> SimPath {
    let capacity = match role {
        Role::PreCommit1 => 30 * TIB,
        Role::PreCommit2 | Role::Commit2 => 20 * TIB * gpus,
        Role::All => 80 * TIB,
        Role::Store => 10_000 * TIB,
    };
    let store = role == Role::Store;
    let stanza = StorageStanza { can_seal: !store, can_store: store, weight: 10, ..StorageStanza::default() };
    let id: StorageId = name.parse().expect("letters, a dash and digits");
    SimPath { facts: PathFacts::new(id, &stanza, 0), capacity }
}
